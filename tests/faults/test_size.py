"""Issue 5: a 100 MB answer, a 10 MB prompt, a million fragments.

There is no quadratic time, and memory is released afterwards.
"""

from __future__ import annotations

import gc
import json
import threading
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmstudio import LMStudioClient, LMStudioError, calls
from raw_server import TEXT, RawServer, frame
from timing import TRIES

MB = 1_000_000
#: Four times the work takes four times as long; twelve would be a square's sixteen.
RATIO = 12.0


def linear(measure, size):
    """Fail unless four times the size takes about four times as long.

    By the processor's time, the server's included: on a busy machine what is short may
    find a free moment, and what is long can't. The best of a few tries counts on
    either side.
    """
    seen = []
    for _ in range(TRIES):
        seen.append((measure(size), measure(4 * size)))
        one, four = (min(times) for times in zip(*seen, strict=True))
        if four <= RATIO * one:
            return
    raise AssertionError(f"not linear: {seen}")


def rss():
    """Bytes of memory that this process has; 0 where that can't be told."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else 0


SUCCESS = {
    "type": "success",
    "stats": {"stopReason": "eosFound"},
    "modelInfo": {
        "type": "llm",
        "modelKey": "any",
        "identifier": "any",
        "instanceReference": "1",
    },
}


def packet(number, message):
    whole = {"type": "channelSend", "channelId": number, "message": message}
    return frame(TEXT, json.dumps(whole).encode())


def fragment(number, text):
    body = {
        "content": text,
        "tokensCount": 1,
        "containsDrafted": False,
        "reasoningType": "none",
        "isStructural": False,
    }
    return packet(number, {"type": "fragment", "fragment": body})


class Answering:
    """A server of bare sockets that answers predictions with bytes made beforehand."""

    def __init__(self):
        self.server = RawServer()
        self.client = LMStudioClient(self.server.host)
        self.model = self.client.llm.get("any")
        self._peer = None
        self._thread = threading.Thread()

    def close(self):
        self.client.close()
        self.server.stop()

    def ask(self, pieces):
        """A prediction whose answer comes in these fragments: texts and how often."""
        sent = threading.Thread(target=self._answer, args=[pieces])
        sent.start()
        prediction = self.model.respond("x")
        return prediction, sent

    def _answer(self, pieces):
        if self._peer is None:
            self._peer = self.server.peer()
            self._peer.socket.settimeout(60)
        while "creationParameter" not in (message := self._peer.json()):
            pass
        number = message["channelId"]
        for text, times in pieces:
            one = fragment(number, text)
            together = max(1, min(times, MB // len(one)))
            for done in range(0, times, together):
                self._peer.send(one * min(together, times - done))
        closed = {"type": "channelClose", "channelId": number}
        self._peer.send(packet(number, SUCCESS))
        self._peer.text(closed)


@pytest.fixture
def answering():
    made = Answering()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one piece", "pieces of 1 MB", "pieces of 4 bytes"])
@pytest.mark.parametrize("wait", ["iterate", "result"])
def test_time_of_answers(answering, how, wait):
    """Answers of any make take time by their length, iterated over or not."""

    def measure(size):
        pieces = {
            "one piece": [("x" * size, 1)],
            "pieces of 1 MB": [("x" * MB, size // MB)],
            "pieces of 4 bytes": [("abcd", size // 4)],
        }[how]
        began = time.process_time()
        prediction, sent = answering.ask(pieces)
        if wait == "iterate":
            assert size == sum(map(len, prediction))
        assert size == len(prediction.content)
        took = time.process_time() - began
        sent.join()
        return took

    linear(measure, MB // 10 if how == "pieces of 4 bytes" else 4 * MB)


@pytest.mark.slow
def test_time_of_frames_in_pieces(answering):
    """A frame that comes in many reads is put together in time by its length."""

    def measure(size):
        began = time.process_time()
        prediction, sent = answering.ask([("x" * size, 1)])
        assert size == len(prediction.content)
        took = time.process_time() - began
        sent.join()
        return took

    linear(measure, 8 * MB)


@pytest.mark.slow
def test_100_mb(answering):
    """An answer of 100 MB arrives whole, and its memory goes with it."""

    def once():
        prediction, sent = answering.ask([("0123456789" * (MB // 10), 100)])
        text = prediction.content
        assert 100 * MB == len(text)
        assert "0123456789" * 3 == text[:30]
        sent.join()

    once()
    gc.collect()
    before = rss()
    for _ in range(3):
        once()
    gc.collect()
    assert rss() - before < 40 * MB


@pytest.mark.slow
def test_a_million_fragments(answering):
    """A million pieces arrive in order, and their memory goes with them."""

    def once(count):
        pieces = [("a", count // 2), ("b", count // 2)]
        prediction, sent = answering.ask(pieces)
        text = "".join(prediction)
        assert "a" * (count // 2) + "b" * (count // 2) == text
        sent.join()

    once(10_000)
    gc.collect()
    before = rss()
    once(1_000_000)
    gc.collect()
    assert rss() - before < 100 * MB


@pytest.mark.slow
def test_a_prompt_of_10_mb(fake, client, model):
    """Long prompts take time by their length, and arrive whole."""
    fake.reply("answer", times=None, when="xxx")

    def measure(size):
        began = time.process_time()
        assert "answer" == model.respond("x" * size).content
        return time.process_time() - began

    linear(measure, MB * 5 // 2)
    [*_, last] = fake.parameters("predict")
    [message] = last["history"]["messages"]
    assert 10 * MB == len(message["content"][0]["text"])


class Swallowing:
    """A server that forgets what it reads, and a peer whose next frame is awaited."""

    def __init__(self):
        self.server = RawServer()
        self.client = LMStudioClient(self.server.host)
        self.model = self.client.llm.get("any")

    def close(self):
        self.client.close()
        self.server.stop()

    def swallow(self, size):
        """Read what a client sends, at least so much; what it then keeps in bytes."""
        peer, buffer, got = self.server.peer(), bytearray(1 << 16), 0
        while got < size:
            read = peer.socket.recv_into(buffer)
            assert read, "the client has ended"
            got += read
        return peer


@pytest.fixture
def swallowing():
    made = Swallowing()
    yield made
    made.close()


def kept():
    """Bytes that Python's allocator has given out."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
def test_memory_of_a_prompt(swallowing):
    """Once it is sent, nothing of a prompt is kept while it is answered."""
    with ThreadPoolExecutor(1) as pool:
        swallowed = pool.submit(swallowing.swallow, 10 * MB)
        tracemalloc.start()
        try:
            before = kept()
            prediction = swallowing.model.respond("x" * 10 * MB)
            swallowed.result()
            assert kept() - before < MB
        finally:
            tracemalloc.stop()
    assert not prediction.done()
    del prediction


class Body(dict):
    """What is sent for a call, with references that don't keep it."""


@pytest.mark.slow
def test_memory_of_texts(swallowing, monkeypatch):
    """Nor of the texts of calls, beside what the caller has of them."""
    texts, known, real = [letter * MB for letter in "abcdefghij"], [], calls.unstructure

    def unstructure(value):
        body = Body(real(value))
        known.append(weakref.ref(body))
        return body

    monkeypatch.setattr(calls, "unstructure", unstructure)
    with ThreadPoolExecutor(2) as pool:
        swallowed = pool.submit(swallowing.swallow, 10 * MB)
        tracemalloc.start()
        try:
            before = kept()
            embedder = swallowing.client.embedding.get("any")
            embedding = pool.submit(embedder.embed, texts)
            swallowed.result()
            assert kept() - before < 5 * MB  # the last may still be in hand
            assert 10 == len(known)
            assert sum(one() is not None for one in known) <= 1
        finally:
            tracemalloc.stop()
            swallowing.close()
        assert isinstance(embedding.exception(), LMStudioError)
