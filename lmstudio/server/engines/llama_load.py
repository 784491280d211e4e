"""Loading a model into a child process: what is asked for, progress, failures."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmstudio.server.engine import (
    Draft,
    GPUSplit,
    LoadFailed,
    LoadSettings,
    ModelFile,
    longest_embedded,
)
from lmstudio.server.engines import llama_child
from lmstudio.server.engines.llama_process import Child

#: Cancelling waits for one batch of the prompt. 128 costs a sixth of the prompt's speed
#: against the largest, and answers within half a second on two cores.
BATCH_SIZE = 128
#: Some models read the tokens of an image all at once, and llama.cpp ends its process
#: when they are more than a batch. Images of known ones have up to 1024.
IMAGE_BATCH_SIZE = 1024
CACHE_MIB = 512  # llama.cpp's own default is 8 GiB for each child

#: What stderr says about a failed load -> (title, suggestion). The first that fits.
LOAD_FAILURES = (
    (
        ("unknown model architecture", "unknown pre-tokenizer"),
        "llama.cpp does not know this kind of model",
        "Update the engine with pip install -U xllamacpp",
    ),
    (
        ("mismatch between text model", "unknown projector type"),
        "The projector beside the model does not fit it",
        "Put the mmproj file of this very model in its place, or take it away",
    ),
    (
        ("not within the file bounds", "failed to read", "corrupted or incomplete"),
        "The model file is truncated or damaged",
        "Download it again",
    ),
    (
        (
            "annot allocate memory",
            "failed to allocate",
            "unable to allocate",
            "out of memory",
            "bad_alloc",
            "MemoryError",
        ),
        "There is not enough memory to load the model",
        "Use a smaller context_length or a smaller quantization, or unload others",
    ),
)


class Loading:
    """Reads what a child says on stdout while it loads.

    Attributes:
        ready: The child's own word, ``{"event": "ready"}`` or a failure.
    """

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self.ready: asyncio.Future[dict[str, Any]] = (
            asyncio.get_running_loop().create_future()
        )
        self._on_progress = on_progress
        self._progress = -1.0
        self._report(0.0)

    def line(self, line: str) -> None:
        """Take one line; lines that mean nothing to us are left alone."""
        if self.ready.done():
            return
        try:
            if line.startswith(llama_child.PREFIX):
                self.ready.set_result(_said(line[len(llama_child.PREFIX) :]))
            elif line.startswith(llama_child.STATE_PREFIX):
                state = json.loads(line[len(llama_child.STATE_PREFIX) :])
                self._report(load_progress(state))
        except Exception as exc:  # on_progress is the caller's; load() raises it
            self.ready.set_exception(exc)

    def _report(self, progress: float) -> None:
        if progress > self._progress:
            self._progress = progress
            self._on_progress(progress)


def _said(text: str) -> dict[str, Any]:
    """What the child said of itself; a failure when that can't be read."""
    try:
        said: dict[str, Any] = json.loads(text)
        if said["event"] == "ready":
            int(said["port"])
        return said
    except (KeyError, TypeError, ValueError):
        return {"event": "failed", "message": f"The child said {text[:200]!r}"}


def load_progress(state: Any) -> float:
    """How far a load is, 0 to 0.95, from llama.cpp's own report.

    That report is undocumented: whatever it does not say counts as the beginning.
    """
    try:
        payload = state["payload"]
        stages = payload["stages"]
        done = (stages.index(payload["current"]) + payload["value"]) / len(stages)
        return 0.05 + 0.75 * min(1.0, max(0.0, float(done)))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return (
            0.95 if isinstance(state, dict) and state.get("state") == "ready" else 0.05
        )


def load_failed(
    child: Child, message: str | None = None, event: str | None = None
) -> LoadFailed:
    """Why a load failed: what the child said, its log and its exit code.

    Args:
        event: ``"missing"`` when there is no llama.cpp to run.
    """
    said = child.without_folders(message or "")
    log = "\n".join(part for part in (child.tail(), said) if part)
    if event == "missing":
        return LoadFailed(
            "The package xllamacpp, which runs the models, can't be imported",
            log,
            "Install it with pip install 'lmstudio[server]'",
        )
    for signs, title, suggestion in LOAD_FAILURES:
        if any(sign in log for sign in signs):
            return LoadFailed(title, log, suggestion)
    ended = child.returncode is not None and child.returncode < 0
    if ended and "SIGKILL" in child.how_it_ended():
        _, title, suggestion = LOAD_FAILURES[-1]
        return LoadFailed(title, log or "The system killed the process", suggestion)
    if message is None:
        log = f"The engine's process ended ({child.how_it_ended()})\n{log}".strip()
    return LoadFailed("llama.cpp could not load the model", log)


def hidden_folders(model: ModelFile) -> tuple[str, ...]:
    """Where models and programs are on this machine, as engines write it."""
    parents = model.path.parents
    above = parents[min(model.relative_path.count("/"), len(parents) - 1)]
    folders = (above, Path(sys.prefix), Path(sys.base_prefix), Path.home())
    return tuple(f"{f}{os.sep}" for f in folders if f != Path(f.anchor))


def check_file(path: Path) -> None:
    """Look at a file before a process is started for it.

    Raises:
        LoadFailed: There is no such file, or it is none of GGUF.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise LoadFailed(
            f"The model file {str(path)!r} can't be read", exc.strerror or str(exc)
        ) from exc
    if magic != b"GGUF":
        raise LoadFailed(
            f"{str(path)!r} is not a GGUF file",
            f"It begins with {magic!r} instead of b'GGUF'",
            "Use a model in the GGUF format",
        )


def child_config(
    model: ModelFile, settings: LoadSettings, key: str, media_marker: str = ""
) -> llama_child.Config:
    """What the child is asked to load.

    Args:
        media_marker: Stands for an image in prompts.
    """
    cores = usable_cores()
    usual = BATCH_SIZE if model.projector is None else IMAGE_BATCH_SIZE
    batch_size = settings.batch_size or usual
    context_length = settings.context_length
    if model.is_embedding:  # a text has to fit one batch
        context_length = batch_size = longest_embedded(model, settings)
    physical = settings.physical_batch_size or batch_size
    if model.is_embedding:
        physical = batch_size
    gpus = settings.gpus or GPUSplit()
    return {
        "path": str(model.path),
        "key": key,
        # A spinning thread per core and anything else to run slows all of them down
        # many times over, so one core stays free.
        "threads": settings.threads or max(1, cores - 1),
        "batch_threads": settings.threads or cores,
        "batch_size": min(batch_size, context_length),
        "physical_batch_size": min(physical, batch_size, context_length),
        "cache_mib": CACHE_MIB,
        "embedding": model.is_embedding,
        "projector": None if model.projector is None else str(model.projector.path),
        "media_marker": media_marker,
        "context_length": context_length,
        "parallel": 1 if model.is_embedding else settings.parallel,
        "gpu_ratio": settings.gpu_ratio,
        "seed": settings.seed,
        "flash_attention": settings.flash_attention,
        "rope_base": settings.rope_base,
        "rope_scale": settings.rope_scale,
        "k_cache_type": settings.k_cache_type,
        "v_cache_type": settings.v_cache_type,
        "mmap": settings.mmap,
        "lock_memory": settings.lock_memory,
        "unified_cache": settings.unified_cache,
        "cache_on_gpu": settings.cache_on_gpu,
        "direct_io": settings.direct_io,
        "checkpoints": settings.checkpoints,
        "gpu_mode": gpus.mode if settings.gpus is not None else None,
        "main_gpu": gpus.main,
        "gpu_shares": list(gpus.shares),
        "draft": None if settings.draft is None else _draft_config(settings.draft),
    }


def _draft_config(draft: Draft) -> llama_child.DraftConfig:
    return {
        "path": str(draft.file.path),
        "max_tokens": draft.max_tokens,
        "min_tokens": draft.min_tokens,
        "min_probability": draft.min_probability,
    }


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use, as its affinity and its container allow."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or "max": no limit
        return cores
