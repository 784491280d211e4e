"""The examples of the first JavaScript README, as users of this package write them."""

import json
from collections.abc import Sequence

import lmstudio as lms

client = lms.LMStudioClient()
other: lms.LMStudioClient = lms.Client(base_url="ws://127.0.0.1:8080")

# Loading a model, and predicting with it.
hermes: lms.LLM = client.llm.load("NousResearch/Hermes-2-Pro-Mistral-7B-GGUF")
for text in hermes.complete("The meaning of life is"):
    print(text, end="")
    piece: lms.Fragment = text
    plain: str = text + piece.content

# Everything that can be said about a load.
signal = lms.Signal()


def on_progress(progress: float) -> None:
    print(f"Progress: {progress * 100:.1f}%")


client.llm.load(
    "NousResearch/Hermes-2-Pro-Mistral-7B-GGUF",
    identifier="my-model",
    config={"contextLength": 1024},
    acceleration={"offload": 0.5},
    preset="My ChatML",
    no_hup=True,
    ttl=3600,
    on_progress=on_progress,
    verbose=False,
    signal=signal,
    timeout=60,
)
signal.set()

# Models on the disk and in memory.
downloaded: Sequence[lms.ModelInfo] = client.system.list_downloaded_models()
llms = [model for model in downloaded if model.type == "llm"]
client.llm.load(llms[0].path)
client.llm.unload("my-model")
for loaded in client.llm.list_loaded():
    by_name: lms.LLM = client.llm.get({"identifier": loaded.identifier})
client.llm.get("my-model")
client.llm.get(path="NousResearch/Hermes-2-Pro-Mistral-7B-GGUF")
any_model = client.llm.get()
info = any_model.get_model_info()
if info is None:
    print("Model not loaded")
else:
    print("path:", info.path, "identifier:", info.identifier)

# Conversations.
prediction = any_model.respond(
    [
        {"role": "system", "content": "Answer the following questions."},
        {"role": "user", "content": "What is the meaning of life?"},
    ],
    config={
        "contextOverflowPolicy": "stopAtLimit",
        "maxPredictedTokens": 100,
        "stopStrings": ["\n"],
        "temperature": 0.7,
        "inputPrefix": "Q: ",
        "inputSuffix": "\nA:",
    },
)
result = prediction.result()
content: str = result.content
stats: lms.PredictionStats = result.stats
stopped: bool = stats.stop_reason == "userStopped"

# Structure.
joke = hermes.complete(
    "Here is a joke in JSON:",
    config={"maxPredictedTokens": 100},
    structured={"type": "json", "jsonSchema": {"type": "object"}},
)
try:
    print(joke.parsed["setup"], json.loads(joke.content))
except lms.LMStudioOutputError as error:
    reason: str = error.stop_reason

# Cancelling.
going = any_model.complete("The meaning of life is")
was_running: bool = going.cancel()
