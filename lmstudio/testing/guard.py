"""Keeps tests from reaching a real server by mistake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .. import permitted


@contextlib.contextmanager
def forbid_real_models() -> Iterator[None]:
    """Let clients of this process reach stand-ins only: fake servers and cassettes.

    Every other connection fails with `lmstudio.LMStudioRealModelError` before
    anything is sent, from any thread. Blocks may be nested. The variable
    ``LMSTUDIO_FORBID_REAL_MODELS`` does the same for a whole process.
    """
    permitted.forbid()
    try:
        yield
    finally:
        permitted.permit()
