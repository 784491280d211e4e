"""Refusals are logged once in a while, and counted in between."""

from __future__ import annotations

from lmstudio.server.limits import Refusals


def test_one_line_in_a_while(caplog):
    """Of each kind the first is logged, and later how many there were meanwhile."""
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    for _ in range(5):
        refusals.add("a", "refused an a")
    refusals.add("b", "refused a b")
    now[0] = 11.0
    refusals.add("a", "refused an a")
    now[0] = 22.0
    refusals.add("a", "refused an a")
    assert [
        "refused an a",
        "refused a b",
        "refused an a (and 4 more like it)",
        "refused an a",
    ] == caplog.messages


def test_the_address_is_logged(caplog):
    """Who is refused can be found; lines of all addresses are counted together."""
    refusals = Refusals(lambda: 0.0)
    refusals.of("10.0.0.1").add("kind", "refused it")
    refusals.of("10.0.0.2").add("kind", "refused it")

    assert ["refused it (from 10.0.0.1)"] == caplog.messages
