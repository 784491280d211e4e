"""What has arrived of a prediction is shared by all who wait for it."""

from __future__ import annotations

import threading
import time

import pytest

from interrupts import Interrupt
from lmstudio import LMStudioRuntimeError, LMStudioTypeError, LMStudioValueError
from lmstudio.arrivals import CUT, Arrivals, Malformed, Watch
from lmstudio.mailbox import Mailbox
from lmstudio.protocol.client import End
from lmstudio.turns import TURN
from predictions import waits

END = End("closed")


def piece(text):
    return {"type": "fragment", "fragment": {"content": text}}


def progress(share):
    return {"type": "promptProcessingProgress", "progress": share}


def arrivals(*batches, **watch):
    inbox = Mailbox()
    for batch in batches:
        inbox.put(list(batch))
    return Arrivals(inbox, Watch(**watch)), inbox


def test_waits_for_more_than_a_position():
    """True while there is more, False when there will be none, None in between."""
    made, inbox = arrivals([piece("a"), piece("b")])

    assert made.wait_beyond(0) is True
    assert made.wait_beyond(1) is True
    assert ["a", "b"] == made.fragments
    assert made.wait_beyond(2, time.monotonic()) is None
    inbox.put([END])
    assert made.wait_beyond(2) is False
    assert made.wait_beyond(0) is True
    assert made.drained


def test_a_success_alone_does_not_end_it():
    """The mailbox puts an end behind the success that counts."""
    made, inbox = arrivals([{"type": "success"}])

    assert made.wait_beyond(0, time.monotonic()) is None
    inbox.put([END])
    assert made.wait_beyond(0) is False


def test_whatever_arrives_wakes_those_who_are_over():
    """The wait ends at the first thing that arrives once it is over."""
    made, inbox = arrivals()
    inbox.put([CUT])
    over = []

    def is_over():
        over.append(None)
        return len(over) > 2

    assert made.wait_beyond(0, None, is_over) is False
    assert not made.drained


def test_the_cut():
    """What is behind it is dropped, malformed or not, and the end still counts."""
    late = [piece("b"), {"type": "fragment"}, *call_packets("one")]
    made, _ = arrivals([piece("a")], [CUT], late, [END])

    while made.wait_beyond(len(made.fragments)):
        pass

    assert (["a"], []) == (made.fragments, made.asked.calls)


def test_malformed_packets_come_out():
    """The rest of their batch is kept; the first is raised until it is known."""
    made, _ = arrivals([piece("a"), {"type": "fragment"}, 7, piece("b"), END])

    with pytest.raises(Malformed) as caught:
        made.wait_beyond(0)
    assert (
        "unexpected message from the server at predict:"
        " KeyError: 'fragment' in {'type': 'fragment'}"
    ) == str(caught.value.error)
    assert ["a", "b"] == made.fragments
    made.problem_is_known()
    assert made.wait_beyond(2) is False


def test_callbacks_in_order():
    """Progress, then the first token once, then each fragment."""
    told = []
    made, inbox = arrivals(
        [progress(0), progress(0.5), {"type": "other"}, progress("x"), piece("a")],
        on_first_token=lambda: told.append("first"),
        on_fragment=told.append,
        on_prompt_progress=told.append,
    )

    assert made.wait_beyond(0)
    inbox.put([piece("b"), END])
    assert made.wait_beyond(1)

    assert [0.0, 0.5, "first", "a", "b"] == told
    assert 0.5 == made.progress


def test_the_whole_message_and_its_calls():
    """Each call is told as it is complete, and the message once, with all of them."""
    told = []
    made, inbox = arrivals(
        [piece("a"), *call_packets("one")],
        on_tool_call=lambda call: told.append(call.name),
        on_message=told.append,
    )
    assert made.wait_beyond(0)
    assert ["one"] == told
    inbox.put([piece("b"), *call_packets("two"), {"type": "success"}, END])
    assert made.wait_beyond(1)

    (text, *calls) = told[2].content
    assert ["one", "two"] == told[:2] == [c.tool_call_request.name for c in calls]
    assert ("ab", "assistant") == (text.text, told[2].role)


def test_a_malformed_call_comes_out():
    """Of several the first is raised, and what fits is kept."""
    made, _ = arrivals(
        [piece("a"), {"type": "toolCallGenerationEnd"}],
        [{"type": "toolCallGenerationEnd", "toolCallRequest": 5}],
        [*call_packets("one"), END],
    )
    with pytest.raises(Malformed, match="not None") as caught:
        made.wait_beyond(0)
    assert "not 5" not in str(caught.value)
    assert (["a"], ["one"]) == (made.fragments, [c.name for c in made.asked.calls])


class Shown:
    """A bar that keeps what it is told."""

    def __init__(self, due=None):
        self.told, self._due = [], due

    def due(self):
        return self._due

    def update(self, share):
        self.told.append(share)

    def tick(self):
        self.told.append("tick")

    def clear(self):
        self.told.append("clear")

    def close(self):
        self.told.append("close")


def test_the_bar():
    """It is told of progress, drawn while somebody waits, and closed by the text."""
    bar = Shown()
    made, inbox = arrivals([progress(0.25), progress(0.5)], bar=bar)

    assert made.wait_beyond(0, time.monotonic()) is None
    assert [0.5, "tick", "clear"] == bar.told
    inbox.put([{"type": "other"}])
    assert made.wait_beyond(0, time.monotonic()) is None
    assert ["tick", "clear"] == bar.told[3:]
    inbox.put([piece("a")])
    assert made.wait_beyond(0)
    assert ["close", "clear"] == bar.told[5:]


@pytest.mark.parametrize("limit", [None, 60.0])
def test_a_bar_wants_to_appear(limit):
    """The wait is interrupted when it is due, whatever the limit of the wait."""
    bar = Shown(due=0.0)
    bar.tick = lambda: inbox.put([piece("a")])
    made, inbox = arrivals(bar=bar)

    assert made.wait_beyond(0, limit and time.monotonic() + limit)
    assert ["a"] == made.fragments


def test_taking_over_from_the_bar():
    """Who shows the progress in its place has it closed; without one nobody asks."""
    bar = Shown()
    made, inbox = arrivals(bar=bar)
    assert 0.0 == made.prompt_share()
    inbox.put([progress(0.5)])
    made.take_what_is_here()
    assert (0.5, ["close", "close"]) == (made.prompt_share(), bar.told)

    made, _ = arrivals([progress(0.5)])
    made.take_what_is_here()
    assert made.prompt_share() is None


def test_quiet_without_callbacks():
    """Nobody has to be told."""
    made, _ = arrivals([progress(1), piece("a")], [END])

    assert made.wait_beyond(0)
    assert 1.0 == made.progress


def test_a_callback_that_raises_is_the_last():
    """What comes after it is taken in silence."""
    calls = []

    def fail(text):
        calls.append(text)
        raise KeyError(text)

    made, inbox = arrivals([piece("a"), piece("b")], on_fragment=fail)
    with pytest.raises(KeyError):
        made.wait_beyond(0)
    inbox.put([piece("c"), END])

    assert made.wait_beyond(2) is True
    assert ["a"] == calls
    assert ["a", "b", "c"] == made.fragments


def test_a_callback_that_waits():
    """Waiting inside a callback would never end."""
    made, _ = arrivals([piece("a")], on_fragment=lambda _: made.wait_beyond(5))

    with pytest.raises(LMStudioRuntimeError):
        made.wait_beyond(0)


def test_taking_what_is_here():
    """It takes all without waiting and without calling back."""
    calls = []
    made, _ = arrivals([piece("a")], [piece("b")], on_fragment=calls.append)

    made.take_what_is_here()

    assert ["a", "b"] == made.fragments
    assert [] == calls


def test_taking_leaves_it_to_who_is_at_it():
    """While another thread takes, there is nothing to do."""
    made, inbox = arrivals()
    taking = waits(inbox, "move")
    thread = threading.Thread(target=made.wait_beyond, args=(0,))
    thread.start()
    assert taking.wait(5)

    made.take_what_is_here()
    inbox.put([piece("a")])
    thread.join(5)

    assert ["a"] == made.fragments


def test_what_another_thread_brought_meanwhile():
    """Between the look and the turn another thread may have taken it."""
    made, _ = arrivals([piece("a")])
    looks = []

    def is_over():
        looks.append(None)
        if len(looks) == 2:
            made.fragments.append("b")
        return False

    assert made.wait_beyond(0, None, is_over)
    assert ["b"] == made.fragments


def test_how_far():
    """A few words for messages."""
    made, inbox = arrivals()
    assert "nothing has arrived" == made.how_far()
    inbox.put([progress(0.43)])
    made.take_what_is_here()
    assert "43% of the prompt processed" == made.how_far()
    inbox.put([piece("a")])
    made.take_what_is_here()
    assert "1 fragment so far" == made.how_far()
    inbox.put([piece("b")])
    made.take_what_is_here()
    assert "2 fragments so far" == made.how_far()


@pytest.mark.parametrize(
    ("watch", "error"),
    [
        ({"on_first_token": 1}, "on_first_token must be a function, not 1"),
        ({"on_fragment": "x"}, "on_fragment must be a function, not 'x'"),
        ({"on_prompt_progress": {}}, "on_prompt_progress must be a function, not {}"),
        ({"timeout": "1"}, "timeout must be a number of seconds above 0, or None,"),
        ({"idle_timeout": True}, "idle_timeout must be a number of seconds above 0"),
        ({"signal": 1}, "signal must be a Signal or a threading.Event, not 1"),
    ],
)
def test_wrong_wishes(watch, error):
    """A watch that can't work is refused when it is made."""
    with pytest.raises(LMStudioTypeError) as caught:
        Watch(**watch)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_wrong_limits(limit):
    """A time limit is above 0."""
    for name in ("timeout", "idle_timeout"):
        with pytest.raises(LMStudioValueError):
            Watch(**{name: limit})


def test_two_wait(monkeypatch):
    """Who waits for another to take is woken by it, and keeps to its own limit."""
    monkeypatch.setattr("lmstudio.turns.SLICE", 60.0)
    made, inbox = arrivals()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(made.wait_beyond(0)))
        for _ in range(2)
    ]
    waiting = waits(made._turns.news, "wait")
    for thread in threads:
        thread.start()
    assert waiting.wait(5)

    assert made.wait_beyond(0, time.monotonic() + 0.01) is None
    inbox.put([piece("a")])
    for thread in threads:
        thread.join(5)

    assert [True, True] == answers


def call_packets(name):
    yield {"type": "toolCallGenerationStart", "toolCallId": name}
    yield {
        "type": "toolCallGenerationEnd",
        "toolCallRequest": {"type": "function", "name": name, "arguments": {}},
    }


def read(made):
    while made.wait_beyond(len(made.fragments)):
        pass


def interrupted(*batches):
    """Arrivals whose reader was interrupted: at its first step, its second, to none."""
    for at in range(1, 2000):
        made, _ = arrivals(*batches)
        interrupt = Interrupt(at)
        try:
            with interrupt:
                read(made)
        except KeyboardInterrupt:
            pass
        yield made, interrupt.where
        if interrupt.where is None:
            break
    assert at > 20


@pytest.mark.slow
@pytest.mark.parametrize("enough", [1, 3, 512])
def test_ctrl_c_at_any_step(monkeypatch, enough):
    """Whoever goes on afterwards comes to the same, whichever step it hit."""
    monkeypatch.setattr("lmstudio.mailbox.ENOUGH", enough)
    batches = (
        [progress(0.5), piece("a")],
        [piece("b"), *call_packets("one"), piece("c")],
        [piece("d")],
        [*call_packets("two"), piece("e"), END],
    )
    for made, where in interrupted(*batches):
        read(made)
        assert ["a", "b", "c", "d", "e"] == made.fragments, where
        assert ["one", "two"] == [call.name for call in made.asked.calls]
        assert (0.5, True) == (made.progress, made.drained)
        made.take_what_is_here()


@pytest.mark.parametrize("enough", [1, 512])
def test_ctrl_c_and_a_cut(monkeypatch, enough):
    """What is behind the cut stays away, and what was before it stays there."""
    monkeypatch.setattr("lmstudio.mailbox.ENOUGH", enough)
    batches = ([piece("a")], [piece("b")], [CUT], [piece("c"), END])
    for made, where in interrupted(*batches):
        read(made)
        assert ["a", "b"] == made.fragments, where


def test_ctrl_c_at_any_step_of_one_thread_lets_another_go_on(monkeypatch):
    """It takes over the turn that was left behind, after its first look."""
    monkeypatch.setattr("lmstudio.turns.SLICE", 0.001)
    for made, where in interrupted([piece("a")], [piece("b"), END]):
        thread = threading.Thread(target=read, args=(made,), daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), where
        assert ["a", "b"] == made.fragments, where


def test_a_problem_that_an_interrupt_kept_back():
    """It comes out where somebody waits next."""
    for at in range(1, 2000):
        made, _ = arrivals([piece("a"), {"type": "fragment"}, END])
        interrupt, problems = Interrupt(at), []
        for _ in range(3):
            try:
                with interrupt:
                    read(made)
            except Malformed:
                problems.append(1)
                made.problem_is_known()
            except KeyboardInterrupt:
                pass
        if interrupt.where is None:
            break
        assert problems, interrupt.where
    assert at > 10


def test_a_turn_left_behind():
    """A callback that waits is refused as ever, and a turn without work is not."""
    made, _ = arrivals([piece("a"), END])
    made._turn[TURN] = (threading.get_ident(),)

    assert made.wait_beyond(0)
    assert {} == made._turn


def test_after_a_fork(monkeypatch):
    """The turn of a thread that did not come along is free at once."""
    monkeypatch.setattr("lmstudio.turns.SLICE", 60.0)
    made, _ = arrivals([piece("a"), END])
    made._turn[TURN] = (-1,)  # of no thread here

    made.after_fork()

    assert made.wait_beyond(0, time.monotonic() + 60.0)
    assert ["a"] == made.fragments
