"""Loading a model with a specific preset.

A preset holds options for loading and for predicting. It is a file in the folder
`config-presets` of the server's home; its options give way to those in the code.
"""

from lmstudio import LMStudioClient, LMStudioPresetNotFoundError

client = LMStudioClient()

model = client.llm.load("smollm2-135m-instruct", preset="My ChatML")
print("context length:", model.get_context_length())

result = model.respond("What is the meaning of life?", max_tokens=20).result()
print("temperature:", result.prediction_config["temperature"])
print("system prompt:", result.prediction_config["system_prompt"])

try:
    client.llm.load("smollm2-135m-instruct", preset="Your ChatML")
except LMStudioPresetNotFoundError as error:
    print(error)
