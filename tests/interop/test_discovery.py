"""Official clients find the server by themselves, on a port where they look."""

from __future__ import annotations

import json

import pytest

from interop.clients import embedded_server
from interop.conftest import MODEL
from lmstudio.server.ports import PortUnavailable, listen

#: Where official clients look without an address, in their order.
#: Source: docs/wire/discovery.md.
PORTS = (41343, 52993, 16141, 39414, 22931)


@pytest.fixture(scope="module")
def server(home):
    """A server on the first of the ports, if nobody has one of them."""
    for port in PORTS:
        try:
            listen("127.0.0.1", port).close()
        except PortUnavailable as exc:
            pytest.skip(f"clients may find another server: {exc}")
    with embedded_server(home, PORTS[0]) as address:
        yield address


def test_find(server, client, model_file):
    """A client without an address finds the server, and speaks with it."""
    with client.start("find") as script:
        output, errors, code = script.rest()
    found = [json.loads(line) for line in output.splitlines()]

    assert ("", 0) == (errors, code)
    paths = [f"{MODEL}/{model_file.name}"]
    assert [{"step": "find", "paths": paths}, {"step": "end"}] == found
