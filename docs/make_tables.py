"""Writes the tables of docs/wire/ that the code itself holds; a test compares them.

Run it after changing such a table, where the package can be imported:
``python docs/make_tables.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lmstudio.errors import CODES
from lmstudio.server.calls import CALLS
from lmstudio.server.channels import CHANNELS
from lmstudio.wire.config import (
    CHECKBOX,
    EMBEDDING_LOAD_SETTINGS,
    LOAD_SETTINGS,
    PREDICTION_SETTINGS,
    Setting,
)
from lmstudio.wire.endpoints import ENDPOINTS

WIRE = Path(__file__).parent / "wire"
#: Where a table stands: between a comment with its name and the comment "end".
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(*names: str) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def value_of(row: Setting) -> str:
    """What a setting takes, in the words of its own error."""
    try:
        row.check(object())
    except ValueError as exc:
        return str(exc).replace("'", "`")
    raise AssertionError(f"{row.name} takes anything")


def settings(rows: Iterable[Setting]) -> str:
    """The table of one domain's settings."""
    return table(
        ("option", "server's key", "value", "off"),
        (
            (
                code(row.name, *row.also),
                code(row.key),
                value_of(row),
                _off(row) if row.wrap == CHECKBOX else "",
            )
            for row in rows
        ),
    )


def _off(row: Setting) -> str:
    return f"`{row.off}`" if not isinstance(row.off, str) else f'`"{row.off}"`'


def endpoints() -> str:
    """The table of endpoints."""
    served = {*CALLS, *CHANNELS}
    return table(
        ("namespace", "endpoint", "kind", "parameter", "reply or packets", "served"),
        (
            (
                code(row.namespace),
                code(row.name),
                row.kind + (", repeatable" if row.repeatable else ""),
                "none" if row.parameter is None else code(row.parameter.__name__),
                _reply(row.result) if row.kind == "rpc" else code(*row.packets),
                "yes" if key in served else "no",
            )
            for key, row in ENDPOINTS.items()
        ),
    )


def _reply(kind: Any) -> str:
    """The type of a reply, as annotations write it."""
    if kind is None:
        return "none"
    text = kind.__name__ if isinstance(kind, type) and not _is_generic(kind) else kind
    return code(re.sub(r"\b[\w.]+\.", "", str(text)).replace("|", "or"))


def _is_generic(kind: Any) -> bool:
    return hasattr(kind, "__origin__")


def codes() -> str:
    """The table of error codes and their classes."""
    return table(
        ("code", "class"),
        ((code(name), code(cls.__name__)) for name, cls in CODES.items()),
    )


#: Name of a place in a page -> what makes its table.
TABLES: dict[str, Callable[[], str]] = {
    "load": lambda: settings(LOAD_SETTINGS),
    "embedding": lambda: settings(EMBEDDING_LOAD_SETTINGS),
    "prediction": lambda: settings(PREDICTION_SETTINGS),
    "endpoints": endpoints,
    "codes": codes,
}


def filled(text: str) -> str:
    """A page with its tables made anew.

    Raises:
        KeyError: A place names a table that nobody makes.
    """
    return _PLACE.sub(lambda at: at[1] + TABLES[at[2]]() + at[3], text)


def tables_in(text: str) -> list[str]:
    """Names of the tables in a page, in order."""
    return [at[2] for at in _PLACE.finditer(text)]


if __name__ == "__main__":
    for page in sorted(WIRE.glob("*.md")):
        page.write_text(filled(page.read_text("utf-8")), "utf-8")
