"""Every message of our client fits the official schema.

The schema stands beside the repository, in ``../shared/protocol``; without it the
tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from lmstudio import LMStudioClient, LMStudioError, Signal
from lmstudio.testing import AWAIT_CANCEL, FakeServer
from scripts import is_cancel
from test_golden import OURS

PATH = Path(__file__).parents[2] / "shared" / "protocol" / "lms.schema.json"
HEAD = "#/definitions/"


def load_definitions(path):
    """The definitions, with references that a JSON pointer can follow."""
    root = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(root["definitions"], key=len, reverse=True)

    def fix(node):
        if isinstance(node, list):
            return [fix(item) for item in node]
        if not isinstance(node, dict):
            return node
        fixed = {}
        for key, value in node.items():
            if key == "$ref" and value.startswith(HEAD):
                rest = value[len(HEAD) :]
                name = next(n for n in names if rest == n or rest.startswith(n + "/"))
                fixed[key] = HEAD + name.replace("/", "~1") + rest[len(name) :]
            else:
                fixed[key] = fix(value)
        return fixed

    return fix(root["definitions"])


DEFINITIONS = load_definitions(PATH) if PATH.is_file() else {}
needs_schema = pytest.mark.skipif(not DEFINITIONS, reason=f"{PATH.name} is not there")


def problems(name, value):
    """What is wrong with a value; a definition that is not there allows nothing."""
    if name not in DEFINITIONS:
        return [] if value is None else [f"{name}: nothing may be sent"]
    ref = {"$ref": HEAD + name.replace("/", "~1"), "definitions": DEFINITIONS}
    errors = jsonschema.Draft7Validator(ref).iter_errors(value)
    return [f"{name}: {error.message:.300}" for error in errors]


def all_problems(fake):
    """What is wrong with any message that a server got."""
    channels, found, count = {}, [], 0
    for seen in fake.requests:
        message = seen.message
        kind = message.get("type")
        where = f"{seen.namespace}/rpc/{seen.endpoint}/parameter"
        if kind == "rpcCall":
            if "parameter" in message or where not in DEFINITIONS:
                found += problems(where, message.get("parameter"))
        elif kind == "channelCreate":
            where = f"{seen.namespace}/channel/{seen.endpoint}"
            channels[seen.namespace, message["channelId"]] = where
            found += problems(f"{where}/creationParameter", seen.parameter)
        elif kind == "channelSend":
            where = channels[seen.namespace, message["channelId"]]
            found += problems(f"{where}/toServerPacket", message["message"])
        else:
            continue
        count += 1
    return found, count


@needs_schema
@pytest.mark.parametrize("name", OURS)
def test_calls(name):
    """The calls of the recording, as we send them."""
    with (
        FakeServer(["tiny"], extensions=()) as fake,
        LMStudioClient(fake.host) as client,
    ):
        fake.reply(AWAIT_CANCEL, when=lambda _: name == "cancel")
        if name == "load cancel":
            fake.on_load([0.5, AWAIT_CANCEL])
        if "load" not in name:
            fake.load("tiny", identifier="my-model")
        try:
            OURS[name](client)
        except LMStudioError:  # some settings mean nothing here; they were sent
            pass
        if "cancel" in name:
            fake.wait_for(is_cancel)
        found, count = all_problems(fake)

    assert [] == found
    assert 0 < count


@needs_schema
def test_a_session():
    """Histories of all kinds, specifiers of all kinds, and the end of the client."""
    call = {"id": "7", "function": {"name": "f", "arguments": "{}"}}
    with FakeServer(["any", "b"], loaded=["any"], extensions=()) as fake:
        with LMStudioClient(fake.host) as client:
            owned = client.llm.load("b")
            for model in (owned, client.llm.get(path=owned.path), client.llm.get()):
                model.get_model_info()
                assert model.get_context_length()
                assert 1 == model.count_tokens("x")
            model.respond(
                [
                    ("system", "s"),
                    ("user", ["u", "v"]),
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "content": "r", "tool_call_id": "7"},
                    ("assistant", "a"),
                ],
                input_prefix="Q: ",
            ).exception(timeout=5)
            model.complete("x", pre_prompt="y").exception(timeout=5)
            assert client.system.get_version()
            fake.reply(["a", AWAIT_CANCEL])
            for _ in model.respond("x", signal=Signal()):
                break
            fake.wait_for(is_cancel)
        found, count = all_problems(fake)

    assert [] == found
    assert 15 < count


@needs_schema
def test_wrong_messages_are_found():
    """The check can fail."""
    assert [] == problems("llm/rpc/unloadModel/parameter", {"identifier": "x"})
    assert 1 == len(problems("llm/rpc/unloadModel/parameter", {"identifier": 7}))
    assert 1 == len(
        problems("llm/rpc/unloadModel/parameter", {"identifier": "", "x": 1})
    )
    assert 1 == len(problems("system/rpc/version/parameter", {}))
