"""A process that has more than a thousand files open uses the client like any other."""

from __future__ import annotations

import os

import pytest

from lmstudio import LMStudioClient

resource = pytest.importorskip("resource", reason="this system has no such limits")

#: More than `select` can tell apart.
MANY = 1100


@pytest.fixture
def many_files():
    """So many are open that the next ones have large numbers."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MANY + 100
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this machine allows {hard} files")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while opened[-1] <= MANY:
            opened.append(os.dup(opened[0]))
        yield
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_many_files(many_files, fake):
    """It connects, answers, sends what must wait, and is asked whether it lives."""
    fake.reply("answer", times=None)
    with LMStudioClient(fake.host) as client:
        model = client.llm.get("any")
        assert "answer" == model.respond("x").content
        transport = client._session.connection("llm")._transport
        assert transport._sock.fileno() > MANY

        assert transport.ping()  # not possible where the wait for the socket fails
        assert "answer" == model.respond("x" * 8_000_000).content
