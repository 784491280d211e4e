"""Models on disk: ``<publisher>/<repo>/<file>.gguf`` below the models folder."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from .engine import ModelFile, Projector
from .gguf import GGUFError, Header, read_header
from .lookup import ModelNotOnDisk, find
from .projectors import choose, is_projector, named_so
from .quantization import bits_of, split_suffix

log = logging.getLogger(__name__)

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})")
# Files that are named after their kind: their repo tells what they are.
_GENERIC = {"", "model", "ggml-model", "gguf", "ggml"}
_SIZE_LABEL = re.compile(r"(\d+x)?\d+(\.\d+)?[KMBTQ](-A\d+(\.\d+)?[KMB])?")
_LONGEST_CONTEXT = 2**31 - 1  # engines count tokens in 32 bits

_Models = list[ModelFile]  # within the class, `list` is the method


@attrs.frozen
class BrokenFile:
    """A file in the models folder that can't be loaded.

    Attributes:
        relative_path: ``<publisher>/<repo>/<file>`` with forward slashes.
        error: Why.
    """

    relative_path: str
    error: GGUFError

    @property
    def names(self) -> set[str]:
        """What users may call it, in lower case; its header did not tell more."""
        folder, _, file = self.relative_path.lower().rpartition("/")
        stem = file.removesuffix(".gguf")
        path = str(self.error.path).lower()
        return {f"{folder}/{file}", path, folder, file, stem, split_suffix(stem)[0]}


_Broken = list[BrokenFile]


@attrs.frozen
class _Found:
    """The files of one model, as their names tell.

    Attributes:
        folder: ``<publisher>/<repo>``.
        stem: The file name without number of the part and ending.
        paths: All parts in order.
        missing: Numbers of parts that are not there.
    """

    folder: str
    stem: str
    paths: tuple[Path, ...]
    missing: tuple[int, ...] = ()

    @property
    def relative_path(self) -> str:
        return f"{self.folder}/{self.paths[0].name}"

    def bare_key(self, header: Header) -> str:
        """The key as it is when no other repo has the same."""
        name = split_suffix(self.stem)[0].lower()
        if name in _GENERIC:
            repo = self.folder.rpartition("/")[2].lower()
            name = split_suffix(re.sub(r"[-_.]gguf$", "", repo))[0] or repo
        prefix = "text-embedding-"
        if header.is_embedding and not name.startswith(prefix):
            name = prefix + name
        return name


class Store:
    """The models below one folder, read anew at each question. Use it from any thread.

    Only files that were found in the folder are ever named by it, so that no name can
    reach another file. A file's header is read again only when the file has changed.

    Args:
        models_dir: The folder; it need not exist.
    """

    def __init__(self, models_dir: Path) -> None:
        self.models_dir = Path(os.path.abspath(models_dir))
        self._lock = threading.Lock()  # guards both; held while files are read
        self._headers: dict[Path, tuple[tuple[int, int], Header | GGUFError]] = {}
        self._warned: set[str] = set()

    def list(self) -> _Models:
        """All models that can be loaded, in the order of their paths."""
        return self._scan()[0]

    def broken(self) -> _Broken:
        """All files that should be models and can't be loaded, and why."""
        return self._scan()[1]

    def find(self, name: str) -> tuple[ModelFile, _Models]:
        """The model that a user means: by key, path, part of a path, or file name.

        Returns:
            The model, and all that the name fits when it fits more than one.

        Raises:
            ModelNotOnDisk: No model has this name.
            GGUFError: A file has this name, and it can't be loaded.
        """
        models, broken = self._scan()
        try:
            model, ambiguous = find(models, name)
        except ModelNotOnDisk:
            for file in broken:
                if name.lower() in file.names:
                    raise file.error from None
            raise
        return model, [*ambiguous]

    def _scan(self) -> tuple[_Models, _Broken]:
        files = dict(_files(self.models_dir))
        with self._lock:
            self._headers = {
                path: known for path, known in self._headers.items() if path in files
            }
            good: _Good = []
            broken: _Broken = []
            seeing: dict[str, list[tuple[Path, Header]]] = defaultdict(list)
            for found in _by_model(files):
                path = found.paths[0]
                try:
                    headers = [self._header(path) for path in found.paths]
                    if is_projector(path, headers[0]):
                        seeing[found.folder].append((path, headers[0]))
                    elif not named_so(path) and _is_model(found, headers[0]):
                        good.append((found, headers))
                except GGUFError as exc:
                    broken.append(BrokenFile(found.relative_path, exc))
            fresh = [file for file in broken if str(file.error) not in self._warned]
            self._warned = {str(file.error) for file in broken}
        # Outside the lock: logging calls out.
        for file in fresh:
            log.warning("left out: %s", file.error)
        projectors = {folder: choose(some) for folder, some in seeing.items()}
        return _models(good, projectors), broken

    def _header(self, path: Path) -> Header:
        """The header of a file, from memory while the file stays the same."""
        try:
            status = path.stat()
        except OSError as exc:
            raise GGUFError(path, f"it can't be read: {exc}") from exc
        state = (status.st_mtime_ns, status.st_size)
        known = self._headers.get(path)
        if known is None or known[0] != state:
            header: Header | GGUFError
            try:
                header = read_header(path)
            except GGUFError as exc:
                header = exc
            known = self._headers[path] = (state, header)
        if isinstance(known[1], GGUFError):
            # Each caller gets its own: a shared one would collect their tracebacks.
            raise type(known[1])(path, known[1].problem)
        return known[1]


_Good = list[tuple[_Found, list[Header]]]


def _files(models_dir: Path) -> Iterator[tuple[Path, str]]:
    """Every GGUF file two folders down, and its ``<publisher>/<repo>``."""
    for publisher in _visible(models_dir):
        for repo in _visible(publisher):
            for path in _visible(repo):
                if path.name.lower().endswith(".gguf"):
                    yield path, f"{publisher.name}/{repo.name}"


def _visible(folder: Path) -> Sequence[Path]:
    """What a folder holds, without hidden files; nothing if it is no folder."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        log.warning("left out: %s", exc)
        return []
    # Names that are not UTF-8 can't travel as JSON.
    return [
        folder / name
        for name in names
        if not name.startswith(".") and name == name.encode(errors="replace").decode()
    ]


def _by_model(files: dict[Path, str]) -> Iterator[_Found]:
    """Put the parts of split models together."""
    split: dict[tuple[str, str, int], dict[int, Path]] = defaultdict(dict)
    for path, folder in files.items():
        part = _PART.fullmatch(path.stem)
        if path.is_dir():
            continue
        if part is None or not 0 < int(part["part"]) <= int(part["total"]):
            yield _Found(folder, path.stem, (path,))
        else:
            parts = split[folder, part["stem"], int(part["total"])]
            parts[int(part["part"])] = path
    for (folder, stem, total), parts in split.items():
        missing = tuple(n for n in range(1, total + 1) if n not in parts)
        yield _Found(folder, stem, tuple(parts[n] for n in sorted(parts)), missing)


def _is_model(found: _Found, header: Header) -> bool:
    """Whether a file holds a whole model, and not an adapter or a projector.

    Raises:
        GGUFError: It should hold one, and something is missing.
    """
    kind = header.text("general.type") or "model"
    if kind != "model" or header.architecture == "clip":
        return False
    if found.missing:
        numbers = ", ".join(map(str, found.missing[:5]))
        more = ", ..." if len(found.missing) > 5 else ""
        raise GGUFError(
            found.paths[0], f"of its parts these are missing: {numbers}{more}"
        )
    if not header.architecture:
        raise GGUFError(found.paths[0], "its header names no architecture")
    return True


def _models(good: _Good, projectors: Mapping[str, Projector | None]) -> _Models:
    """Give every model its key, and say what it is.

    Args:
        projectors: By folder; they belong to all language models in it.
    """
    folders: dict[str, set[str]] = defaultdict(set)
    for found, headers in good:
        folders[found.bare_key(headers[0])].add(found.folder)
    models = []
    for found, headers in good:
        key = found.bare_key(headers[0])
        publisher, _, repo = found.folder.lower().partition("/")
        sharing = folders[key] - {found.folder}
        if any(other.lower().startswith(publisher + "/") for other in sharing):
            key = f"{publisher}/{repo}/{key}"
        elif sharing:
            key = f"{publisher}/{key}"
        model = _model(found, headers, key)
        seen_by = None if model.is_embedding else projectors.get(found.folder)
        if seen_by is not None:
            model = attrs.evolve(model, vision=True, projector=seen_by)
        models.append(model)
    models.sort(key=lambda model: (model.relative_path.lower(), model.relative_path))
    variants: dict[str, list[str]] = defaultdict(list)
    for model in models:
        variants[model.key].append(model.variant)
    return [
        attrs.evolve(model, variants=tuple(variants[model.key])) for model in models
    ]


def _model(found: _Found, headers: Sequence[Header], key: str) -> ModelFile:
    header = headers[0]
    bare, variant, quantization = split_suffix(found.stem)
    quantization = quantization or header.quantization or ""
    variant = variant or quantization.lower()
    display = key.rpartition("/")[2] if bare.lower() in _GENERIC else bare
    return ModelFile(
        key=key,
        path=found.paths[0],
        relative_path=found.relative_path,
        publisher=found.folder.partition("/")[0],
        display_name=re.sub(r"[-_ ]+", " ", display).strip(),
        size=sum(part.size for part in headers),
        architecture=header.architecture,
        params=_params(headers),
        quantization=quantization or None,
        bits=bits_of(quantization),
        max_context_length=min(header.context_length or 2048, _LONGEST_CONTEXT),
        is_embedding=header.is_embedding,
        chat_template=header.chat_template,
        bos=header.bos,
        eos=header.eos,
        variant=f"{key}@{variant}" if variant else key,
    )


def _params(headers: Sequence[Header]) -> str | None:
    """The number of parameters, rounded; the model's own word for it if it has one."""
    label = headers[0].text("general.size_label") or ""
    if _SIZE_LABEL.fullmatch(label):
        return label
    count = sum(header.params for header in headers)
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            digits = 1 if count < 10 * size else 0
            return f"{count / size:.{digits}f}".replace(".0", "") + unit
    return str(count) if count else None
