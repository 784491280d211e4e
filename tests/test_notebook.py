"""In a real kernel: text as it comes, in one display; interrupts, errors, reruns."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from kernels import ROOT, Kernel, close_loop, environment, jupyter
from lmstudio import LMStudioWebsocketError
from lmstudio.testing import AWAIT_CANCEL, DROP, Await, FakeServer, tool_call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_kernel(tmp_path_factory):
    """A kernel for all tests of this file: starting one takes a second."""
    with Kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        yield kernel


@pytest.fixture
def kernel(shared_kernel, fake):
    """The kernel, with a client of the scripted server and a handle of its model."""
    shared_kernel.ok(
        "import gc, lmstudio, threading\n"
        f"client = lmstudio.LMStudioClient({fake.host!r})\n"
        "model = client.llm.get('any')\n"
    )
    yield shared_kernel
    shared_kernel.ok("client.close()\n%reset -f in out")


def thought(text):
    """A fragment of what the model thinks."""
    return {
        "type": "fragment",
        "fragment": {"content": text, "tokensCount": 1, "reasoningType": "reasoning"},
    }


def test_text_as_it_comes(kernel, fake):
    """The last value of a cell is shown while it comes, as Markdown in one display."""
    first, second = Await(), Await()
    fake.reply(["**Hello**", first, "\n```py\nx", second, " = 1"])
    kernel.begin("model.respond('Hi')")
    shown = kernel.until(lambda cell: cell.displays).displays
    assert {"text/plain": "**Hello**", "text/markdown": "**Hello**"} == shown[-1]
    first.open()
    shown = kernel.until(lambda cell: len(cell.displays) == 2).displays
    assert "**Hello**\n\n```\nx\n```" == shown[-1]["text/markdown"]
    second.open()
    cell = kernel.end()
    last = cell.displays[-1]["text/markdown"]

    assert last.startswith("**Hello**\n\n```py\nx = 1\n```\n\n<small ")
    assert "eosFound" in last
    assert "tokens" in cell.displays[-1]["text/plain"]
    assert ["display_data", *["update_display_data"] * (len(cell.kinds) - 1)] == (
        cell.kinds
    )
    assert 1 == len(cell.slots)
    assert "ok" == cell.reply["status"]


def test_at_most_ten_times_a_second(kernel, fake):
    """Not each fragment is an update, and the last text is shown in any case."""
    pieces = [f"{n} " for n in range(2000)]
    fake.reply(pieces)
    cell = kernel.ok("import time; began = time.monotonic()\nmodel.respond('Hi')")
    seconds = float(kernel.ok("print(time.monotonic() - began)").printed)

    assert len(cell.displays) <= 2 + seconds / 0.1
    assert "".join(pieces) == cell.displays[-1]["text/plain"].partition("\n")[0]


def test_an_assignment_shows_nothing(kernel, fake):
    """What is not the last value is not shown, and the text is there."""
    fake.reply("Hello")
    assert [] == kernel.ok("x = model.respond('Hi')").kinds
    assert "Hello\n" == kernel.ok("print(x)").printed


def test_displays_of_all_kinds(kernel, fake):
    """display() shows it too, again and again; in a list it is one line."""
    fake.reply("Hello", times=2)
    cell = kernel.ok("x = model.respond('Hi')\ndisplay(x)\nx")
    assert 2 == len(cell.slots)
    assert all("Hello" in data["text/plain"] for data in cell.displays)
    cell = kernel.ok("[x]")
    ((_, _), (kind, content)) = cell.messages
    assert "execute_result" == kind
    assert {"text/plain": "[<Prediction done, 1 fragment so far>]"} == content["data"]


def test_thoughts_are_folded(kernel, fake):
    """What the model thinks stands in a folded block above the answer."""
    fake.reply([thought("Hm. <script>\n\nWell."), "42"])
    shown = kernel.ok("model.respond('Hi')").displays[-1]["text/markdown"]

    assert shown.startswith("<details ")
    assert "Hm&#46; &#60;script&#62;&#10;&#10;Well&#46;</pre></details>\n\n42" in shown


def test_no_markup_of_the_model(kernel, fake):
    """A script in an answer is text."""
    fake.reply("<script>alert(1)</script>[x](javascript:alert(1))")
    cell = kernel.ok("x = model.respond('Hi')\nx")
    for data in cell.displays:
        assert "<script" not in data["text/markdown"]
        assert "](javascript" not in data["text/markdown"]
    fake.reply("<script>alert(1)</script>")
    (_, (_, content)) = kernel.ok("model.respond('Hi').result()").messages
    assert content["data"]["text/markdown"].startswith(
        "&lt;script>alert(1)&lt;/script>"
    )
    assert "text/html" not in content["data"]


def test_json_is_code(kernel, fake):
    """An answer in a structure is shown as what it is."""
    fake.reply('{"a": 1}')
    shown = kernel.ok("model.respond('Hi', response_format=dict)").displays[-1]
    assert shown["text/markdown"].startswith('```json\n{"a": 1}\n```')


def test_interrupt(kernel, fake):
    """It cancels, the partial text stays in the cell, and the next cell works."""
    fake.reply(["partial", AWAIT_CANCEL])
    kernel.begin("model.respond('Hi')")
    kernel.until(lambda cell: cell.displays)
    kernel.interrupt()
    cell = kernel.end()

    assert "error" == cell.reply["status"]
    assert "KeyboardInterrupt" == cell.reply["ename"]
    assert "partial\n[interrupted]" == cell.displays[-1]["text/plain"]
    assert ["display_data", "update_display_data", "error"] == cell.kinds
    fake.wait_for(lambda seen: "cancel" in str(seen.message.get("message", "")))
    fake.reply("fine")
    assert "fine" in kernel.ok("model.respond('Hi')").displays[-1]["text/plain"]


def test_an_error_is_that_of_the_cell(kernel, fake):
    """The partial text stays, the error follows once, and the cell has failed."""
    fake.reply(["partial", DROP])
    cell = kernel.run("model.respond('Hi')")

    assert "error" == cell.reply["status"]
    assert "LMStudioWebsocketError" == cell.reply["ename"]
    assert (
        "partial\n[failed: LMStudioWebsocketError]" == cell.displays[-1]["text/plain"]
    )
    assert 1 == cell.kinds.count("error")
    assert "execute_result" not in cell.kinds


def test_a_callback_that_raises(kernel, fake):
    """Its exception is that of the cell too."""
    fake.reply("Hello")
    cell = kernel.run("model.respond('Hi', on_fragment=lambda f: 1 / 0)")
    assert "ZeroDivisionError" == cell.reply["ename"]
    assert 1 == cell.kinds.count("error")


def test_bars_of_loads(kernel, fake):
    """A load shows how far it is in a display that is empty at the end."""
    kernel.ok("import lmstudio.progress as p, lmstudio.notebook as n\np.PATIENCE = 0")
    fake.on_load([0.25, held := Await(), 0.75])
    kernel.begin("x = client.llm.load('other')")
    shown = kernel.until(
        lambda cell: any("25%" in data["text/plain"] for data in cell.displays)
    ).displays[-1]
    assert '<progress max="100" value="25"' in shown["text/html"]
    held.open()
    cell = kernel.end()
    kernel.ok("p.PATIENCE = n.PATIENCE")

    assert {"text/plain": "", "text/html": ""} == cell.displays[-1]
    assert 1 == len(cell.slots)
    assert {"display_data", "update_display_data"} == set(cell.kinds)


def test_no_bar_when_it_is_quick_or_unwanted(kernel):
    """Before 0.7 seconds nothing is shown; with progress=False nothing at all."""
    assert [] == kernel.ok("x = client.llm.load('other', identifier='a')").kinds
    kernel.ok("p.PATIENCE = 0")
    code = "x = client.llm.load('other', identifier='b', progress=False)"
    assert [] == kernel.ok(code).kinds
    kernel.ok("p.PATIENCE = n.PATIENCE")


def test_how_far_the_prompt_is(kernel, fake):
    """It stands where the text will be."""
    kernel.ok("n.PATIENCE = 0")
    fake.reply(
        [
            {"type": "promptProcessingProgress", "progress": 0.5},
            held := Await(),
            "Hello",
        ]
    )
    kernel.begin("model.respond('Hi')")
    kernel.until(lambda cell: any("50%" in d["text/plain"] for d in cell.displays))
    held.open()
    cell = kernel.end()
    kernel.ok("n.PATIENCE = p.PATIENCE")

    assert 1 == len(cell.slots)
    assert cell.displays[-1]["text/markdown"].startswith("Hello")


def test_a_prompt_in_the_background(kernel, fake):
    """Who waits for a result sees a bar of its own."""
    kernel.ok("p.PATIENCE = 0")
    fake.reply([{"type": "promptProcessingProgress", "progress": 0.5}, "Hello"])
    cell = kernel.ok("x = model.respond('Hi').result()")
    kernel.ok("p.PATIENCE = n.PATIENCE")
    assert "" == cell.displays[-1]["text/plain"]


def test_reprs(kernel, fake):
    """Lists of models are tables, chats are bubbles, stats a table."""
    fake.reply("Hello")
    for code, part in (
        ("client.list_downloaded_models()", "<td>other</td>"),
        ("client.llm.list_loaded()", "<td>any</td>"),
        ("client.list_loaded_models()", "<td>any</td>"),
        ("lmstudio.Chat('<script>')", "&lt;script&gt;"),
        ("model.respond('Hi').stats", "<td>eosFound</td>"),
        ("lmstudio.LMStudioValueError('<script>')", "&lt;script&gt;"),
        ("client.llm.list_loaded()[0]", "<table>"),
    ):
        (_, (kind, content)) = kernel.ok(code).messages
        assert "execute_result" == kind
        assert part in content["data"]["text/html"], code
        assert "<script" not in content["data"]["text/html"]


def test_nothing_stacks_up(shared_kernel, fake):
    """The same cell twenty times: one model, one client's threads and sockets."""
    kernel = shared_kernel
    code = (
        "import gc, os, threading, lmstudio\n"
        f"client = lmstudio.LMStudioClient({fake.host!r})\n"
        "model = client.llm.load('other')\n"
        "model.respond('Hi')"
    )
    port = int(fake.host.rpartition(":")[2])
    # ipykernel brings psutil. What the client before had ends in threads of its own.
    kernel.ok(
        "import psutil, time\n"
        "def count():\n"
        "    gc.collect()\n"
        "    threads = sum('lmstudio' in t.name for t in threading.enumerate())\n"
        "    open_ = psutil.Process().net_connections()\n"
        f"    ours = [c for c in open_ if c.raddr and c.raddr.port == {port}]\n"
        "    return threads, len(ours)\n"
        "def settled(expected):\n"
        "    end = time.monotonic() + 5\n"
        "    while count() != expected and time.monotonic() < end:\n"
        "        time.sleep(0.01)\n"
        "    return count()\n"
    )
    count = "print(count())"
    fake.reply("Hello", times=20)
    kernel.ok(code)
    at_first = kernel.ok(count).printed
    for _ in range(19):
        kernel.ok(code)
    fake.wait_for(lambda _: len(fake.parameters("unloadModel")) >= 19)
    fake.wait_for(lambda _: len(fake.loaded()) == 2)
    assert at_first == kernel.ok(f"print(settled({at_first.strip()}))").printed
    assert "(0, 0)" != at_first.strip()
    kernel.ok("client.close()\n%reset -f in out")


def test_a_restart_frees_the_models(tmp_path, fake):
    """What the kernel's client had loaded for itself goes with the kernel."""
    with Kernel(tmp_path) as kernel:
        kernel.ok(
            "import lmstudio\n"
            f"client = lmstudio.LMStudioClient({fake.host!r})\n"
            "model = client.llm.load('other')\n"
        )
        assert 2 == len(fake.loaded())
        kernel.restart()
        fake.wait_for(lambda _: ["any"] == fake.loaded())


SESSION = """
import lmstudio
client = lmstudio.LMStudioClient({host!r})
model = client.llm.get('any')
model.respond('Hi')
x = model.respond('Hi')
[x.result() and x]
client.close()
"""


def test_ipython_on_a_terminal(tmp_path, fake):
    """There the same value is printed as text, and nothing is shown of others."""
    pytest.importorskip("IPython")
    fake.reply(["**Hel", "lo**\x1b[2J"], times=2)
    words = ["--simple-prompt", "--no-banner", "--colors=NoColor", "--no-confirm-exit"]
    done = subprocess.run(
        [sys.executable, "-m", "IPython", *words],
        input=SESSION.format(host=fake.host),
        env={**os.environ, **environment(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert re.search(
        r"Out\[4\]: \*\*Hello\*\*\[2J\n\[2 tokens · [\d.]+ tokens/s · eosFound\]\n",
        done.stdout,
    ), done.stdout + done.stderr
    assert 1 == done.stdout.count("**Hello")
    assert "[<Prediction done, 2 fragments so far>]" in done.stdout
    assert "\x1b[2J" not in done.stdout


def test_without_ipython(model, fake, capsys):
    """Who calls the method elsewhere gets the text, and errors as they are."""
    fake.reply(["Hello", "\n"])
    model.respond("Hi")._ipython_display_()
    assert re.fullmatch(
        r"Hello\n\[2 tokens · .* · eosFound\]\n", capsys.readouterr().out
    )
    fake.reply(["partial", DROP])
    with pytest.raises(LMStudioWebsocketError):
        model.respond("Hi")._ipython_display_()
    expected = "partial\n[failed: LMStudioWebsocketError]\n"
    assert expected == capsys.readouterr().out


def test_a_result_as_marimo_wants_it(model, fake):
    """Marimo asks for a kind and the whole text."""
    fake.reply("Hello <b>")
    kind, text = model.respond("Hi")._mime_()
    assert "text/markdown" == kind
    assert text.startswith("Hello &lt;b>\n\n<small ")


def test_what_a_model_asks_for(model, fake):
    """Calls of tools stand below the answer."""
    fake.reply(["Well.", tool_call("add", {"a": "<b>"})])
    shown = model.respond("Hi", tools=[add]).result()._repr_markdown_()
    assert shown.startswith("Well.\n\n<small ")
    assert (
        "asks for add&#40;&#123;&#39;a&#39;&#58; &#39;&#60;b&#62;&#39;&#125;" in shown
    )


def add(a: str) -> str:
    """Add one."""
    return a


def test_the_example(tmp_path, monkeypatch):
    """The notebook among the examples runs from top to bottom."""
    jupyter()
    import nbclient
    import nbformat

    notebook = nbformat.read(ROOT / "docs/examples/notebook.ipynb", as_version=4)
    with FakeServer(["smollm2-135m-instruct"]) as fake:
        fake.reply("A **llama** is an animal.")
        fake.reply("Smaller.")
        for name, value in environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
        client = nbclient.NotebookClient(notebook, timeout=60)
        client.execute()
        close_loop()
        fake.assert_all_used()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    (listed,), nothing, (text,), (chat,), (stats,), last = outputs

    assert "<td>smollm2-135m-instruct</td>" in listed.data["text/html"]
    assert text.data["text/markdown"].startswith("A **llama** is an animal.\n\n<small")
    assert "Smaller." in chat.data["text/html"]
    assert "stop_reason" in stats.data["text/html"]
    assert [] == nothing == last
