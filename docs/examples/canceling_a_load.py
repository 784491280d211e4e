"""Canceling a load."""

from lmstudio import LMStudioCancelledError, LMStudioClient, Signal

client = LMStudioClient()
signal = Signal()  # a threading.Event does as well


def progressed(progress):
    # Here it is the progress that cancels; it could be any code in any thread.
    signal.set()


try:
    model = client.llm.load(
        "smollm2-135m-instruct", signal=signal, on_progress=progressed
    )
    # model.complete(...)
except LMStudioCancelledError as error:
    print(error)

print("loaded:", client.llm.list_loaded())
