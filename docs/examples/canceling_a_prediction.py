"""Canceling a prediction. It then ends normally, with what was generated so far."""

from lmstudio import LMStudioClient

client = LMStudioClient()
model = client.llm.load("smollm2-135m-instruct")

prediction = model.complete("The meaning of life is")
for count, text in enumerate(prediction):
    print(text, end="", flush=True)
    if count == 10:
        prediction.cancel()  # may be called from any thread
print()

stats = prediction.result().stats
if stats.stop_reason == "userStopped":
    print("Prediction was canceled by the user")
