"""Unloading a model."""

from lmstudio import LMStudioClient

client = LMStudioClient()

model = client.llm.load("smollm2-135m-instruct", identifier="my-model")
print("loaded:", client.llm.list_loaded())

# ...Do stuff...

client.llm.unload("my-model")  # or model.unload()
print("loaded:", client.llm.list_loaded())
