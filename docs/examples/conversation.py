"""Conversation. A model remembers nothing: always provide the full history."""

from lmstudio import LMStudioClient

client = LMStudioClient()
model = client.llm.load("smollm2-135m-instruct")
history = [
    {"role": "system", "content": "Answer the following questions."},
    {"role": "user", "content": "What is the meaning of life?"},
]

prediction = model.respond(history, max_tokens=20)
for text in prediction:
    print(text, end="", flush=True)
print()

# The options differ from those of text completion: input_prefix and input_suffix stand
# around each message of the user, in place of the model's own prompt format.
prediction = model.respond(
    history,
    config={
        "context_overflow_policy": "stopAtLimit",
        "max_predicted_tokens": 20,
        "stop_strings": ["\n"],
        "temperature": 0.7,
        "input_prefix": "Q: ",
        "input_suffix": "\nA:",
    },
)
print(prediction.content)
print(prediction.stats.stop_reason)
