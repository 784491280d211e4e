"""The process that holds one model: runs llama.cpp's own server on a loopback port.

The parent writes one line of JSON (`Config`) to stdin and then keeps stdin open: when
it closes, for whatever reason, this process ends. Nothing is passed on the command
line, which other users of the machine can read. Replies are lines on stdout that start
with `PREFIX`; between them llama.cpp writes the progress of the load (`STATE_PREFIX`).

The only file that imports xllamacpp. It imports nothing of this package, so that the
process starts fast.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
from typing import Any, TypedDict

#: Starts this process's own lines; JSON with an ``event`` follows: ``ready`` (``port``,
#: ``gpu_layers``), ``missing`` or ``failed`` (``message``).
PREFIX = "lmstudio:"

#: Starts llama.cpp's lines about the load. It writes them for its router mode, and
#: that mode is what the environment variable below stands for; the number is not used.
STATE_PREFIX = "cmd_child_to_router:state:"
ROUTER_VARIABLE = "LLAMA_SERVER_ROUTER_PORT"

#: What llama.cpp takes for an image in a prompt; by default something of its own.
MARKER_VARIABLE = "LLAMA_MEDIA_MARKER"

PR_SET_PDEATHSIG = 1  # of prctl(2)

#: Turns that a thread of llama.cpp waits for the others before it sleeps. With the
#: library's own 300,000 one busy neighbour is enough for the waiting threads to take
#: the cores from the one that works: prompts and parallel predictions, which use all
#: cores, then fall to a tenth of their speed. On an idle machine this costs 3 %.
SPIN_COUNT = "1000"


class Config(TypedDict):
    """What the parent asks for; None leaves the choice to llama.cpp.

    Attributes:
        path: The model file.
        key: What HTTP requests have to carry as bearer token.
        threads: Threads that generate.
        batch_threads: Threads that process prompts.
        batch_size: Tokens of a prompt that are processed at once.
        cache_mib: Limit of the prompt cache in memory, in MiB.
        embedding: Load it to embed texts instead of generating them.
        projector: The file that lets it see images.
        media_marker: The text that stands for an image in prompts. Nobody else may
            know it.

    The others are those of `lmstudio.server.engine.LoadSettings`.
    """

    path: str
    key: str
    threads: int
    batch_threads: int
    batch_size: int
    cache_mib: int
    embedding: bool
    projector: str | None
    media_marker: str
    context_length: int
    parallel: int
    gpu_ratio: float | None
    seed: int | None
    flash_attention: bool | None
    rope_base: float | None
    rope_scale: float | None
    k_cache_type: str | None
    v_cache_type: str | None
    mmap: bool | None
    lock_memory: bool | None
    physical_batch_size: int
    unified_cache: bool | None
    cache_on_gpu: bool | None
    direct_io: bool | None
    checkpoints: int | None
    gpu_mode: str | None
    main_gpu: int
    gpu_shares: list[float]
    draft: DraftConfig | None


class DraftConfig(TypedDict):
    """The draft model that the parent asks for."""

    path: str
    max_tokens: int | None
    min_tokens: int | None
    min_probability: float | None


def main() -> None:
    """Load the model that stdin names, and serve it until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    _disable_core_dumps()
    end_with_parent()
    # llama.cpp points fd 1 at stderr in router mode, so keep a way of our own.
    out = os.dup(1)
    config = _read_config()
    if config is None or _parent_is_gone():
        return
    os.environ[ROUTER_VARIABLE] = "1"
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        import xllamacpp  # type: ignore[import-untyped,import-not-found,unused-ignore]  # untyped, and optional
    except ImportError as exc:
        _say(out, event="missing", message=str(exc))
        sys.exit(1)
    os.environ[MARKER_VARIABLE] = config["media_marker"]
    # What is no image llama.cpp takes for a video, and looks for ffmpeg to read it.
    os.environ["PATH"] = os.devnull
    try:
        params, layers = parameters(xllamacpp, config)
        server = xllamacpp.Server(params)  # blocks until the model is loaded
        port = int(str(server.listening_address).rpartition(":")[2])
    except Exception as exc:  # the parent adds what llama.cpp wrote to stderr
        _say(out, event="failed", message=f"{type(exc).__name__}: {exc}")
        sys.exit(1)
    _say(out, event="ready", port=port, gpu_layers=layers)
    # llama.cpp watches stdin as well from here on. Either may see the end first.
    while os.read(0, 4096):
        pass
    os._exit(0)  # no destructors: threads of llama.cpp may be using what they free


def parameters(library: Any, config: Config) -> tuple[Any, int]:
    """llama.cpp's parameters for a config, and how many layers go to the GPU.

    Args:
        library: The module xllamacpp.

    Raises:
        ValueError: A name in the config means nothing to llama.cpp.
    """
    params = library.CommonParams()
    params.model.path = config["path"]
    params.api_keys = [config["key"]]
    params.port = 0  # the system picks a free one, so none can be taken
    params.ui = False
    params.verbosity = 1  # errors only: they become the cause of a failed load
    params.fit_params = False
    params.ctx_shift = False
    is_shared = config["unified_cache"] is not False
    params.n_ctx = config["context_length"] * (1 if is_shared else config["parallel"])
    params.n_parallel = config["parallel"]
    params.kv_unified = is_shared  # then each prediction may use the whole context
    params.cache_ram_mib = config["cache_mib"]
    params.n_batch = config["batch_size"]
    params.n_ubatch = config["physical_batch_size"]
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["batch_threads"]
    params.embedding = config["embedding"]
    if config["seed"] is not None:
        params.sampling.seed = config["seed"] % 2**32
    if config["rope_base"] is not None:
        params.rope_freq_base = config["rope_base"]
    if config["rope_scale"] is not None:
        params.rope_freq_scale = config["rope_scale"]
    if config["flash_attention"] is not None:
        name = "ENABLED" if config["flash_attention"] else "DISABLED"
        params.flash_attn_type = _member(
            library.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_", name
        )
    if config["k_cache_type"] is not None:
        params.cache_type_k = _cache_type(library, config["k_cache_type"])
    if config["v_cache_type"] is not None:
        params.cache_type_v = _cache_type(library, config["v_cache_type"])
    params.load_mode = _member(
        library.llama_load_mode,
        "LLAMA_LOAD_MODE_",
        load_mode(config["mmap"], config["lock_memory"], config["direct_io"]),
    )
    if config["checkpoints"] is not None:
        params.n_ctx_checkpoints = config["checkpoints"]
    if config["projector"] is not None:
        params.mmproj.path = config["projector"]
        params.mmproj_use_gpu = config["gpu_ratio"] != 0
    if config["draft"] is not None:
        _draft(library, params.speculative, config["draft"])
    layers = _gpu_layers(library, config)
    params.n_gpu_layers = layers
    _split(library, params, config)
    return params, layers


def _draft(library: Any, speculative: Any, config: DraftConfig) -> None:
    """Have a small model propose tokens."""
    simple = _member(
        library.common_speculative_type, "COMMON_SPECULATIVE_TYPE_", "DRAFT_SIMPLE"
    )
    speculative.types = [simple]
    draft = speculative.draft
    draft.mparams.path = config["path"]
    if config["max_tokens"] is not None:
        draft.n_max = config["max_tokens"]
    if config["min_tokens"] is not None:
        draft.n_min = config["min_tokens"]
    if config["min_probability"] is not None:
        draft.p_min = config["min_probability"]


def _split(library: Any, params: Any, config: Config) -> None:
    """Say which GPUs take how much."""
    params.no_kv_offload = config["cache_on_gpu"] is False
    params.main_gpu = config["main_gpu"]
    if config["gpu_mode"] is not None:
        params.split_mode = _member(
            library.llama_split_mode, "LLAMA_SPLIT_MODE_", config["gpu_mode"].upper()
        )
    if config["gpu_shares"]:
        shares = [*config["gpu_shares"], *params.tensor_split]  # the rest is 0
        params.tensor_split = shares[: len(params.tensor_split)]


def load_mode(
    mmap: bool | None, lock_memory: bool | None, direct_io: bool | None = None
) -> str:
    """llama.cpp's name for how the file gets into memory."""
    if direct_io:
        return "DIRECT_IO"
    if lock_memory:
        return "MLOCK" if mmap is False else "MMAP_MLOCK"
    return {None: "AUTO", True: "MMAP", False: "NONE"}[mmap]


def block_count(head: bytes) -> int | None:
    """The number of layers, from the beginning of a GGUF file."""
    return _head_number(head, "block_count")


def _head_number(head: bytes, key: str) -> int | None:
    """A whole number from the head of a GGUF file, by the end of its key."""
    # Key, type 4 (uint32), value; it stands before the long lists of tokens.
    pattern = rb"\." + re.escape(key.encode()) + rb"\x04\0\0\0(.{4})"
    found = re.search(pattern, head, re.DOTALL)
    return int.from_bytes(found.group(1), "little") if found else None


def _gpu_layers(library: Any, config: Config) -> int:
    """How many layers go to the GPU: 0 without one, -1 for all of them."""
    types = [str(device["type"]) for device in library.get_device_info()]
    ratio = config["gpu_ratio"]
    if ratio == 0 or not any("GPU" in name for name in types):
        return 0
    if ratio is None or ratio >= 1:
        return -1
    with open(config["path"], "rb") as file:
        blocks = block_count(file.read(1 << 20))
    if blocks is None:
        raise ValueError("the file does not say how many layers it has")
    return round(ratio * (blocks + 1))  # the output layer counts as well


def _cache_type(library: Any, name: str) -> Any:
    return _member(library.ggml_type, "GGML_TYPE_", name.upper())


def _member(enum: Any, prefix: str, name: str) -> Any:
    """A member of one of llama.cpp's enums, by the part of its name that differs."""
    try:
        return enum[prefix + name]
    except KeyError:
        known = ", ".join(member.name[len(prefix) :] for member in enum)
        raise ValueError(f"{name!r} is none of {known}") from None


def _read_config() -> Config | None:
    """The first line of stdin; None when the parent is gone already."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 65536)  # not sys.stdin: its buffer would take what follows
        if not data:
            return None
        line += data
    config: Config = json.loads(line)
    return config


def _say(out: int, **fields: Any) -> None:
    data = (PREFIX + json.dumps(fields) + "\n").encode()
    while data:
        data = data[os.write(out, data) :]


def end_with_parent() -> None:
    """Have the system end this process when its parent ends; Linux only.

    The end of stdin is not enough: while a model loads nobody can watch it, since
    the load holds the GIL and llama.cpp begins to watch after it. "Parent" here is
    the thread that started this process, which is the one of the event loop.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).prctl
        set_option(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _parent_is_gone() -> bool:
    """Whether stdin has ended, with nothing behind the config."""
    if sys.platform == "win32":
        return False  # select knows sockets only
    return bool(select.select([0], [], [], 0)[0])


def _disable_core_dumps() -> None:
    """When the parent dies llama.cpp exits at once, and may crash in doing so."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


if __name__ == "__main__":
    main()
