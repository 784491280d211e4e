"""What a fragment costs on its way to the user, counted in operations.

Seconds differ from machine to machine, and a slow change hides in them. Counts don't:
one more call per fragment fails a test here. Who adds one on purpose measures it with
``make bench`` and changes the count.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import json
import logging
import socket
import sys
import tracemalloc

import pytest

from lmstudio.address import Address
from lmstudio.arrivals import Watch
from lmstudio.connection import Connection
from lmstudio.mailbox import ENOUGH, Mailbox
from lmstudio.prediction import Prediction
from lmstudio.result import fragment_from_wire
from lmstudio.transport import Transport, _WebSocket
from lmstudio.worker import Worker
from raw_server import TEXT, frame

#: Fragments of the shorter stream; the longer one has twice as many. The difference
#: is what fragments cost, without what starts and ends. One read holds either.
COUNT = 150
ADDRESS = Address("127.0.0.1", 1)
#: Calls that make fragments of what the reader left.
MADE = {
    "fragment_from_wire": COUNT,
    "str.__new__": COUNT,
    "dict.get": 5 * COUNT,
    "list.append": COUNT,
}
#: Calls that a read costs beside what its fragments cost. It is 29 where it was made.
PER_READ = 30
#: Calls that an rpc costs the thread that makes it. It is 85 where it was made.
PER_CALL = 88
#: Instructions of the interpreter that a fragment costs the reader, and who iterates: a
#: text that is made or a dict that is copied for each is no call, and adds some. They
#: are counted where they were made, with one more for what comes once a read. Newer
#: versions change them while they run.
STEPS = {
    (3, 10): (112, 106),
    (3, 11): (112, 120),
}


class Scripted(socket.socket):
    """A socket that takes all and brings what the test says, then its end.

    Each chunk is what has arrived when it is asked; it comes in one read if that asks
    for enough, or if `largest` says so.
    """

    largest = 0

    def __init__(self, chunks):
        super().__init__()
        self.chunks, self.reads = collections.deque(chunks), 0

    def recv(self, size):
        self.reads += 1
        if not self.chunks:
            return b""
        data, size = self.chunks.popleft(), self.largest or size
        if rest := data[size:]:
            self.chunks.appendleft(rest)
        return data[:size]

    def send(self, data, flags=0):
        return len(data)


class Stub:
    """Stands for the channel and the session: what the hot path does not use."""

    known_address = ADDRESS.url

    def __init__(self):
        self.worker = Worker("lmstudio-never-started")

    def open(self, deadline=None, silence=None):
        pass

    abandon = cancel = abandon_soon = open


class Counting:
    """A lock or condition that counts how often it is taken."""

    def __init__(self, lock):
        self.lock, self.taken = lock, 0

    def __enter__(self):
        self.taken += 1
        return self.lock.__enter__()

    def __exit__(self, *exc):
        return self.lock.__exit__(*exc)

    def __getattr__(self, name):
        return getattr(self.lock, name)


def packet(body, channel=1):
    message = {"type": "channelSend", "channelId": channel, "message": body}
    return frame(TEXT, json.dumps(message).encode())


def fragment(number, channel=1):
    fields = {
        "content": f" word{number}",
        "tokensCount": 1,
        "containsDrafted": False,
        "reasoningType": "none",
        "isStructural": False,
    }
    return packet({"type": "fragment", "fragment": fields}, channel)


def success(channel=1):
    return packet({"type": "success", "stats": {}, "modelInfo": {}}, channel)


def whole(count):
    """All of a prediction in one read."""
    return [b"".join(fragment(n) for n in range(count)) + success()]


@contextlib.contextmanager
def linked(chunks, channels=1):
    """A connection whose reader has not begun, and predictions that wait on it."""
    ws = _WebSocket(skip_utf8_validation=True, enable_multithread=False)
    ws.sock = sock = Scripted(chunks)
    session = Stub()
    connection = Connection(Transport(ws), ADDRESS, "llm", session.worker)

    def make(inbox):
        connection.open("channel", "predict", None, inbox)
        return session

    predictions = [Prediction(session, make, Watch()) for _ in range(channels)]
    with sock:
        yield connection, predictions


def calls(work):
    """How often each function runs while `work` does, of Python and of C."""
    counts = collections.Counter()

    def note(at, event, argument):
        if event == "call":
            counts[at.f_code.co_name] += 1
        elif event == "c_call":
            counts[argument.__qualname__] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counts


def steps(work):
    """How many instructions of the interpreter `work` takes."""
    count, before = 0, sys.gettrace()

    def note(at, event, argument):
        nonlocal count
        at.f_trace_opcodes, at.f_trace_lines = True, False
        count += event == "opcode"
        return note

    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def locked(counts):
    """How often a lock of any kind was held, by what `calls` counted.

    Who leaves the block of a lock calls this in all versions of Python.
    """
    return sum(n for name, n in counts.items() if name.endswith("lock.__exit__"))


def read(connection, prediction=None):
    """All that the reader's thread does, in this one."""
    connection._read()


def cost(make, work, before=lambda connection, prediction: None):
    """What `COUNT` more fragments cost: calls by the name of the function."""
    counts = []
    for count in (COUNT, 2 * COUNT):
        with linked(make(count)) as (connection, (prediction,)):
            before(connection, prediction)
            counts.append(calls(functools.partial(work, connection, prediction)))
    more = counts[1] - counts[0]
    return {name: n for name, n in more.items() if n > COUNT / 10}


def consume(prediction):
    for _ in prediction:
        pass


# --- the reader


def test_calls_of_the_reader():
    """A fragment costs the reader one cut and one handing over."""
    expected = {"list.append": 2 * COUNT, "dict.get": COUNT}

    assert expected == cost(whole, read)


def test_one_read_brings_all_that_it_holds():
    """The socket is asked once for everything that is there, and once for the end."""
    chunks = whole(2 * COUNT)
    assert 50_000 < len(chunks[0]) < 65_536
    with linked(chunks) as (connection, (prediction,)):
        read(connection)

        assert 2 == connection._transport._sock.reads
        assert 2 * COUNT == len(list(prediction))


def test_a_queue_gets_one_batch_for_a_read(monkeypatch):
    """A read that brings fragments of three channels is three puts."""
    chunk = b"".join(fragment(n, 1 + n % 3) for n in range(COUNT))
    puts = []
    real = Mailbox.put
    monkeypatch.setattr(
        Mailbox, "put", lambda box, batch: puts.append(len(batch)) or real(box, batch)
    )
    with linked([chunk, chunk], channels=3) as (connection, _):
        read(connection)

    each = [len(range(first, COUNT, 3)) for first in range(3)]
    assert [*each, *each] == puts[:6]
    assert 9 == len(puts)  # and one end for each


@pytest.mark.parametrize("reads", [1, 8])
def test_locks_of_the_reader(reads):
    """The state is locked once for each read, and once at the end."""
    chunk = b"".join(fragment(n) for n in range(COUNT))
    with linked([chunk] * reads) as (connection, (prediction,)):
        connection._state = state = Counting(connection._state)
        prediction._settling = settling = Counting(prediction._settling)
        turns = prediction._arrivals._turns
        turns.news = news = Counting(turns.news)
        read(connection)

        assert reads + 1 == state.taken
        assert 1 == settling.taken  # the end was lost
        assert 0 == news.taken


def single(count):
    """A prediction that comes in a read for each fragment."""
    return [*(fragment(n) for n in range(count)), success()]


def test_calls_for_each_read():
    """Reads that bring one fragment each cost a bounded number of calls."""
    counts = cost(single, read)

    assert COUNT == counts["_route"] == counts["receive"] == counts["_more"]
    assert sum(counts.values()) <= PER_READ * COUNT, counts
    assert COUNT == locked(counts)  # whichever it is: that of the state


@pytest.mark.skipif(
    sys.version_info[:2] not in STEPS, reason="not counted in this version of Python"
)
@pytest.mark.parametrize("whose", [0, 1], ids=["reader", "who iterates"])
def test_steps_of_a_fragment(whose):
    """Nothing is done for a fragment that was not counted, call or not."""
    counts = []
    for count in (COUNT, 2 * COUNT):
        with linked(whole(count)) as (connection, (prediction,)):
            works = (
                functools.partial(read, connection),
                functools.partial(consume, prediction),
            )
            done = [steps(work) for work in works[: whose + 1]]
            counts.append(done[-1])
    each = (counts[1] - counts[0]) / COUNT
    assert each <= STEPS[sys.version_info[:2]][whose]


# --- who waits


def test_calls_of_who_iterates():
    """A fragment is made by one function and handed out by one generator."""
    assert {**MADE, "__iter__": COUNT} == cost(whole, lambda _, p: consume(p), read)


def test_calls_of_who_waits_for_the_result():
    """Who wants the whole only makes the fragments."""
    assert MADE == cost(whole, lambda _, prediction: prediction.result(), read)


def test_locks_of_who_iterates():
    """Who iterates takes no lock for what has arrived."""
    with linked(whole(COUNT)) as (connection, (prediction,)):
        read(connection)
        prediction._settling = settling = Counting(prediction._settling)
        turns = prediction._arrivals._turns
        turns.news = news = Counting(turns.news)
        consume(prediction)

        assert (0, 0) == (settling.taken, news.taken)


def test_batches_that_wait_are_taken_together():
    """What came in many reads costs who comes late as much as one read."""
    chunks = [fragment(n) for n in range(COUNT)]
    with linked([*chunks, success()]) as (connection, (prediction,)):
        read(connection)
        counts = calls(lambda: consume(prediction))

    assert COUNT < ENOUGH
    assert 1 == counts["move"] == counts["_take"]


def taken_one_by_one(prediction, count):
    """Deliver fragments one by one to who iterates; yields after each."""
    texts = iter(prediction)
    for number in range(count):
        fields = {"content": f" word{number}"}
        prediction._inbox.put([{"type": "fragment", "fragment": fields}])
        next(texts)
        yield


def test_locks_for_each_batch():
    """Who iterates holds no lock for a batch, whichever it is."""
    with linked([]) as (_, (prediction,)):
        counts = calls(lambda: [*taken_one_by_one(prediction, COUNT)])

    assert COUNT <= counts["put"]
    assert locked(counts) < COUNT / 10


def test_one_more_costs_the_same_whatever_is_there():
    """Nothing of the length of the text is made for a batch."""
    there, more = 4000, []
    with linked([]) as (_, (prediction,)):
        one_by_one = taken_one_by_one(prediction, there + 10)
        for _ in range(there):
            next(one_by_one)
        tracemalloc.start()
        try:
            for _ in range(10):
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                next(one_by_one)
                more.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()

    assert min(more) < there  # bytes; a list grows now and then


def test_nothing_slow_is_called_for_a_fragment():
    """No log, converter or schema is asked for any fragment of a prediction."""
    files = collections.Counter()

    def note(at, event, argument):
        files[at.f_code.co_filename.replace("\\", "/")] += event == "call"

    with linked(whole(COUNT)) as (connection, (prediction,)):
        sys.setprofile(note)
        try:
            read(connection)
            consume(prediction)
        finally:
            sys.setprofile(None)
    slow = {
        name: n
        for name, n in files.items()
        if any(part in name for part in ("/cattrs/", "/attr/", "/jsonschema/"))
    }
    logged = sum(n for name, n in files.items() if "/logging/" in name)

    assert {} == slow
    assert logged < 10
    assert not logging.getLogger("lmstudio").isEnabledFor(logging.DEBUG)


# --- memory


def memory(count):
    """Bytes of a stream that waits, of one that was consumed, and the most between."""
    with linked(whole(count)) as (connection, (prediction,)):
        connection._transport._sock.largest = 1 << 20  # one read: no rest is kept
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            read(connection)
            waits = tracemalloc.get_traced_memory()[0] - before
            consume(prediction)
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return waits, kept - before, most - before


def sizes(*parsed):
    """Bytes of dicts and their texts; their names are the same for all of a read."""
    for each in parsed:
        yield sys.getsizeof(each)
        yield from (sys.getsizeof(v) for v in each.values() if isinstance(v, str))


def test_memory_of_a_fragment():
    """A consumed fragment keeps its own bytes, and one that waits what was parsed."""
    count = 500
    memory(count)  # what is made once
    first, second = memory(count), memory(2 * count)
    waits, kept, most = ((b - a) / count for a, b in zip(first, second, strict=True))
    text = " word1000"
    alone = sys.getsizeof(fragment_from_wire({"content": text}))
    packet = json.loads(fragment(1000)[4:])["message"]
    whole = sum(sizes(packet, packet["fragment"]))

    # Room for headers, rounding, and places in lists, which grow by an eighth more than
    # is needed. One more object does not fit.
    assert alone <= kept <= alone + 60
    assert whole <= waits <= whole + 40
    # A read's frames, all of them as one text, and messages around packets.
    assert most <= waits + 800


# --- one call


def test_calls_of_a_call(model):
    """One call costs who makes it a bounded number of calls, and no import."""
    model.count_tokens("warm")
    counts = calls(lambda: [model.count_tokens("text") for _ in range(COUNT)])

    assert COUNT == counts["answer"] == counts["socket.send"]
    assert 0 == counts["parent"]  # of a relative import
    assert sum(counts.values()) <= PER_CALL * COUNT, counts
