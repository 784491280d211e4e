"""The server's half checks what clients send, and answers each request exactly once."""

from __future__ import annotations

import pytest

from lmstudio.protocol.server import (
    Authenticate,
    Call,
    Channel,
    Complaint,
    Packet,
    ServerProtocol,
    is_message,
)
from lmstudio.wire.common import SpecifiedText
from lmstudio.wire.endpoints import ENDPOINTS
from lmstudio.wire.repository import SelectOption

AUTH = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "key"}
ERROR = {"title": "no", "rootTitle": "no"}
TOKENIZE = {"specifier": {"type": "query", "query": {}}, "inputString": "hi"}
PREDICT = {
    "modelSpecifier": {"type": "query", "query": {}},
    "history": {"messages": []},
    "predictionConfigStack": {"layers": []},
}


@pytest.fixture
def protocol():
    """The half of an authenticated socket of the llm namespace."""
    protocol = ServerProtocol("llm")
    protocol.accept()
    return protocol


def call(number, endpoint="listLoaded", **fields):
    return {"type": "rpcCall", "endpoint": endpoint, "callId": number, **fields}


def create(number, endpoint="predict", parameter=PREDICT):
    return {
        "type": "channelCreate",
        "endpoint": endpoint,
        "channelId": number,
        "creationParameter": parameter,
    }


def packet(number, message):
    return {"type": "channelSend", "channelId": number, "message": message}


def warning(kind, text):
    return {"type": "communicationWarning", "warning": text, "kind": kind}


def test_the_first_packet_says_who_the_client_is():
    """A valid auth packet is an event; the reply is the server's choice."""
    protocol = ServerProtocol("llm")
    assert (Authenticate("me", "key"), []) == protocol.receive(AUTH)
    assert not protocol.is_authenticated
    assert {"success": False, "error": "no"} == protocol.refuse("no")
    assert not protocol.is_authenticated
    assert {"success": True} == protocol.accept()
    assert protocol.is_authenticated


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "hello",
        call(1),
        {**AUTH, "authVersion": 2},
        {**AUTH, "authVersion": True},
        {**AUTH, "clientIdentifier": 1},
        {**AUTH, "clientPasskey": None},
        {**AUTH, "clientIdentifier": "x" * 257},
    ],
)
def test_anything_else_is_ignored_before_authentication(message):
    """What is no auth packet gets no reply: the server goes on waiting."""
    assert (None, []) == ServerProtocol("llm").receive(message)


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        [],
        {},
        AUTH,
        {"type": 1},
        {"type": "nonsense"},
        {"type": "rpcCall"},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": "1"},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": True},
        {"type": "rpcCall", "endpoint": 5, "callId": 1},
        {"type": "channelCreate", "endpoint": "predict"},
        {"type": "channelSend", "message": {}},
        {"type": "channelAck", "channelId": 1, "ackId": 1},
        {"type": "signalSubscribe", "endpoint": "x"},
        {"type": "signalUnsubscribe"},
        {"type": "communicationWarning", "warning": 1},
    ],
)
def test_what_is_no_message_is_dropped(protocol, message):
    """A frame of no known shape gets no reply, and not a warning either."""
    assert (None, []) == protocol.receive(message)


def test_a_call_is_answered_once(protocol):
    """The first reply of a call is a message, a second one is nothing."""
    row = ENDPOINTS["llm", "listLoaded"]
    assert (Call(1, row, None), []) == protocol.receive(call(1))
    answer = {"type": "rpcResult", "callId": 1, "result": []}
    assert answer == protocol.result(1, [])
    assert protocol.result(1, []) is None
    assert protocol.error(1, ERROR) is None
    protocol.receive(call(1))
    assert {"type": "rpcError", "callId": 1, "error": ERROR} == protocol.error(1, ERROR)


def test_a_void_result_is_left_out(protocol):
    """A call that returns nothing gets a reply without the property."""
    protocol.receive(call(1))
    assert {"type": "rpcResult", "callId": 1} == protocol.result(1)


def test_a_parameter_is_structured(protocol):
    """A parameter arrives as its class; floats without a fraction are integers."""
    event, replies = protocol.receive(call(2, "tokenize", parameter=TOKENIZE))
    assert [] == replies
    assert isinstance(event.parameter, SpecifiedText)
    assert "hi" == event.parameter.input_string


def test_a_parameter_may_be_left_out_where_clients_do(protocol):
    """Where its row says so its absence is none, and no fault."""
    for namespace, kind, name in (
        ("diagnostics", "channel", "streamLogs"),
        ("runtime", "rpc", "surveyHardware"),
    ):
        protocol = ServerProtocol(namespace)
        protocol.accept()
        message = call(1, name)
        if kind == "channel":
            message = create(1, name)
            del message["creationParameter"]
        event, replies = protocol.receive(message)
        assert [] == replies
        assert (1, name, None) == (event.number, event.endpoint.name, event.parameter)


@pytest.mark.parametrize("number", [3.0, 3])
def test_a_number_may_be_written_as_a_float(protocol, number):
    """A float without a fraction is the integer; one with a fraction is no number."""
    event, replies = protocol.receive(call(number))
    assert ((3, int), []) == ((event.number, type(event.number)), replies)
    assert (None, []) == protocol.receive(call(3.5))


def test_calls_and_channels_have_numbers_of_their_own(protocol):
    """A call and a channel of one number are two things."""
    protocol.receive(call(1))
    event, _ = protocol.receive(create(1))
    assert isinstance(event, Channel)
    assert {"type": "rpcResult", "callId": 1, "result": 5} == protocol.result(1, 5)
    assert {"type": "channelClose", "channelId": 1} == protocol.close(1)


@pytest.mark.parametrize("end", ["close", "fail"])
def test_nothing_follows_the_end_of_a_channel(protocol, end):
    """After its end a channel sends nothing, not even a second end."""
    protocol.receive(create(4))
    assert packet(4, {"type": "x"}) == protocol.send(4, {"type": "x"})
    made = protocol.close(4) if end == "close" else protocol.fail(4, ERROR)
    assert made is not None
    assert protocol.send(4, {"type": "x"}) is None
    assert protocol.close(4) is None
    assert protocol.fail(4, ERROR) is None


def test_a_packet_of_the_client_is_an_event(protocol):
    """A packet that the endpoint knows reaches its channel."""
    protocol.receive(create(4))
    event, replies = protocol.receive(packet(4, {"type": "cancel"}))
    assert (Packet(4, {"type": "cancel"}), []) == (event, replies)


def test_the_shape_of_a_packet():
    """A packet with fields is read as its class; a wrong one gets a warning."""
    protocol = ServerProtocol("repository")
    protocol.accept()
    target = {"type": "artifact", "owner": "a", "name": "b"}
    protocol.receive(create(4, "createDownloadPlan", {"target": target}))
    message = {
        "type": "setSelectedDownloadOptionIndex",
        "nodeIndex": 0,
        "selectedDownloadOptionIndex": None,
        "requestedPlanVersion": 3,
    }
    value = SelectOption(
        node_index=0, selected_download_option_index=None, requested_plan_version=3
    )
    assert (Packet(4, message, value), []) == protocol.receive(packet(4, message))
    del message["selectedDownloadOptionIndex"]
    event, (reply,) = protocol.receive(packet(4, message))
    assert (None, "channelMessageTypeError") == (event, reply["kind"])
    assert "endpointName = createDownloadPlan" in reply["warning"]


def test_a_cancel_may_cross_the_end(protocol):
    """A packet for a channel that has just ended is dropped without a warning."""
    protocol.receive(create(4))
    protocol.close(4)
    assert (None, []) == protocol.receive(packet(4, {"type": "cancel"}))


def test_a_number_may_be_used_again(protocol):
    """A channel that has ended gives its number free."""
    protocol.receive(create(4))
    protocol.close(4)
    event, replies = protocol.receive(create(4))
    assert isinstance(event, Channel)
    assert [] == replies


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            packet(9, {"type": "cancel"}),
            "channelUnknown",
            "No such channel is open, channelId = 9",
        ),
        (
            packet(4, {"type": "stop"}),
            "channelMessageTypeError",
            "A packet does not fit, endpointName = predict: {'type': 'stop'}",
        ),
        (
            packet(4, None),
            "channelMessageTypeError",
            "A packet does not fit, endpointName = predict: None",
        ),
        (
            create(4),
            "channelAlreadyOpen",
            "A channel with this number is still open, channelId = 4",
        ),
        (
            call(1),
            "unknown",
            "A call with this number is still running, callId = 1",
        ),
        (
            {"type": "signalSubscribe", "endpoint": "x", "subscribeId": 1},
            "signalEndpointUnknown",
            "No such signal in namespace llm, endpoint = x",
        ),
        (
            {"type": "writableSignalSubscribe", "endpoint": "x", "subscribeId": 1},
            "writableSignalEndpointUnknown",
            "No such signal in namespace llm, endpoint = x",
        ),
        (
            {"type": "signalUnsubscribe", "subscribeId": 1},
            "signalUnknown",
            "No such subscription, subscribeId = 1",
        ),
        (
            {"type": "writableSignalUpdate", "subscribeId": 1, "patches": []},
            "writableSignalUnknown",
            "No such subscription, subscribeId = 1",
        ),
    ],
)
def test_a_mismatch_gets_a_warning(protocol, message, kind, text):
    """What does not fit what is open is dropped, with a warning that says why."""
    protocol.receive(call(1))
    protocol.receive(create(4))
    assert (None, [warning(kind, text)]) == protocol.receive(message)
    assert protocol.close(4) is not None  # it goes on


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            call(1, "nonsense"),
            "rpcEndpointUnknown",
            "No such call in namespace llm, endpoint = nonsense",
        ),
        (
            call(1, "predict", parameter=PREDICT),
            "rpcEndpointUnknown",
            "No such call in namespace llm, endpoint = predict",
        ),
        (
            call(1, "tokenize", parameter={**TOKENIZE, "inputString": 5}),
            "rpcParameterTypeError",
            "The parameter does not fit, endpointName = tokenize:"
            " expected str, not 5 at $.inputString",
        ),
        (
            call(1, "tokenize"),
            "rpcParameterTypeError",
            "The parameter does not fit, endpointName = tokenize: expected a parameter",
        ),
        (
            call(1, "listLoaded", parameter=None),
            "rpcParameterTypeError",
            "The parameter does not fit, endpointName = listLoaded:"
            " expected no parameter",
        ),
    ],
)
def test_a_call_that_cannot_be_read_fails(protocol, message, kind, text):
    """It gets the warning that official servers send, and an error for the caller."""
    error = {"title": text, "rootTitle": text}
    failed = {"type": "rpcError", "callId": 1, "error": error}
    assert (None, [warning(kind, text), failed]) == protocol.receive(message)
    assert protocol.result(1, 5) is None


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            create(1, "nonsense"),
            "channelEndpointUnknown",
            "No such channel in namespace llm, endpoint = nonsense",
        ),
        (
            create(1, "tokenize"),
            "channelEndpointUnknown",
            "No such channel in namespace llm, endpoint = tokenize",
        ),
        (
            create(1, "predict", {**PREDICT, "history": []}),
            "channelCreationParameterTypeError",
            "The creation parameter does not fit, endpointName = predict:"
            " expected an object, not [] at $.history",
        ),
    ],
)
def test_a_channel_that_cannot_be_opened_fails(protocol, message, kind, text):
    """It gets a warning and an error, and a cancel for it is no second fault."""
    error = {"title": text, "rootTitle": text}
    failed = {"type": "channelError", "channelId": 1, "error": error}
    assert (None, [warning(kind, text), failed]) == protocol.receive(message)
    assert (None, []) == protocol.receive(packet(1, {"type": "cancel"}))


def test_the_sixth_mismatch_is_silent(protocol):
    """A socket gets five warnings; errors go on, since somebody waits for them."""
    for number in range(5):
        _, replies = protocol.receive(call(number, "nonsense"))
        assert ["communicationWarning", "rpcError"] == [r["type"] for r in replies]
    _, replies = protocol.receive(call(6, "nonsense"))
    assert ["rpcError"] == [r["type"] for r in replies]


def test_keep_alive_is_answered(protocol):
    """The application's own keep-alive gets its reply."""
    answer = (None, [{"type": "keepAliveAck"}])
    assert answer == protocol.receive({"type": "keepAlive"})


def test_a_complaint_is_an_event(protocol):
    """A warning of the client is handed on, and never answered with another."""
    event = protocol.receive(warning("unknown", "what?"))
    assert (Complaint("what?"), []) == event


def test_everything_open_fails_at_the_end(protocol):
    """The end of a server is an error for each call and channel, once."""
    protocol.receive(call(1))
    protocol.receive(create(1))
    protocol.receive(create(2))
    ends = [
        {"type": "rpcError", "callId": 1, "error": ERROR},
        {"type": "channelError", "channelId": 1, "error": ERROR},
        {"type": "channelError", "channelId": 2, "error": ERROR},
    ]
    assert ends == protocol.fail_all(ERROR)
    assert [] == protocol.fail_all(ERROR)


def test_memory_of_ended_channels_is_bounded(protocol):
    """Only the latest ended channels are remembered."""
    for number in range(2000):
        protocol.receive(create(number))
        protocol.close(number)
    _, replies = protocol.receive(packet(0, {"type": "cancel"}))
    assert ["channelUnknown"] == [reply["kind"] for reply in replies]
    assert (None, []) == protocol.receive(packet(1999, {"type": "cancel"}))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (AUTH, True),
        ({"type": "keepAlive"}, True),
        ({"type": "channelAck", "channelId": 1, "ackId": 2}, True),
        ({"type": "channelSend", "channelId": 99}, True),
        ({"type": "nothing"}, False),
        ({"type": ["rpcCall"]}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_what_is_a_message(message, expected):
    """What a client may say is told from what is dropped for being nothing."""
    assert expected == is_message(message)
