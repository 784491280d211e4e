"""Models of the ``system`` namespace."""

from __future__ import annotations

from .model import model


@model(kw_only=True)
class Version:
    """Reply of ``version``: the application's version and build number."""

    version: str
    build: int = 0


@model(kw_only=True)
class SystemInfo:
    """Reply of ``info``: process id, whether it runs without a window, version."""

    pid: int
    is_daemon: bool
    version: str


@model(kw_only=True)
class ModelVariants:
    """Parameter of ``listDownloadedModelVariants``.

    Source: docs/wire/models.md, "Names".
    """

    model_key: str
