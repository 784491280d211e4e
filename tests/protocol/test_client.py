"""The client half of the protocol, without I/O."""

from __future__ import annotations

import pytest

from lmstudio.protocol.client import (
    ClientProtocol,
    End,
    auth_packet,
    auth_refusal,
)


def packet(number, body):
    return {"type": "channelSend", "channelId": number, "message": body}


def test_numbers_are_never_reused():
    """Calls and channels take their numbers from one counter."""
    protocol = ClientProtocol()

    numbers = [protocol.open(kind, "x")[0] for kind in ("rpc", "channel", "rpc")]

    assert [1, 2, 3] == numbers
    assert 3 == protocol.open_requests


def test_absent_parameter_is_left_out():
    """No parameter means no property: servers refuse null there."""
    protocol = ClientProtocol()

    assert {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1} == (
        protocol.open("rpc", "listLoaded")[1]
    )
    assert {
        "type": "channelCreate",
        "endpoint": "predict",
        "channelId": 2,
        "creationParameter": {"a": 1},
    } == protocol.open("channel", "predict", {"a": 1})[1]


def test_one_read_is_grouped_by_request():
    """Messages of one read become one batch for each request, in order."""
    protocol = ClientProtocol()
    first, _ = protocol.open("channel", "predict")
    second, _ = protocol.open("channel", "predict")
    call, _ = protocol.open("rpc", "countTokens")

    received = protocol.receive(
        [
            packet(first, "a"),
            packet(second, "b"),
            {"type": "rpcResult", "callId": call, "result": {"tokenCount": 2}},
            packet(first, "c"),
            {"type": "channelClose", "channelId": first},
        ]
    )

    assert {
        first: ["a", "c", End("closed")],
        second: ["b"],
        call: [End("result", {"tokenCount": 2})],
    } == received.batches
    assert [call, first] == received.ended
    assert 1 == protocol.open_requests


def test_late_reply_is_a_stray():
    """A reply to a request that has already ended belongs to nobody."""
    protocol = ClientProtocol()
    number, _ = protocol.open("rpc", "listLoaded")
    reply = {"type": "rpcResult", "callId": number, "result": []}
    protocol.receive([reply])

    assert [reply] == protocol.receive([reply]).strays


def test_packet_after_the_close_in_one_read_is_a_stray():
    """What follows the close of a channel does not reach it."""
    protocol = ClientProtocol()
    number, _ = protocol.open("channel", "predict")

    received = protocol.receive(
        [{"type": "channelClose", "channelId": number}, packet(number, "late")]
    )

    assert {number: [End("closed")]} == received.batches
    assert [packet(number, "late")] == received.strays


def test_reply_of_the_wrong_kind_is_a_stray():
    """A channel is not ended by the answer to a call of its number."""
    protocol = ClientProtocol()
    number, _ = protocol.open("channel", "predict")
    wrong = {"type": "rpcResult", "callId": number}

    received = protocol.receive([wrong])

    assert [wrong] == received.strays
    assert 1 == protocol.open_requests


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        3,
        "text",
        {},
        {"type": []},
        {"type": "newThing", "x": 1},
        {"type": "channelSend"},
        {"type": "channelSend", "channelId": []},
        {"type": "channelSend", "channelId": {}, "message": 1},
        {"type": "rpcResult"},
        {"type": "channelClose", "channelId": []},
        {"type": "keepAliveAck"},
    ],
    ids=repr,
)
def test_what_nobody_knows_is_a_stray(odd):
    """Whatever JSON a server sends, nothing is raised and nobody is disturbed."""
    protocol = ClientProtocol()
    number, _ = protocol.open("channel", "predict")

    received = protocol.receive([odd, packet(number, "ok")])

    assert [odd] == received.strays
    assert {number: ["ok"]} == received.batches


def warning(text, kind=None):
    return {"type": "communicationWarning", "warning": text, "kind": kind}


def test_warning_about_an_unknown_endpoint_fails_all_its_calls():
    """An endpoint that the server does not know fails every call to it."""
    protocol = ClientProtocol()
    a, _ = protocol.open("rpc", "newCall")
    b, _ = protocol.open("rpc", "newCall")
    protocol.open("rpc", "other")
    text = "No such call here, endpoint = newCall"

    received = protocol.receive([warning(text, "rpcEndpointUnknown")])

    assert {a: [End("refused", text)], b: [End("refused", text)]} == received.batches
    assert [] == received.complaints
    assert 1 == protocol.open_requests


def test_warning_about_a_parameter_fails_the_only_candidate():
    """A wrong parameter fails the call when just one can be meant."""
    protocol = ClientProtocol()
    number, _ = protocol.open("channel", "predict")
    text = "Bad parameter, endpointName = predict"

    assert {number: [End("refused", text)]} == protocol.receive([warning(text)]).batches


def test_warning_about_a_parameter_with_several_candidates_is_a_complaint():
    """Nobody is failed on a guess."""
    protocol = ClientProtocol()
    protocol.open("channel", "predict")
    protocol.open("channel", "predict")
    text = "Bad parameter, endpointName = predict"

    received = protocol.receive([warning(text)])

    assert [text] == received.complaints
    assert {} == received.batches


def test_other_warnings_are_complaints():
    """A warning that names no endpoint is for the log."""
    assert ["odd"] == ClientProtocol().receive([warning("odd", "unknown")]).complaints


def test_warning_about_a_closed_channel_is_harmless():
    """A cancel may cross the end of its channel."""
    late = warning("channel 3 is not open", "channelUnknown")

    received = ClientProtocol().receive([late])

    assert [late] == received.strays
    assert [] == received.complaints


def test_packets_go_only_to_open_channels():
    """Nothing is sent on a channel that has ended, nor on a call."""
    protocol = ClientProtocol()
    channel, _ = protocol.open("channel", "predict")
    call, _ = protocol.open("rpc", "listLoaded")

    assert packet(channel, {"type": "cancel"}) == (
        protocol.packet(channel, {"type": "cancel"})
    )
    assert None is protocol.packet(call, {})
    protocol.forget(channel)
    assert None is protocol.packet(channel, {})


def test_the_end_of_the_connection_reaches_everyone_once():
    """Each open request gets one last thing, and then there are none."""
    protocol = ClientProtocol()
    call, _ = protocol.open("rpc", "listLoaded")
    channel, _ = protocol.open("channel", "predict")

    assert {call: End("lost", "gone"), channel: End("lost", "gone")} == (
        protocol.end("gone")
    )
    assert {} == protocol.end("gone")


def test_auth_packet():
    """The auth packet has exactly the three fields."""
    assert {
        "authVersion": 1,
        "clientIdentifier": "guest:a",
        "clientPasskey": "b",
    } == auth_packet("guest:a", "b")


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        ({"success": True}, None),
        ({"success": False, "error": "wrong passkey"}, "wrong passkey"),
        ({"success": False}, "unexpected reply to authentication: {'success': False}"),
        ([], "unexpected reply to authentication: []"),
    ],
)
def test_auth_refusal(reply, refusal):
    """Only an explicit success counts."""
    assert refusal == auth_refusal(reply)
