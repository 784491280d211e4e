"""The module-level functions, and handles."""

from collections.abc import Sequence

import lmstudio as lms

lms.configure_default_client("localhost:1234", api_token=None)
model: lms.LLM = lms.llm("key", ttl=60, config={"context_length": 1024})
answer: str = model.respond("What is the meaning of life?").content
loaded: list[str] = [model.identifier for model in lms.list_loaded_models()]
downloaded: Sequence[lms.ModelInfo] = lms.list_downloaded_models("llm")
client: lms.LMStudioClient = lms.get_default_client()
version: str = client.system.get_version()

one: list[int] = model.tokenize("text")
several: list[list[int]] = model.tokenize(["text", "more"])
count: int = model.count_tokens("text")
prompt: str = model.apply_prompt_template([("user", "Hi")])
length: int = model.get_context_length()
info: lms.InstanceInfo = model.get_info()
name: str = model.identifier
model.unload()
new: lms.LLM = client.llm.load_new_instance("key", "name", ttl=None)
handles: list[lms.LLM] = [item.model(ttl=60) for item in client.llm.list_downloaded()]
anew: lms.EmbeddingModel = client.embedding.list_downloaded()[0].load_new_instance()
plain_info: lms.ModelInfo = client.llm.list_downloaded()[0].info
unloaded: list[str] = client.llm.unload_all()
seeing: lms.LLM = client.llm.get(vision=True)
small: lms.LLM = client.llm.load("key", context_length=512, gpu={"ratio": 0.5}, seed=1)
shared: lms.LLM = lms.llm("key", context_length=512, flash_attention=True)
client.llm.load("key", identifer="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
client.llm.model("key", context_length="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
client.llm.get(idntifier="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
lms.LMStudioClient(baseUrl="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
