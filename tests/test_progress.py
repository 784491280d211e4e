"""Bars show how far loads and prompts are: late, on terminals only, gone after."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import tqdm

from lmstudio import (
    LMStudioCancelledError,
    LMStudioClient,
    LMStudioModelLoadError,
    LMStudioTimeoutError,
    LMStudioTypeError,
    Signal,
    html,
    progress,
)
from lmstudio.progress import Bar, displays
from lmstudio.server.engine import LoadFailed
from lmstudio.testing import AWAIT_CANCEL, Await, FakeServer


class Terminal(io.StringIO):
    """A terminal that has no number, and keeps what is written."""

    def __init__(self):
        super().__init__()
        self.wrote = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        done = super().write(text)
        self.wrote.set()
        return done

    def lines(self):
        """What stood on its line, one after the other; blanks at the end left out."""
        return [line.rstrip() for line in self.getvalue().split("\r")[1:]]


@pytest.fixture(autouse=True)
def no_other_bar(monkeypatch):
    """No test waits for the bar of another that failed."""
    monkeypatch.setattr(progress, "_drawn", lambda: None)


@pytest.fixture
def terminal(monkeypatch):
    """The terminal that stderr is; bars appear at once."""
    made = Terminal()
    # Not sys.stderr itself: pytest sets that anew when the test begins.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    return made


@pytest.fixture
def clock(monkeypatch):
    """The time, as bars see it; a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_it_waits_before_it_appears(clock):
    """What takes less than 0.7 seconds shows nothing; then each change is drawn."""
    out = Terminal()
    bar = Bar("Loading x", out)
    bar.update(0.25)
    assert ("", 0.7) == (out.getvalue(), pytest.approx(bar.due()))

    clock[0] += 0.7
    bar.tick()
    assert None is bar.due()
    bar.update(0.5)
    bar.update(0.5)
    bar.close()
    bar.update(1.0)

    assert [
        "Loading x [########                      ]  25%",
        "Loading x [###############               ]  50%",
        "",
        "",
    ] == out.lines()


def test_clearing_leaves_nothing(clock):
    """Every column that was written is blank again, without escape codes."""
    out = Terminal()
    bar = Bar("Loading x", out)
    clock[0] += 1
    bar.update(1.0)
    bar.clear()
    (_, shown, blank, end) = out.getvalue().split("\r")

    assert " " * len(shown) == blank
    assert "" == end
    assert "\x1b" not in out.getvalue()
    bar.tick()
    assert "100%" in out.lines()[-1]
    bar.close()


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, "Loading a/long/name/of/a/mod... [###############               ]  50%"),
        (40, "Loading... [##########           ]  50%"),
        (26, "Loading... [####   ]  50%"),
        (20, " 50%"),
        (3, " 5"),
    ],
)
def test_it_fits_the_terminal(monkeypatch, clock, columns, line):
    """A line that wraps could not be cleared."""
    size = os.terminal_size((columns, 24))
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda _: size)
    out = Terminal()
    out.fileno = lambda: 2
    bar = Bar("Loading a/long/name/of/a/model\n that goes on", out)
    clock[0] += 1
    bar.update(0.5)

    shown = out.lines()[0]
    assert len(shown) < columns
    if columns != 80:
        assert line == shown
    bar.close()


def test_one_bar_at_a_time(clock):
    """A second one waits until the first is gone, or dropped."""
    first, second = Terminal(), Terminal()
    bar, other = Bar("one", first), Bar("two", second)
    clock[0] += 1
    bar.update(0.5)
    other.update(0.5)
    assert "" == second.getvalue()
    del bar
    clock[0] += 1
    other.update(0.6)
    assert "60%" in second.getvalue()
    other.close()


def test_a_terminal_that_goes_away(clock):
    """It ends the bar and nothing else."""
    out = Terminal()
    bar = Bar("x", out)
    out.close()
    clock[0] += 1
    bar.update(0.5)
    bar.update(0.6)
    assert None is bar.due()
    bar.close()


@pytest.mark.parametrize("stream", [None, io.StringIO(), object()])
def test_no_terminal_no_bar(monkeypatch, stream):
    """Files, notebooks and programs without a stderr stay silent."""
    monkeypatch.setattr("sys.stderr", stream)
    assert (None, None) == displays("x", True, None, None)


def test_a_closed_stderr(monkeypatch):
    """It is no terminal."""
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr("sys.stderr", stream)
    assert (None, None) == displays("x", None, None, None)


def told(share):
    """A callback of a user."""


def asked(share):
    """Another one."""


@pytest.mark.parametrize(
    ("given", "default", "own", "has_bar", "function"),
    [
        (None, None, None, True, None),
        (None, None, told, False, told),
        (True, None, told, True, told),
        (False, None, None, False, None),
        (None, False, None, False, None),
        (True, False, None, True, None),
        (asked, None, None, False, asked),
        (None, asked, None, False, asked),
        (False, asked, told, False, told),
        (asked, None, 7, False, 7),
    ],
)
def test_who_is_told(terminal, given, default, own, has_bar, function):
    """The call decides before the client; a callback of one's own needs no bar."""
    bar, call = displays("x", given, default, own)

    assert (has_bar, function) == (bar is not None, call)


def test_a_function_beside_a_callback():
    """Both are called."""
    shares = []
    _, both = displays("x", shares.append, None, lambda share: shares.append(-share))
    both(0.5)

    assert [0.5, -0.5] == shares


@pytest.mark.parametrize("given", [7, "yes", 0.5])
def test_what_progress_is_not(fake, client, given):
    """It is refused wherever it can be given, before anything is sent."""
    for call in (
        lambda: LMStudioClient(fake.host, progress=given),
        lambda: client.llm.load("other", progress=given),
        lambda: client.llm.model("other", progress=given),
        lambda: client.llm.get("any").respond("x", progress=given),
        lambda: client.llm.get("any").complete("x", progress=given),
    ):
        with pytest.raises(LMStudioTypeError, match="True, False or a function, not"):
            call()
    assert [] == [seen for seen in fake.requests if seen.endpoint]


def test_a_load_shows_a_bar(terminal, fake, client):
    """With its share, and the name; also while it says nothing; gone at the end."""
    fake.on_load([held := Await(), 0.5])
    model_of = threading.Thread(target=client.llm.load, args=("other",))
    model_of.start()
    assert terminal.wrote.wait(5)
    held.open()
    model_of.join()
    lines = terminal.lines()

    assert lines[0].startswith("Loading other [    ")
    assert any(line.endswith(" 50%") for line in lines)
    assert ["", ""] == lines[-2:]


@pytest.mark.parametrize(
    "quiet", [{"progress": False}, {"verbose": False}, {"on_progress": told}]
)
def test_loads_without_a_bar(terminal, client, quiet):
    """The call can switch it off."""
    client.llm.load("other", **quiet)
    assert "" == terminal.getvalue()


def test_a_client_without_bars(terminal, fake):
    """Its setting is that of all its calls, and of its handles."""
    shares = []
    with LMStudioClient(fake.host, progress=False) as client:
        client.llm.model("other").respond("x").result()
        assert "" == terminal.getvalue()
        client.llm.load("other", progress=True)
        assert "Loading other" in terminal.getvalue()
    with LMStudioClient(fake.host, progress=shares.append) as client:
        client.llm.load("other")
    assert 1.0 == shares[-1]


def test_a_load_that_does_not_end_well(terminal, fake, client):
    """No bar is left by an error, a cancel or a time limit."""
    signal = Signal()
    for steps, arguments, error in (
        ([0.5, LoadFailed("no")], {}, LMStudioModelLoadError),
        (
            [0.5, AWAIT_CANCEL],
            {
                "signal": signal,
                "on_progress": lambda _: signal.set(),
                "progress": True,
            },
            LMStudioCancelledError,
        ),
        ([0.5, AWAIT_CANCEL], {"timeout": 0.05}, LMStudioTimeoutError),
    ):
        fake.on_load(steps)
        with pytest.raises(error):
            client.llm.load("other", **arguments)
        assert ["", ""] == terminal.lines()[-2:]


@pytest.mark.parametrize("verb", ["complete", "respond"])
def test_a_prompt_shows_a_bar(terminal, fake, model, verb):
    """Until the first fragment is there: then the terminal is the user's."""
    fake.reply([held := Await(), "a"])
    prediction = getattr(model, verb)("x")
    pieces = []

    def read():
        for piece in prediction:
            pieces.append((piece, terminal.lines()[-2:]))

    reader = threading.Thread(target=read)
    reader.start()
    assert terminal.wrote.wait(5)
    held.open()
    reader.join()

    assert "Processing the prompt [" in terminal.getvalue()
    assert [("a", ["", ""])] == pieces


def test_a_prompt_that_nobody_waits_for_any_more(terminal, fake, model):
    """The bar is there only while somebody waits; a cancel takes it off."""
    fake.reply([AWAIT_CANCEL])
    prediction = model.respond("x")
    with pytest.raises(LMStudioTimeoutError):
        prediction.result(timeout=0.05)
    assert "Processing the prompt [" in terminal.getvalue()
    assert ["", ""] == terminal.lines()[-2:]
    prediction.cancel()
    prediction.result()
    assert ["", ""] == terminal.lines()[-2:]


def test_a_function_for_prompts(fake, model):
    """It is called with the share of the prompt."""
    shares = []
    model.respond("x", progress=shares.append).result()
    assert 1.0 == shares[-1]


def test_on_a_real_terminal(monkeypatch):
    """It asks the terminal how wide it is."""
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    with contextlib.closing(os.fdopen(theirs, "w")) as terminal:
        size = b"\x18\x00\x28\x00\x00\x00\x00\x00"  # 24 rows, 40 columns
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr(progress, "PATIENCE", 0.0)
        with FakeServer(["a-long-name"]) as fake, LMStudioClient(fake.host) as client:
            client.llm.load("a-long-name")
        written = os.read(ours, 4096).decode()
    os.close(ours)

    assert "Loading... [" in written
    assert 39 == max(map(len, written.split("\r")))
    assert "\x1b" not in written


@pytest.fixture
def notebook(monkeypatch):
    """A kernel, as far as bars need one; the list of what it showed."""
    shown = []

    def publish(data, metadata, transient, update):
        shown.append((update, transient["display_id"], data["text/plain"]))

    shell = SimpleNamespace(kernel=object(), display_pub=SimpleNamespace())
    shell.display_pub.publish = publish
    module = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    return shown


def test_a_bar_in_a_notebook(notebook, clock):
    """After 0.7 seconds, ten times a second at most, in one display; then empty."""
    bar, own = displays("Loading  x", None, None, None)
    bar.update(0.1)
    assert ([], pytest.approx(0.7)) == (notebook, bar.due())
    clock[0] += 0.7
    bar.tick()
    bar.update(0.2)
    bar.clear()
    assert pytest.approx(progress.INTERVAL) == bar.due()
    clock[0] += progress.INTERVAL
    bar.update(0.3)
    assert None is bar.due()
    bar.close()
    bar.close()
    bar.update(0.4)

    assert None is own
    assert None is bar.due()
    assert [
        (False, "Loading x 10%"),
        (True, "Loading x 30%"),
        (True, ""),
    ] == [(update, text) for update, _, text in notebook]
    assert 1 == len({name for _, name, _ in notebook})


def test_a_bar_that_never_appeared(notebook, clock):
    """What is quick shows nothing, also at its end."""
    bar, _ = displays("x", True, None, None)
    bar.update(0.5)
    bar.close()
    assert [] == notebook


def test_a_terminal_of_ipython_is_no_notebook(terminal, notebook):
    """Its shell has no kernel; the bar is that of a terminal."""
    sys.modules["IPython"].get_ipython().kernel = None
    bar, _ = displays("x", None, None, None)
    assert type(bar) is Bar


@pytest.fixture
def bars(monkeypatch):
    """The class of tqdm, without its thread, writing to one text."""
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)
    out = io.StringIO()

    class Own(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, file=out, mininterval=0, **options)

    Own.out = out
    return Own


def test_the_class_of_tqdm(bars, fake, client):
    """A bar is made of it, and goes at the end; a callback is called as well."""
    fake.on_load([0.25, 0.5])
    shares = []
    client.llm.load("other", progress=bars, on_progress=shares.append)
    lines = bars.out.getvalue().split("\r")

    assert 0.25 in shares
    assert any("Loading other:  25%" in line for line in lines)
    assert any("Loading other: 100%" in line for line in lines)
    assert "" == lines[-1].strip()


def test_a_bar_of_tqdm(bars, fake, client):
    """It is moved over its own length, keeps its name, and stays open."""
    fake.on_load([0.25, 0.5])
    with bars(total=8, desc="mine") as own, bars() as endless:
        client.llm.load("other", progress=own)
        client.llm.load("other", identifier="b", progress=endless)
        assert (8, 8, "mine") == (own.n, own.total, own.desc)
        assert (100, 100) == (endless.n, endless.total)
        assert not own.disable
    assert "mine:  25%" in bars.out.getvalue()


def test_a_client_with_tqdm(bars, fake):
    """The class may be that of all calls of a client."""
    with LMStudioClient(fake.host, progress=bars) as client:
        client.llm.load("other")
        assert 2 == len(list(client.llm.get("any").map(["1", "2"])))
    text = bars.out.getvalue()
    assert "Loading other: 100%" in text
    assert "Predicting: 100%" in text


@pytest.mark.slow
def test_nothing_of_ipython_is_imported():
    """Who does not use IPython does not get it."""
    code = (
        "import sys, lmstudio, lmstudio.client, lmstudio.notebook as n\n"
        "lmstudio.Prediction, lmstudio.Chat()._repr_html_(), n.is_notebook()\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('IPython', 'tqdm')])"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert "[]\n" == done.stdout, done.stderr


def test_a_count(clock):
    """Where nobody knows of how many, it says how many are done, and is cut."""
    terminal = Terminal()
    bar = Bar("Predicting", terminal)
    bar.count(1)
    assert "" == terminal.getvalue()
    clock[0] += 0.7
    bar.count(12)
    bar.close()
    bar.count(13)
    assert ["Predicting 12 done", "", ""] == terminal.lines()
    bar = Bar("x" * 200, terminal)
    clock[0] += 0.7
    bar.count(1)
    assert ("x" * 79, "") == (terminal.lines()[-1], bar.clear() or "")


def test_prompts_without_a_length(terminal, fake, model):
    """The bar of a generator of prompts counts them."""
    assert 3 == len(list(model.map((str(n) for n in range(3)), workers=1)))
    shown = [line for line in terminal.lines() if line]
    assert {"Predicting 0 done", "Predicting 3 done"} <= {*shown}
    assert all(line.endswith(" done") for line in shown)


def test_a_count_in_a_notebook(notebook, clock):
    """Its display says how many, in a bar without a value."""
    bar, _ = displays("Predicting", True, None, None)
    clock[0] += 0.7
    bar.count(2)
    bar.close()
    texts = [(update, text) for update, _, text in notebook]
    assert [(False, "Predicting 2 done"), (True, "")] == texts
    assert "value=" not in html.bar("Predicting 2 done", None)
    assert "Predicting 2 done" in html.bar("Predicting 2 done", None)


def test_a_count_of_tqdm(bars, model):
    """A bar made here has no total; one of the user's keeps its own."""
    list(model.map(iter("abc"), progress=bars))
    assert "Predicting: 3it" in bars.out.getvalue()
    with bars(total=8) as own:
        list(model.map(iter("abc"), progress=own))
        assert (3, 8) == (own.n, own.total)
