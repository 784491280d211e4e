"""Loading a model with a custom configuration."""

from lmstudio import LMStudioClient

client = LMStudioClient()

model = client.llm.load(
    "smollm2-135m-instruct",
    config={"context_length": 1024},
    # Offloads 50% of the computation to the GPU
    acceleration={"offload": 0.5},
)
config = model.get_load_config()
print(config["context_length"], config["gpu_ratio"])

# The spelling of the JavaScript library works as well.
model = client.llm.load(
    "smollm2-135m-instruct",
    config={"contextLength": 512},
    acceleration={"acceleration": {"offload": 0.25}},
)
config = model.get_load_config()
print(config["context_length"], config["gpu_ratio"])
