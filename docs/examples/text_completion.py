"""Text completion."""

from lmstudio import LMStudioClient

client = LMStudioClient()
model = client.llm.load("smollm2-135m-instruct")

prediction = model.complete("The meaning of life is", max_tokens=20)
for text in prediction:
    print(text, end="", flush=True)
print()

# By default the options of the model's preset are used. You can override them:
prediction = model.complete(
    "Meaning of life is",
    config={
        "context_overflow_policy": "stopAtLimit",
        "max_predicted_tokens": 20,
        "pre_prompt": "What follows are the words of a wise man.\n",
        "stop_strings": ["\n"],
        "temperature": 0.7,
    },
)
print(prediction.content)

# ...or as keywords
prediction = model.complete("The capital of France is", max_tokens=5, temperature=0)
print(prediction.content)
