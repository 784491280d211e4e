"""Listing all models that can be loaded."""

from lmstudio import LMStudioClient

client = LMStudioClient()

downloaded_models = client.system.list_downloaded_models()
downloaded_llms = [model for model in downloaded_models if model.type == "llm"]
for info in downloaded_llms:
    print(info.model_key, info.path, f"{info.size_bytes / 1e6:.0f} MB")

# Load the first model
model = client.llm.load(downloaded_llms[0].path)
print(model.complete("The capital of France is", max_tokens=5))
