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


@model(kw_only=True)
class StartHTTPServer:
    """Parameter of ``startHttpServer``.

    Attributes:
        port: 1 to 65535; None leaves it to the server.
        cors: Whether web pages of any origin are let in; None leaves it likewise.
        network_interface: The address to listen on.
    """

    port: int | None = None
    cors: bool | None = None
    network_interface: str | None = None


@model(kw_only=True)
class Notify:
    """Parameter of ``notify``: something that the user is to see.

    Attributes:
        title: One line.
        description: More of it.
        no_auto_dismiss: Whether it stays until the user closes it.
    """

    title: str
    description: str | None = None
    no_auto_dismiss: bool | None = None


@model(kw_only=True)
class ExperimentFlag:
    """Parameter of ``setExperimentFlag``: which experiment, and whether it is on."""

    code: str
    value: bool
