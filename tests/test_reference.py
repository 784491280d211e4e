"""The reference has every public name, with what its docstring says."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pdoc.doc
import pytest

MAKER = Path(__file__).parent.parent / "docs/make_reference.py"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_reference", MAKER)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages(maker, tmp_path_factory):
    """The text of each page, by its module."""
    folder = tmp_path_factory.mktemp("reference")
    made = maker.write(folder)
    names = {".".join(p.relative_to(folder).with_suffix("").parts): p for p in made}
    return {name: page.read_text("utf-8") for name, page in names.items()}


@pytest.mark.slow
def test_every_public_name_has_its_place(maker, pages):
    """What `__all__` lists stands on the module's page."""
    assert {"index", *maker.MODULES} == set(pages)
    for name in maker.MODULES:
        module = importlib.import_module(name)
        missing = {n for n in module.__all__ if f'id="{n}"' not in pages[name]}
        assert {"__version__"} >= missing


def members(of):
    """A class or module of pdoc and all that it documents below it."""
    for member in of.members.values():
        if member.name.startswith("_"):
            continue
        if isinstance(member, pdoc.doc.Class):
            yield member
            ours = (
                m for m in members(member) if m.taken_from[0].startswith("lmstudio")
            )
            yield from ours
        elif isinstance(member, pdoc.doc.Function):
            yield member


@pytest.mark.slow
def test_everything_public_is_described(maker, pages):
    """Each public class, function and method has a docstring."""
    found = {}
    for name in maker.MODULES:
        for member in members(pdoc.doc.Module(importlib.import_module(name))):
            found[member.fullname] = member.docstring
    assert 100 < len(found)
    assert [] == [name for name, text in found.items() if not text]
