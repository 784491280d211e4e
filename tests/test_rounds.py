"""Rounds of prediction and tool calls: what is sent, told and kept."""

from __future__ import annotations

import threading

import pytest

from acting import FOREVER, add, asks, history_of, options_of, sum_first
from lmstudio import (
    ActResult,
    Chat,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioRuntimeError,
    LMStudioTimeoutError,
    LMStudioToolError,
    LMStudioTypeError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.server.failures import Failure
from lmstudio.testing import AWAIT_CANCEL, DROP, NEVER, Await
from scripts import is_cancel

# --- a whole run


def test_result(fake, model):
    """The run ends with all texts, messages, calls, and stats round by round."""
    sum_first(fake)

    run = model.act("1 + 2?", [add])

    assert run.done()
    result = run.result()
    assert isinstance(result, ActResult)
    assert "It is 3." == result.content == result.text == str(result) == run.content
    assert "It is 3." == str(run)
    assert 2 == result.rounds == run.rounds
    assert ["Let me see. ", "It is 3."] == [p.content for p in result.predictions]
    assert [0, 1] == [p.round_index for p in result.predictions]
    assert ["eosFound"] * 2 == [s.stop_reason for s in result.stats]
    assert result.stats == run.stats
    assert result.total_time_seconds == run.total_time_seconds > 0
    assert [("add", 3)] == [(call.name, call.value) for call in result.calls]
    assert ["assistant", "tool", "assistant"] == [m.role for m in result.messages]
    assert (result.messages, result.calls) == (run.messages, run.calls)
    assert not result.is_cancelled
    assert None is run.exception()
    assert "<ActRun done, round 2, 1 call answered>" == repr(run)
    fake.assert_all_used()


def test_what_is_sent(fake, model):
    """Each round has the tools, the options, and all that was said before."""
    sum_first(fake)

    model.act([("system", "Be short."), ("user", "1 + 2?")], [add], temperature=0.5)

    first, second = history_of(fake, 0), history_of(fake, 1)
    assert ["system", "user"] == [message["role"] for message in first]
    assert first == second[:2]
    call = {
        "type": "function",
        "name": "add",
        "arguments": {"a": 1, "b": 2},
        "id": "1",
    }
    assert [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see. "},
                {"type": "toolCallRequest", "toolCallRequest": call},
            ],
        },
        {
            "role": "tool",
            "content": [{"type": "toolCallResult", "content": "3", "toolCallId": "1"}],
        },
    ] == second[2:]
    for index in (0, 1):
        options = options_of(fake, index)
        assert 0.5 == options["llm.prediction.temperature"]
        [tool] = options["llm.prediction.tools"]["tools"]
        assert "add" == tool["function"]["name"]
        assert "llm.prediction.toolChoice" not in options


def test_the_chat_is_not_changed(fake, model):
    """What was passed stays as it was; on_message is what keeps a list up to date."""
    sum_first(fake)
    chat = [{"role": "user", "content": "1 + 2?"}]
    heard = []

    run = model.act(chat, [add], on_message=heard.append)

    assert [{"role": "user", "content": "1 + 2?"}] == chat
    assert list(run.messages) == heard
    fake.reply("And 4.")
    assert "And 4." == model.respond([*chat, *heard, ("user", "And?")]).content
    assert 5 == len(history_of(fake, 2))


def test_a_chat_that_hears_of_messages(fake, model):
    """A chat is kept up to date by its own append, and not read again meanwhile."""
    sum_first(fake)
    chat = Chat("Be short.")
    chat.add_user_message("1 + 2?")

    model.act(chat, [add], on_message=chat.append)

    expected = ["system", "user", "assistant", "tool", "assistant"]
    assert expected == [message.role for message in chat]
    assert 4 == len(history_of(fake, 1))


def test_callbacks(fake, model):
    """They are called in order, in the thread that called act, with the round."""
    sum_first(fake)
    heard, threads = [], set()

    def hear(name):
        def callback(*news):
            threads.add(threading.get_ident())
            heard.append((name, *news))

        return callback

    def add(a: int, b: int) -> int:
        hear("call")(a, b)
        return a + b

    model.act(
        "1 + 2?",
        [add],
        on_message=lambda message: hear("message")(message.role),
        on_first_token=hear("first"),
        on_prediction_fragment=hear("fragment"),
        on_round_start=hear("start"),
        on_round_end=hear("end"),
        on_prediction_completed=lambda result: hear("completed")(result.content),
        on_prompt_processing_progress=hear("progress"),
    )

    assert [
        ("start", 0),
        ("first", 0),
        ("fragment", "Let me see. ", 0),
        ("completed", "Let me see. "),
        ("call", 1, 2),
        ("message", "assistant"),
        ("message", "tool"),
        ("end", 0),
        ("start", 1),
        ("first", 1),
        ("fragment", "It is ", 1),
        ("fragment", "3.", 1),
        ("completed", "It is 3."),
        ("message", "assistant"),
        ("end", 1),
    ] == [one for one in heard if one[0] != "progress"]
    progress = [one[1:] for one in heard if one[0] == "progress"]
    assert [(0.0, 0), (1.0, 0), (0.0, 1), (1.0, 1)] == progress
    assert {threading.get_ident()} == threads


def test_the_last_round_has_no_tools(fake, model):
    """With a limit the model must come to an end in its last round."""
    fake.reply([asks("add", a=1, b=2)])
    fake.reply(["Then ", asks("add", a=3, b=4)])

    result = model.act("?", [add], max_prediction_rounds=2, tool_choice="auto").result()

    assert 2 == result.rounds
    auto = {"type": "generic", "mode": "auto"}
    assert auto == options_of(fake, 0)["llm.prediction.toolChoice"]
    assert {"type": "none"} == options_of(fake, 1)["llm.prediction.tools"]
    assert "llm.prediction.toolChoice" not in options_of(fake, 1)
    # A server that asks nevertheless is not obeyed, and the history stays whole.
    reached = "not called: the limit of 2 rounds was reached"
    assert ["3", f'"{reached}"'] == [call.content for call in result.calls]
    assert f"tool add: {reached}" == str(result.calls[1].error)
    assert "tool" == result.messages[-1].role
    assert not result.is_cancelled
    assert "limit" == result.ended_by == result.to_dict()["ended_by"]


def test_how_it_ended(fake, model):
    """A run tells whether the model had no more to ask for, or was cancelled."""
    sum_first(fake)
    run = model.act("?", [add], max_prediction_rounds=3)
    assert ("answer", False) == (run.ended_by, run.is_cancelled)
    result = run.result()
    assert ("It is 3.", result.predictions) == (run.text, run.predictions)
    assert result.to_dict() == run.to_dict()

    fake.reply(["a", AWAIT_CANCEL])
    with model.act("?", [add], wait=False) as stopped:
        next(iter(stopped))
    assert ("cancel", True) == (stopped.ended_by, stopped.is_cancelled)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "generic", "mode": "required"}]
)
def test_required_counts_once(fake, model, choice):
    """A model that must call a tool may answer in the next round."""
    sum_first(fake)

    model.act("?", [add], config={"toolChoice": choice})

    modes = [options_of(fake, n)["llm.prediction.toolChoice"]["mode"] for n in (0, 1)]
    assert ["required", "auto"] == modes


def test_tools_at_once(fake, model):
    """Several calls of a round run at the same time if they may; order is kept."""
    together = threading.Barrier(2)

    def meet(n: int) -> int:
        together.wait(FOREVER)
        return n

    fake.reply([asks("meet", "1", n=1), asks("meet", "2", n=2)])
    fake.reply("done")

    result = model.act("?", [meet], max_parallel_tool_calls=None).result()

    assert [1, 2] == [call.value for call in result.calls]
    [parts] = [m.content for m in result.messages if m.role == "tool"]
    assert [("1", "1"), ("2", "2")] == [(p.tool_call_id, p.content) for p in parts]


def test_mistakes_of_the_model(fake, model):
    """Unknown tools and wrong arguments are told to it, and the run goes on."""
    fake.reply([asks("sub", "1", a=1), asks("add", "2", a="x", b=1)])
    fake.reply("sorry")

    result = model.act("?", [add]).result()

    assert "sorry" == result.content
    told = [part["content"] for part in history_of(fake, 1)[-1]["content"]]
    assert '"tool sub: there is no such tool; there are add"' == told[0]
    assert "is not of type 'integer'" in told[1]


def test_a_call_that_cannot_be_read(fake, model):
    """It ends the run with an error: there is no request that could be answered."""
    failed = {
        "type": "toolCallGenerationFailed",
        "error": {"title": "No JSON"},
        "rawContent": '{"a":',
    }
    heard = []

    def handle(error, request):
        heard.append((error.raw_content, request))
        return "ignored"

    fake.reply(["so ", failed], times=2)
    with pytest.raises(LMStudioToolError, match="No JSON") as caught:
        model.act("?", [add], handle_invalid_tool_request=handle)
    assert "so " == caught.value.partial
    assert [('{"a":', None)] == heard
    with pytest.raises(LMStudioPredictionError, match="No JSON"):
        model.act("?", [add])


# --- what goes wrong


def test_what_a_callback_raises(fake, model):
    """It comes out where it was raised, stops the run, and ends all callbacks."""
    fake.reply(["a", "b", AWAIT_CANCEL])
    heard = []

    def raise_(fragment, index):
        heard.append(fragment)
        raise ZeroDivisionError

    run = model.act("?", [add], wait=False, on_prediction_fragment=raise_)

    with pytest.raises(ZeroDivisionError):
        run.result()
    assert run.result(FOREVER).is_cancelled
    assert 1 == len(heard)
    assert fake.wait_for(is_cancel)


@pytest.mark.parametrize(
    "name", ["on_prediction_completed", "on_message", "on_round_end", "guard_tool_call"]
)
def test_what_a_callback_raises_after_a_prediction(fake, model, name):
    """The conversation stays whole: each request has its answer."""
    fake.reply(["a", asks("add", "1", a=1, b=2), asks("add", "2", a=1, b=2)])

    def raise_(_):
        raise ZeroDivisionError

    run = model.act("?", [add], wait=False, **{name: raise_})

    with pytest.raises(ZeroDivisionError):
        run.result()
    result = run.result()
    assert result.is_cancelled
    assert ["assistant", "tool"] == [message.role for message in result.messages]
    assert 2 == len(result.messages[1].content) == len(result.calls)
    assert 1 == len(fake.parameters("predict"))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_in_a_tool(fake, model, kind):
    """Ctrl-C in a tool comes out, and the run is stopped."""

    def leave(n: int) -> int:
        raise kind

    fake.reply([asks("leave", n=1)])
    run = model.act("?", [leave], wait=False)

    with pytest.raises(kind):
        list(run)
    assert run.result().is_cancelled


def test_an_invalid_request_may_be_raised(fake, model):
    """A handler that raises ends the run, as in the official SDK's documentation."""

    def handle(error, request):
        raise error

    fake.reply([asks("sub", a=1)])

    with pytest.raises(LMStudioPredictionError, match="there is no such tool"):
        model.act("?", [add], handle_invalid_tool_request=handle)


def test_errors_of_the_server(fake, model):
    """Each who waits gets the error of its own, with the text of the round."""
    fake.reply(["a ", asks("add", a=1, b=2)])
    fake.reply(["b ", Failure("It broke")])
    run = model.act("?", [add], wait=False)

    with pytest.raises(LMStudioPredictionError, match="It broke") as first:
        run.result()
    with pytest.raises(LMStudioPredictionError) as second:
        list(run)

    assert "b " == first.value.partial == second.value.partial
    assert first.value is not second.value
    assert "It broke" in str(run.exception())
    assert ["assistant", "tool"] == [message.role for message in run.messages]
    assert "<ActRun failed, round 2, 1 call answered>" == repr(run)


def test_a_lost_connection(fake, model):
    """It ends the run with what was said; nothing is generated twice."""
    fake.reply(["a", DROP])

    with pytest.raises(LMStudioWebsocketError) as caught:
        model.act("?", [add])

    assert "a" == caught.value.partial
    assert 1 == len(fake.parameters("predict"))


def test_the_next_round_cannot_begin(fake, client, model):
    """A server that is gone between two rounds ends the run with an error."""

    def leave(n: int) -> int:
        client.close()
        return n

    fake.reply([asks("leave", n=1)])
    run = model.act("?", [leave], wait=False)

    with pytest.raises(LMStudioRuntimeError, match="the client was closed"):
        run.result()
    assert 1 == len(run.calls)
    assert isinstance(run.exception(), LMStudioRuntimeError)


def test_result_with_a_limit(fake, model):
    """result(timeout) gives up waiting; the run can go on."""
    gate = Await()
    fake.reply(["a", gate, asks("add", a=1, b=2)])
    fake.reply("b")
    run = model.act("?", [add], wait=False)
    assert "a" == next(iter(run))

    with pytest.raises(
        LMStudioTimeoutError, match=r"within 0\.05 s .round 1.*go on"
    ) as (caught):
        run.result(0.05)
    assert "a" == caught.value.partial
    with pytest.raises(LMStudioTimeoutError):
        run.exception(0)
    gate.open()
    assert "b" == run.result(FOREVER).content


def test_timeout(fake, model):
    """The limit is for all rounds together."""
    fake.reply([asks("add", a=1, b=2)])
    fake.reply(["b", NEVER])
    run = model.act("?", [add], wait=False, timeout=0.2)

    with pytest.raises(
        LMStudioTimeoutError, match=r"act: not finished within 0.2 s \(round 2, 1 call"
    ) as caught:
        run.result()
    assert "b" == caught.value.partial
    assert fake.wait_for(is_cancel)


def test_timeout_while_tools_run(fake, model, monkeypatch):
    """After the end of the time no tool is called and no round begins."""
    now = [1000.0]
    called = []

    def late(n: int) -> int:
        called.append(n)
        now[0] += 100
        return n

    monkeypatch.setattr("lmstudio.rounds.time.monotonic", lambda: now[0])
    fake.reply([asks("late", "1", n=1), asks("late", "2", n=2)])
    with pytest.raises(LMStudioTimeoutError, match="round 1, 1 call answered"):
        model.act("?", [late], timeout=50)
    fake.reply([asks("late", "1", n=3)])
    run = model.act("?", [late], wait=False, timeout=50)
    with pytest.raises(LMStudioTimeoutError):
        run.result()

    assert [1, 3] == called
    assert "tool" == run.messages[-1].role
    assert 2 == len(fake.parameters("predict"))


def test_idle_timeout(fake, model):
    """Silence of the server ends the run, and says so in its own words."""
    fake.reply(["a", NEVER])

    with pytest.raises(
        LMStudioTimeoutError, match=r"no news from the server for 0\.1 s"
    ):
        model.act("?", [add], idle_timeout=0.1, timeout=FOREVER)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_prediction_rounds": 0}, "max_prediction_rounds must be a whole number"),
        ({"max_prediction_rounds": 1.5}, "above 0, or None, not 1.5"),
        ({"max_parallel_tool_calls": True}, "above 0, or None, not True"),
        ({"on_message": 3}, "on_message must be a function, not 3"),
        ({"guard_tool_call": 3}, "guard_tool_call must be a function, not 3"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0"),
        ({"idle_timeout": "x"}, "idle_timeout must be a number of seconds above 0"),
        ({"signal": 3}, "signal must be a Signal or a threading.Event"),
        ({"tool_choice": "always"}, "option tool_choice must be 'none', 'auto'"),
        ({"temperatur": 1}, "did you mean 'temperature'?"),
        (
            {"structured": {"type": "json"}},
            "act() takes no structured; ask for it after",
        ),
        ({"response_format": int}, "respond([question, *run.messages], response_form"),
        ({"guard_tool_cal": 1}, "did you mean 'guard_tool_call'?"),
        ({"max_prediction_round": 1}, "did you mean 'max_prediction_rounds'?"),
        ({"on_fragment": len}, "on_fragment must be a function of two arguments"),
    ],
)
def test_wrong_arguments(fake, model, options, problem):
    """What can't be right is an error before anything is sent."""
    with pytest.raises(LMStudioValueError) as caught:
        model.act("?", [add], **options)
    assert problem in str(caught.value)
    with pytest.raises(LMStudioTypeError):
        model.act("?", [add, 3])
    assert [] == fake.parameters("predict")


def test_callbacks_under_both_names(fake, model):
    """The names of `respond` do as well, with the round's index as second argument."""
    heard = []

    def note(what, index):
        heard.append((what, index))

    sum_first(fake)
    run = model.act("?", [add], on_fragment=note, on_prompt_progress=note)
    assert "It is 3." == run.content
    texts = [news for news in heard if isinstance(news[0], str)]
    assert [("Let me see. ", 0), ("It is ", 1), ("3.", 1)] == texts
    assert [(0.0, 0), (1.0, 0), (0.0, 1), (1.0, 1)] == [
        news for news in heard if news not in texts
    ]

    with pytest.raises(LMStudioValueError) as caught:
        model.act("?", [add], on_fragment=note, on_prediction_fragment=note)
    assert "on_fragment and on_prediction_fragment name the same; give one" == str(
        caught.value
    )


# --- respond with tools


def test_respond_with_tools(fake, model):
    """It calls nothing: the calls are in the result, and in a callback."""
    fake.reply(["a", asks("add", a=1, b=2)], stop="toolCalls")
    heard = []

    prediction = model.respond(
        "?", tools=[add], tool_choice="required", on_tool_call=heard.append
    )

    [call] = prediction.tool_calls
    assert ("add", {"a": 1, "b": 2}, "1") == (call.name, call.arguments, call.id)
    assert [call] == heard == list(prediction.result().tool_calls)
    assert () == prediction.result().failed_tool_calls
    assert "toolCalls" == prediction.stats.stop_reason
    options = options_of(fake, 0)
    required = {"type": "generic", "mode": "required"}
    assert required == options["llm.prediction.toolChoice"]
    assert "toolArray" == options["llm.prediction.tools"]["type"]


def test_respond_after_a_cancel(fake, model):
    """A call that arrives behind a cancel is dropped, as text is."""
    fake.reply(["a", AWAIT_CANCEL])
    prediction = model.respond("?", tools=[add])
    assert "a" == next(iter(prediction))
    prediction.cancel()

    assert () == prediction.tool_calls


def test_a_malformed_call(fake, model):
    """A call that does not fit the protocol is an error of the prediction."""
    fake.reply(["a", {"type": "toolCallGenerationEnd", "toolCallRequest": {}}])

    with pytest.raises(LMStudioProtocolError, match=r"predict"):
        model.respond("?", tools=[add]).result()
