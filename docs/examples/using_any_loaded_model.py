"""Using any loaded model."""

from lmstudio import LMStudioClient

client = LMStudioClient()
client.llm.load("smollm2-135m-instruct", identifier="the-only-one")

any_model = client.llm.get()  # or get({})
print(any_model.complete("The capital of France is", max_tokens=5))
print(any_model.get_info().identifier)
