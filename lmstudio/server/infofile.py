"""The files that tell other programs where the servers of this user are."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .. import paths
from .ports import greets

#: Seconds that a server that was here before may take to say that it still is.
_PATIENCE = 0.5


def info_file() -> Path:
    """Where clients look: the server that began last, of those that run.

    Source: docs/wire/discovery.md.
    """
    return paths.internal() / "http-server.json"


def read(file: Path | None = None) -> dict[str, Any] | None:
    """What a file says, see `write`; None without a usable one.

    Args:
        file: By default the info file.
    """
    try:
        info = json.loads((file or info_file()).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def write(host: str, port: int, *, cors: bool, record: Path | None = None) -> None:
    """Say where this process serves. Readers see the old file or the new one.

    A server that is in the info file already and still answers is kept within the new
    one, and is there again when this one ends.

    Args:
        cors: Whether web pages of any origin are let in; only `lms` reads it.
        record: A file of this server alone, which no other one overwrites.

    Raises:
        OSError: The folder can't be written.
    """
    info: dict[str, Any] = {"port": port, "host": host, "pid": os.getpid()}
    info["cors"] = cors
    if record is not None:
        _put(record, info)
    before = _alive(read(), port)
    _put(info_file(), info if before is None else {**info, "before": before})


def remove(record: Path | None = None) -> None:
    """Take this process out of the info file, and remove its record.

    Args:
        record: As `write` was given.
    """
    for file in (info_file(),) if record is None else (info_file(), record):
        info = read(file)
        if info is None or info.get("pid") != os.getpid():
            continue  # another server has written it since
        before = _alive(info.get("before"), info.get("port"))
        with contextlib.suppress(OSError):
            if before is None:
                file.unlink()
            else:
                _put(file, before)


def _alive(info: Any, port: Any) -> dict[str, Any] | None:
    """What was written last of a server that answers, on another port than this."""
    while isinstance(info, dict):
        there, host = info.get("port"), info.get("host", "127.0.0.1")
        if not isinstance(there, int) or not isinstance(host, str) or there == port:
            pass
        elif greets(host, there, _PATIENCE):
            return info
        info = info.get("before")
    return None


def _put(file: Path, info: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(info), "utf-8")
        os.replace(draft, file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
