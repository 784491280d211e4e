"""The messages of one read are parsed together, and each is what it is by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio.connection import parsed

#: How texts with half a character are written, as some servers do.
SURROGATES = ("utf-8", "surrogatepass")


def is_message(payload):
    """Whether a frame is a message by itself."""
    try:
        json.loads(payload.decode())
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("payloads", "is_json"),
    [
        ([b"{}"], True),
        ([b" {}", b"[1]\n", b"2", b'"\xc3\xa9"', b"null"], True),
        ([b'{"a":[1', b"2]}"], False),
        ([b'"a', b'b"'], False),
        ([b"[]]", b"[1"], False),
        ([b"{}]"], False),
        ([b"{},{}"], False),
        ([b"{}", b""], False),
        ([b"", b"{}"], False),
        ([b'"\xc3', b'\xa9"'], False),
    ],
)
def test_messages_of_one_read(payloads, is_json):
    """They are parsed together, and each must be JSON by itself."""
    if is_json:
        assert [json.loads(payload) for payload in payloads] == parsed(payloads)
        return
    with pytest.raises((ValueError, StopIteration)):
        parsed(payloads)


#: Good and bad frames, and pieces of them.
frames = st.lists(
    st.sampled_from(
        [b"{}", b'{"a":[1,', b"2]}", b'"a', b'b"', b"1,2", b"[", b"]", b"", b"nul"]
    )
    | st.recursive(
        st.none() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode(*SURROGATES))
    | st.binary(max_size=4),
    max_size=5,
)


@pytest.mark.slow
@given(frames)
def test_any_messages_of_one_read(payloads):
    """Good ones are what each is by itself; one that is not never goes unnoticed."""
    try:
        expected = [json.loads(payload.decode()) for payload in payloads]
    except (ValueError, StopIteration):
        # Several bad ones may be good together, where others hold more than one.
        if sum(not is_message(payload) for payload in payloads) == 1:
            with pytest.raises((ValueError, StopIteration)):
                parsed(payloads)
        return
    assert str(expected) == str(parsed(payloads))  # a text, since nan is not nan


def test_names_in_messages_of_one_read_are_made_once():
    """What stands in every message takes memory once for a read."""
    first, second = parsed([b'{"channelId": 1}', b'{"channelId": 2}'])

    assert [id(name) for name in first] == [id(name) for name in second]
