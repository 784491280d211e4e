"""Listing all loaded models."""

from lmstudio import LMStudioClient

client = LMStudioClient()
client.llm.load("smollm2-135m-instruct", identifier="one")
client.llm.load("smollm2-135m-instruct", identifier="two")

loaded_models = client.llm.list_loaded()
if not loaded_models:
    raise RuntimeError("No models loaded")
print([model.identifier for model in loaded_models])

# Use the first one
first_model = client.llm.get(identifier=loaded_models[0].identifier)
# first_model.complete(...)

# What is listed can be used as it is, too
print(loaded_models[1].complete("The capital of France is", max_tokens=5))
