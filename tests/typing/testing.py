"""The testing kit as users of this package write it."""

import re
from pathlib import Path

import lmstudio as lms
from lmstudio.testing import (
    AWAIT_CANCEL,
    Asked,
    Cassette,
    FakeServer,
    Pace,
    Reply,
    StaleCassetteError,
    UnmatchedRequestError,
    forbid_real_models,
    tool_call,
)


def answer(asked: Asked) -> str | None:
    """An answer by a function."""
    names: list[str] = [tool["name"] for tool in asked.tools]
    return asked.messages[0].text if names else None


pace = Pace()
with FakeServer(["any"], loaded=["any"], default="auto", chunk="words") as server:
    reply: Reply = server.reply(["a", AWAIT_CANCEL], chunk=1, pace=pace)
    server.reply_when(re.compile("a"), tool_call("add", {"a": 1}), tools=["add"])
    server.reply_when("a", "b", model="any", config={"temperature": 0}, ordered=True)
    server.reply_when(lambda asked: asked.text == "", "b", times=None, pace=0.1)
    server.reply_with(answer)
    config: dict[str, object] = server.requests[-1].config
    text: str = server.predictions[-1].text
    try:
        server.assert_all_used()
    except UnmatchedRequestError:
        server.forget_unmatched()

try:
    with forbid_real_models(), Cassette(Path("a.jsonl"), "none") as cassette:
        client = lms.LMStudioClient(cassette.host)
except (StaleCassetteError, lms.LMStudioRealModelError):
    pass
