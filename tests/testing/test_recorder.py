"""A cassette says again what a server said, to any client, without the server."""

from __future__ import annotations

import json

import pytest

from lmstudio import (
    Chat,
    LMStudioAuthenticationError,
    LMStudioClient,
    LMStudioConnectionError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioPredictionError,
    LMStudioRealModelError,
    LMStudioValueError,
    LMStudioWebsocketError,
)
from lmstudio.server.clients import Refused
from lmstudio.testing import (
    AWAIT_CANCEL,
    DROP,
    Await,
    Cassette,
    FakeServer,
    StaleCassetteError,
    forbid_real_models,
)
from lmstudio.testing import recorder as module
from rawclient import prediction, raw_client, texts

PERSON = {"properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch):
    """What the mode is by default does not depend on where the tests run."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def real():
    """The server that is recorded."""
    with FakeServer(["any", "embed", "other"], loaded=["any"]) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    """Where the recording is."""
    return tmp_path / "folder" / "tape.jsonl"


def recorded(path, real, program, mode=None, **options):
    """What a program says while it is recorded."""
    with (
        Cassette(path, mode, server=real.host, **options) as cassette,
        LMStudioClient(cassette.host) as client,
    ):
        return program(client)


def replayed(path, program, **options):
    """What a program says to a recording."""
    with (
        forbid_real_models(),
        Cassette(path, **options) as cassette,
        LMStudioClient(cassette.host) as client,
    ):
        return program(client)


def lines_of(path):
    """The parsed lines of a recording."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def says(text):
    """A program that asks one thing."""
    return lambda client: client.llm.model("any").respond(text).content


def program(client):
    """Every kind of call once."""
    seen = []

    def add(a: int, b: int) -> int:
        """Add."""
        seen.append((a, b))
        return a + b

    model = client.llm.model("any")
    second = client.llm.load("other", identifier="second", on_progress=seen.append)
    seen.append([str(piece) for piece in model.respond("one two three")])
    seen.append(model.respond("Who?", structured=PERSON).parsed)
    seen.append(model.act("Add", [add]).content)
    seen.append((model.tokenize("a b"), model.count_tokens("a b c")))
    seen.append(model.apply_prompt_template("Hi"))
    seen.append(client.embedding.load("embed").embed(["a", "b"]))
    seen.append([listed.model_key for listed in client.list_downloaded_models()])
    seen.append([loaded.identifier for loaded in client.llm.list_loaded()])
    second.unload()
    with pytest.raises(LMStudioModelNotFoundError) as caught:
        client.llm.load("nobody")
    seen.append(str(caught.value))
    with pytest.raises(LMStudioModelNotFoundError) as caught:
        client.llm.get("gone").respond("x").result()
    seen.append(str(caught.value))
    return seen


@pytest.mark.slow
def test_every_kind_of_call(path, real):
    """Loads, predictions, tools, embeddings, tokens, lists and errors are the same."""
    said = recorded(path, real, program)
    assert ["one", " two", " three"] in said

    assert said == replayed(path, program)
    assert said == replayed(path, program, mode="none")


@pytest.mark.slow
def test_recordings_are_alike(path, real, tmp_path):
    """Recorded again, the file is the same: nothing in it changes from run to run."""
    recorded(path, real, program)
    again = tmp_path / "again.jsonl"
    with FakeServer(["any", "embed", "other"], loaded=["any"]) as other:
        recorded(again, other, program)

    def without_times(file):
        return [
            {k: v for k, v in line.items() if "lastUsedTime" not in str(v)}
            for line in lines_of(file)
        ]

    assert without_times(path) == without_times(again)
    text = path.read_text("utf-8")
    assert real.host not in text
    assert '"instanceReference": "instance-1"' in text


@pytest.mark.slow
def test_a_thousand_fragments(path, real, monkeypatch):
    """Each fragment is replayed as it was, and none is waited for."""
    real.reply("x" * 1000, chunk=1)

    def pieces(client):
        return [str(p) for p in client.llm.model("any").respond("x")]

    assert ["x"] * 1000 == recorded(path, real, pieces)
    waits = []
    sleep = module.asyncio.sleep

    async def noted(seconds):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", noted)
    assert ["x"] * 1000 == replayed(path, pieces)
    assert {0} == set(waits)


def test_times_are_kept_when_asked_for(path, real, monkeypatch):
    """With ``timing`` messages come when they came."""
    recorded(path, real, says("a b c"), timing=True)
    lines = lines_of(path)
    times = [line["after"] for line in lines if "server" in line]
    assert times and all(after >= 0 for after in times)
    stretched = [
        {**line, "after": 100.0} if "fragment" in line.get("server", {}) else line
        for line in lines
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in stretched))
    waits = []
    sleep = module.asyncio.sleep

    async def noted(seconds):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", noted)
    assert "a b c" == replayed(path, says("a b c"), timing=True)
    assert 3 == len([wait for wait in waits if wait > 90])
    assert "a b c" == replayed(path, says("a b c"))
    assert 3 == len([wait for wait in waits if wait > 90])


def cancelled(client):
    """Cancel behind the third fragment."""
    with client.llm.model("any").respond("count") as prediction:
        pieces = iter(prediction)
        first = [str(next(pieces)) for _ in range(3)]
    return first, prediction.stats.stop_reason


def test_a_cancel(path, real):
    """The recording goes on where it was cancelled when the client cancels again."""
    real.reply([*"abc", AWAIT_CANCEL])
    said = recorded(path, real, cancelled)
    assert (["a", "b", "c"], "userStopped") == said
    assert said == replayed(path, cancelled)


@pytest.mark.slow
def test_a_cancel_that_was_not_recorded(path, real):
    """It skips the fragments that are left, and the end is the recorded one."""
    real.reply("x" * 5000, chunk=1)
    recorded(path, real, says("count"))
    assert (["x"] * 3, "eosFound") == replayed(path, cancelled)


def test_a_cancel_that_does_not_come(path, real, monkeypatch):
    """A client that waits where it had cancelled is told so, and the test fails."""
    real.reply([*"abc", AWAIT_CANCEL])
    recorded(path, real, cancelled)
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    def waits(client):
        with pytest.raises(LMStudioPredictionError, match="was stopped by its client"):
            says("count")(client)

    with pytest.raises(StaleCassetteError, match="this client has not"):
        replayed(path, waits)


def test_a_lost_connection(path, real):
    """A connection that broke breaks again, behind the same fragment."""
    real.reply(["a", DROP])

    def program(client):
        with pytest.raises(LMStudioWebsocketError) as caught:
            client.llm.model("any").respond("x").result()
        return caught.value.partial

    assert "a" == recorded(path, real, program)
    assert "a" == replayed(path, program)


def test_a_failed_load(path, real):
    """Errors have the same class and text."""
    real.fail("loadModel", "No memory")

    def program(client):
        with pytest.raises(LMStudioModelLoadError) as caught:
            client.llm.load("any")
        return str(caught.value)

    assert recorded(path, real, program) == replayed(path, program)


def test_order_does_not_matter(path, real):
    """Calls are found by what they say."""

    def both(*prompts):
        def program(client):
            model = client.llm.model("any")
            return [model.respond(prompt).content for prompt in prompts]

        return program

    real.reply("1")
    real.reply("2")
    assert ["1", "2", "same", "b"] == recorded(path, real, both("a", "a", "same", "b"))
    assert ["b", "1", "same", "2"] == replayed(path, both("b", "a", "same", "a"))


def test_what_only_reads_may_be_asked_again(path, real):
    """A list is there as often as it is asked for; a prediction is not."""

    def lists(times):
        return lambda c: [len(c.llm.list_loaded()) for _ in range(times)]

    recorded(path, real, lists(1))
    assert [1, 1, 1] == replayed(path, lists(3))
    path.unlink()
    recorded(path, real, says("a"))

    def twice(client):
        model = client.llm.model("any")
        model.respond("a").result()
        with pytest.raises(LMStudioPredictionError, match="as often already"):
            model.respond("a").result()

    with pytest.raises(StaleCassetteError, match="as often already"):
        replayed(path, twice)


def test_stale(path, real):
    """What is not recorded and what is not asked for are errors that say what."""
    recorded(path, real, says("hello there"))

    def other(client):
        with pytest.raises(LMStudioPredictionError, match="Not in the cassette"):
            says("hello you")(client)

    with pytest.raises(StaleCassetteError) as caught:
        replayed(path, other)
    text = str(caught.value)
    assert "The nearest is call 2:\n--- recorded\n+++ asked\n" in text
    assert '-       "text": "hello there",' in text
    assert '+       "text": "hello you",' in text
    with pytest.raises(
        StaleCassetteError, match=r"call 2 was never asked for: .*predict"
    ):
        replayed(path, lambda client: client.llm.model("any"))


def test_what_was_not_asked_for_may_be_left_out(path, real):
    """One check is for calls in vain only, the other for both."""
    recorded(path, real, says("a"))
    cassette = Cassette(path)
    cassette.assert_all_matched()
    with pytest.raises(StaleCassetteError, match="never asked for"):
        cassette.assert_all_used()
    cassette.close()
    cassette.close()


def test_modes(path, real, monkeypatch):
    """Each mode records and replays what it says; in CI nothing is recorded."""
    with pytest.raises(StaleCassetteError, match="there is no cassette at"):
        Cassette(path, "none")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(StaleCassetteError, match="there is no cassette at"):
        Cassette(path)
    monkeypatch.delenv("CI")
    with pytest.raises(LMStudioValueError, match="mode must be one of"):
        Cassette(path, "some")
    real.reply("first")
    real.reply("second")
    assert "first" == recorded(path, real, says("a"), "once")
    assert "first" == recorded(path, real, says("a"), "once")
    assert "first" == recorded(path, real, says("a"), "new")
    assert "second" == recorded(path, real, says("a"), "all")
    assert "second" == replayed(path, says("a"))


def test_new_calls_are_added(path, real):
    """In the mode ``"new"`` what is recorded is replayed, and the rest is recorded."""
    real.reply("first")
    recorded(path, real, says("a"))
    before = path.read_text("utf-8")

    def both(client):
        return says("a")(client), says("b")(client)

    with FakeServer(["any"]) as fresh:  # it has other ids, and no model in memory
        assert ("first", "b") == recorded(path, fresh, both, "new")
        assert ["b"] == [asked.text for asked in fresh.predictions]
    assert path.read_text("utf-8").startswith(before)
    assert ("first", "b") == replayed(path, both)


def test_nothing_is_kept_of_a_failed_test(path, real):
    """When the block ends by an error there is no file."""
    with pytest.raises(KeyError):
        recorded(path, real, lambda client: {}[says("a")(client)])
    assert not path.exists()


def test_no_server_to_record(path, monkeypatch):
    """It is an error that names the address, or that it was forbidden."""
    with pytest.raises(LMStudioConnectionError, match=r"127\.0\.0\.1:9"):
        Cassette(path, server="127.0.0.1:9")
    monkeypatch.setenv("LMSTUDIO_HOST", "127.0.0.1:9")
    with forbid_real_models(), pytest.raises(LMStudioRealModelError):
        Cassette(path)


def test_files_that_are_none(path):
    """What is no cassette, or of another form, is an error with the file's name."""
    path.parent.mkdir()
    for text in (
        "",
        "{",
        "[]",
        '{"cassette": 2}',
        '{"cassette": 1, "greeting": {}}\n{}',
    ):
        path.write_text(text)
        with pytest.raises(StaleCassetteError, match=r"tape\.jsonl"):
            Cassette(path)


def test_secrets_are_not_written(path, real, monkeypatch):
    """Tokens, identifiers and the address are in no line, even where they are said."""
    monkeypatch.setenv("LM_API_TOKEN", "sk-lm-12345678:abcdefghijklmnopqrst")

    def tells(client):
        text = f"key sk-lm-12345678:abcdefghijklmnopqrst at {real.host}"
        return client.llm.model("any").complete(text).content

    recorded(path, real, tells)
    text = path.read_text("utf-8")
    assert "abcdefghij" not in text
    assert real.host not in text
    assert "key <token> at <host>" in text


def test_raw_clients(path, real):
    """Numbers are the client's own, and a keep-alive is answered."""

    def asks(client):
        client.numbers += 3
        client.send({"type": "keepAlive"})
        assert {"type": "keepAliveAck"} == client.receive()
        client.send({"type": "channelAck", "channelId": 5})
        packets = client.packets(client.open("predict", prediction("hi there")))
        return texts(packets[:-1])

    with (
        Cassette(path, server=real.host) as cassette,
        raw_client(cassette.url) as client,
    ):
        assert ["hi", " there"] == asks(client)
    with Cassette(path) as cassette, raw_client(cassette.url) as client:
        client.numbers = 100
        assert ["hi", " there"] == asks(client)


def test_a_refused_client(path, real, monkeypatch):
    """A server that refuses the client does so through the recorder."""

    def refuse(identifier, passkey):
        raise Refused("Wrong token")

    monkeypatch.setattr(real._service.clients, "join", refuse)
    with (
        Cassette(path, server=real.host) as cassette,
        LMStudioClient(cassette.host) as client,
        pytest.raises(LMStudioAuthenticationError, match="Wrong token"),
    ):
        client.llm.list_loaded()
    assert not path.exists()


def test_what_reaches_no_server(path, real):
    """Without an address the server of the environment is recorded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSTUDIO_HOST", real.host)
        with Cassette(path) as cassette, LMStudioClient(cassette.host) as client:
            assert "hi" == says("hi")(client)
    assert path.exists()


def test_a_server_that_dies(path, real):
    """What runs when the real server goes is lost, in the recording too."""
    gate = Await()
    real.reply(["a", gate])

    def program(client):
        prediction = client.llm.model("any").respond("x")
        next(iter(prediction))
        if not path.exists():
            real.drop_connections()
        with pytest.raises(LMStudioWebsocketError) as caught:
            prediction.result()
        return caught.value.partial

    assert "a" == recorded(path, real, program)
    assert "a" == replayed(path, program)
    assert ["lost"] == [key for line in lines_of(path) for key in line if key == "lost"]
    gate.open()


def test_images(path):
    """Files are told apart by their content, and stand in the recording as hashes."""
    picture = b"\x89PNG\r\n\x1a\n" + bytes(300)

    def program(client):
        handle = client.prepare_image(picture, name="a.png")
        chat = Chat()
        chat.add_user_message("See", images=[handle])
        return client.llm.model("vision").respond(chat).content

    with FakeServer(["vision"], loaded=["vision"]) as real:
        said = recorded(path, real, program)
    assert "sha256:" in path.read_text("utf-8")
    assert said == replayed(path, program)
