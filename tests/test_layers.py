"""Imports point down: the layer table of the package, and what may import what."""

from __future__ import annotations

import ast
import fnmatch
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parents[1] / "lmstudio"

#: The files of the package (patterns), lowest first, and their layers. A file may
#: import what stands above it here: lower layers, and earlier files of its own.
#: Files that one pattern matches may import each other.
TABLE = (
    ("errors", "forks.py"),
    ("errors", "html.py"),
    ("errors", "errors.py"),
    ("errors", "nearest.py"),
    ("errors", "_version.py"),
    ("paths", "paths.py"),
    ("wire", "wire/__init__.py"),
    ("wire", "wire/ports.py"),
    ("wire", "wire/model.py"),
    ("wire", "wire/converter.py"),
    ("wire", "wire/checks.py"),
    ("wire", "wire/shapes.py"),
    ("wire", "wire/common.py"),
    ("wire", "wire/llm.py"),
    ("wire", "wire/embedding.py"),
    ("wire", "wire/system.py"),
    ("wire", "wire/files.py"),
    ("wire", "wire/diagnostics.py"),
    ("wire", "wire/repository.py"),
    ("wire", "wire/usage.py"),
    ("wire", "wire/endpoints.py"),
    ("wire", "wire/config.py"),
    ("protocol", "protocol/__init__.py"),
    ("protocol", "protocol/messages.py"),
    ("protocol", "protocol/client.py"),
    ("protocol", "protocol/server.py"),
    ("io", "address.py"),
    ("io", "permitted.py"),
    ("io", "dial.py"),
    ("io", "sender.py"),
    ("io", "transport.py"),
    ("io", "mailbox.py"),
    ("io", "signals.py"),
    ("io", "worker.py"),
    ("io", "connection.py"),
    ("io", "discovery.py"),
    ("io", "session.py"),
    ("calls", "calls.py"),
    ("domain", "arguments.py"),
    ("domain", "turns.py"),
    ("domain", "notebook.py"),
    ("domain", "progress.py"),
    ("domain", "schema/references.py"),
    ("domain", "schema/scalars.py"),
    ("domain", "schema/reading.py"),
    ("domain", "schema/fields.py"),
    ("domain", "schema/foreign.py"),
    ("domain", "schema/hints.py"),
    ("domain", "schema/unions.py"),
    ("domain", "schema/walk.py"),
    ("domain", "schema/__init__.py"),
    ("domain", "parts.py"),
    ("domain", "messages.py"),
    ("domain", "structured.py"),
    ("domain", "docstrings.py"),
    ("domain", "signatures.py"),
    ("domain", "functions.py"),
    ("domain", "templates.py"),
    ("domain", "asked.py"),
    ("domain", "options.py"),
    ("domain", "result.py"),
    ("domain", "aliases.py"),
    ("domain", "keywords.py"),
    ("domain", "arrivals.py"),
    ("domain", "prediction.py"),
    ("domain", "batch.py"),
    ("domain", "toolcalls.py"),
    ("domain", "actresult.py"),
    ("domain", "rounds.py"),
    ("domain", "act.py"),
    ("handles", "images.py"),
    ("handles", "message_list.py"),
    ("handles", "transcripts.py"),
    ("handles", "chat.py"),
    ("handles", "loading.py"),
    ("handles", "downloaded.py"),
    ("handles", "handles.py"),
    ("handles", "models.py"),
    ("handles", "ownership.py"),
    ("handles", "catalog.py"),
    ("handles", "diagnostics.py"),
    ("handles", "download.py"),
    ("handles", "repository.py"),
    ("client", "client.py"),
    ("default", "default.py"),
    ("default", "compat.py"),
    ("default", "magic.py"),
    ("public", "__init__.py"),
    ("server", "server/engine.py"),
    ("server", "server/quantization.py"),
    ("server", "server/gguf_cursor.py"),
    ("server", "server/work.py"),
    ("server", "server/gguf.py"),
    ("server", "server/memory.py"),
    ("server", "server/lookup.py"),
    ("server", "server/projectors.py"),
    ("server", "server/store.py"),
    ("server", "server/locks.py"),
    ("server", "server/unwinding.py"),
    ("server", "server/pip_download.py"),
    ("server", "server/gguf_writer.py"),
    ("server", "server/conversion.py"),
    ("server", "server/starters.py"),
    ("server", "server/hub.py"),
    ("server", "server/hub_options.py"),
    ("server", "server/partial.py"),
    ("server", "server/failures.py"),
    ("server", "server/loading.py"),
    ("server", "server/presets.py"),
    ("server", "server/sampling.py"),
    ("server", "server/json_start.py"),
    ("server", "server/schema_limits.py"),
    ("server", "server/gbnf.py"),
    ("server", "server/schema_answers.py"),
    ("server", "server/structure.py"),
    ("server", "server/templates.py"),
    ("server", "server/prompt.py"),
    ("server", "server/prompt_tokens.py"),
    ("server", "server/overflow.py"),
    ("server", "server/reasoning.py"),
    ("server", "server/toolcalls_syntax.py"),
    ("server", "server/toolcalls_reader.py"),
    ("server", "server/toolcalls.py"),
    ("server", "server/toolcalls_prompt.py"),
    ("server", "server/toolcalls_forced.py"),
    ("server", "server/fragments.py"),
    ("server", "server/meter.py"),
    ("server", "server/instances.py"),
    ("server", "server/tasks.py"),
    ("server", "server/infos.py"),
    ("server", "server/registry.py"),
    ("server", "server/twins.py"),
    ("server", "server/tokens.py"),
    ("server", "server/limits.py"),
    ("server", "server/origins.py"),
    ("server", "server/guard.py"),
    ("server", "server/clients.py"),
    ("server", "server/files.py"),
    ("server", "server/pictures.py"),
    ("server", "server/logs.py"),
    ("server", "server/log_relay.py"),
    ("server", "server/generation.py"),
    ("server", "server/downloads.py"),
    ("server", "server/service.py"),
    ("server", "server/caller.py"),
    ("server", "server/access.py"),
    ("server", "server/application.py"),
    ("server", "server/repository.py"),
    ("server", "server/plans.py"),
    ("server", "server/retrieval.py"),
    ("server", "server/calls.py"),
    ("server", "server/heartbeat.py"),
    ("server", "server/channels.py"),
    ("server", "server/alpha.py"),
    ("server", "server/peer.py"),
    ("server", "server/engines/*.py"),
    ("server", "server/rest/*.py"),
    ("server", "server/app.py"),
    ("server", "server/web.py"),
    ("server", "server/ports.py"),
    ("server", "server/infofile.py"),
    ("server", "server/runner.py"),
    ("server", "server/logfile.py"),
    ("server", "server/__main__.py"),
    ("server", "server/__init__.py"),
    ("testing", "testing/*.py"),
    ("cli", "cli/*.py"),
)

SHARED = {"paths", "errors", "wire", "protocol"}
CLIENT = {"io", "calls", "domain", "handles", "client", "default", "public"}

#: Layer -> the layers it may import, itself included. The two sides share the wire
#: and the protocol and nothing else, so that either can be had without the other.
ALLOWED = {
    **dict.fromkeys(SHARED, SHARED),
    **dict.fromkeys(CLIENT, SHARED | CLIENT),
    "server": SHARED | {"server"},
    "testing": SHARED | {"io", "client", "server", "testing"},
    "cli": {"public", "paths", "server", "cli"},
}

#: Files, a layer, and the only files of that layer that they may import: narrower than
#: the order of the table.
NARROWER = (
    ("server/engine.py", "server", ()),
    ("server/engines/*.py", "server", ("server/engine.py", "server/engines/*.py")),
    (
        "testing/*.py",
        "server",
        (
            "server/calls.py",
            "server/engine.py",
            "server/failures.py",
            "server/infos.py",
            "server/instances.py",
            "server/lookup.py",
            "server/peer.py",
            "server/presets.py",
            "server/service.py",
        ),
    ),
)

#: Foreign library -> the files that may import it. One that is missing here is one
#: that nobody decided to depend on.
FOREIGN = {
    "attrs": ("*",),
    "cattrs": ("*",),
    "jsonschema": ("*",),
    "typing_extensions": (
        "models.py",
        "batch.py",
        "catalog.py",
        "downloaded.py",
        "default.py",
        "compat.py",
    ),
    "websocket": ("transport.py",),
    "huggingface_hub": ("server/hub.py",),
    "PIL": ("server/pictures.py",),
    "xllamacpp": ("server/engines/llama_child.py",),
    "starlette": ("server/app.py", "server/runner.py", "server/rest/*.py"),
    "uvicorn": ("server/runner.py", "server/web.py"),
    "h11": ("server/web.py",),
    "websockets": ("testing/*.py",),
    "jinja2": ("server/*.py",),
    "click": ("cli/*.py",),
    "rich": ("cli/*.py",),
    "pytest": ("testing/plugin.py",),
}

#: Files -> what of the standard library they must do without. What parses and routes
#: messages takes values and returns values, so that its tests need no waiting.
WITHOUT = {
    "wire/*.py": {"logging", "selectors", "socket", "ssl", "threading"},
    "protocol/*.py": {"logging", "selectors", "socket", "ssl", "threading"},
    "server/peer.py": {"selectors", "socket", "ssl"},
}

#: What the command line may import at the top of its files, besides itself.
EAGER_FOR_CLI = {"__init__.py"}


@attrs.frozen
class Import:
    """One module that a file imports.

    Attributes:
        name: Its full name, such as ``"lmstudio.wire.llm"``.
        lazy: True when only a function imports it.
        line: Where.
    """

    name: str
    lazy: bool
    line: int


def module_of(path: Path) -> str:
    """The module's name, such as ``lmstudio.wire.llm``; of a package the package's."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {path: path.relative_to(PACKAGE).as_posix() for path in FILES}
MODULES = {module_of(path): NAMES[path] for path in FILES}


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    """Every import in a file: relative ones, those in functions, and by name.

    Args:
        source: The file's text.
        module: Its full name, which relative imports start from.
        is_package: Whether it is an ``__init__.py``.
    """
    package = module if is_package else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        for name in _named_by(node, package):
            found.append(Import(name, lazy, getattr(node, "lineno", 0)))
        lazy = lazy or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(source), False)
    return found


def _named_by(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that one statement or call imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in MODULES else base
    elif isinstance(node, ast.Call) and node.args:
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        target = node.args[0]
        if name in ("import_module", "__import__") and isinstance(target, ast.Constant):
            yield str(target.value)


@functools.cache
def imports_in(path: Path) -> list[Import]:
    """Every import in a file of the package; several tests ask for them."""
    return imports_of(path.read_text(), module_of(path), path.name == "__init__.py")


def row_of(name: str) -> int:
    """The file's place in the table; -1 when it has none."""
    rows = enumerate(TABLE)
    return next((i for i, row in rows if fnmatch.fnmatchcase(name, row[1])), -1)


def problem(name: str, imported: str) -> str | None:
    """Why one file of the package may not import another; None when it may."""
    row, other_row = row_of(name), row_of(imported)
    layer, other = TABLE[row][0], TABLE[other_row][0]
    if row < 0 or other_row < 0:
        return f"{name if row < 0 else imported} is not in the table"
    if other not in ALLOWED[layer]:
        return f"{layer} must not import {other} ({imported})"
    if other_row > row:
        return f"{imported} stands below {name} in the table"
    for pattern, narrowed, only in NARROWER:
        if (
            narrowed == other
            and fnmatch.fnmatchcase(name, pattern)
            and not any(fnmatch.fnmatchcase(imported, allowed) for allowed in only)
        ):
            return f"{name} must not import {imported}"
    return None


def forbidden(name: str) -> set[str]:
    """What of the standard library a file must do without."""
    rows = (value for p, value in WITHOUT.items() if fnmatch.fnmatchcase(name, p))
    # A reader thread serves the client; an event loop would be paid for at import.
    no_loop = TABLE[row_of(name)][0] in SHARED | CLIENT
    return set().union(*rows, {"asyncio"} if no_loop else set())


# One test for all files, as there are hundreds; what is wrong is listed by file.


def test_every_file_is_in_the_table():
    """A file of the package has a row in the table."""
    missing = [name for name in NAMES.values() if row_of(name) < 0]
    assert [] == missing, "add them to TABLE and to the design"


@pytest.mark.slow
def test_imports_point_down():
    """A file imports only what the table allows it."""
    wrong = []
    for path, name in NAMES.items():
        for one in imports_in(path):
            if one.name.split(".")[0] != "lmstudio":
                continue
            other = MODULES.get(one.name)
            if other is None:
                wrong.append((name, one.line, f"{one.name} is not there"))
            elif other != name and (why := problem(name, other)) is not None:
                wrong.append((name, one.line, why))
    assert [] == wrong


@pytest.mark.slow
def test_foreign_libraries_stay_in_their_files():
    """A foreign library is imported where the table says, and nowhere else."""
    known = sys.stdlib_module_names | {"lmstudio"}
    wrong = []
    for path, name in NAMES.items():
        for imported in imports_in(path):
            library = imported.name.split(".")[0]
            allowed = FOREIGN.get(library, ())
            if library not in known and not any(
                fnmatch.fnmatchcase(name, pattern) for pattern in allowed
            ):
                wrong.append((name, imported.line, library))
    assert [] == wrong


@pytest.mark.slow
def test_some_files_do_without():
    """Wire and protocol know no sockets, threads or logs; the client no event loop."""
    wrong = []
    for path, name in NAMES.items():
        without = forbidden(name)
        used = [(name, i.line, i.name) for i in imports_in(path)]
        wrong += [one for one in used if one[2].split(".")[0] in without]
    assert [] == wrong


def test_the_command_line_imports_the_server_lazily():
    """A command that needs no server starts without importing one."""
    wrong = []
    for path, name in NAMES.items():
        if name.startswith("cli/"):
            eager = [i for i in imports_in(path) if not i.lazy and i.name in MODULES]
            names = {MODULES[i.name] for i in eager} - EAGER_FOR_CLI
            wrong += [(name, n) for n in names if not n.startswith("cli/")]
    assert [] == wrong


def test_the_sides_share_only_the_wire():
    """No layer of the client may import the server, and the other way round."""
    assert [] == [layer for layer in CLIENT if "server" in ALLOWED[layer]]
    assert set() == ALLOWED["server"] & CLIENT
    assert {layer for layer, _ in TABLE} == set(ALLOWED)


def test_all_ways_to_import_are_seen():
    """Relative imports, those in functions and those by name are resolved."""
    source = (
        "import os.path, lmstudio.errors\n"
        "from . import sibling\n"
        "from .inner import thing\n"
        "from .. import errors\n"
        "def late():\n"
        "    from ..errors import LMStudioError\n"
        "    importlib.import_module('xllamacpp')\n"
    )
    found = imports_of(source, "lmstudio.wire.llm", is_package=False)
    assert [
        Import("os.path", False, 1),
        Import("lmstudio.errors", False, 1),
        Import("lmstudio.wire", False, 2),
        Import("lmstudio.wire.inner", False, 3),
        Import("lmstudio.errors", False, 4),
        Import("lmstudio.errors", True, 6),
        Import("xllamacpp", True, 7),
    ] == found
    package = imports_of("from . import llm", "lmstudio.wire", is_package=True)
    assert [Import("lmstudio.wire.llm", False, 1)] == package


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("calls.py", "server/peer.py"),
        ("server/peer.py", "client.py"),
        ("server/peer.py", "transport.py"),
        ("wire/common.py", "wire/llm.py"),
        ("protocol/client.py", "connection.py"),
        ("testing/fake.py", "server/app.py"),
        ("testing/fake.py", "prediction.py"),
        ("cli/get.py", "client.py"),
        ("server/engine.py", "server/store.py"),
    ],
)
def test_a_wrong_import_is_a_problem(name, imported):
    """The table refuses imports upwards, sideways and across the sides."""
    assert problem(name, imported) is not None


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("calls.py", "connection.py"),
        ("server/peer.py", "server/engine.py"),
        ("server/peer.py", "protocol/server.py"),
        ("testing/fake.py", "server/peer.py"),
        ("cli/get.py", "__init__.py"),
        ("cli/server.py", "server/runner.py"),
    ],
)
def test_a_right_import_is_none(name, imported):
    """The table allows what the design needs."""
    assert problem(name, imported) is None
