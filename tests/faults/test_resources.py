"""A process that may have no more files or threads: the error says so, and what helps.

The client is usable as soon as there are some again.
"""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from lmstudio import LMStudioClient, LMStudioConnectionError

#: The threads of a first call, in their order: connecting, the worker, the reader.
THREADS = 3


@pytest.mark.parametrize("nth", range(THREADS))
def test_no_more_threads(fake, monkeypatch, nth):
    """Whichever thread can't start, the error is typed, and the next call works."""
    start, seen = threading.Thread.start, []

    def refuse(thread):
        if thread.name.startswith("lmstudio-"):
            seen.append(thread.name)
            if len(seen) == nth + 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    with LMStudioClient(fake.host) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(LMStudioConnectionError, match="`ulimit -u`") as caught:
                client.llm.list_downloaded()
        assert "resources" == caught.value.problem
        assert "can't start new thread" in str(caught.value)
        assert nth + 1 == len(seen)

        assert "hello" == client.llm.get("any").respond("hello").content


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_no_more_files(fake, monkeypatch, number):
    """Too many open files are not taken for a server that can't be reached."""

    class Refused(socket.socket):
        def __init__(self, *args, **more):
            if threading.current_thread().name == "lmstudio-connect":
                raise OSError(number, os.strerror(number))
            super().__init__(*args, **more)

    with LMStudioClient(fake.host) as client:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Refused)
            with pytest.raises(LMStudioConnectionError, match="`ulimit -n`") as caught:
                client.llm.list_downloaded()
        assert "resources" == caught.value.problem
        assert os.strerror(number) in str(caught.value)
        assert str(caught.value).startswith(f"no connection to ws://{fake.host}: ")

        assert "hello" == client.llm.get("any").respond("hello").content


def test_discovery_without_files(monkeypatch):
    """The search for a server on this machine says the same."""

    def refuse(*args, **more):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    with LMStudioClient() as client, monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        with pytest.raises(LMStudioConnectionError, match="`ulimit -n`") as caught:
            client.llm.list_downloaded()
    assert "resources" == caught.value.problem
