"""Every object shows itself in one short line, without waiting for anything."""

from __future__ import annotations

import attrs
import pytest

import lmstudio
from lmstudio import errors
from lmstudio.testing import AWAIT_CANCEL, Await, Pace, tool_call

#: More than anybody wants to see of one object.
MOST = 1500
LONG = "line\n" * 20_000


def add(a: str) -> str:
    """Add something.

    Args:
        a: What.
    """
    return LONG


def assert_short(value: object) -> None:
    """Its line is one, and short."""
    text = repr(value)
    assert "\n" not in text
    assert len(text) <= MOST, (type(value), len(text))


def test_what_a_client_has(client):
    """The client and its parts, before anything is asked."""
    parts = ("llm", "embedding", "system", "files", "repository", "diagnostics")
    for value in (client, *(getattr(client, name) for name in parts)):
        assert f"<{type(value).__name__} {client.address}>" == repr(value)
    client.close()
    assert f"<LLMs {client.address} closed>" == repr(client.llm)


def test_what_a_test_has(fake):
    """Servers and steps of the testing kit say where they are and how far."""
    gate, pace = Await(), Pace()
    assert f"<FakeServer {fake.host}>" == repr(fake)
    assert "<Await closed, not reached>" == repr(gate)
    gate.open()
    gate.reached.set()
    assert "<Await open, reached>" == repr(gate)
    pace.let(2)
    assert "<Pace 2 free, 0 wanted>" == repr(pace)
    pace.open()
    assert "<Pace inf free, 0 wanted>" == repr(pace)


def test_nothing_is_asked(fake, client):
    """A handle, a prediction and a batch show what is known, without a request."""
    fake.reply([AWAIT_CANCEL])
    handle = client.llm.get("any")
    prediction = handle.respond("x")
    batch = handle.map(["x", "y"])
    fake.wait_for_call("predict")
    before = len(fake.requests)
    for value in (handle, prediction, batch):
        assert_short(value)
    assert "<code>&lt;LLM identifier=&#x27;any&#x27;&gt;</code>" == handle._repr_html_()
    assert before == len(fake.requests)
    assert "<Prediction running, nothing has arrived>" == repr(prediction)
    prediction.cancel()
    prediction.result()


def test_long_answers(fake, client):
    """A long text, long arguments and long answers of tools are cut."""
    model = client.llm.get("any")
    fake.reply(LONG)
    result = model.respond("x").result()
    fake.reply(tool_call("add", {"a": LONG}))
    fake.reply(LONG)
    run = model.act("x", [add])
    whole = run.result()
    chat = lmstudio.Chat(LONG)
    chat.append(result)
    for value in (
        result,
        result.stats,
        result.model_info,
        run,
        whole,
        *whole.predictions,
        *whole.messages,
        *whole.calls,
        whole.calls[0].request,
        chat,
        *chat,
        *chat[0].content,
        *client.list_downloaded_models(),
        *client.list_loaded_models(),
    ):
        assert_short(value)
    assert repr(whole).startswith("<ActResult 2 rounds, 1 call, 'line\\nline")
    assert repr(whole.calls[0]).startswith("<ToolCall 'add' {'a': 'line\\nline")
    assert "<small" in whole._repr_markdown_()


def test_a_call_that_failed(fake, client):
    """Its line has the error."""
    fake.reply(tool_call("add", {"b": 1}))
    fake.reply("no")
    (call,) = client.llm.get("any").act("x", [add]).result().calls
    assert ", error " in repr(call)
    assert_short(call)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.LMStudioError)
    ],
)
def test_errors(kind):
    """An error with a long text is one short line; as HTML it is escaped and cut."""
    error = kind.__new__(kind)
    plain = ("endpoint", "title", "cause", "suggestion", "code", "message", "partial")
    for name in (*plain, "content", "stop_reason", "problem", "tool_name"):
        setattr(error, name, f"<script>{LONG}")
    error.details, error.addresses = {}, []
    assert_short(error)
    assert repr(error).startswith(f"{kind.__name__}(")
    shown = error._repr_html_()
    assert "<script" not in shown
    assert len(shown) < 10_000


def test_fields_of_the_wire_are_cut():
    """A field with much in it does not flood the line of its object."""
    info = lmstudio.DownloadProgress(downloaded_bytes=1, total_bytes=2)
    assert "DownloadProgress(downloaded_bytes=1, total_bytes=2," in repr(info)
    call = lmstudio.ToolCallRequest(name="x", arguments={"a": LONG})
    assert_short(call)
    assert LONG == call.arguments["a"]
    assert "…" in repr(attrs.evolve(call, id=LONG))
