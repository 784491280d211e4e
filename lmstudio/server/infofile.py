"""The file that tells other programs where the server of this user is."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .. import paths


def info_file() -> Path:
    """Where the file is.

    Source: docs/wire/discovery.md.
    """
    return paths.internal() / "http-server.json"


def read() -> dict[str, Any] | None:
    """What the file says, see `write`; None without a usable one."""
    try:
        info = json.loads(info_file().read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def write(host: str, port: int, *, cors: bool) -> None:
    """Say where this process serves. Readers see the old file or the new one.

    Args:
        cors: Whether web pages of any origin are let in; only `lms` reads it.

    Raises:
        OSError: The folder can't be written.
    """
    file = info_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    info = {"port": port, "host": host, "pid": os.getpid(), "cors": cors}
    try:
        draft.write_text(json.dumps(info), "utf-8")
        os.replace(draft, file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def remove() -> None:
    """Remove the file, unless another server has written it since."""
    info = read()
    if info is not None and info.get("pid") == os.getpid():
        with contextlib.suppress(OSError):
            info_file().unlink()
