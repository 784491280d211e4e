"""What of a repository can be downloaded, and which of it a user means."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import attrs

from .hub import HubError, HubFile, HubRepo
from .quantization import split_suffix

#: Memory that a model takes beside its weights, bytes: context and working space.
BESIDE = 512 << 20
#: Quantizations from the one that suits most users to those that suit the fewest.
PREFERRED = (
    *("Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "MXFP4", "Q4_1", "Q4_0", "Q5_K_M"),
    *("Q5_K_S", "Q5_1", "Q5_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q6_K", "Q3_K_S"),
    *("IQ3_S", "IQ3_XS", "Q8_0", "IQ3_XXS", "Q2_K", "IQ2_M", "BF16", "F16", "F32"),
)
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_SEGMENT = re.compile(r"[^\\/:*?\"<>|\x00-\x1f\x7f]{1,200}")
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})")


@attrs.frozen(kw_only=True)
class Reference:
    """What a user wrote to name a download.

    Attributes:
        repo: ``owner/name``.
        quantization: Which one, None for the recommended one.
        file: The path of a file, None for any.
    """

    repo: str
    quantization: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str, hub: str = "") -> Reference:
        """Read ``owner/name``, ``owner/name@quantization``, a file in it, or a URL.

        Args:
            hub: The hub's address, which URLs may begin with.

        Raises:
            HubError: It is none of them.
        """
        given = text.strip()
        if "://" in given:
            given = _of_url(given, hub)
        name, at, quantization = given.partition("@")
        if not at:
            name, at, quantization = given.partition(":")  # as other programs write it
        segments = name.strip("/").split("/")
        file = "/".join(segments[2:]) or None
        well = (
            len(segments) >= 2
            and is_repo("/".join(segments[:2]))
            and (file is None or (is_safe(file) and not at))
            and bool(quantization) == bool(at)
        )
        if not well:
            raise HubError(
                "hub.badName",
                f"{text[:200]!r} names no model of the hub",
                None,
                "Write owner/name, owner/name@quantization, or the model's URL",
            )
        repo = "/".join(segments[:2])
        return cls(repo=repo, quantization=quantization or None, file=file)


@attrs.frozen(kw_only=True)
class Option:
    """One model of a repository: a file, or all parts of a split one.

    Attributes:
        repo: Where it is.
        identifier: What names this download: ``owner/name@q4_k_m``.
        name: For people.
        variant: Such as ``"q4_k_m"`` or ``"ud-q4_k_xl"``, ``""`` without one.
        quantization: Such as ``"Q4_K_M"``, None where the name does not tell.
        files: Its parts in order, and last the projector of a vision model.
        names: Of the files on disk, in the same order.
        fits: Whether this machine's memory holds it.
        recommended: True for the one that suits most users.
    """

    repo: HubRepo
    identifier: str
    name: str
    variant: str
    quantization: str | None
    files: tuple[HubFile, ...]
    names: tuple[str, ...]
    fits: bool
    recommended: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def relative_path(self) -> str:
        """Where its first file belongs below the models folder."""
        return f"{self.repo.name}/{self.names[0]}"


def options_of(repo: HubRepo, memory: int | None) -> list[Option]:
    """All models of a repository, the smallest first, one of them recommended.

    Files whose names could reach outside the models folder are left out.

    Args:
        memory: Bytes that this machine has, None when that is not known.

    Raises:
        HubError: It has none.
    """
    ggufs = [f for f in repo.files if f.path.lower().endswith(".gguf")]
    ggufs = [f for f in ggufs if is_safe(f.path) and f.size > 0]
    if not ggufs or not is_repo(repo.name):
        raise _no_model(repo, "It has no GGUF file")
    projector = _projector(ggufs)
    models = _models([f for f in ggufs if not _is_beside(f.path)])
    if not models:
        raise _no_model(repo, "None of its GGUF files is a whole model")
    stems = [_stem(files) for files in models]
    variants = Counter(split_suffix(stem)[1] for stem in stems)
    local = _local_names([file for files in models for file in files])
    options = []
    for files, stem in zip(models, stems, strict=True):
        bare, variant, quantization = split_suffix(stem)
        is_named = bool(variant) and variants[variant] == 1
        names = [local[file.path] for file in files]
        if projector is not None:
            files = (*files, projector)
            names.append(projector.path.rpartition("/")[2])
        size = sum(file.size for file in files)
        mark = f"@{variant}" if is_named else f"/{files[0].path}"
        options.append(
            Option(
                repo=repo,
                identifier=repo.name + mark,
                name=bare or repo.name.rpartition("/")[2],
                variant=variant,
                quantization=quantization or None,
                files=files,
                names=tuple(names),
                fits=memory is None or size + BESIDE <= memory,
            )
        )
    options.sort(key=lambda option: (option.size, option.identifier))
    best = min((o for o in options if o.fits), key=_preference, default=None)
    return [attrs.evolve(o, recommended=True) if o is best else o for o in options]


def choose(options: Sequence[Option], wanted: Reference) -> Option:
    """The option that is meant.

    Raises:
        HubError: None is, or it does not say which.
    """
    if wanted.file is not None:
        own = {o: [f.path for f in o.files if not _is_beside(f.path)] for o in options}
        fits = [o for o in options if wanted.file in own[o]]
        asked = f"file {wanted.file!r}"
    elif wanted.quantization is not None:
        sought = wanted.quantization.lower()
        fits = [o for o in options if o.variant == sought]
        fits = fits or [o for o in options if (o.quantization or "").lower() == sought]
        asked = f"quantization {wanted.quantization[:100]!r}"
    else:
        fits = [o for o in options if o.recommended]
        asked = "model that fits the memory of this machine"
    if len(fits) == 1:
        return fits[0]
    listed = ", ".join(o.identifier for o in (fits or options)[:20])
    if fits:
        title = f"{wanted.repo} has several files of the {asked}"
    else:
        title = f"{wanted.repo} has no {asked}"
    raise HubError("hub.noModel", title, f"There are {listed}", "Name one of these")


def is_repo(name: str) -> bool:
    """Whether a text has the form ``owner/name``."""
    segments = name.split("/")
    return len(segments) == 2 and all(_NAME.fullmatch(s) for s in segments)


def is_safe(path: str) -> bool:
    """Whether a path in a repository names a file on any system, and stays inside."""
    return all(
        _SEGMENT.fullmatch(segment)
        and not segment.startswith((".", " "))
        and not segment.endswith((".", " "))
        and segment == segment.encode(errors="replace").decode()
        for segment in path.split("/")
    )


def _of_url(url: str, hub: str) -> str:
    """What a URL of the hub names; the URL itself when it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if parts.netloc.lower() not in (*_HOSTS, urlsplit(hub).netloc.lower()):
        return url
    segments = unquote(parts.path).strip("/").split("/")
    if len(segments) > 4 and segments[2] in ("blob", "resolve"):
        return "/".join([*segments[:2], *segments[4:]])
    if segments[2:3] in (["tree"], ["blob"], ["resolve"]):
        return "/".join(segments[:2])
    return "/".join(segments)


def _is_beside(path: str) -> bool:
    """Whether a file belongs to a model and is none."""
    name = path.rpartition("/")[2].lower()
    return "mmproj" in name or "imatrix" in name


def _projector(files: Sequence[HubFile]) -> HubFile | None:
    """The projector that vision models of the repository use."""
    found = [f for f in files if "mmproj" in f.path.rpartition("/")[2].lower()]

    def order(file: HubFile) -> tuple[int, int]:
        name = file.path.lower()
        kinds = ("bf16", "f16", "q8_0")  # the first is in the name of the second
        places = {"f16": 0, "bf16": 1, "q8_0": 2}
        kind = next((kind for kind in kinds if kind in name), None)
        return places[kind] if kind else 3, file.size

    return min(found, key=order, default=None)


def _models(files: Sequence[HubFile]) -> list[tuple[HubFile, ...]]:
    """The files of each model; a split one that lacks parts is left out."""
    split: dict[tuple[str, int], dict[int, HubFile]] = defaultdict(dict)
    models: list[tuple[HubFile, ...]] = []
    for file in files:
        part = _PART.fullmatch(file.path[: -len(".gguf")])
        if part is None:
            models.append((file,))
        else:
            split[part["stem"], int(part["total"])][int(part["part"])] = file
    for (_, total), parts in split.items():
        if sorted(parts) == list(range(1, total + 1)):
            models.append(tuple(parts[number] for number in sorted(parts)))
    return models


def _stem(files: Sequence[HubFile]) -> str:
    """The file name without the number of the part and the ending."""
    stem = files[0].path.rpartition("/")[2][: -len(".gguf")]
    part = _PART.fullmatch(stem)
    return part["stem"] if part else stem


def _local_names(files: Sequence[HubFile]) -> dict[str, str]:
    """File names on disk, where all files of a repository are in one folder."""
    names = Counter(file.path.rpartition("/")[2].lower() for file in files)
    made = {}
    for file in files:
        name = file.path.rpartition("/")[2]
        is_only = names[name.lower()] == 1
        made[file.path] = name if is_only else file.path.replace("/", "-")
    return made


def _preference(option: Option) -> tuple[int, int]:
    """Sorts the option first that suits most users."""
    name = option.quantization or ""
    place = PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)
    return place, option.size


def _no_model(repo: HubRepo, cause: str) -> HubError:
    return HubError(
        "hub.noModel",
        f"{repo.name[:200]} has no model that llama.cpp can load",
        cause,
        "Look for a repository of the same model whose name ends in GGUF",
    )
