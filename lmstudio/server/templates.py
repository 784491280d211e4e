"""Jinja templates that cannot take the server's time or memory: rendering has bounds.

Templates come from clients and from downloaded files. Whatever they loop over is timed,
and whatever they build is counted before it is built.
"""

from __future__ import annotations

import functools
import re
import string
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox

#: Seconds of work that one text may take. Real templates take a few hundredths.
MAX_SECONDS = 5.0
#: Characters that may be built for one text, with those in between; an item of a list
#: counts as `ITEM`. A hundred times what fits the context of a model.
MAX_BUILT = 128_000_000
ITEM = 4
#: The largest width, indent or count that a filter or method takes.
MAX_WIDTH = 10_000
#: Bits of the largest whole number.
MAX_BITS = 100_000
#: Characters of the longest template; those of models have up to 20,000.
MAX_TEMPLATE = 500_000

# Nobody's templates use these, and each builds much out of little.
_LEFT_OUT = {"filters": ("urlize", "xmlattr"), "globals": ("lipsum",)}
#: Filters that write out a value with all that is in it.
_WRITING = {
    *("escape", "e", "forceescape", "join", "pprint", "string", "urlencode"),
    *("format", "batch", "slice"),
}
#: Filters whose numbers are values, not widths.
_OF_VALUES = {
    *("default", "d", "format", "float", "int", "map", "sum"),
    *("reject", "rejectattr", "select", "selectattr"),
}
#: What a value in a ``%`` format says after its key: its width, and what follows.
_PERCENT = re.compile(r"[-#0 +]*(\*|[0-9]*)(?:\.(\*|[0-9]*))?[hlL]?.?", re.DOTALL)
_PARENTHESIS = re.compile(r"[()]")
#: The same in a format of braces: a width of more than four digits, or a computed one.
_WIDE_BRACES = re.compile(r"[0-9]{5}|\{")
#: Values that one format may write.
_MOST_PLACES = 1_000
#: Characters of the longest text that may be wrapped, which takes the square of them.
_LONGEST_WRAPPED = 100_000


class TooMuch(jinja2.TemplateError):
    """A template went over a bound; the message names it."""


class _Meter(threading.local):
    """What the rendering on this thread has used."""

    built = 0
    steps = 0
    deadline: float | None = None

    def start(self) -> None:
        self.built = 0
        self.deadline = time.thread_time() + MAX_SECONDS

    def count(self, characters: int = 0) -> str:
        """Take note of a step and of what it builds; empty, so that it can be put."""
        self.built += characters
        self.steps += 1
        if self.deadline is None:  # constants are computed while it is compiled
            self.start()
        elif self.steps % 16 and characters < MAX_WIDTH:
            pass  # asking for the time takes longer than most steps
        elif time.thread_time() > self.deadline:
            raise TooMuch(f"It works for more than {MAX_SECONDS:g} seconds")
        if self.built > MAX_BUILT:
            raise TooMuch(f"It builds more than {MAX_BUILT} characters")
        return ""

    def value(self, value: Any, indent: int = 0, depth: int = 0) -> None:
        """Count a value as what it is when it is written out."""
        if isinstance(value, (str, bytes)):
            self.count(len(value))
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            if depth > 200:
                raise TooMuch("It nests values more than 200 levels deep")
            self.count((ITEM + indent * depth) * len(value))
            for item in value:
                if not isinstance(item, (int, float)):
                    self.value(item, indent, depth + 1)
            if isinstance(value, Mapping):
                self.value(list(value.values()), indent, depth)


_METER = _Meter()


def render(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """The text of a template that `Environment` made.

    Raises:
        TooMuch: It went over a bound.
        Exception: Whatever else a template can do wrong.
    """
    _METER.start()
    return template.render(variables)


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox whose templates count what they do."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_written, **options)
        for name in _LEFT_OUT["filters"]:
            del self.filters[name]
        for name in _LEFT_OUT["globals"]:
            del self.globals[name]
        for name, function in list(self.filters.items()):
            self.add_filter(name, function)
        self.filters["bounded concat"] = _concat  # no template can write this name
        self.filters["bounded value"] = _nested
        self.count = _METER.count

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a filter whose input, numbers and output are counted."""

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            passed = int(hasattr(function, "jinja_pass_arg"))
            _check_filter(name, args[passed:], kwargs)
            return _bounded(function(*args, **kwargs))

        self.filters[name] = counted

    def from_text(self, text: str) -> jinja2.Template:
        """Compile a template.

        Raises:
            TooMuch: It is too long.
            TemplateError: It is not jinja.
            RecursionError: It is nested too deeply.
        """
        if len(text) > MAX_TEMPLATE:
            raise TooMuch(f"It is more than {MAX_TEMPLATE} characters long")
        _METER.start()
        tree = _counting(self.parse(text))
        tree.set_environment(self)
        return self.from_string(tree)

    def call(
        __self,
        __context: Any,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Call something for a template."""
        _METER.count()
        _check_method(getattr(__obj, "__wrapped__", __obj), args, kwargs)
        made = _bounded(super().call(__context, __obj, *args, **kwargs))
        return _nested(made) if isinstance(made, dict) else made

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what may grow."""
        _check_binop(operator, left, right)
        return super().call_binop(context, operator, left, right)


def _written(value: Any) -> Any:
    """What is put into the text."""
    _METER.value(value)
    return value


def _bounded(value: Any) -> Any:
    """A value that something has built."""
    if isinstance(value, (str, bytes)):
        _METER.count(len(value))
    elif isinstance(value, (list, tuple)):
        _METER.count(ITEM * len(value))
    return value


def _nested(value: Any) -> Any:
    """A new list or mapping: of the same one twice, comparing would take forever."""
    _METER.value(value)
    return value


def _concat(values: Iterable[Any]) -> str:
    """The operator ``~``."""
    _METER.value(values)
    return jinja2.runtime.markup_join(values)


def _check_binop(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, (str, bytes)):
        form = left if isinstance(left, str) else left.decode("latin-1")
        _check_format(form, _percent_widths(form), (right,))
    elif operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(times, int) and hasattr(value, "__len__"):
                item = 1 if isinstance(value, (str, bytes)) else ITEM
                _METER.count(max(0, times) * len(value) * item)
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        item = 1 if isinstance(left, (str, bytes)) else ITEM
        _METER.count((len(left) + len(right)) * item)
    if isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
        bits, more = left.bit_length(), right.bit_length()
        power = abs(right) if operator == "**" else 1
        if bits * power + (more if operator == "*" else 0) > MAX_BITS:
            raise TooMuch(f"It computes a number of more than {MAX_BITS} bits")


def _check_filter(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    value, rest = (args[0] if args else None), (*args[1:], *kwargs.values())
    widths = [n for n in rest if isinstance(n, int) and not isinstance(n, bool)]
    if name not in _OF_VALUES:
        _check_widths(widths)
    if name == "tojson":
        _METER.value(value, indent=max(widths, default=0))
    elif name == "indent" and isinstance(value, str):
        longest = max([4, *widths, *(len(w) for w in rest if isinstance(w, str))])
        _METER.count((value.count("\n") + 1) * longest)
    elif name == "wordwrap" and isinstance(value, str):
        if len(value) > _LONGEST_WRAPPED:
            raise TooMuch(f"It wraps more than {_LONGEST_WRAPPED} characters")
        texts = [len(text) for text in rest if isinstance(text, str)]
        _METER.count(len(value) * max(texts, default=1))
    elif name == "replace" and isinstance(value, str):
        _check_replace(value, rest)
    elif name == "join" and isinstance(value, (list, tuple)):
        texts = [len(text) for text in rest if isinstance(text, str)]
        _METER.count(len(value) * max(texts, default=0))
    elif name == "format":
        _check_format(str(value), _percent_widths(str(value)), rest)
    elif name == "sum" and any(isinstance(start, (list, tuple)) for start in rest):
        raise TooMuch("It adds up lists by the filter sum")
    if name in _WRITING:
        _METER.value(value)
    _METER.count()


def _check_method(method: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    """A method of a text or number that makes much out of little."""
    value, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    rest = (*args, *kwargs.values())
    if isinstance(value, (str, bytes, int)):
        if name in ("format", "format_map"):
            _check_format(str(value), _brace_widths(str(value)), rest)
            return
        _check_widths([number for number in rest if isinstance(number, int)])
        if name == "replace":
            _check_replace(value, rest)
        elif name == "expandtabs" and isinstance(value, str):
            tabs = value.count("\t")
            _METER.count(tabs * max([8, *rest]))
        elif name == "join" and isinstance(value, (str, bytes)) and rest:
            items = len(rest[0]) if hasattr(rest[0], "__len__") else 0
            _METER.count(len(value) * items)
            _METER.value(rest[0])
        elif name == "translate":
            raise TooMuch("It calls translate, which has no bounds")


def _check_widths(widths: Iterable[int]) -> None:
    if any(abs(width) > MAX_WIDTH for width in widths):
        raise TooMuch(f"It asks for a width or count of more than {MAX_WIDTH}")


def _check_replace(value: Any, rest: tuple[Any, ...]) -> None:
    if len(rest) >= 2 and isinstance(rest[0], type(value)):
        _METER.count(len(value) + value.count(rest[0]) * len(rest[1]))


def _check_format(form: str, are_wide: Iterable[bool], values: Any) -> None:
    _METER.count(len(form))
    for place, is_wide in enumerate(are_wide):
        if is_wide:
            problem = "a width of more than four digits, or a computed"
            raise TooMuch(f"It formats with {problem}")
        if place >= _MOST_PLACES:
            raise TooMuch(f"It formats more than {_MOST_PLACES} values at once")
        _METER.value(values)


# Clients write formats, too: both of these read each character once, as Python itself
# does, and end where Python finds an error.


def _percent_widths(form: str) -> Iterator[bool]:
    """Whether the width is too large, of each value that a ``%`` format writes."""
    at = form.find("%") + 1
    while at > 0:
        if form.startswith("(", at):
            at, depth = at + 1, 1
            while depth:
                found = _PARENTHESIS.search(form, at)
                if found is None:
                    return
                at, depth = found.end(), depth + (1 if found[0] == "(" else -1)
        place = _PERCENT.match(form, at)
        assert place is not None, "all in it may be missing"
        yield any(part == "*" or len(part or "") > 4 for part in place.groups())
        at = form.find("%", place.end()) + 1


def _brace_widths(form: str) -> Iterator[bool]:
    """The same of a format of braces."""
    try:
        for _, name, spec, _ in string.Formatter().parse(form):
            if name is not None:
                yield _WIDE_BRACES.search(spec or "") is not None
    except ValueError:
        return


def _counting(tree: jinja2.nodes.Template) -> jinja2.nodes.Template:
    """A template that counts its steps, its own text, and what operators build."""
    for macro in list(tree.find_all(jinja2.nodes.Macro)):
        macro.body.insert(0, jinja2.nodes.ExprStmt(_count(0)))
    for loop in list(tree.find_all(jinja2.nodes.For)):
        loop.body.insert(0, jinja2.nodes.ExprStmt(_count(0)))
        if loop.test is not None:
            is_counted = jinja2.nodes.Not(_count(0))
            loop.test = jinja2.nodes.And(is_counted, loop.test)
    for node in list(tree.find_all(jinja2.nodes.Output)):
        data = [n for n in node.nodes if isinstance(n, jinja2.nodes.TemplateData)]
        if data:
            node.nodes.insert(0, _count(sum(len(part.data) for part in data)))
    _wrap_values(tree)
    return tree


def _count(characters: int) -> jinja2.nodes.Expr:
    count = jinja2.nodes.EnvironmentAttribute("count")
    args: list[jinja2.nodes.Expr] = [jinja2.nodes.Const(characters)]
    return jinja2.nodes.Call(count, args, [], None, None)


def _wrap_values(node: jinja2.nodes.Node) -> None:
    """Put filters around what builds values without a call: ``~``, lists, slices."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, jinja2.nodes.Node):
            setattr(node, field, _wrapped(value))
        elif isinstance(value, list):
            value[:] = [
                _wrapped(one) if isinstance(one, jinja2.nodes.Node) else one
                for one in value
            ]


def _wrapped(node: jinja2.nodes.Node) -> jinja2.nodes.Node:
    _wrap_values(node)
    if isinstance(node, jinja2.nodes.Concat):
        return _filtered(jinja2.nodes.List(node.nodes), "bounded concat")
    is_new = isinstance(node, (jinja2.nodes.List, jinja2.nodes.Dict)) or (
        isinstance(node, jinja2.nodes.Tuple) and node.ctx == "load"
    )
    if is_new and node.find(jinja2.nodes.Name):  # constants are what the source holds
        return _filtered(node, "bounded value")
    return node


def _filtered(node: Any, name: str) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(node, name, [], [], None, None)
