"""Only who has a token gets in, to what it allows, and nobody gets to see one."""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.error
import urllib.request

import attrs
import pytest
from websockets.sync.client import connect

import lmstudio
from lmstudio.server import tokens
from lmstudio.server.rest import Rest
from lmstudio.server.tokens import (
    FORM,
    PERMISSIONS,
    Token,
    Tokens,
    TokensUnusable,
    chosen,
    needed,
    needed_at,
    new_token,
    read_token,
    saved,
    saved_or_new,
)
from lmstudio.wire.endpoints import ENDPOINTS
from rawclient import raw_client
from server.servers import scripted_server

SECRET = "0123456789abcdefghij"
TOKEN = f"sk-lm-abcd1234:{SECRET}"
OTHER = "sk-lm-abcd1234:0123456789abcdefghiJ"


def test_a_token_is_found_by_both_parts():
    """The right token is found, and none with a part that is wrong."""
    known = Tokens([read_token(OTHER), read_token(TOKEN)])
    assert TOKEN == known.find("abcd1234", SECRET).text
    assert OTHER == known.first
    for wrong in (
        ("abcd1234", SECRET[:-1]),
        ("abcd1235", SECRET),
        ("", ""),
        ("\ud800", ""),
    ):
        assert None is known.find(*wrong)


@pytest.mark.parametrize(
    ("header", "is_let_in"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {OTHER}", False),
        ("Bearer", False),
        ("", False),
        (None, False),
    ],
)
def test_bearer(header, is_let_in):
    """Only the right token under the right scheme counts."""
    assert is_let_in == (Tokens([read_token(TOKEN)]).find_bearer(header) is not None)


def test_nothing_shows_the_secret():
    """No repr of a token, of several, or of a server has the secret part."""
    with scripted_server(api_token=TOKEN) as scripted:
        shown = [repr(read_token(TOKEN)), repr(scripted.server.tokens)]
        shown += [repr(scripted.server), str(attrs.asdict(read_token(TOKEN)).keys())]
    assert "abcd1234" in shown[0]
    assert [] == [text for text in shown if SECRET in text]


@pytest.mark.parametrize(
    "text", ["", "abc", TOKEN + "x", TOKEN[:-1], TOKEN + "\n", "SK-LM" + TOKEN[5:]]
)
def test_what_is_no_token(text):
    """A text of another form is refused, and not repeated."""
    with pytest.raises(lmstudio.LMStudioValueError, match="has the form") as caught:
        read_token(text)
    assert not text or text not in str(caught.value)


def test_an_unknown_permission():
    """A permission that does not exist is named, with those that do."""
    with pytest.raises(lmstudio.LMStudioValueError, match="'fly'; there are predict,"):
        read_token(TOKEN, ["fly"])


def test_made_up_tokens():
    """Each new token has the form, and none is like another."""
    texts = {new_token().text for _ in range(50)}
    assert 50 == len(texts)
    assert all(FORM.fullmatch(text) for text in texts)


def test_the_file(tmp_path, caplog):
    """A line is a token with what it allows; others may not read the file."""
    file = tmp_path / "tokens"
    assert [] == saved(file)
    file.write_text(f"# mine\n\n{TOKEN}\n{OTHER} predict, models\n")
    file.chmod(0o644)
    assert [
        Token("abcd1234", SECRET),
        Token("abcd1234", SECRET[:-1] + "J", frozenset({"predict", "models"})),
    ] == saved(file)
    if os.name == "posix":
        assert 0o600 == file.stat().st_mode & 0o777
        assert [f"{file} was open to other users; now it is not"] == caplog.messages


def test_a_broken_file(tmp_path):
    """The line that is no token is named by its number, and not shown."""
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\nhunter2\n")
    with pytest.raises(TokensUnusable, match=r"line 2 of .*tokens") as caught:
        saved(file)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(TokensUnusable, match="can't read"):
        saved(tmp_path)
    (tmp_path / "no folder").write_text("")
    with pytest.raises(TokensUnusable, match="can't"):
        saved_or_new(tmp_path / "no folder" / "tokens")


def test_a_token_is_made_up_once(tmp_path, caplog):
    """The first server makes a token up, the next one takes the same."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "new folder" / "tokens"
    (made,) = saved_or_new(file)
    assert [made] == saved_or_new(file)
    if os.name == "posix":
        assert 0o600 == file.stat().st_mode & 0o777
    assert made.passkey not in caplog.text


def test_which_tokens_a_server_takes(tmp_path):
    """Without a word it asks for tokens only where others reach it."""
    file = tmp_path / "tokens"
    file.write_text(TOKEN)
    assert None is chosen(None, is_open=False, file=file)
    assert None is chosen(False, is_open=True, file=file)
    assert TOKEN == chosen(None, is_open=True, file=file).first
    assert TOKEN == chosen(True, is_open=False, file=file).first
    assert OTHER == chosen(OTHER, is_open=False, file=file).first
    assert OTHER == chosen([OTHER, TOKEN], is_open=True, file=file).first
    with pytest.raises(lmstudio.LMStudioValueError, match="no tokens in it"):
        chosen([], is_open=True)


def test_the_home_folder_has_the_tokens(tmp_path, monkeypatch):
    """Tokens are below the application's home unless a file is named."""
    monkeypatch.setenv("LMSTUDIO_HOME", str(tmp_path))
    assert tmp_path / ".internal" / "api-tokens" == tokens.tokens_file()
    (made,) = saved_or_new()
    assert [made] == saved()


def test_what_takes_which_permission():
    """Loading and ending take more than predicting, on sockets and over HTTP."""
    assert ("models", "models", "server") == tuple(
        map(needed, ("loadModel", "unloadModel", "requestShutdown"))
    )
    assert ("predict", "predict") == (needed("predict"), needed("listLoaded"))
    assert {needed(name) for _, name in ENDPOINTS} <= set(PERMISSIONS)
    assert "models" == needed_at("POST", "/api/v1/models/load")
    assert "predict" == needed_at("DELETE", "/v1/responses/1")
    assert "predict" == needed_at("POST", "/v1/chat/completions")
    assert "predict" == needed_at("GET", "/v1/models/")
    assert ("server", "server") == (needed("new"), needed_at("PUT", "/v1/models"))


def test_every_endpoint_has_its_permission():
    """What takes which permission is written down for each endpoint and path."""
    assert {name for _, name in ENDPOINTS} == {*tokens.NEEDS}
    assert {*PERMISSIONS} == {*tokens.NEEDS.values()}
    with scripted_server() as scripted:
        routes = Rest(scripted.services[0]).routes
    served = {
        (method, re.sub(r"\{.*\}", "*", route.path))
        for route in routes
        for method in route.endpoint._methods
        if method != "HEAD"
    }
    assert served == {*tokens.NEEDS_AT}
    for (method, path), permission in tokens.NEEDS_AT.items():
        assert permission == needed_at(method, path.replace("*", "some/thing"))


@pytest.fixture
def scripted():
    """A server that asks for a token."""
    with scripted_server(api_token=TOKEN) as scripted:
        yield scripted


def authenticate(url, identifier, passkey):
    """The answer to an auth packet, and whether the socket stays open."""
    packet = {
        "authVersion": 1,
        "clientIdentifier": identifier,
        "clientPasskey": passkey,
    }
    with connect(f"{url}/llm") as socket:
        socket.send(json.dumps(packet))
        answer = json.loads(socket.recv(5))
        if not answer["success"]:
            assert [] == list(socket)  # it is closed
        return answer


def test_sockets_show_the_parts_of_the_token(scripted, caplog):
    """The right parts are let in; anything else is told so, cut off, and logged."""
    assert {"success": True} == authenticate(scripted.url, "abcd1234", SECRET)
    refused = authenticate(scripted.url, "abcd1234", "a" * 20)
    assert not refused["success"]
    assert "API tokens" in refused["error"]
    assert refused == authenticate(scripted.url, "guest:1", "1")
    (line,) = caplog.messages
    assert line.startswith("refused a client: This server needs one of its API tokens")


def test_our_client(scripted):
    """Our client gets in with the token, and without it has a typed error."""
    with lmstudio.LMStudioClient(scripted.url, api_token=TOKEN) as client:
        assert [] == client.llm.list_loaded()
    for token in (None, OTHER):
        with (
            lmstudio.LMStudioClient(scripted.url, api_token=token) as client,
            pytest.raises(lmstudio.LMStudioAuthenticationError) as caught,
        ):
            client.llm.list_loaded()
        assert "abcdefghi" not in str(caught.value)


def http(url, token=None, method="GET"):
    """The status of a request, and the code of its error."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, None
    except urllib.error.HTTPError as exc:
        with exc:
            body = exc.read()
            is_json = exc.headers["content-type"] == "application/json"
            return exc.code, json.loads(body)["error"]["code"] if is_json else None


def test_http_shows_the_token_in_a_header(scripted, caplog):
    """Every path but the greeting and the status asks for the token."""
    for path in ("/lmstudio-greeting", "/lms-status"):
        assert (200, None) == http(scripted.http + path)
    for wrong in (None, OTHER, "x"):
        assert (401, "invalid_api_key") == http(f"{scripted.http}/nothing", wrong)
    assert 404 == http(f"{scripted.http}/nothing", TOKEN)[0]
    assert "0123456789" not in caplog.text
    assert "refused GET /nothing" in caplog.messages[0]


@pytest.mark.slow
def test_permissions(scripted):
    """A token that does not allow something is told which permission it lacks."""
    limited = Token("abcd1234", SECRET, frozenset({"predict"}))
    with scripted_server(tokens=Tokens([limited])) as scripted:
        # The raw client says guest:..., so it is let in by its parts here.
        with lmstudio.LMStudioClient(scripted.url, api_token=TOKEN) as client:
            assert [] == client.llm.list_loaded()
            with pytest.raises(lmstudio.LMStudioServerError, match="'models'"):
                client.llm.load("any")
            with pytest.raises(lmstudio.LMStudioServerError, match="'models'"):
                client.llm.unload("any")
        load = f"{scripted.http}/api/v1/models/load"
        assert (403, "permission_denied") == http(load, TOKEN, "POST")


@pytest.mark.slow
def test_on_demand(scripted):
    """What is loaded because it is asked for takes no more than predicting."""
    limited = Token("abcd1234", SECRET, frozenset({"predict"}))
    with scripted_server(tokens=Tokens([limited])) as scripted:
        with lmstudio.LMStudioClient(scripted.url, api_token=TOKEN) as client:
            assert "any" == client.llm.model("any").identifier
        (registry,) = [service.registry for service in scripted.services]
        assert ["any"] == [one.identifier for one in registry.loaded("llm")]
    with scripted_server(tokens=Tokens([limited])) as scripted:
        ask = urllib.request.Request(
            f"{scripted.http}/v1/completions",
            json.dumps({"model": "any", "prompt": "x"}).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(ask, timeout=5) as answer:
            assert 200 == answer.status


def test_without_tokens_everyone_gets_in():
    """A server that asks for none takes the guests it always took."""
    with scripted_server() as scripted, raw_client(scripted.url) as client:
        assert None is scripted.server.tokens
        assert [] == client.call("listLoaded")["result"]
