"""Users of OpenAI's own client get from this server what they know."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from conftest import EMBEDDER_VARIABLE
from interop import environments
from interop.clients import HERE, Client, embedded_server
from interop.conftest import make_home
from lmstudio import LMStudioClient, LMStudioServerError
from lmstudio.server.engine import Unloaded
from lmstudio.server.failures import Failure
from server.servers import scripted_server

MODEL = "smollm2-135m-instruct"
#: How the greedy answer begins. The engine rounds by what else is in its cache, so
#: further on there may be other words.
TEXT = "Hello! I'm"
#: How long the end of a prediction may take after its client is gone, seconds.
CANCELLED = 0.2


@pytest.fixture(scope="module")
def embedder():
    """The key of an embedding model, empty where there is none."""
    return "all-minilm-l6-v2" if EMBEDDER_VARIABLE in os.environ else ""


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_file, embedder):
    """The address of a server with a text model and an embedding model."""
    home = make_home(tmp_path_factory.mktemp("home"), model_file)
    if embedder:
        place = home / "models/interop-tests" / f"{embedder}-GGUF"
        place.mkdir()
        (place / f"{embedder}.F16.gguf").symlink_to(os.environ[EMBEDDER_VARIABLE])
    with embedded_server(home) as address:
        yield address


def start(mode, server, embedder=""):
    """Start the script of the client."""
    script = str(HERE / "openai_client.py")
    interpreter = [str(environments.openai()), "-I", "-W", "error"]
    return Client([*interpreter, script, mode, server, MODEL, embedder])


@pytest.fixture(scope="module")
def run(server, embedder):
    """What each step of the client printed."""
    with start("steps", server, embedder) as script:
        output, errors, code = script.rest()
    assert (0, "") == (code, errors)
    lines = [json.loads(line) for line in output.splitlines()]
    return {line.pop("step"): line for line in lines}


def test_models(run):
    """Models on disk are listed, and found by their names."""
    assert MODEL in run["models"]["ids"]
    assert {"id": MODEL} == run["model"]


@pytest.mark.parametrize("name", ["chat", "streamed chat"])
def test_chat(run, name):
    """A chat completion has text, reason and usage, whole and streamed."""
    made = run[name]
    assert (TEXT, "length") == (made["text"][: len(TEXT)], made["reason"])
    usage = made["usage"]
    assert 12 == usage["completion_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12


def test_streams_come_in_pieces(run):
    """A stream is no whole answer in disguise."""
    assert 12 == run["streamed chat"]["pieces"]


def test_the_request_has_an_id(run):
    """The client finds the id of its request."""
    assert run["chat"]["request"] is True


def test_logprobs(run):
    """A token comes with its probability and that of the likeliest."""
    made = run["logprobs"]
    assert [made["token"], made["logprob"]] == made["top"][0]
    assert 3 == len(made["top"])
    assert sorted(made["top"], key=lambda one: -one[1]) == made["top"]


def test_the_stream_helper(run):
    """The client's helper puts a stream together; the stop string is left out."""
    assert {"text": "Hello"} == run["stream helper"]


@pytest.mark.parametrize("name", ["text", "streamed text"])
def test_text(run, name):
    """A text goes on up to the stop string."""
    assert {"text": " 13, 14,", "reason": "stop"} == run[name]


@pytest.mark.parametrize(
    "name", ["parse", "parsed response", "streamed parsed response"]
)
def test_structured(run, name):
    """Pydantic's classes come filled in, with their limits kept."""
    assert 1 <= run[name]["age"] <= 99


@pytest.mark.parametrize("name", ["tool call", "streamed tool call"])
def test_tool_calls(run, name):
    """A tool that must be called is, with the arguments that it has."""
    assert "add" == run[name]["name"]
    assert {"a", "b"} == set(run[name]["arguments"])
    assert "tool_calls" == run["tool call"]["reason"]


def test_after_the_call(run):
    """The result of a tool goes back to the model, which answers."""
    assert run["after the call"]["text"]


def test_response(run):
    """A response has the same text, whole and streamed."""
    whole, made = run["response"], run["streamed response"]
    assert (TEXT, 12) == (whole["text"][: len(TEXT)], whole["tokens"])
    assert (TEXT, made["text"]) == (made["text"][: len(TEXT)], made["deltas"])
    assert ("response.created", "response.incomplete") == (
        made["kinds"][0],
        made["kinds"][-1],
    )


def test_a_response_goes_on(run):
    """With previous_response_id the model sees what was said before."""
    assert run["continued response"]["more"] > 12


def test_a_response_with_a_call(run):
    """A tool that must be called is, also in a response."""
    assert [["add", ["a", "b"]]] == run["response with a call"]["calls"]


def test_responses_are_kept(run):
    """A response can be had again until it is deleted; none with store=false."""
    kept = {"text": run["response"]["text"], "gone": "response_not_found"}
    assert kept == run["stored"]
    assert "NotFoundError" == run["not stored"]["type"]


@pytest.mark.parametrize(
    ("name", "kind", "code", "param"),
    [
        ("unknown model", "NotFoundError", "model_not_found", "model"),
        ("role", "BadRequestError", "invalid_value", "messages[1].role"),
        ("image", "BadRequestError", "unsupported_content", None),
        ("temperature", "BadRequestError", "invalid_value", "temperature"),
        ("embedding a chat", "BadRequestError", "wrong_model_type", "model"),
    ],
)
def test_errors(run, name, kind, code, param):
    """The client raises the class that fits, and tells what is wrong."""
    made = run[name]
    assert (kind, code, param) == (made["type"], made["code"], made["param"])
    assert made["request"] is True


def test_embeddings(run, embedder):
    """Vectors have length 1, and the packed ones are the plain ones."""
    if not embedder:
        pytest.skip(f"{EMBEDDER_VARIABLE} names no model")
    made = run["embeddings"]
    assert 384 == made["dimensions"]
    assert made["alike"] > 0.8 > 0.3 > made["unlike"]
    assert made["apart"] < 1e-6
    assert made["tokens"] > 9
    assert "dimensions" == run["dimensions"]["param"]


def test_v0(run):
    """The client reads LM Studio's older interface as well."""
    assert {
        "stop": "maxPredictedTokensReached",
        "arch": "llama",
        "engine": "llama.cpp",
    } == run["v0"]


def test_cancel(server):
    """A stream that is closed in its middle ends the model's work at once."""
    with start("cancel", server) as script, LMStudioClient(f"ws://{server}") as client:
        script.fragments(5)
        model = client.llm.model(MODEL)
        assert "generating" == model.get_processing_state().status
        script.tell("close")
        while (line := script.line())["step"] == "fragment":
            pass
        closed = time.perf_counter()
        while model.get_processing_state().status != "idle":
            assert time.perf_counter() - closed < 5
        assert CANCELLED >= time.perf_counter() - closed
        assert {"step": "closed"} == line


def test_a_final_failure_is_not_repeated():
    """The client sends a request once that would fail the same way again."""
    failures = (Failure("no", data={"code": "invalidAnswer"}), Unloaded("gone"))
    code = (
        "import openai, sys\n"
        "client = openai.OpenAI(base_url=sys.argv[1] + '/v1', api_key='none')\n"
        "try:\n"
        "    client.completions.create(model='any', prompt='x')\n"
        "except openai.InternalServerError as exc:\n"
        "    print(exc.code)\n"
    )
    sent = []
    for failure in failures:
        with scripted_server() as scripted:
            for _ in range(3):
                scripted.reply(failure)
            command = [environments.openai(), "-I", "-W", "error", "-c", code]
            made = subprocess.run(
                [*command, scripted.http], capture_output=True, text=True
            )
            assert "" == made.stderr
            left = 0
            with LMStudioClient(scripted.url) as client:
                while left < 3:
                    try:
                        client.llm.model("any").complete("x").result()
                    except LMStudioServerError:
                        left += 1
                    else:
                        break
            sent.append((made.stdout, 3 - left))

    assert [("invalid_answer\n", 1), ("model_unloaded\n", 3)] == sent
