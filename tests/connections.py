"""Connections whose server is in the hands of the test."""

from __future__ import annotations

from lmstudio.address import Address
from lmstudio.connection import Connection
from raw_server import PATIENCE


def open_to(server, worker, timeout=PATIENCE):
    return Connection.open_to(
        Address("127.0.0.1", server.port),
        "llm",
        identifier="me",
        passkey="secret",
        worker=worker,
        timeout=timeout,
    )


def result(number, value):
    return {"type": "rpcResult", "callId": number, "result": value}
