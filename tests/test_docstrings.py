"""Docstrings of three styles say what a function and its parameters are for."""

from __future__ import annotations

import pytest

from lmstudio.docstrings import Doc, parsed

GOOGLE = """Find places.

    Slow over large areas.

    Args:
        city (str): Its name,
            as people write it.
        limit: At most so many: never more
            than 100.
        *others: More cities.
        nothing:

    Returns:
        list[str]: Their names.

    Raises:
        ValueError: city: None of that name.
    """

NUMPY = """Find places.

    Slow over large areas.

    Parameters
    ----------
    city : str
        Its name,
        as people write it.
    limit, others : int, optional
        At most so many.
    nothing

    Returns
    -------
    list[str]
        Their names.

    Notes
    -----
    city : no parameter
    """

SPHINX = """Find places.

    Slow over large areas.

    :param city: Its name,
        as people write it.
    :param int limit: At most so many.
    :type city: str
    :returns: Their names.
    :raises ValueError: None of that name.

    Not a part of it.
    """

DESCRIPTION = "Find places.\n\nSlow over large areas."


def test_google():
    """Entries go on where they are indented more; types and stars are left out."""
    expected = {
        "city": "Its name, as people write it.",
        "limit": "At most so many: never more than 100.",
        "others": "More cities.",
    }
    assert Doc(DESCRIPTION, expected, "list[str]: Their names.") == parsed(GOOGLE)


def test_numpy():
    """Names that share a line share the text; other sections are left out."""
    expected = {
        "city": "Its name, as people write it.",
        "limit": "At most so many.",
        "others": "At most so many.",
    }
    assert Doc(DESCRIPTION, expected, "list[str] Their names.") == parsed(NUMPY)


def test_sphinx():
    """Fields may hold a type; an empty line ends them."""
    expected = {"city": "Its name, as people write it.", "limit": "At most so many."}
    assert Doc(DESCRIPTION, expected, "Their names.") == parsed(SPHINX)


def test_mixed_styles():
    """Fields below a section of another style count as well; the first result does."""
    doc = parsed("Do.\n\nArgs:\n    a: One.\n\nReturns:\n    R.\n\n:param b: Two.")

    assert {"a": "One.", "b": "Two."} == doc.parameters
    assert "R." == doc.returns
    assert "R." == parsed("Do.\n\nReturns:\n    R.\n\n:return: Other.").returns


@pytest.mark.parametrize(
    "text",
    [
        "Do.",
        "Do: it.",
        "Do:\nit.",
        "Arguments are good.",
        ":class:`X` is made.",
        "Do.\n\nSuch as\n  Args:\n    x: a part of the text",
        "Unknown\n-------\ntext",
    ],
)
def test_plain_texts(text):
    """What only looks like a section is a part of the text."""
    assert Doc(text, {}, "") == parsed(text)


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_nothing(text):
    """No docstring, or an empty one, says nothing."""
    assert Doc() == parsed(text)


def test_a_section_without_a_description():
    """A docstring may begin with a section, and a section may be empty."""
    assert Doc("", {"a": "One."}, "") == parsed("Args:\n    a: One.\n\nReturns:")
    assert Doc("", {}, "") == parsed("Args:\n    just text\nOther parameters\n---\n")
