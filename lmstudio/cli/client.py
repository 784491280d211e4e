"""The client that the commands share, and the options that say which server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import click

import lmstudio

from .home import check_home

HOST = click.option(
    "--host",
    metavar="ADDRESS",
    hidden=True,
    help="The server: a name, host:port, or a URL. Without it, one is looked for.",
)
PORT = click.option(
    "--port", type=click.IntRange(1, 65535), hidden=True, help="Its port."
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--host`` and ``--port``."""
    return HOST(PORT(command))


@contextlib.contextmanager
def connected(host: str | None, port: int | None) -> Iterator[lmstudio.LMStudioClient]:
    """A client of the server that the options name, or of the one that is found.

    Raises:
        Failure: None is named, and the home folder can't be used.
    """
    address, token = spelled(host, port), None
    if address is None and not os.environ.get("LMSTUDIO_HOST"):
        check_home()
        address, token = _own_server()
    with lmstudio.LMStudioClient(address, api_token=token) as client:
        yield client


def _own_server() -> tuple[str | None, str | None]:
    """Address and token of our background server, if it may ask for a saved token."""
    from lmstudio import paths

    named = any(map(os.environ.get, ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")))
    if named or not (paths.internal() / "api-tokens").exists():
        return None, None
    from lmstudio.server.tokens import saved

    from . import background

    for known in (background.started(), background.written_down()):
        if known is not None and known.is_in_background:
            tokens = saved()
            return known.address, tokens[0].text if tokens else None
    return None, None


def spelled(host: str | None, port: int | None) -> str | None:
    """The two options as one address; None when neither is given."""
    if port is None:
        return host
    host = host or "127.0.0.1"
    import ipaddress

    with contextlib.suppress(ValueError):
        host = f"[{ipaddress.IPv6Address(host)}]"
    return f"{host}:{port}"


def loaded_models(client: lmstudio.LMStudioClient) -> list[lmstudio.InstanceInfo]:
    """What the server has in memory."""
    infos = (model.get_model_info() for model in client.list_loaded_models())
    return [info for info in infos if info is not None]  # one may just have gone
