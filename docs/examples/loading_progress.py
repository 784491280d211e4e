"""Custom loading progress."""

from lmstudio import LMStudioClient

client = LMStudioClient()

model = client.llm.load(
    "smollm2-135m-instruct",
    verbose=False,  # Disables the default progress display
    on_progress=lambda progress: print(f"Progress: {progress * 100:.1f}%"),
)
