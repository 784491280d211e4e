"""Tools are called as the rules say, and every request gets an answer."""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
import enum
import json
import logging
import threading
import types

import attrs
import pytest

from lmstudio import LMStudioToolError, LMStudioTypeError, ToolCallRequest
from lmstudio.functions import tools_of
from lmstudio.toolcalls import (
    Caller,
    assistant_message,
    not_called,
    to_json,
    tool_message,
)

#: Longer than any test: what waits for it hangs.
FOREVER = 60.0

STOPPED = '"not called: the run was stopped"'


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def fail(text: str) -> str:
    """Fail."""
    raise ValueError(text)


def request(name, id=None, **arguments):
    return ToolCallRequest(name=name, arguments=arguments, id=id)


def caller(
    *tools,
    guard=None,
    handle_invalid=None,
    at_once=1,
    is_stopping=lambda: False,
    check_time=lambda: None,
):
    return Caller(
        tools=tools_of(tools),
        guard=guard,
        handle_invalid=handle_invalid,
        at_once=at_once,
        is_stopping=is_stopping,
        check_time=check_time,
    )


# --- one after the other


def test_answers_in_order():
    """Each request has its answer, made when it is asked for, in this thread."""
    threads = []

    def here(n: int) -> int:
        threads.append(threading.get_ident())
        return n

    answers = caller(here, add).answers(
        [request("here", n=1), request("add", a=1, b=2), request("here", n=3)], 4
    )

    assert 1 == next(answers).value
    assert 1 == len(threads)
    second, third = answers
    assert ("add", 3, "3", {"a": 1, "b": 2}, None, 4) == (
        second.name,
        second.value,
        second.content,
        second.arguments,
        second.error,
        second.round_index,
    )
    assert "3" == third.content
    assert second.seconds >= 0
    assert {threading.get_ident()} == set(threads)


def test_a_tool_that_raises(caplog):
    """What a tool raises is told to the model and logged with its traceback."""
    with caplog.at_level(logging.WARNING, "lmstudio.act"):
        [call] = caller(fail).answers([request("fail", text="no")], 0)

    assert '"tool fail: it raised ValueError: no"' == call.content
    assert isinstance(call.error.__cause__, ValueError)
    assert "no" == str(call.error.__cause__)
    assert {"text": "no"} == call.arguments
    assert None is call.value
    assert ["tool fail: it raised ValueError: no"] == caplog.messages
    assert caplog.records[0].exc_info[1] is call.error.__cause__


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        (request("sub", a=1), "tool sub: there is no such tool; there are add"),
        (request("add", a=1), "tool add: wrong arguments: 'b' is a required property"),
    ],
)
def test_invalid_requests(asked, content, caplog):
    """What can't be called is told to the model; nobody else needs to hear of it."""
    with caplog.at_level(logging.INFO, "lmstudio.act"):
        [call] = caller(add).answers([asked], 0)

    assert content == json.loads(call.content) == str(call.error)
    assert None is call.arguments
    assert [] == caplog.messages


def test_a_handler_of_invalid_requests():
    """The handler hears of each and may choose what the model is told."""
    heard = []

    def handle(error, asked):
        heard.append((str(error), asked.name))
        return "try again" if asked.name == "sub" else None

    calls = caller(add, fail, handle_invalid=handle).answers(
        [request("sub"), request("add"), request("fail", text="x")], 0
    )

    assert ["try again", "tool add", "tool fail"] == [
        json.loads(call.content).partition(":")[0] for call in calls
    ]
    assert ["sub", "add", "fail"] == [name for _, name in heard]


def test_a_handler_that_raises():
    """What the handler raises comes out."""

    def handle(error, _):
        raise error

    answers = caller(add, handle_invalid=handle).answers([request("sub")], 0)
    with pytest.raises(LMStudioToolError, match="no such tool"):
        next(answers)
    answers = caller(add, handle_invalid=lambda *_: 3).answers([request("sub")], 0)
    with pytest.raises(LMStudioTypeError, match=r"must return a text .*, not 3"):
        next(answers)


def test_guard():
    """The guard allows, refuses with or without a reason, or gives other arguments."""
    said = iter([True, False, "too dear", {"a": 10, "b": 20}])
    asked = [request("add", str(n), a=n, b=n) for n in range(4)]
    seen = []

    def guard(one):
        seen.append(one)
        return next(said)

    calls = list(caller(add, guard=guard).answers([*asked, request("sub")], 0))

    assert ["0", '"not allowed"', '"not allowed: too dear"', "30"] == [
        call.content for call in calls[:4]
    ]
    assert [{"a": 0, "b": 0}, None, None, {"a": 10, "b": 20}] == [
        call.arguments for call in calls[:4]
    ]
    assert "tool add: not allowed: too dear" == str(calls[2].error)
    assert asked == seen  # and not the one that could not be called anyway


@pytest.mark.parametrize("said", [None, 1, []])
def test_a_guard_that_says_nothing(said):
    """A guard that forgets to say True allows nothing: it is an error."""
    answers = caller(add, guard=lambda _: said).answers([request("add", a=1, b=1)], 0)

    with pytest.raises(LMStudioTypeError, match="guard_tool_call must return True"):
        next(answers)


def test_other_arguments_of_a_guard_are_checked():
    """Wrong arguments of the guard are its author's mistake, and not the model's."""
    answers = caller(add, guard=lambda _: {"a": 1}).answers(
        [request("add", a=1, b=1)], 0
    )

    with pytest.raises(LMStudioToolError, match="'b' is a required property"):
        next(answers)


def test_stopped():
    """Once the run is stopped, nothing is called, and no handler asked."""
    is_stopped = threading.Event()

    def stop(n: int) -> int:
        is_stopped.set()
        return n

    calls = list(
        caller(
            stop, is_stopping=is_stopped.is_set, handle_invalid=lambda *_: 1 / 0
        ).answers([request("stop", n=1), request("stop", n=2), request("sub")], 7)
    )

    assert ["1", STOPPED, STOPPED] == [call.content for call in calls]
    assert "tool stop: not called: the run was stopped" == str(calls[1].error)
    assert calls[2].content == not_called(request("sub"), 7).content
    assert 7 == not_called(request("sub"), 7).round_index


def test_stopped_by_the_guard():
    """A stop after the guard said yes keeps the tool from being called as well."""
    is_stopped = threading.Event()

    def guard(_):
        is_stopped.set()
        return True

    [call] = caller(add, guard=guard, is_stopping=is_stopped.is_set).answers(
        [request("add", a=1, b=1)], 0
    )

    assert STOPPED == call.content


def test_the_end_of_the_time():
    """The time is looked at before each call; what that raises comes out."""
    called = []

    def late(n: int) -> int:
        called.append(n)
        return n

    def check_time():
        if called:
            raise TimeoutError

    answers = caller(late, check_time=check_time).answers(
        [request("late", n=1), request("late", n=2)], 0
    )

    assert 1 == next(answers).value
    with pytest.raises(TimeoutError):
        next(answers)
    assert [1] == called


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at_once", [1, 2])
def test_what_ends_programs(kind, at_once):
    """Ctrl-C and exits in a tool are no answers: they come out, also of threads."""

    def leave(n: int) -> int:
        raise kind

    answers = caller(leave, at_once=at_once).answers(
        [request("leave", n=1), request("leave", n=2)], 0
    )

    with pytest.raises(kind):
        next(answers)


# --- at once


def test_at_once():
    """As many as allowed run at the same time; answers keep the requests' order."""
    together = threading.Barrier(3)
    second_is_done = threading.Event()

    def meet(n: int) -> int:
        together.wait(FOREVER)
        if n == 0:
            assert second_is_done.wait(FOREVER)
        if n == 1:
            second_is_done.set()
        return n

    calls = caller(meet, at_once=3).answers([request("meet", n=n) for n in range(3)], 0)

    assert [0, 1, 2] == [call.value for call in calls]


def test_no_more_at_once_than_allowed():
    """With two at once the third waits until one of them is done."""
    both, running, most = threading.Barrier(2), [], []

    def meet(n: int) -> int:
        running.append(n)
        most.append(len(running))
        both.wait(FOREVER)  # 0 and 1, then 2 and 3
        running.remove(n)
        both.wait(FOREVER)
        return n

    calls = caller(meet, at_once=2).answers([request("meet", n=n) for n in range(4)], 0)

    assert [0, 1, 2, 3] == [call.value for call in calls]
    assert 2 == max(most)


def test_at_once_with_invalid_requests():
    """Requests that can't be called have their place among the answers."""
    calls = caller(add, fail, at_once=4).answers(
        [request("sub"), request("add", a=1, b=1), request("fail", text="x")], 0
    )

    assert [None, 2, None] == [call.value for call in calls]
    [call, other] = caller(add, at_once=4).answers([request("x"), request("y")], 0)
    assert call.error is not None and other.error is not None


def test_context_variables_go_along():
    """A tool in a thread sees the context variables of who asks for the answers."""
    variable = contextvars.ContextVar("variable", default="unset")

    def look(n: int) -> str:
        return variable.get()

    token = variable.set("set")
    try:
        calls = list(
            caller(look, at_once=2).answers([request("look", n=1)] * 2, 0),
        )
    finally:
        variable.reset(token)

    assert ["set", "set"] == [call.value for call in calls]


def test_one_alone_needs_no_thread():
    """A single request is called in this thread, whatever the limit."""

    def where() -> int:
        return threading.get_ident()

    [call] = caller(where, at_once=9).answers([request("where")], 0)

    assert threading.get_ident() == call.value


def test_stopped_while_tools_run_at_once():
    """Tools that run are waited for; those that have not begun are not called."""
    is_stopped = threading.Event()
    both = threading.Barrier(2)

    def stop(n: int) -> int:
        both.wait(FOREVER)
        is_stopped.set()
        return n

    calls = caller(stop, at_once=2, is_stopping=is_stopped.is_set).answers(
        [request("stop", n=n) for n in range(4)], 0
    )

    assert ["0", "1", STOPPED, STOPPED] == [call.content for call in calls]


def test_the_wait_looks_up_now_and_then(monkeypatch):
    """Between two answers of threads the time is looked at again and again."""
    monkeypatch.setattr("lmstudio.toolcalls.SLICE", 0.001)
    go_on, looks = threading.Event(), []

    def slow(n: int) -> int:
        assert go_on.wait(FOREVER)
        return n

    def check_time():
        looks.append(1)
        if len(looks) == 5:
            go_on.set()

    calls = caller(slow, at_once=2, check_time=check_time).answers(
        [request("slow", n=n) for n in range(2)], 0
    )

    assert [0, 1] == [call.value for call in calls]
    assert len(looks) >= 5


def test_the_time_ends_while_tools_run_at_once():
    """The wait ends with the time; a tool that runs is left to itself, none begins."""
    begun, go_on, called = threading.Barrier(3), threading.Event(), []

    def slow(n: int) -> int:
        called.append(n)
        begun.wait(FOREVER)
        go_on.wait(FOREVER)
        return n

    def check_time():
        begun.wait(FOREVER)
        raise TimeoutError

    answers = caller(slow, at_once=2, check_time=check_time).answers(
        [request("slow", n=n) for n in range(3)], 0
    )

    with pytest.raises(TimeoutError):
        next(answers)
    workers = [t for t in threading.enumerate() if t.name.startswith("lmstudio-tool-")]
    assert 2 == len(workers) and all(worker.daemon for worker in workers)
    go_on.set()
    for worker in workers:
        worker.join(FOREVER)
    assert [0, 1] == sorted(called)


# --- messages and results


def test_messages():
    """The model's message begins with its text; one message has all the answers."""
    asked = request("add", "7", a=1, b=2)
    [call] = caller(add).answers([asked], 0)

    said = assistant_message("so", [asked])
    told = tool_message([call, call])

    assert "assistant" == said.role
    assert ["text", "toolCallRequest"] == [part.type for part in said.content]
    assert ("so", asked) == (said.content[0].text, said.content[1].tool_call_request)
    assert "tool" == told.role
    assert [("toolCallResult", "3", "7")] * 2 == [
        (part.type, part.content, part.tool_call_id) for part in told.content
    ]
    assert [""] == [part.text for part in assistant_message("", []).content]


class Color(enum.Enum):
    RED = "red"


@attrs.frozen
class Point:
    x: int
    color: Color


@dataclasses.dataclass
class Box:
    at: Point


class Model:
    def model_dump(self):
        return {"m": 1}


class Array:
    def tolist(self):
        return [1, 2]


class Struct:
    __struct_fields__ = ("s",)
    s = 1


CIRCLE: list = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ("é", '"é"'),
        ({"a": [1, True]}, '{"a": [1, true]}'),
        (Color.RED, '"red"'),
        (Box(Point(1, Color.RED)), '{"at": {"x": 1, "color": "red"}}'),
        (Model(), '{"m": 1}'),
        (Array(), "[1, 2]"),
        (Struct(), '{"s": 1}'),
        (b"caf\xc3\xa9", '"café"'),
        ({3}, "[3]"),
        ((n for n in (1, 2)), "[1, 2]"),
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        (datetime.date(2026, 11, 30), '"2026-11-30"'),
        (Box, f'"{Box}"'),
        ({(1, 2): 3}, '"{(1, 2): 3}"'),
        (CIRCLE, '"[[...]]"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_results_of_any_type(value, expected):
    """What a tool returns is JSON for the model, or else a text that says it."""
    assert expected == to_json(value)


@pytest.mark.parametrize(
    "value",
    [b"\x00\xff", "half \ud83d", [float("nan")], float("inf"), object(), [object()]],
    ids=["bytes", "surrogate", "nan", "inf", "object", "inside"],
)
def test_results_without_json(value, caplog):
    """What would be lost on the way is an error, told to the model and to the log."""

    def give() -> object:
        return value

    handled = []

    def handle(error, request):
        handled.append((error, request))

    [call] = caller(give, handle_invalid=handle).answers([request("give")], 0)

    said = f"tool give: it returned {value!r}, which has no JSON form; return text,"
    assert str(call.error).startswith(said)
    assert str(call.error) == json.loads(call.content)
    assert call.value is value
    assert [(call.error, request("give"))] == handled
    [record] = caplog.records
    assert ("WARNING", "lmstudio.act") == (record.levelname, record.name)
    assert record.getMessage().startswith(said)


def test_an_explanation_may_hold_anything():
    """Half a surrogate pair in what a guard or an error says doesn't stop the run."""
    [call] = caller(add, guard=lambda _: "no \ud83d").answers(
        [request("add", a=1, b=1)], 0
    )

    assert '"not allowed: no ?"' == call.content
