"""Code written for the official Python SDK runs, with its names."""

from __future__ import annotations

import inspect
import threading

import attrs
import pytest

import lmstudio as lms
import lmstudio.default
from lmstudio import compat
from lmstudio.testing import AWAIT_CANCEL, FakeServer, tool_call
from lmstudio.wire.config import EMBEDDING_LOAD, LOAD

BOOK = '{"title": "The Hobbit", "author": "J.R.R. Tolkien", "year": 1937}'


@pytest.fixture
def server(monkeypatch):
    """A server that the default client finds, with a model of each kind loaded."""
    monkeypatch.setattr(lmstudio.default, "_client", None)
    with FakeServer(["any", "text-embed"], loaded=["any", "text-embed"]) as fake:
        monkeypatch.setenv("LMSTUDIO_HOST", fake.host)
        yield fake
        if lmstudio.default._client is not None:
            lmstudio.default._client.close()


class Book(lms.BaseModel):
    """A class of a user."""

    title: str
    author: str
    year: int


def test_one_line(server):
    """The first snippet of the documentation, in both its forms."""
    server.reply("42", times=2)

    assert "42" == str(lms.llm().respond("What is the meaning of life?"))
    with lms.Client() as client:
        assert "42" == str(client.llm.model().respond("What is the meaning of life?"))


def test_a_stream_and_its_stats(server):
    """Fragments with a content, then the result with figures."""
    server.reply(["To ", "be ", "happy."])
    stream = lms.llm().respond_stream("Why?", config={"maxTokens": 50})
    texts = [fragment.content for fragment in stream]
    result = stream.result()

    assert ["To ", "be ", "happy."] == texts
    assert "Any" == result.model_info.display_name
    assert 3 == result.stats.predicted_tokens_count
    assert "eosFound" == result.stats.stop_reason
    assert isinstance(stream, lms.PredictionStream)
    assert isinstance(result.stats, lms.LlmPredictionStats)


def test_a_stream_that_is_cancelled(server):
    """The loop ends, and no error comes of it."""
    server.reply(["To", AWAIT_CANCEL])
    stream = lms.llm().complete_stream("Life is")
    for fragment in stream:
        assert "To" == fragment.content
        stream.cancel()

    assert "userStopped" == stream.result().stats.stop_reason
    with lms.llm().respond_stream("x") as stream:  # it is a context manager, too
        stream.wait_for_result()


def test_a_conversation_grows_by_its_callback(server):
    """`on_message=chat.append` keeps the answers of several turns."""
    chat = lms.Chat("You answer briefly.")
    model = lms.llm()
    for turn, answer in (("Fruit?", "Banana."), ("Another?", "Apple.")):
        server.reply(answer)
        chat.add_user_message(turn)
        assert answer == str(model.respond(chat, on_message=chat.append))
    roles = [message["role"] for message in chat.to_dict()["messages"]]

    assert ["system", "user", "assistant", "user", "assistant"] == roles
    asked = server.parameters("predict")[-1]["history"]["messages"]
    assert "Banana." == asked[2]["content"][0]["text"]


def test_callbacks_of_a_prediction(server):
    """Each is called with what the documentation says."""
    server.reply(["a", "b"])
    fragments, first, shares = [], [], []
    lms.llm().respond(
        "x",
        on_first_token=lambda: first.append(True),
        on_prediction_fragment=fragments.append,
        on_prompt_processing_progress=shares.append,
    ).result()

    assert (["a", "b"], [True], 1.0) == (fragments, first, shares[-1])


def test_structured_answers(server):
    """A class, a schema: the fields are there, as items and as attributes."""
    server.reply(BOOK, times=2)
    model = lms.llm()
    book = model.respond("The Hobbit?", response_format=Book).parsed
    by_schema = model.respond("?", response_format=Book.model_json_schema()).parsed

    assert isinstance(book, Book)
    assert ("The Hobbit", 1937) == (book.title, book["year"])
    assert 1937 == by_schema["year"]


def test_base_model():
    """Its subclasses are classes with keywords, defaults, and a schema."""

    class Shelf(lms.BaseModel):
        books: list[Book]
        label: str = "none"

    book = Book(title="t", author="a", year=1)
    assert Shelf(books=[book]) == Shelf(books=[book], label="none")
    assert "Shelf(books=[" in repr(Shelf(books=[book]))
    schema = Shelf.model_json_schema()
    assert ["books"] == schema["required"]
    assert {"title", "author", "year"} == set(schema["$defs"]["Book"]["properties"])
    assert issubclass(Shelf, lms.ModelSchema)
    assert attrs.has(Shelf)
    with pytest.raises(TypeError, match="year"):
        Book(title="t", author="a")
    with pytest.raises(KeyError, match="model_json_schema"):
        book["model_json_schema"]
    with pytest.raises(lms.LMStudioTypeError, match="named by a text, not 0"):
        book[0]


def test_parts_of_messages(server):
    """Text and results of tools are made by their names, and told apart by them."""
    text = lms.TextData(text="hi")
    result = lms.ToolCallResultData(content="4", tool_call_id="7")
    chat = lms.Chat()
    chat.add_user_message(text)
    messages = []
    server.reply("hello")
    lms.llm().respond(chat, on_message=messages.append).result()

    assert "hi" == chat[0].text
    assert ("7", "4") == (result.tool_call_id, result.content)
    assert [isinstance(text, lms.TextData), isinstance(result, lms.TextData)] == [1, 0]
    assert isinstance(result, lms.ToolCallResultData)
    (part,) = messages[0].content
    assert isinstance(part, lms.TextData)
    assert "hello" == part.text
    with pytest.raises(TypeError, match="unexpected keyword"):
        lms.TextData(txt="hi")


def test_managing_models(server):
    """Load, list, unload; by name, with a timer and a configuration."""
    client = lms.get_default_client()
    shares = []
    another = client.llm.load_new_instance(
        "any",
        "second",
        ttl=60,
        config={"contextLength": 512},
        on_load_progress=shares.append,
    )

    assert ("second", 512) == (another.identifier, another.get_context_length())
    assert 1.0 == shares[-1]
    assert ["any", "second"] == [model.identifier for model in client.llm.list_loaded()]
    assert 3 == len(lms.list_loaded_models())
    assert ["text-embed"] == [m.identifier for m in lms.list_loaded_models("embedding")]
    client.llm.unload("second")
    lms.llm("any").unload()
    assert [] == lms.list_loaded_models("llm")
    (info,) = client.llm.list_downloaded()
    assert isinstance(info, lms.DownloadedLlm)
    assert ["any", "text-embed"] == [m.model_key for m in lms.list_downloaded_models()]


def test_info_tokens_and_embeddings(server):
    """What the pages on models and texts show."""
    model = lms.llm("any")
    chat = lms.Chat.from_history({"messages": [{"role": "user", "content": "a b"}]})

    assert isinstance(model.get_info(), lms.LlmInstanceInfo)
    assert 2 == len(model.tokenize("a b")) == model.count_tokens("a b")
    formatted = model.apply_prompt_template(chat)
    assert model.count_tokens(formatted) < model.get_context_length()
    assert 2 == len(lms.embedding_model().embed("text"))


def test_tools(server):
    """`act` with functions: the answer comes after the calls."""
    server.reply("55")

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    messages = []
    done = lms.llm().act("50 + 5?", [add], on_message=messages.append)

    assert (1, "55") == (done.rounds, messages[-1].text)
    assert 0 <= done.total_time_seconds


def test_a_tool_that_fails(server):
    """The model is told, or the callback raises in the program."""
    server.reply(tool_call("divide", {"numerator": 1, "denominator": 0}), times=2)
    server.reply("It can't be done.")
    told, requests = [], []

    def divide(numerator: float, denominator: float) -> float:
        """Divide two numbers."""
        return numerator / denominator

    def raises(exc, request):
        requests.append((type(exc), request.name))
        raise exc

    with pytest.raises(lms.LMStudioPredictionError, match="ZeroDivisionError"):
        lms.llm().act("1 / 0?", [divide], handle_invalid_tool_request=raises)
    done = lms.llm().act("1 / 0?", [divide], on_message=told.append)

    assert [(lms.LMStudioToolError, "divide")] == requests
    assert 2 == done.rounds
    assert ["assistant", "tool", "assistant"] == [m.role for m in told]
    assert "division by zero" in told[1].content[0].content


def test_tools_as_definitions(server):
    """Functions without hints or good names are described beside them."""
    server.reply(tool_call("add", {"a": 1, "b": 2}))
    server.reply("3")
    described = {"name": "add", "description": "Adds."}
    by_hand = lms.ToolFunctionDef(
        **described, parameters={"a": int, "b": int}, implementation=lambda a, b: a + b
    )

    def cryptic(a: int, b: int) -> int:
        return a * b

    derived = lms.ToolFunctionDef.from_callable(cryptic, name="times", description="x")
    messages = []
    lms.llm().act("1 + 2?", [by_hand, derived], on_message=messages.append)

    assert "3" == messages[1].content[0].content
    twice = [by_hand, lms.ToolFunctionDef.from_callable(cryptic, **described)]
    with pytest.raises(lms.LMStudioValueError, match="add"):
        lms.llm().act("x", twice)


def test_conversations_as_data(server):
    """A mapping with messages, and a text, are taken wherever a chat is."""
    server.reply("fine", times=2)
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "How are you?"},
    ]
    model = lms.llm()
    assert "fine" == str(model.respond({"messages": messages}))
    assert "fine" == str(model.respond(lms.Chat.from_history("How are you?")))
    first, second = (
        [(m["role"], m["content"][0]["text"]) for m in asked["history"]["messages"]]
        for asked in server.parameters("predict")
    )

    assert [("system", "You are brief."), ("user", "How are you?")] == first
    assert first[1:] == second
    assert "You are brief." in model.apply_prompt_template({"messages": messages})


def test_options_as_the_pages_write_them(server):
    """Names of the pages are known, those of older versions too."""
    server.reply("x")
    config = {"temperature": 0.6, "maxTokens": 50, "stop": ["\n\n"]}
    done = lms.llm().complete("Once", config=config).result()
    client = lms.get_default_client()
    loads = [
        client.llm.load_new_instance("any", config={"contextLength": 512, **gpu})
        for gpu in ({"gpuOffload": 0.5}, {"gpu": {"ratio": 0.5}})
    ]

    assert ["\n\n"] == done.prediction_config["stop_strings"]
    assert [0.5, 0.5] == [load.get_load_config()["gpu_ratio"] for load in loads]


def test_listed_models_outlive_their_client(server):
    """What was listed within `with` can be read behind it."""
    with lms.Client() as client:
        downloaded = client.list_downloaded_models()
        loaded = client.list_loaded_models()

    assert ["any", "text-embed"] == [model.model_key for model in downloaded]
    assert ["any", "text-embed"] == [model.identifier for model in loaded]
    assert "any" in str(downloaded[0])


#: Names and arguments of the official SDK, by what has them: those that its pages show.
#: What is left out here is in docs/coming-from.md.
SURFACE = {
    lms.llm: "model_key ttl config",
    lms.embedding_model: "model_key ttl config",
    lms.list_downloaded_models: "namespace",
    lms.list_loaded_models: "namespace",
    lms.prepare_image: "name",
    lms.configure_default_client: "api_host api_token",
    lms.get_default_client: "api_host",
    lms.set_sync_api_timeout: "timeout",
    lms.LLM.complete: "prompt response_format config preset on_message on_first_token",
    lms.LLM.respond: "history response_format config preset on_message on_first_token",
    lms.LLM.act: "chat tools max_prediction_rounds max_parallel_tool_calls config"
    " preset on_message on_first_token on_prediction_fragment on_round_start"
    " on_round_end on_prediction_completed on_prompt_processing_progress"
    " handle_invalid_tool_request",
    lms.LLM.apply_prompt_template: "history opts",
    lms.Chat.add_user_message: "content images",
    lms.Chat.add_assistant_response: "response tool_call_requests",
    lms.Chat.add_entry: "role content",
    lms.ToolFunctionDef: "name description parameters implementation",
    lms.ToolFunctionDef.from_callable: "f name description",
}


@pytest.mark.parametrize("function", SURFACE, ids=lambda f: f.__qualname__)
def test_arguments(function):
    """They have the official names."""
    missing = {*SURFACE[function].split()} - {*inspect.signature(function).parameters}
    assert set() == missing


def test_members():
    """What snippets use of objects is there."""
    stats = "stop_reason tokens_per_second time_to_first_token_sec"
    for kind, names in {
        lms.LLM: "identifier unload get_info get_load_config tokenize count_tokens"
        " get_context_length complete_stream respond_stream",
        lms.EmbeddingModel: "identifier unload get_info embed tokenize count_tokens",
        lms.PredictionStream: "close cancel result wait_for_result stats model_info",
        lms.PredictionResult: "content parsed structured stats model_info load_config"
        " prediction_config",
        lms.LlmPredictionFragment: "content tokens_count contains_drafted"
        " reasoning_type",
        lms.LlmPredictionStats: stats,
        lms.ActResult: "rounds total_time_seconds",
        lms.Chat: "from_history add_system_prompt add_tool_result add_tool_results"
        " append copy",
    }.items():
        here = {*dir(kind), *getattr(kind, "__annotations__", {})}
        assert set() == {*names.split()} - here


def test_config_classes_are_mappings(server):
    """They take the official spelling of Python, and their twins both spellings."""
    server.reply("x", times=2)
    model = lms.llm("any", config=lms.LlmLoadModelConfig(context_length=512, seed=1))
    for config in (
        lms.LlmPredictionConfig(temperature=0.5, max_tokens=5),
        {"temperature": 0.5, "maxTokens": 5},
    ):
        used = model.respond("x", config=config).result().prediction_config
        assert (0.5, 5) == (used["temperature"], used["max_tokens"])


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (compat.LlmLoadModelConfig, LOAD),
        (compat.EmbeddingLoadModelConfig, EMBEDDING_LOAD),
    ],
)
def test_config_classes_have_every_option(kind, table):
    """The table of options is theirs, and the ways to say where a model goes."""
    assert {*table.names(), "gpu"} == kind.__annotations__.keys()


def test_hosts(server):
    """An address is checked, and the server on this machine found."""
    assert lms.Client.is_valid_api_host(server.host)
    assert not lms.Client.is_valid_api_host("127.0.0.1:9")
    assert not lms.Client.is_valid_api_host("no such: host")
    with lms.Client(api_host=server.host) as client:
        assert server.host == client.api_host


def test_a_server_on_this_machine(server, monkeypatch):
    """It is found like a client without an address finds it."""
    monkeypatch.setattr("lmstudio.client.find_local", lambda: found)
    found = lmstudio.client.Address.parse(server.host)
    assert server.host == lms.Client.find_default_local_api_host()

    def nothing():
        raise lms.LMStudioConnectionError("ws://127.0.0.1:1234", "refused", "", "")

    monkeypatch.setattr("lmstudio.client.find_local", nothing)
    assert lms.Client.find_default_local_api_host() is None


def test_the_time_limit_of_the_module_functions(server, monkeypatch):
    """It is set before the first call, and is that of their client."""
    monkeypatch.setattr(lmstudio.default, "_idle_timeout", 60.0)
    assert 60.0 == lms.get_sync_api_timeout()
    lms.set_sync_api_timeout(0.05)
    assert 0.05 == lms.get_sync_api_timeout()
    released = threading.Event()
    server.before("listLoaded", lms_wait(released))
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        lms.list_loaded_models("llm")
    released.set()
    with pytest.raises(lms.LMStudioRuntimeError, match="already in use"):
        lms.set_sync_api_timeout(None)
    with pytest.raises(lms.LMStudioValueError, match="above 0"):
        lms.set_sync_api_timeout(0)


def lms_wait(event):
    """A step that waits for an event."""
    from lmstudio.testing import Await

    return Await(event)


def test_errors(server):
    """The names of the errors, and that one `except` catches what it should."""
    with pytest.raises(lms.LMStudioModelNotFoundError):
        lms.llm("nowhere")
    with pytest.raises(lms.LMStudioPresetNotFoundError) as caught:
        lms.llm().respond("x", preset="nowhere").result()
    assert isinstance(caught.value, lms.LMStudioServerError)


def test_names_are_there_and_in_nobodys_way():
    """Each is found by name; `dir`, `__all__` and `import *` leave them out."""
    assert sorted(set(compat.__all__)) == compat.__all__
    for name in compat.__all__:
        assert getattr(lms, name) is getattr(compat, name)
    assert set() == set(compat.__all__) & {*dir(lms), *lms.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'AsyncClient'"):
        lms.AsyncClient  # noqa: B018


def test_messages_by_role():
    """Each name for messages makes those of one role, and knows them."""
    kinds = {
        "user": lms.UserMessage,
        "system": lms.SystemPrompt,
        "assistant": lms.AssistantResponse,
        "tool": lms.ToolResultMessage,
    }
    for role, kind in kinds.items():
        made = kind(content=[lms.TextData(text="q")])
        assert (role, "q") == (made.role, made.text)
        assert made == kind(content="q")
        assert [kind] == [k for k in kinds.values() if isinstance(made, k)]
        assert isinstance(made, lms.AnyChatMessage)
    assert not isinstance("q", lms.UserMessage)
    chat = lms.Chat.from_history("hi")
    assert isinstance(chat[0], lms.UserMessage)
