"""Giving a loaded model a friendly name."""

from lmstudio import LMStudioClient

client = LMStudioClient()
client.llm.load("smollm2-135m-instruct", identifier="my-model")

# You can refer to the model later using the identifier
my_model = client.llm.get("my-model")
print(my_model.complete("The capital of France is", max_tokens=5))
