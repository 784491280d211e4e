"""What a server should not do can be scripted, and the client lives with each of it.

A typed error that keeps the text, or nothing at all, and the client works afterwards.
"""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lmstudio import (
    LMStudioAuthenticationError,
    LMStudioChannelClosedError,
    LMStudioClient,
    LMStudioConnectionError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    LMStudioUnsupportedError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.testing import (
    AWAIT_CANCEL,
    CLOSE,
    CRASH,
    DROP,
    EVICT,
    NEVER,
    SUCCESS,
    Await,
    Failure,
    FakeServer,
    Frame,
)
from lmstudio.testing.faults import Faults
from rawclient import prediction, query, raw_client
from scripts import is_cancel

#: Seconds until the client gives up a server that says nothing.
PATIENCE = 0.2
HUGE = 10_000_000


def works(client):
    """Whether a prediction can be made, and gives what it should."""
    return "still here" == client.llm.get("any").respond("still here").content


def packet(number, **message):
    return {"type": "channelSend", "channelId": number, "message": message}


#: What follows "Once " and ends the prediction -> the error, and words of it.
ENDS = {
    "close before success": ([CLOSE], LMStudioChannelClosedError, "without a result"),
    "duplicate close": ([CLOSE, CLOSE], LMStudioChannelClosedError, "result"),
    "close, then the success": (
        [CLOSE, SUCCESS],
        LMStudioChannelClosedError,
        "without a result",
    ),
    "garbage": ([Frame("{garbage")], LMStudioWebsocketError, "no JSON"),
    "a binary frame": ([Frame(b"{}")], LMStudioWebsocketError, "binary"),
    "a broken connection": ([DROP], LMStudioWebsocketError, "connection"),
    "a failure": ([Failure("out of memory")], LMStudioPredictionError, "out of memory"),
    "silence": ([NEVER], LMStudioTimeoutError, "1 fragment so far"),
    "a fragment of a wrong form": (
        [{"type": "fragment", "fragment": {"content": 1}}],
        LMStudioProtocolError,
        "predict",
    ),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_prediction(fake, client, what):
    """The error says what came, the text before it is kept, the client goes on."""
    steps, kind, words = ENDS[what]
    fake.reply(["Once ", *steps])
    limit = PATIENCE if what == "silence" else None

    error = client.llm.get("any").respond("x", idle_timeout=limit).exception(10)

    assert isinstance(error, kind)
    assert words in str(error)
    assert "Once " == error.partial
    assert works(client)


def test_a_crash_ends_it(fake, client):
    """The model is gone; what others asked of it fails as well."""
    fake.reply(["Once ", CRASH], when="first")
    fake.reply(["Upon ", gate := Await(), AWAIT_CANCEL], when="second")
    second = client.llm.get("any").respond("second")
    assert gate.reached.wait(5)
    first = client.llm.get("any").respond("first").exception(10)
    error = second.exception(10)

    assert [LMStudioModelCrashedError] * 2 == [type(first), type(error)]
    assert ["Once ", "Upon "] == [first.partial, error.partial]
    fake.load("any")
    assert works(client)


#: What comes between two pieces of an answer, and changes nothing.
HARMLESS = {
    "an unknown message": Frame({"type": "fromTheFuture", "channelId": 1}),
    "an unknown packet": {"type": "fromTheFuture"},
    "no message at all": Frame("[1, 2]"),
    "a wrong id": Frame(lambda number: packet(number + 1, type="success")),
    "a close of another": Frame(
        lambda number: {"type": "channelClose", "channelId": number + 1}
    ),
    "an id that is none": Frame(packet("x", type="success")),
    "the answer to no call": Frame({"type": "rpcResult", "callId": 4711}),
    "a huge unknown message": Frame({"type": "fromTheFuture", "x": "x" * HUGE}),
    "a warning": Frame({"type": "communicationWarning", "warning": "a word"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HARMLESS)
def test_what_harms_nobody(fake, client, what):
    """It is passed over."""
    fake.reply(["Once ", HARMLESS[what], "upon"])
    assert "Once upon" == client.llm.get("any").respond("x").content
    assert works(client)


#: What comes after the text, when all has been said.
LATE = {
    "missing close": [SUCCESS, NEVER],
    "duplicate close": [SUCCESS, CLOSE, CLOSE],
    "duplicate success": [SUCCESS, SUCCESS],
    "a packet after the close": [
        SUCCESS,
        CLOSE,
        Frame(lambda number: packet(number, type="success")),
    ],
}


@pytest.mark.parametrize("what", LATE)
def test_what_comes_too_late(fake, client, what):
    """The success is enough, and what follows is lost."""
    fake.reply(["Once upon", *LATE[what]])
    result = client.llm.get("any").respond("x").result(10)
    assert "Once upon" == result.content
    assert "eosFound" == result.stats.stop_reason
    assert works(client)


@pytest.mark.slow
def test_a_huge_fragment(fake, client):
    """A text of many megabytes in one frame arrives whole."""
    fake.reply("x" * HUGE)
    assert HUGE == len(client.llm.get("any").respond("x").content)
    assert works(client)


def test_the_success_is_the_servers_own(fake):
    """By `SUCCESS` the same packet travels as without it, and one close after it."""
    with raw_client(fake.url) as client:
        fake.reply(["a", "b"])
        *plain, end = client.packets(client.open("predict", prediction("x")))
        fake.reply(["a", "b", SUCCESS])
        *marked, last = client.packets(client.open("predict", prediction("x")))
        client.start("listLoaded")
        following = client.receive()

    used = ("lastUsedTime", "modelInfo")
    for packets in (plain, marked):
        packets[-1][used[1]].pop(used[0], None)
    assert plain == marked
    assert ["channelClose", "channelClose"] == [end["type"], last["type"]]
    assert "rpcResult" == following["type"]  # and no second close


@pytest.mark.parametrize("steps", [[EVICT], [AWAIT_CANCEL]])
def test_a_model_that_was_evicted(fake, client, steps):
    """The text ends there, and says why; then the model is not found."""
    fake.reply(["Once ", *steps, "upon"])
    handle = client.llm.get("any")
    prediction = handle.respond("x")
    assert "Once " == next(iter(prediction))
    if steps == [AWAIT_CANCEL]:
        fake.unload("any")
    result = prediction.result(10)

    assert ("Once ", "modelUnloaded") == (result.content, result.stats.stop_reason)
    assert [] == fake.loaded()
    with pytest.raises(LMStudioModelNotFoundError):
        handle.respond("x").result()
    fake.load("any")
    assert works(client)


def test_unload():
    """Models of both kinds; a name that nothing has is an error at once."""
    with FakeServer(["any", "embed"], loaded=["any"]) as fake:
        fake.load("embed", identifier="mine")
        fake.unload("mine")
        assert ["any"] == fake.loaded()
        with pytest.raises(LMStudioValueError, match="model is called 'mine'"):
            fake.unload("mine")


def test_a_refused_token(fake):
    """Each connection is refused with these words, until the server thinks better."""
    fake.fail("authenticate", "unknown token", times=2)
    with LMStudioClient(fake.host) as client:
        for _ in range(2):
            with pytest.raises(LMStudioAuthenticationError, match="unknown token"):
                client.llm.list_loaded()
        assert works(client)
    refused = [seen for seen in fake.requests if "authVersion" in seen.message]
    assert ["llm"] * 3 == [seen.namespace for seen in refused]


def test_refused_for_ever(fake):
    """With ``times=None`` nobody is let in, on no namespace."""
    fake.fail("authenticate", "go away", times=None)
    for _ in range(3):
        with LMStudioClient(fake.host) as client:
            for ask in (client.llm.list_loaded, client.list_downloaded_models):
                with pytest.raises(LMStudioAuthenticationError, match="go away"):
                    ask()


#: In front of the first message -> what the client makes of it.
DOORS = {
    "a broken connection": (DROP, LMStudioWebsocketError),
    "garbage": (Frame("{garbage"), LMStudioWebsocketError),
    "a frame of another kind": (Frame(b"\x00"), LMStudioWebsocketError),
    "an answer that is none": (Frame("[]"), LMStudioAuthenticationError),
}


@pytest.mark.parametrize("what", DOORS)
def test_a_handshake_that_goes_wrong(fake, what):
    """The error is that of a connection, and the next one is a new try."""
    step, kind = DOORS[what]
    fake.before("authenticate", step, times=2)
    with LMStudioClient(fake.host) as client:
        with pytest.raises(kind):
            client.llm.list_loaded()
        with pytest.raises(kind):
            client.llm.list_loaded()
        assert works(client)


def test_a_gate_in_front_of_the_handshake(fake):
    """It is held, and goes on as always; the log has the message once."""
    fake.before("authenticate", gate := Await())
    with LMStudioClient(fake.host) as client:
        gate.open()
        assert works(client)
    seen = [seen for seen in fake.requests if "authVersion" in seen.message]
    assert ["llm"] == [seen.namespace for seen in seen]
    assert gate.reached.is_set()


def test_silence_before_the_handshake(fake):
    """The server can be stopped, and the client goes away, while it says nothing."""
    fake.before("authenticate", NEVER, times=2)
    with connect(f"{fake.url}/llm") as socket:
        socket.send("{ no json")
    seen = fake.wait_for(lambda seen: seen.message is None)
    assert "llm" == seen.namespace
    with connect(f"{fake.url}/llm") as socket:
        socket.send("{}")
        fake.close()
        with pytest.raises(ConnectionClosed):
            socket.recv(5)


@pytest.mark.slow
def test_silence_after_the_handshake(fake):
    """No call and no prediction gets an answer; each gives up, and all is well then."""
    fake.before(None, NEVER, times=2)
    with LMStudioClient(fake.host, idle_timeout=PATIENCE) as client:
        silence(fake, client)


def silence(fake, client):
    model = client.llm.get("any")
    with pytest.raises(LMStudioTimeoutError):
        model.count_tokens("x")
    prediction = model.respond("x", idle_timeout=PATIENCE)
    assert isinstance(prediction.exception(10), LMStudioTimeoutError)
    assert fake.wait_for(is_cancel)
    assert works(client)


def test_a_silence_that_ends(fake, client):
    """A gate for ever holds everything, until it is opened."""
    fake.before(None, gate := Await(), times=None)
    prediction = client.llm.get("any").respond("x")
    assert gate.reached.wait(5)
    assert not prediction.done()
    gate.open()
    assert "x" == prediction.content
    assert works(client)


def test_what_is_for_ever_comes_last(fake, client):
    """Steps of so many calls go first, those of the endpoint before those of any."""
    model = client.llm.get("any")
    fake.fail("countTokens", "always", times=None)
    fake.fail(None, "any")
    fake.fail("countTokens", "once")
    said = []
    for _ in range(4):
        with pytest.raises(LMStudioServerError) as caught:
            model.count_tokens("x")
        said.append(caught.value.title)
    assert ["once", "any", "always", "always"] == said


def test_frames_in_front_of_a_call(fake):
    """They carry the number of the call, and come before its answer."""
    fake.before("countTokens", [Frame(lambda number: {"number": number}), Frame("7")])
    with raw_client(fake.url) as client:
        number = client.start(
            "countTokens", {"specifier": query(), "inputString": "a b"}
        )
        assert {"number": number} == client.receive()
        assert 7 == client.receive()
        assert {"tokenCount": 2} == client.receive()["result"]


def test_a_load_that_goes_wrong(fake, client):
    """Failures, closes and breaks of the connection while a model is loaded."""
    for step, kind in {
        Failure("out of memory"): LMStudioModelLoadError,
        CLOSE: LMStudioChannelClosedError,
        DROP: LMStudioWebsocketError,
    }.items():
        fake.on_load([0.5, step])
        with pytest.raises(kind):
            client.llm.load("any", progress=False)
    assert works(client)


def test_steps_without_a_connection(fake):
    """Where a test loads by itself there is nobody to send frames to."""
    fake.on_load([Frame("7"), CLOSE, 1.0])
    assert "any:2" == fake.load("any")


def test_no_server(fake, client):
    """After its end it is refused; the client works with one that comes again."""
    assert works(client)
    fake.close()
    with pytest.raises(LMStudioConnectionError):
        client.llm.list_loaded()
    with FakeServer(["any"], loaded=["any"], port=fake.port):
        assert works(client)


def test_an_older_server():
    """What it does not know it warns of; the call says so, and all else works."""
    with (
        FakeServer(
            ["any"], loaded=["any"], extensions=(), lacks=["countTokens", "predict"]
        ) as old,
        LMStudioClient(old.host) as client,
    ):
        model = client.llm.get("any")
        with pytest.raises(LMStudioUnsupportedError, match="countTokens"):
            model.count_tokens("x")
        error = model.respond("x").exception(10)
        assert isinstance(error, LMStudioUnsupportedError)
        assert ["any"] == [handle.identifier for handle in client.llm.list_loaded()]
        assert ["countTokens", "predict"] == [
            seen.endpoint
            for seen in old.requests
            if seen.endpoint in {"countTokens", "predict"}
        ]
        with connect(f"{old.url}/llm") as socket:
            for strange in ("{", "[]", b"\xff"):
                socket.send(strange)


def test_wrong_arguments(fake):
    """They are refused where they stand, and say what would be right."""
    wrong = {
        "there is no endpoint 'listLoded'; did you mean 'listLoaded'": (
            lambda: fake.before("listLoded", NEVER)
        ),
        "there is no endpoint 'login'": lambda: fake.fail("login", "no"),
        "named by a text such as 'predict', not 5": lambda: fake.fail(5, "no"),
        "a step of a call is .* but not 'text'": lambda: fake.before("predict", "text"),
        "a step of a call is .* but not {'type'": (
            lambda: fake.before("predict", [NEVER, {"type": "x"}])
        ),
        "times must be a whole number above 0": (
            lambda: fake.before("predict", NEVER, times=0)
        ),
        "times must be .* or None, not True": (
            lambda: fake.before("predict", NEVER, times=True)
        ),
        "a step of an answer is .* but not b'x'": lambda: fake.reply(b"x"),
        "a step of an answer is .* but not None": lambda: fake.reply(["a", None]),
        "a step of an answer is .* but not 0.5": lambda: fake.reply(["a", 0.5]),
        "a step of a load is .* but not 'a'": lambda: fake.on_load(["a"]),
        "a step of a load is .* but not True": lambda: fake.on_load([True]),
        "a Frame takes a text, bytes, a dict.* not 5": lambda: Frame(5),
        "match must be a text, a pattern or a function, not 5": (
            lambda: fake.reply_when(5, "a")
        ),
        "lacks takes several names, not 'predict'": lambda: Faults("predict"),
        "there is no endpoint 'authenticate'": lambda: Faults(["authenticate"]),
    }
    for words, call in wrong.items():
        with pytest.raises(LMStudioValueError, match=words):
            call()
    assert "Frame('x')" == repr(Frame("x"))


def test_a_function_that_returns_no_steps(fake, client):
    """It fails the prediction and the test."""
    fake.reply_with(lambda asked: 5)
    error = client.llm.get("any").respond("x").exception(10)
    assert "The scripted answer failed" in str(error)
    assert ["LMStudioTypeError" in text for text in fake.unmatched] == [True]
    assert issubclass(LMStudioTypeError, TypeError)
    fake.forget_unmatched()
