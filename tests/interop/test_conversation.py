"""What a client and the server said to each other in a whole run was in order."""

from __future__ import annotations

import re

from interop.frames import DESCRIPTIONS, Conversation, Said, misfits, missing
from interop.recorder import Frame


def test_ends_by_itself(run):
    """The client ends by itself, which it does not while a channel is open."""
    assert "end" in run.steps
    assert 0 == run.code


def test_no_step_failed(run):
    """Every step was taken."""
    failed = {name: run[name] for name in run.steps if name.endswith(" failed")}
    assert {} == failed


def test_client_says_nothing(run):
    """The client prints no warning, nor anything else of its own."""
    assert ("", []) == (run.errors, run.noise)


def test_server_says_nothing(run):
    """The server logs what it does, and no warning or error."""
    assert "INFO lmstudio.server.registry: loaded first\n" in run.log
    assert [] == re.findall(r".*(?:WARNING|ERROR|CRITICAL|Traceback).*", run.log)


def test_order(run):
    """Nobody warns, every call has one answer and every channel one end, the last."""
    assert [] == Conversation(run.frames).faults


def test_schema(run):
    """Everything that the server says fits the protocol's schema."""
    said = Conversation(run.frames).said

    assert len(said) > 100
    assert [] == [problem for one in said for problem in misfits(one)]


def test_descriptions(run):
    """Every description of a model has all that newer clients need."""
    found = list(Conversation(run.frames).descriptions())
    seen = {(said.endpoint, said.packet) for said, _, _ in found}

    assert set(DESCRIPTIONS) == seen
    assert [] == [
        (said.endpoint, lacks)
        for said, description, required in found
        if (lacks := missing(description, required))
    ]


def frames(*said):
    """Frames of one connection, from pairs of sender and message."""
    return [Frame(1, "llm", sender, message) for sender, message in said]


def test_faults_are_found():
    """A warning, an answer to nothing, a second end and no end are faults."""
    call = {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1}
    channel = {"type": "channelCreate", "endpoint": "predict", "channelId": 1}
    end = {"type": "channelClose", "channelId": 1}
    conversation = Conversation(
        frames(
            ("server", {"success": True}),
            ("client", call),
            ("client", channel),
            ("server", end),
            ("server", end),
            ("server", {"type": "rpcResult", "callId": 2}),
            ("client", {"type": "communicationWarning", "warning": "what?"}),
        )
    )

    assert [
        f"nobody waits for this: {end}",
        "nobody waits for this: {'type': 'rpcResult', 'callId': 2}",
        "client warns: what?",
        "no end: listLoaded",
    ] == conversation.faults
    assert [Said("llm", "predict", end)] == conversation.said


def test_missing_fields_are_found():
    """A field that is not there, is null or a bool where a number must be."""
    required = {"a": str, "b": int, "c": (str, type(None)), "d": bool, "e": int}

    assert ["a", "b", "e"] == missing(
        {"b": None, "c": None, "d": True, "e": True}, required
    )


def test_misfits_are_found():
    """A packet with a field of the wrong type does not fit."""
    packet = {"type": "progress", "progress": "much"}
    message = {"type": "channelSend", "channelId": 1, "message": packet}

    assert misfits(Said("llm", "loadModel", message))
    result = {"type": "rpcResult", "callId": 1, "result": None}
    assert ["unloadModel has a result"] == misfits(Said("llm", "unloadModel", result))
