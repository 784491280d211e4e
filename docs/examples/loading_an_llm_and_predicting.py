"""Loading an LLM and predicting with it."""

from lmstudio import LMStudioClient

client = LMStudioClient()

# Load a model
model = client.llm.load("smollm2-135m-instruct")

# Create a text completion prediction
prediction = model.complete("The meaning of life is", max_tokens=30)

# Stream the response
for text in prediction:
    print(text, end="", flush=True)
print()
