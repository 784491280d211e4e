"""Using an already loaded model: by its identifier, or by its path."""

from lmstudio import LMStudioClient, LMStudioModelNotFoundError

MODEL = "smollm2-135m-instruct"
client = LMStudioClient()
path = client.llm.load(MODEL, identifier="my-model").path

# By identifier
my_model = client.llm.get(identifier="my-model")
# Or just
my_model = client.llm.get("my-model")
print("by identifier:", my_model.complete("One, two,", max_tokens=3).stats.stop_reason)

# By path: matches any quantization
repo = path.rpartition("/")[0]
print("by repo:", client.llm.get(path=repo).get_info().identifier)

# Or if a specific quantization is desired
print("by file:", client.llm.get(path=path).get_info().identifier)

# The underlying model may change: a handle is a name, and it is looked up at each call.
client.llm.unload("my-model")
print("after unloading:", my_model.get_model_info())
try:
    my_model.complete("One, two,", max_tokens=3).result()
except LMStudioModelNotFoundError as error:
    print("after unloading:", error)

client.llm.load(MODEL, identifier="my-model", config={"context_length": 1024})
descriptor = my_model.get_model_info()
if descriptor is None:
    print("Model not loaded")
else:
    print("path:", descriptor.path)
    print("identifier:", descriptor.identifier)
    print("context length:", descriptor.context_length)
