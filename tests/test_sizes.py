"""Files, functions and classes stay small enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "lmstudio").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])

#: At most so many lines in a file, and in the body of a function.
FILE_LINES = 600
BODY_LINES = 50
#: At most so many methods in a class.
METHODS = 20


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements below a node; expressions, which have none, are left aside."""
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        inner = getattr(node, name, None)  # that of a lambda is an expression
        for one in inner if isinstance(inner, list) else ():
            if isinstance(one, ast.stmt):
                yield one
            yield from statements(one)


def too_long(tree: ast.Module) -> list[tuple[str, int]]:
    """Functions whose body is too long, and how long: the docstring doesn't count."""
    found = []
    for node in statements(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if ast.get_docstring(node) is not None and len(body) > 1:
                body = body[1:]
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            if lines > BODY_LINES:
                found.append((node.name, lines))
    return found


def too_many_methods(tree: ast.Module) -> list[tuple[str, int]]:
    """Classes with too many methods, and how many: overloads count once."""
    found = []
    for node in statements(tree):
        if isinstance(node, ast.ClassDef):
            methods = {
                inner.name
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            if len(methods) > METHODS:
                found.append((node.name, len(methods)))
    return found


@pytest.mark.slow
def test_sizes():
    """No file, function or class of the project is over its limit."""
    wrong = []  # one test for all files, as there are hundreds
    for path in FILES:
        source = path.read_text()
        tree, lines = ast.parse(source), len(source.splitlines())
        found = [("the file", lines)] if lines > FILE_LINES else []
        found += too_long(tree) + too_many_methods(tree)
        wrong += [(path.relative_to(ROOT).as_posix(), *one) for one in found]
    assert [] == wrong


#: Wherever a statement may stand, there is a place for a definition.
PLACES = """
if a:
    {}
elif b:
    {}
else:
    {}
for a in b:
    {}
else:
    {}
while a:
    {}
with a:
    {}
try:
    {}
except E:
    {}
else:
    {}
finally:
    {}
match a:
    case 1:
        {}
class Outer:
    {}
def outer():
    {}
async def outer():
    {}
"""


def test_definitions_are_found_everywhere():
    """A definition is seen in every block, however deep."""
    tree = ast.parse(PLACES.replace("{}", "class Inner: ..."))
    names = [node.name for node in statements(tree) if isinstance(node, ast.ClassDef)]
    walked = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert ["Inner"] * 15 + ["Outer"] == sorted(names) == sorted(walked)


def test_a_long_function_is_found():
    """A body of 51 lines is too long, one of 50 after a docstring is not."""
    body = "    x = 1\n"
    assert [("f", 51)] == too_long(ast.parse("def f():\n" + body * 51))
    documented = 'def f():\n    """Two\n    lines."""\n' + body * 50
    assert [] == too_long(ast.parse(documented))


def test_a_large_class_is_found():
    """Twenty-one methods are too many; one of several overloads counts once."""
    methods = [f"    def m{i}(self): ...\n" for i in range(21)]
    large = "class C:\n" + "".join(methods)
    assert [("C", 21)] == too_many_methods(ast.parse(large))
    assert [] == too_many_methods(ast.parse("class C:\n" + methods[0] * 21))
