"""Transports whose other end is in the hands of the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import sender as module
from lmstudio.address import Address
from lmstudio.transport import Transport
from raw_server import PATIENCE, RawServer


@contextlib.contextmanager
def connected(steps="upgrade", ready=True, **options):
    """A transport and the server's end of it."""
    with RawServer(steps, **options) as server:
        address = Address("127.0.0.1", server.port)
        transport = Transport.connect(address, "llm", PATIENCE)
        try:
            if ready:
                transport.ready(lambda data: None)
            yield transport, server.peer()
        finally:
            transport.dispose()


@contextlib.contextmanager
def beside(work, *args):
    """Run something on a thread while the block runs; gives its future."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(work, *args)
    finally:
        pool.shutdown()


@contextlib.contextmanager
def stuck(limit=None, steps="upgrade", **options):
    """A sender whose server reads nothing: the transport, its peer and the future."""
    with connected(steps, small=True, **options) as (transport, peer):
        transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        waits = threading.Event()

        def wait(sock, event, limit=None, wait=module.wait):
            # Only a sender that could send nothing waits for writing.
            if limit:
                waits.set()
            return wait(sock, event, limit)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "wait", wait)
            with beside(transport.send, b"x" * 1_000_000) as sending:
                try:
                    assert waits.wait(PATIENCE)
                    yield transport, peer, sending
                finally:
                    transport.close()


@contextlib.contextmanager
def secured(tls, **options):
    """A transport over TLS, and the server's end of it."""
    certificate, context = tls
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        with RawServer("upgrade", context=context, **options) as server:
            address = Address("localhost", server.port, tls=True)
            transport = Transport.connect(address, "llm", PATIENCE)
            try:
                yield transport, server.peer()
            finally:
                transport.dispose()
