"""How much memory a model takes, how much there is, and whether it fits.

The estimate comes from the header of the file alone. It was measured against the
resident memory of llama.cpp's process on a CPU: docs/guides/server.md has the figures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from .engine import EngineError, LoadSettings, ModelFile
from .gguf import GGUFError, Header, read_array, read_header

#: Bytes of one number in the KV cache, by the name of its format.
CACHE_BYTES = {
    **{"f32": 4.0, "f16": 2.0, "q8_0": 1.0625, "q5_1": 0.75, "q5_0": 0.6875},
    **{"q4_1": 0.625, "q4_0": 0.5625, "iq4_nl": 0.5625},
}
#: Ends of fields of models whose cache is not simply layers times context.
_OTHER_CACHES = (".sliding_window", ".kv_lora_rank", ".conv_kernel", ".state_size")
#: Contexts are allocated in steps of so many tokens.
_STEP = 256
#: The process with its libraries, and what each token of the vocabulary adds.
_PROCESS, _TOKEN = 24 << 20, 600
#: Tokens that are processed at once when the settings don't say.
_BATCH = 128
#: Part of the physical memory that counts as available where the system won't tell.
_GUESSED_SHARE = 0.75
_NO_LIMIT = 1 << 60  # bytes; what cgroups of version 1 say when there is none


class NotEnoughMemory(EngineError):
    """A model does not fit into memory; nothing was loaded.

    Attributes:
        needed: Bytes it would take.
        available: Bytes there are.
        fits_context: The longest context that would fit, None when not even the
            weights do.
        fits_quantized: Whether the same context fits with a KV cache of 8 bits.
    """

    code = "engine.notEnoughMemory"

    def __init__(
        self,
        key: str,
        needed: int,
        available: int,
        fits_context: int | None,
        fits_quantized: bool,
    ) -> None:
        ways = []
        if fits_context is not None:
            ways.append(f"a context_length of at most {fits_context}")
        if fits_quantized:
            ways.append("'q8_0' as llama_k_cache_quantization_type and llama_v_...")
        fits = f"It would fit with {', or with '.join(ways)}. " if ways else ""
        super().__init__(
            f"There is not enough memory to load {key}",
            f"It needs {_gib(needed)}, and {_gib(available)} are available",
            f"{fits}Unload other models, or switch off the server's memory guard",
        )
        self.key = key
        self.needed = needed
        self.available = available
        self.fits_context = fits_context
        self.fits_quantized = fits_quantized

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        fields = self.key, self.needed, self.available
        return type(self), (*fields, self.fits_context, self.fits_quantized)


@attrs.frozen(kw_only=True)
class Estimate:
    """What a model would take, bytes.

    Attributes:
        weights: The file, and what its vocabulary takes.
        cache: The KV cache of the whole context.
        work: What a batch of the prompt needs meanwhile.
        is_sure: Whether the model is of a kind whose cache can be told from its head,
            and no part of it may go to a GPU.
        is_here: Whether no part of it may go to a GPU.
        mapped: Files that stay mapped, with their bytes, which `weights` has too.
    """

    weights: int
    cache: int
    work: int
    is_sure: bool
    is_here: bool = True
    mapped: Mapping[Path, int] = attrs.field(factory=dict)

    @property
    def context(self) -> int:
        """All that the context takes."""
        return self.cache + self.work

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.context

    @property
    def certain(self) -> int:
        """What of the memory it takes at the least.

        Of an unknown kind of cache nothing counts, and of a model that may go to a GPU
        nothing at all: only its engine knows the GPU's memory.
        """
        least = self.total if self.is_sure else self.weights
        return least if self.is_here else 0


@attrs.frozen(kw_only=True)
class Policy:
    """What a server does by itself about its memory.

    Attributes:
        auto_evict: Before a model is loaded on demand, unload the others that were.
        guard: Refuse what does not fit.
        available: Tells how much there is beside so many bytes of mapped files.
    """

    auto_evict: bool = True
    guard: bool = True
    available: Callable[[int], int | None] = attrs.field(
        factory=lambda: available, repr=False
    )


def estimate(file: ModelFile, settings: LoadSettings) -> Estimate:
    """What a model would take with these settings.

    A file that can't be read is as large as it is; loading it tells what is wrong.
    """
    try:
        header = read_header(file.path)
    except GGUFError:
        return Estimate(weights=file.size, cache=0, work=0, is_sure=False)
    tokens = header.arrays.get("tokenizer.ggml.tokens")
    vocabulary = tokens.count if tokens is not None else 0
    context = settings.context_length
    if file.is_embedding:
        context = min(context, file.max_context_length)
    is_here = settings.gpu_ratio == 0 or not has_gpu()
    cache = None if file.is_embedding else _cache(header, file.path, context, settings)
    if cache is not None and settings.unified_cache is False:
        cache *= settings.parallel  # each prediction has a context of its own
    extra = 0 if file.projector is None else file.projector.size
    if settings.draft is not None:
        extra += _beside(settings.draft.file, settings)
    return Estimate(
        weights=file.size + _PROCESS + vocabulary * _TOKEN + extra,
        cache=int(cache or 0),
        work=_work(header, context, settings, file.is_embedding),
        is_sure=is_here and (file.is_embedding or cache is not None),
        is_here=is_here,
        mapped=_mapped(file, settings) if is_here else {},
    )


def _mapped(file: ModelFile, settings: LoadSettings) -> dict[Path, int]:
    """Files whose pages a loaded model needs though the system may drop them.

    What is read or locked instead is no longer available anyway.
    """
    if settings.mmap is False or settings.lock_memory or settings.direct_io:
        return {}
    files = [file] if settings.draft is None else [file, settings.draft.file]
    return {one.path: one.size for one in files}


def _beside(draft: ModelFile, settings: LoadSettings) -> int:
    """Bytes that a second model takes in the process of the first."""
    alone = attrs.evolve(settings, draft=None)
    return estimate(draft, alone).total - _PROCESS


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether there may be a GPU with a memory of its own. Windows does not tell."""
    if sys.platform == "win32":
        return True
    return any((devices / name).exists() for name in ("nvidia0", "kfd"))


def available(mapped: int = 0) -> int | None:
    """Bytes that this process can still get without any swapping.

    The least of what the system has and what the limits of its containers leave. None
    where nobody says.

    Args:
        mapped: Bytes of mapped files that are to stay in memory. Systems count them as
            available, as they could be read once more.
    """
    system = _system()
    # Windows does not count what a process has mapped and used as available.
    beside = 0 if sys.platform == "win32" else mapped
    found = [] if system is None else [system - beside]
    found += _containers(mapped=mapped)
    return max(0, min(found)) if found else None


def _cache(
    header: Header, path: Path, context: int, settings: LoadSettings
) -> float | None:
    """Bytes of the KV cache; None when the head does not tell."""
    kind = header.architecture
    layers = header.integer(f"{kind}.block_count")
    width = header.integer(f"{kind}.embedding_length")
    heads = header.integer(f"{kind}.attention.head_count")
    if not layers or any(name.endswith(_OTHER_CACHES) for name in header.values):
        return None
    field = f"{kind}.attention.head_count_kv"
    is_given = field in header.values or field in header.arrays
    all_heads = layers * heads if heads else None
    cached = _sum(header, path, field, layers) if is_given else all_heads
    key = header.integer(f"{kind}.attention.key_length")
    if key is None and width and heads:  # the heads share the width of the model
        key = width // heads
    if not cached or not key:
        return None
    value = header.integer(f"{kind}.attention.value_length") or key
    tokens = -(-context // _STEP) * _STEP
    types = settings.k_cache_type or "f16", settings.v_cache_type or "f16"
    sizes = [CACHE_BYTES.get(name, 2.0) for name in types]
    return tokens * cached * (key * sizes[0] + value * sizes[1])


def _sum(header: Header, path: Path, field: str, layers: int) -> int | None:
    """A number over all layers, whether it is one for all or one for each."""
    one = header.integer(field)
    if one is not None:
        return one * layers
    array = header.arrays.get(field)
    if array is None or array.count > layers:
        return None
    values = header.values.get(field) or read_array(path, field)
    numbers = [value for value in values if isinstance(value, int)]
    return sum(numbers) if len(numbers) == layers else None


def _work(
    header: Header, context: int, settings: LoadSettings, is_embedding: bool
) -> int:
    """Bytes of what one batch of the prompt is turned into on its way."""
    kind = header.architecture
    width = header.integer(f"{kind}.embedding_length") or 0
    inner = header.integer(f"{kind}.feed_forward_length") or 4 * width
    heads = header.integer(f"{kind}.attention.head_count") or 0
    usual = context if is_embedding else _BATCH  # it reads a whole text at once
    batch = min(settings.batch_size or usual, context)
    scores = 0
    if is_embedding or settings.flash_attention is False:
        scores = 3 * heads * (batch if is_embedding else context)
    return 4 * batch * (8 * width + 4 * inner + scores)


def _system() -> int | None:
    """Bytes that the machine has left."""
    if sys.platform == "win32":
        return _windows()
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    # macOS and the BSDs tell what they have, and not without a program what is left.
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return int(pages * _GUESSED_SHARE) if pages > 0 else None


def _windows() -> int | None:
    """What GlobalMemoryStatusEx says; its structure holds 8 bytes and 7 numbers."""
    import ctypes

    status = (ctypes.c_ulonglong * 8)(64)  # the first 4 bytes are the size of it all
    library: Any = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(status):
        return None
    return int(status[2])


def _containers(
    cgroup: Path = Path("/proc/self/cgroup"),
    root: Path = Path("/sys/fs/cgroup"),
    mapped: int = 0,
) -> Iterator[int]:
    """Bytes that each limit above this process leaves, of both versions of cgroups."""
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield from _limits(root, path, "memory.max", "memory.current", "", mapped)
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            yield from _limits(root / "memory", path, *names, "total_", mapped)


def _limits(
    root: Path, path: str, limit: str, usage: str, prefix: str, mapped: int
) -> Iterator[int]:
    """What the limits of one version leave.

    Within a container its own folder is often the root, whatever the path says.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        folder = root.joinpath(*parts[:depth])
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
        except (OSError, ValueError):  # none here, or "max"
            continue
        if most < _NO_LIMIT:
            yield most - used + _reclaimable(folder, prefix, mapped)


def _reclaimable(folder: Path, prefix: str, mapped: int) -> int:
    """Bytes of files that count as used and would be dropped at need.

    Mapped files that stay are among the active ones as far as these go.
    """
    found = {prefix + "inactive_file": 0, prefix + "active_file": 0}
    try:
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in found:
                found[name] = int(value)
    except (OSError, ValueError):
        return 0
    inactive, active = found.values()
    return max(0, inactive - max(0, mapped - active))


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


class Budget:
    """Memory that models may take. Use it from one event loop."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._claims: dict[object, int] = {}  # of loads under way, bytes
        self._held: dict[object, Estimate] = {}  # of models in memory

    def fits(self, made: Estimate) -> bool:
        """Whether a model may be loaded."""
        left = self._left(made)
        return left is None or made.certain <= left

    def claim(
        self, owner: object, made: Estimate, without: Iterable[object] = ()
    ) -> bool:
        """Set memory aside for a load, once more if it has been; False for too little.

        Args:
            without: Owners in memory that will be gone before.
        """
        before = self._claims.pop(owner, None)
        left = self._left(made, without)
        if left is not None and made.certain > left:
            if before is not None:
                self._claims[owner] = before
            return False
        self._claims[owner] = made.certain
        return True

    def keep(self, owner: object, made: Estimate) -> None:
        """A model is in memory: its mapped files count until it is freed."""
        self._held[owner] = made

    def free(self, owner: object) -> None:
        """A load has ended, and what it took shows elsewhere; or a model is gone.

        Safe to repeat.
        """
        self._claims.pop(owner, None)
        self._held.pop(owner, None)

    def refusal(
        self,
        file: ModelFile,
        settings: LoadSettings,
        made: Estimate,
        without: Iterable[object] = (),
    ) -> NotEnoughMemory:
        """Why a model is not loaded, and what of it would be.

        Args:
            made: Its estimate, which is too much.
            without: As for `claim`.
        """
        left = max(0, self._left(made, without) or 0)

        def fits(changed: LoadSettings) -> bool:
            return estimate(file, changed).certain <= left

        longest, is_flexible = None, made.is_sure and not file.is_embedding
        if is_flexible and fits(attrs.evolve(settings, context_length=_STEP)):
            low, high = 1, max(2, -(-settings.context_length // _STEP))
            while high - low > 1:
                middle = (low + high) // 2
                if fits(attrs.evolve(settings, context_length=middle * _STEP)):
                    low = middle
                else:
                    high = middle
            longest = low * _STEP
        small = attrs.evolve(settings, k_cache_type="q8_0", v_cache_type="q8_0")
        is_smaller = is_flexible and estimate(file, small).total < made.total
        return NotEnoughMemory(
            file.key, made.certain, left, longest, is_smaller and fits(small)
        )

    def _left(self, made: Estimate, without: Iterable[object] = ()) -> int | None:
        """Bytes that there are for a model; None for as many as it likes.

        Models share the pages of a file: those it has itself are not counted twice.
        """
        if not self._policy.guard:
            return None
        leaving = [self._held[one] for one in without if one in self._held]
        gone = {id(one) for one in leaving}
        staying: dict[Path, int] = {}
        for held in self._held.values():
            if id(held) not in gone:
                staying.update(held.mapped)
        mapped = sum(staying[path] for path in staying.keys() - made.mapped.keys())
        left = self._policy.available(mapped)
        if left is None:
            return None
        freed = sum(max(0, e.certain - sum(e.mapped.values())) for e in leaving)
        return left + freed - sum(self._claims.values())
