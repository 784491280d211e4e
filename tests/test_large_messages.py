"""Messages that are too large end nothing but their own call."""

from __future__ import annotations

import re

import pytest

from lmstudio import LMStudioValueError, connection
from lmstudio.testing import AWAIT_CANCEL
from lmstudio.testing.loopback import LARGEST_FRAME

#: In place of the real limit, so that the test needs no 100 MiB.
LIMIT = 2000


def test_the_limit_is_that_of_servers():
    """The limit is the one at which servers end the connection."""
    assert LARGEST_FRAME == connection.LARGEST_MESSAGE


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda client, model: model.respond("x" * LIMIT).result(),
            "history.messages[0].content[0].text, has 2000 characters. Nothing was"
            " sent",
        ),
        (
            lambda client, model: model.count_tokens("é" * 1000),
            "inputString, has 1000 characters. Nothing was sent",
        ),
        (
            lambda client, model: model.tokenize(["x", "y" * LIMIT]),
            "inputString, has 2000 characters. Nothing was sent",
        ),
    ],
    ids=["respond", "count_tokens", "tokenize"],
)
def test_a_message_that_is_too_large(fake, client, monkeypatch, ask, said):
    """It is refused before a byte is sent, and what else runs goes on."""
    monkeypatch.setattr(connection, "LARGEST_MESSAGE", LIMIT)
    model = client.llm.get("any")
    fake.reply(["a", AWAIT_CANCEL])
    fake.reply("b")
    running = model.respond("?")
    assert "a" == next(iter(running))

    with pytest.raises(LMStudioValueError) as caught:
        ask(client, model)
    whole = rf"\w+: the message would have 2\d\d\d bytes, and servers take {LIMIT}; the"
    assert re.match(whole, str(caught.value))
    assert str(caught.value).endswith(f"the longest text in it, {said}")

    assert not running.done()
    running.cancel()
    assert "a" == running.result().content
    assert "b" == model.respond("?").content
