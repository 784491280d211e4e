"""`lms version` says which version this is."""

from __future__ import annotations

import json

import lmstudio


def test_version(lms):
    """The version for people, and as JSON."""
    assert f"lms {lmstudio.__version__}\n" == lms("version").stdout
    assert {"version": lmstudio.__version__} == json.loads(
        lms("version", "--json").stdout
    )
