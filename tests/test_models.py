"""Handles of loaded models: names that are looked up at each call."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest

from lmstudio import (
    LLM,
    Chat,
    LMStudioClient,
    LMStudioModelNotFoundError,
    LMStudioPresetNotFoundError,
    LMStudioProtocolError,
    LMStudioTypeError,
    LMStudioValueError,
)
from lmstudio.testing import NEVER, FakeServer


def test_what_a_handle_knows(client):
    """A handle of a name knows its name, and asks for all else."""
    model = client.llm.get("any")

    assert "any" == model.identifier
    assert model.info is None
    assert "any" == model.get_info().identifier
    assert "any" == model.get_model_info().identifier
    assert model.path == model.get_info().path
    assert model.path.endswith(".gguf")


def test_a_handle_of_a_path(fake, client):
    """A path means whatever is loaded from it, also by its folder alone."""
    path = client.llm.get("any").path

    for given in (path, path.rpartition("/")[0]):
        assert "any" == client.llm.get(path=given).identifier


def test_a_loaded_handle_knows_its_path(fake, client):
    """What the server said at loading is not asked for again."""
    model = client.llm.load("other")
    before = len(fake.requests)

    assert model.info.path == model.path
    assert "other" == model.identifier
    assert before == len(fake.requests)


def test_nobody_matches(client):
    """The README's way gives None, the official one an error."""
    model = client.llm.get("nobody")

    assert model.get_model_info() is None
    for ask in (
        model.get_info,
        model.get_load_config,
        model.unload,
        lambda: model.tokenize("x"),
        lambda: client.llm.get(path="no/where").identifier,
    ):
        with pytest.raises(LMStudioModelNotFoundError):
            ask()


def test_copies_and_pickles(client):
    """A handle belongs to its client, and says what can be pickled in its place."""
    for use in (pickle.dumps, copy.deepcopy):
        with pytest.raises(LMStudioTypeError, match="pickle the client"):
            use(client.llm.get("any"))


def test_unloading_a_handle(fake, client):
    """The client takes a handle where it takes its name."""
    client.llm.unload(client.llm.load("other"))

    assert ["any"] == fake.loaded()


def test_a_handle_survives_its_model(fake, client):
    """Unloaded it fails, and it works again once something has its name."""
    model = client.llm.load("other", identifier="mine")

    model.unload()
    assert model.get_model_info() is None
    with pytest.raises(LMStudioModelNotFoundError):
        model.respond("x").result()
    client.llm.load("any", identifier="mine")

    assert "x" == model.respond("x").content
    assert "any" == model.get_info().model_key


def test_neither_a_model_nor_an_error(fake, client):
    """An answer that can't be is told as one."""
    model = client.llm.get("any")
    client.llm.list_loaded()  # connects
    fake.before("getModelInfo", NEVER)

    def answer():
        number = fake.wait_for_call("getModelInfo").message["callId"]
        fake.send("llm", {"type": "rpcResult", "callId": number})

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(LMStudioProtocolError) as caught:
        model.get_info()
    thread.join()
    assert (
        "unexpected message from the server at getModelInfo:"
        " neither a model nor an error came back"
    ) == str(caught.value)


def test_load_config(client):
    """How it was loaded, by our names."""
    model = client.llm.load("other", config={"contextLength": 1024, "seed": 7})

    config = model.get_load_config()
    assert (1024, 7) == (config["context_length"], config["seed"])
    assert 1024 == model.get_context_length()


def test_context_length_of_older_servers(client, monkeypatch):
    """Where the configuration does not have it, the model's information has."""
    model = client.llm.load("other", config={"context_length": 512})
    monkeypatch.setattr(LLM, "get_load_config", lambda _: {"context_length": False})

    assert 512 == model.get_context_length()


def test_tokens(model):
    """One text has a list of tokens, several have a list of lists."""
    hello = model.tokenize("hello world")

    assert 2 == len(hello) == model.count_tokens("hello world")
    assert [hello, []] == model.tokenize(["hello world", ""])
    assert [hello] == model.tokenize(text for text in ["hello world"])
    assert [] == model.tokenize([])


@pytest.mark.parametrize("wrong", [None, 7, {"a": 1}, b"x", ["a", 7], ["a", None]])
def test_what_has_no_tokens(fake, model, wrong):
    """Wrong texts are found before any of them is sent."""
    with pytest.raises(LMStudioTypeError):
        model.tokenize(wrong)
    assert [] == fake.parameters("tokenize")


def test_no_text_to_count(fake, model):
    """The same for counting."""
    for wrong in (None, 7, [None]):
        with pytest.raises(LMStudioTypeError):
            model.count_tokens(wrong)
    with pytest.raises(LMStudioValueError, match="lone surrogate"):
        model.count_tokens("\ud800")
    assert [] == fake.requests


def test_prompt_template(model):
    """The text that the model would see."""
    assert "Be brief.\nHi" == model.apply_prompt_template(
        [("system", "Be brief."), ("user", "Hi")]
    )


def test_tokens_of_a_conversation(fake, model):
    """It is formatted first, with the tools; a text is counted as it is."""
    chat = [("system", "Be brief."), ("user", "Hi")]
    formatted = model.apply_prompt_template(chat)
    fake_tool = {"type": "function", "function": {"name": "now"}}

    assert model.count_tokens(formatted) == model.count_tokens(chat)
    assert model.count_tokens(chat) == model.count_tokens(Chat.from_history(chat))
    assert model.count_tokens(chat) == model.count_tokens(chat, tools=[fake_tool])
    opts = fake.parameters("applyPromptTemplate")[-1]["opts"]
    assert ["now"] == [t["function"]["name"] for t in opts["toolDefinitions"]]
    assert formatted == fake.parameters("countTokens")[-1]["inputString"]
    with pytest.raises(LMStudioValueError, match="tools go with a conversation"):
        model.count_tokens("x", tools=[fake_tool])


def test_equality(client):
    """Handles of the same name and client are equal."""
    assert client.llm.get("any") == client.llm.get(identifier="any")
    assert 1 == len({client.llm.get("any"), client.llm.get("any")})
    assert client.llm.get("any") != client.llm.get("other")
    assert client.llm.get("any") != "any"


def test_repr(client):
    """The short form names what it stands for, without asking."""
    assert "<LLM identifier='any'>" == repr(client.llm.get("any"))
    assert "<LLM path='a/b'>" == repr(client.llm.get(path="a/b"))
    assert "<LLM any>" == repr(client.llm.get())


def test_complete(fake, model):
    """The prompt travels as it is, behind pre_prompt, and is answered."""
    fake.reply(" 42", when="Question: life?")

    prediction = model.complete(
        "life?", config={"prePrompt": "Question: "}, max_tokens=10
    )

    assert " 42" == prediction.content
    (parameter,) = fake.parameters("predict")
    (message,) = parameter["history"]["messages"]
    assert "Question: life?" == message["content"][0]["text"]


def test_presets():
    """A handle keeps the preset that it was loaded with; a call may take another."""
    with (
        FakeServer(presets=["Mine", "Yours"]) as fake,
        LMStudioClient(fake.host) as client,
    ):
        model = client.llm.load("any", preset="Mine")
        for more in ({}, {"preset": "Yours"}):
            model.respond("x", **more).result()
        with pytest.raises(LMStudioPresetNotFoundError):
            model.respond("x", preset="Theirs").result()
        sent = fake.parameters("predict")

    assert ["Mine", "Yours", "Theirs"] == [
        parameter["fuzzyPresetIdentifier"] for parameter in sent
    ]


@pytest.mark.parametrize("verb", ["complete", "respond"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"config": 7}, "config must be a mapping of prediction options, not 7"),
        ({"temprature": 1}, "unknown prediction option 'temprature'; did you mean"),
        (
            {"temperature": 1, "config": {"temperature": 1}},
            "prediction option temperature is given twice, in config and as a",
        ),
        (
            {"max_tokens": 1, "config": {"maxTokens": 1}},
            "prediction option max_tokens is given twice, in config as 'maxTokens' and"
            " as the keyword 'max_tokens'",
        ),
        (
            {"response_fromat": int},
            "unknown prediction option 'response_fromat'; did you mean 'response_form",
        ),
        ({"signl": 7}, "unknown prediction option 'signl'; did you mean 'signal'?"),
        (
            {"on_prediction_fragmnt": 7},
            "unknown prediction option 'on_prediction_fragmnt'; did you mean"
            " 'on_prediction_fragment'?",
        ),
        (
            {"stream": True},
            "unknown prediction option 'stream'; predictions always stream: iterate",
        ),
        (
            {"config": {"timeout": 5}},
            "'timeout' is an argument of VERB() itself, not a prediction option; give",
        ),
        ({"preset": 7}, "preset must be text, not 7"),
        ({"structured": 7}, "structured output can't be made of 7"),
        ({"response_format": 7}, "structured output can't be made of 7"),
        ({"on_first_token": 7}, "on_first_token must be a function, not 7"),
        ({"on_fragment": 7}, "on_fragment must be a function, not 7"),
        ({"on_prompt_progress": 7}, "on_prompt_progress must be a function, not 7"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, or None"),
        ({"timeout": "x"}, "timeout must be a number of seconds above 0, or None"),
        ({"idle_timeout": -1}, "idle_timeout must be a number of seconds above 0"),
        ({"signal": 7}, "signal must be a Signal or a threading.Event, not 7"),
    ],
    ids=str,
)
def test_wrong_arguments(fake, model, verb, arguments, error):
    """A wrong argument is found before anything is sent."""
    with pytest.raises(LMStudioValueError) as caught:
        getattr(model, verb)("x", **arguments)

    error = error.replace("VERB", verb)
    assert str(caught.value).startswith(error), str(caught.value)
    assert [] == fake.requests


@pytest.mark.parametrize("verb", ["complete", "respond"])
def test_options_as_second_argument(fake, model, verb):
    """Options may follow as a mapping, as in the JavaScript client."""
    getattr(model, verb)("x", {"maxPredictedTokens": 5}, seed=7).result()

    [sent] = fake.parameters("predict")
    fields = sent["predictionConfigStack"]["layers"][0]["config"]["fields"]
    made = {field["key"]: field["value"] for field in fields}
    assert {"checked": True, "value": 5} == made["llm.prediction.maxPredictedTokens"]
    assert {"checked": True, "value": 7} == made["llm.prediction.seed"]
    with pytest.raises(TypeError, match="config must be a mapping of prediction opt"):
        getattr(model, verb)("x", int)


@pytest.mark.parametrize("prompt", [None, 7, b"x", ["x"], "\ud800"], ids=ascii)
def test_wrong_prompts(fake, model, prompt):
    """A prompt is a text."""
    with pytest.raises(LMStudioValueError, match="the prompt"):
        model.complete(prompt)
    with pytest.raises(LMStudioValueError):
        model.respond(7)
    assert [] == fake.requests


def test_settings_that_are_no_json(fake, model):
    """What has no JSON form is refused, however deep it is."""
    with pytest.raises(LMStudioValueError, match=r"must be a mapping .* to JSON"):
        model.respond("x", raw={"x": [{"y": object()}]})
    assert [] == fake.parameters("predict")


@pytest.mark.slow
def test_huge_prompts(model):
    """Megabytes are nothing special."""
    text = "ä" * 3_000_000
    assert text == model.complete(text).content
