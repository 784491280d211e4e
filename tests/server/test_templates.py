"""No template takes the server's time or memory, and real ones notice no bounds."""

from __future__ import annotations

import contextlib
import time

import pytest

from lmstudio.server import templates
from lmstudio.server.templates import MAX_BUILT, Environment, TooMuch, render

ENVIRONMENT = Environment(trim_blocks=True, lstrip_blocks=True)


def text(template, **variables):
    return render(ENVIRONMENT.from_text(template), variables)


@pytest.fixture
def hurried(monkeypatch):
    """Templates have a twentieth of a second, so that tests of the limit are short."""
    monkeypatch.setattr(templates, "MAX_SECONDS", 0.05)


LOOP = "{% for i in range(99999) %}"
DOUBLED = "{% for _ in range(60) %}{% set ns.a = EXPR %}{% endfor %}"
MACRO = (
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
)


@pytest.mark.parametrize(
    "template",
    [
        LOOP + LOOP + "{{ i * i }}{% endfor %}{% endfor %}",
        LOOP + LOOP + "{% endfor %}{% endfor %}",
        LOOP + "{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
        LOOP + LOOP + "{% set x %}{% endset %}{% endfor %}{% endfor %}",
        MACRO + "{{ f(60) }}",
        LOOP + "{% for m in range(99999) | map('string') %}{% endfor %}{% endfor %}",
    ],
)
def test_endless_work(hurried, template):
    """Loops, filters in loops and macros end when the time is over."""
    with pytest.raises(TooMuch, match=r"works for more than 0.05 seconds"):
        text(template)


@pytest.mark.parametrize(
    "expression",
    [
        "ns.a ~ ns.a",
        "ns.a + ns.a",
        "ns.a * 2",
        "[ns.a, ns.a]",
        "(ns.a, ns.a)",
        "{'a': ns.a, 'b': ns.a}",
        "ns.a.replace('x', 'xx')",
        "ns.a | replace('x', 'xx')",
        "'%s%s' % (ns.a, ns.a)",
        "'%s%s' | format(ns.a, ns.a)",
        "'{0}{0}'.format(ns.a)",
        "[ns.a, ns.a] | join",
        "['x', 'x', 'x'] | join(ns.a)",
        "''.join([ns.a, ns.a])",
        "ns.a.join(['x', 'x', 'x'])",
        "dict(a=[ns.a, ns.a])",
    ],
)
def test_doubling(hurried, expression):
    """What grows by being put together is stopped before memory is gone."""
    loop = DOUBLED.replace("EXPR", expression)

    with pytest.raises(TooMuch):
        text("{% set ns = namespace(a='x') %}" + loop + "{{ ns.a == 1 }}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * [1] }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ n ** n }}",
        "{{ 'a' | center(n) }}",
        "{{ 'a' | center(width=n) }}",
        "{{ 'a'.ljust(n) }}",
        "{{ ('a' | attr('zfill'))(n) }}",
        "{{ '\t'.expandtabs(n) }}",
        "{{ n.to_bytes(n) }}",
        "{{ '%*d' % (n, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, n) }}",
        "{{ '{x:999999}'.format_map({'x': 1}) }}",
        "{{ [1] | batch(n, 'x') | list }}",
        "{{ [1] | slice(n) | list }}",
        "{{ 1.5 | round(n, 'ceil') }}",
        "{{ [1] | tojson(indent=n) }}",
        "{{ ('\n' * 20000) | indent(10000) }}",
        "{{ ('\n' * 20000) | indent('x' * 10000) }}",
        "{{ ('a ' * 10000) | wordwrap(1, wrapstring='x' * 10000) }}",
        "{{ ('%s' * 2000) % ('x', ) }}",
        "{{ 'a'.translate({97: 'x'}) }}",
        "{{ [[1]] | sum(start=[]) }}",
        LOOP + "x" * 2000 + "{% endfor %}",
        "{% macro m() %}"
        + LOOP
        + "{{ s }}{% endfor %}{% endmacro %}{{ m() | length }}",
        "{% filter upper %}" + LOOP + "{{ s }}{% endfor %}{% endfilter %}",
        "{% for row in [s] * 100 %}{{ [row] * 100 }}{% endfor %}",
        "{{ '%(a(b)c)99999d' % {'a(b)c': 1} }}",
        "{{ '%.99999d'.encode() % 1 }}",
        "{{ '{0[}]:99999}'.format({'}': 1}) }}",
        "{{ '{0:{1}}'.format(1, 2) }}",
        "{{ ('a' * 100001) | wordwrap(1) }}",
    ],
)
def test_much_out_of_little(template):
    """Widths, powers and repetitions have limits, wherever they stand."""
    with pytest.raises(TooMuch):
        text(template.replace("\t", "\\t"), n=10**9, s="x" * 100_000)


@pytest.mark.parametrize("name", ["lipsum()", "'a' | urlize"])
def test_what_is_left_out(name):
    """Builders of text that no model's template uses are not there."""
    with pytest.raises(templates.jinja2.TemplateError):
        text("{{ " + name + " }}")


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["{+", "{:", "{0[", "{0}", "%(", "%(a(", "%d", "%0"])
@pytest.mark.parametrize("expression", ["x.format(1)", "x % 1", "x | format(1)"])
def test_formats_are_read_once(expression, piece):
    """A format that a client writes takes no time that grows with its square."""
    template = ENVIRONMENT.from_text("{{ " + expression + " }}")
    started = time.thread_time()
    with contextlib.suppress(TooMuch, TypeError, ValueError, KeyError):
        render(template, {"x": piece * 100_000})

    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '%s %% 99999' % 5 }}", "5 % 99999"),
        ("{{ '%-5.2f|' | format(1) }}", "1.00 |"),
        ("{{ '{{:99999}} {:>3}'.format(1) }}", "{:99999}   1"),
        ("{{ '%(a)s'.replace('a', 'b') % {'b': 2} }}", "2"),
    ],
)
def test_formats_in_bounds(template, expected):
    """What only looks like a wide format is none."""
    assert expected == text(template)


def test_long_templates():
    """A template of more than half a million characters is not even compiled."""
    with pytest.raises(TooMuch, match="more than 500000 characters long"):
        ENVIRONMENT.from_text(" " * 500_001)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ 2 ** 10 + 3 * 'ab'|length }}", "1030"),
        ("{{ 'a' ~ 1 ~ none ~ [1, x] }}", "a1None[1, 7]"),
        ("{% for a, b in [(1, x), [2, 3]] %}{{ a }}{{ b }};{% endfor %}", "17;23;"),
        ("{% for i in [x, 8] if i > 7 %}{{ loop.index }}{{ loop.last }}{% endfor %}",
         "1True"),
        ("{% for i in [1, [x]] recursive %}{{ loop(i) if i is iterable else i }}"
         "{% endfor %}", "17"),
        ("{{ 'a-b'.split('-') | join('+') }}{{ 'x'.center(5) }}", "a+b  x  "),
        ("{{ '%s=%03d' % ('k', x) }}{{ '{}:{:>3}'.format(1, 2) }}", "k=0071:  2"),
        ("{{ '{{\"a\": {}}}{{}}'.format(20240101) }}{{ '*20240101 100%% {:{}%s' % x }}",
         '{"a": 20240101}{}*20240101 100% {:{}7'),
        ("{% set ns = namespace(all=[]) %}{% for i in range(2000) %}"
         "{% set ns.all = ns.all + [{'content': 'x' * 100}] %}{% endfor %}"
         "{{ ns.all | length }}", "2000"),
        ("{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}"
         "{% endfor %}{{ ns.n }}", "36"),
        ("{% macro m(a, b=x) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
         "{% call m(1) %}!{% endcall %}", "17!"),
        ("{{ {'a': x}.items() | list }}{{ ([1, 2] + [x])[::-1] }}",
         "[('a', 7)][7, 2, 1]"),
        ("{% if x in [7, 8] and 'b' not in 'ac' %}y{% endif %}{{ y | default(5) }}",
         "y5"),
        ("{{ 'a b' | replace(' ', '_') | indent(2, true) | upper }}", "  A_B"),
        ("{{ {'a': [x]} | tojson(indent=1) | length }}{{ x | string | int }}", "187"),
    ],
)  # fmt: skip
def test_bounds_change_nothing(template, expected):
    """What templates of published models do gives what it gives without bounds."""
    assert expected == text(template, x=7)


@pytest.mark.slow
def test_long_conversations():
    """Thousands of messages and a megabyte of text are no reason to stop."""
    messages = [{"role": "user", "content": "word " * 100} for _ in range(4000)]
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' ~ m.content | trim }}"
        "{% if not loop.last %}-{% endif %}{% endfor %}"
    )

    assert 4000 * (8 + 499) + 3999 == len(text(template, messages=messages))


@pytest.mark.slow
def test_each_text_counts_for_itself():
    """A template that was stopped, and one that was not, leave nothing behind."""
    half = "{{ s * " + str(MAX_BUILT // 3) + " }}"
    for _ in range(2):
        assert MAX_BUILT // 3 == len(text(half, s="x"))
        with pytest.raises(TooMuch):
            text(half * 2, s="x")
