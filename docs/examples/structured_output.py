"""Producing JSON (structured output).

The model is forced to produce what fits, but it may be interrupted in the middle, and
then the text does not fit: always catch the error. And it may never come to an end, so
always set max_tokens.
"""

from lmstudio import LMStudioClient, LMStudioOutputError

client = LMStudioClient()
model = client.llm.load("smollm2-135m-instruct")
PROMPT = "Here is a joke in JSON:"

prediction = model.complete(PROMPT, max_tokens=60, structured={"type": "json"})
try:
    print("any JSON:", prediction.parsed)
except LMStudioOutputError as error:
    print("not JSON yet:", error)

# Sometimes any JSON is not enough.
schema = {
    "type": "object",
    "properties": {
        "setup": {"type": "string", "maxLength": 60},
        "punchline": {"type": "string", "maxLength": 60},
    },
    "required": ["setup", "punchline"],
}
structured = {"type": "json", "json_schema": schema}

prediction = model.complete(PROMPT, max_tokens=100, structured=structured)
try:
    parsed = prediction.parsed
    print("The setup is", parsed["setup"])
    print("The punchline is", parsed["punchline"])
except LMStudioOutputError as error:
    print(error)

# An answer that is cut off: the error has the text, and why it ends.
prediction = model.complete(PROMPT, max_tokens=3, structured=structured)
try:
    print(prediction.parsed)
except LMStudioOutputError as error:
    print("cut off:", error.content, error.stop_reason)
