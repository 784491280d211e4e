"""The documentation is true: its code runs, its links and tables are right."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

import lmstudio
from hub_server import HubServer, model_bytes
from lmstudio import testing
from lmstudio.server.downloads import Downloads
from lmstudio.server.engine import ModelFile
from lmstudio.server.store import Store
from lmstudio.testing.engine import scripted_model

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/guides").glob("*.md")),
]
EVERY_PAGE = sorted({*PAGES, *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"})
WIRE = ROOT / "docs/wire"
SOURCES = sorted((ROOT / "lmstudio").rglob("*.py"))

#: Models that the server behind the pages has on its disk.
MODEL_FILE = "HuggingFaceTB/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
MODELS = (
    attrs.evolve(
        scripted_model("smollm2-135m-instruct"),
        relative_path=MODEL_FILE,
        publisher="HuggingFaceTB",
    ),
    "qwen2.5-0.5b-instruct",
    attrs.evolve(scripted_model("qwen2-vl-2b-instruct"), vision=True),
    "text-embedding-nomic-embed-text-v1.5",
)
#: What the hub behind the pages has.
HUB_REPO = "bartowski/Qwen2.5-0.5B-Instruct-GGUF"
_COMMENT = re.compile(r"<!-- (?P<what>[\w ]+)(: (?P<text>.*))? -->")
#: A comment behind a print() says what is printed.
_PRINTS = re.compile(r"^\s*print\(.*\)  # (?P<text>.+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_DOCS_PATH = re.compile(r'(docs/[\w./-]*\w)(?:, "([^"]+)")?')


@attrs.frozen
class Block:
    """A block of Python in a page.

    Attributes:
        page: The page.
        line: Where its code begins, counted from 1.
        code: What stands in it.
        notes: The comments in front of it: ``setup``, ``not run``, ``run by``.
    """

    page: Path
    line: int
    code: str
    notes: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_in(page: Path) -> list[Block]:
    """Every block of Python in a page, in order."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    fence, first, code = "", 0, [""]
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if fence:
            if line.strip() == "```":
                if fence == "```python":
                    text = "\n".join(code) + "\n"
                    found.append(Block(page, first, text, notes))
                fence, notes = "", {}
            else:
                code.append(line)
        elif line.startswith("```"):
            fence, first, code = line.strip(), number + 1, []
        elif note := _COMMENT.fullmatch(line.strip()):
            notes = {**notes, note["what"]: note["text"] or ""}
        elif line.strip():
            notes = {}
    return found


def run(block: Block, namespace: dict[str, Any], server: testing.FakeServer) -> None:
    """Run a block; what its comments say is printed must be printed."""
    if setup := block.notes.get("setup"):
        names = {name: getattr(testing, name) for name in testing.__all__}
        exec(setup, {**names, "server": server})
    code = "\n" * (block.line - 1) + block.code  # so that tracebacks have the line
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        # As it stands: without what this file imports from __future__.
        compiled = compile(code, str(block.page), "exec", dont_inherit=True)
        exec(compiled, namespace)
    expected = [m["text"] for m in map(_PRINTS.match, block.code.splitlines()) if m]
    missing = [line for line in expected if line not in printed.getvalue().split("\n")]
    assert [] == missing, f"{block} prints {printed.getvalue()!r}"


def run_by_pytest(block: Block, folder: Path) -> None:
    """Run a block as a user's file of tests."""
    file = folder / f"test_line_{block.line}.py"
    file.write_text(block.code, "utf-8")
    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(folder))
    options += ("-p", "lmstudio.testing.plugin")  # where it is installed, it is found
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode, f"{block}\n{done.stdout}{done.stderr}"


@pytest.fixture
def server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: HubServer
) -> Iterator[testing.FakeServer]:
    """The only server that a page can find, and the only hub."""
    models: list[str | ModelFile] = list(MODELS)
    for name, number in (("Q4_K_M", 15), ("Q8_0", 7)):
        file = f"Qwen2.5-0.5B-Instruct-{name}.gguf"
        hub.add(HUB_REPO, {file: model_bytes(file_type=number)})
    folder = tmp_path / "home" / "models"
    with testing.FakeServer(models) as fake:
        fake._service.downloads = Downloads(Store(folder), folder)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
        monkeypatch.setenv("LMSTUDIO_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("LM_API_TOKEN", raising=False)
        monkeypatch.delenv("LMSTUDIO_API_TOKEN", raising=False)
        monkeypatch.setattr("lmstudio.default._client", None)
        monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # else it has a thread
        yield fake
        if lmstudio.default._client is not None:
            lmstudio.default._client.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_runs_from_top_to_bottom(page, server):
    """Every block that is not marked runs, and prints what it says it prints."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks_in(page):
            if not {"not run", "run by"} & set(block.notes):
                run(block, namespace, server)
        server.assert_all_used()
    finally:
        for value in namespace.values():
            if isinstance(value, lmstudio.LMStudioClient):
                value.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [b for page in PAGES for b in blocks_in(page) if "run by" in b.notes],
    ids=str,
)
def test_tests_of_a_page_pass(block, tmp_path):
    """What a page shows as a user's file of tests passes as it stands."""
    run_by_pytest(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_have_notes_that_mean_something(page):
    """A block is left out for a reason only, and no note has a typing error."""
    for block in blocks_in(page):
        unknown = set(block.notes) - {"setup", "not run", "run by"}
        assert set() == unknown, str(block)
        assert all(block.notes.values()), f"{block}: a note without a text"
        assert block.notes.get("run by", "pytest") == "pytest", str(block)
        ast.parse(block.code)


def test_a_block_that_prints_something_else_fails(server, tmp_path):
    """The check of what is printed can fail."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)  # 3\n```\n", "utf-8")
    [block] = blocks_in(page)
    block = attrs.evolve(block, page=ROOT / "page.md")

    with pytest.raises(AssertionError, match="prints '2"):
        run(block, {}, server)


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link leads to a file, and to a heading in it if it names one."""
    dead = []
    for target in _LINK.findall(_without_code(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            dead.append(target)
    assert [] == dead


def test_docstrings_name_pages_that_exist():
    """Every page that the code names is there, with the heading that it names."""
    missing = []
    for file in SOURCES:
        for path, heading in _DOCS_PATH.findall(file.read_text("utf-8")):
            page = ROOT / path
            if not page.exists() or (heading and heading not in headings_of(page)):
                missing.append(f"{file.relative_to(ROOT)}: {path} {heading}".strip())
    assert [] == missing


@pytest.mark.parametrize("page", sorted(WIRE.glob("*.md")), ids=lambda page: page.stem)
def test_tables_are_those_of_the_code(page):
    """After a change of a table in the code, docs/make_tables.py has to be run."""
    text = page.read_text("utf-8")

    assert make_tables().filled(text) == text


def test_every_table_stands_somewhere():
    """No table of the code is left out of the pages."""
    maker = make_tables()
    found = [name for p in WIRE.glob("*.md") for name in maker.tables_in(p.read_text())]

    assert sorted(maker.TABLES) == sorted(found)


def test_facts_say_how_sure_they_are():
    """Where a table of facts has a column for it, it holds one of the known marks."""
    marks = {"sure", "seen", "open", "ours"}
    wrong = []
    for page in WIRE.glob("*.md"):
        in_facts = False
        for line in page.read_text("utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not line.startswith("|"):
                in_facts = False
            elif cells[-1] == "how sure":
                in_facts = True
            elif in_facts and cells[-1] not in {*marks, "---"}:
                wrong.append(f"{page.name}: {line}")
    assert [] == wrong


@pytest.mark.slow
def test_design_has_every_lock_of_the_client():
    """The table of locks in docs/design.md is that of the code."""
    text = (ROOT / "docs/design.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    files = sorted((ROOT / "lmstudio").glob("*.py"))
    there = {(name, file.stem) for file in files for name in locks_in(file)}

    assert sorted(there) == sorted(told)


def locks_in(file: Path) -> set[str]:
    """Names that a file binds to locks, or declares as such."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        made = {ast.unparse(n) for n in ast.walk(node.value)}
        if made & {f"threading.{kind}" for kind in ("Lock", "RLock", "Condition")}:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                each = target.elts if isinstance(target, ast.Tuple) else [target]
                found |= {ast.unparse(one).rpartition(".")[2] for one in each}
    return found


def make_tables() -> ModuleType:
    """The script that writes the tables, as a module."""
    path = ROOT / "docs/make_tables.py"
    spec = importlib.util.spec_from_file_location("make_tables", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings_of(page: Path) -> list[str]:
    """The headings of a page, as they are written."""
    text = _without_code(page.read_text("utf-8"))
    return [m[1].strip() for m in re.finditer(r"^#+ (.*)$", text, re.MULTILINE)]


def anchors_of(page: Path) -> set[str]:
    """What a link may name behind ``#``."""
    kept = (re.sub(r"[^\w\- ]", "", head.lower()) for head in headings_of(page))
    return {head.replace(" ", "-") for head in kept}


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
