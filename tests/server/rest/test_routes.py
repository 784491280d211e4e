"""Every path of the documentation is answered, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/wire/rest.md"
ROW = re.compile(r"^\| (`/.*`) \| (GET|POST)", re.M)


def documented():
    """Paths and methods of the table at the top of the page."""
    for paths, method in ROW.findall(PAGE.read_text("utf-8")):
        for path in re.findall(r"`([^`]+)`", paths):
            yield path, method


@pytest.mark.parametrize(("path", "method"), sorted(documented()))
def test_documented_paths(served, path, method):
    """What the page names is there: it answers, or says what the request lacks."""
    filled = path.replace("<name>", "any").replace("<id>", "x")
    body = {} if method == "POST" else None
    answer = served.ask(filled.replace("<job_id>", "x"), body, method=method)
    assert "x-request-id" in answer.headers
    if answer.status != 200:
        assert answer.error["code"] not in ("unknown_endpoint", "method_not_allowed")


def test_the_page_has_paths():
    """The table is found."""
    assert len(list(documented())) > 15
