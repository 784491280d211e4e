"""The hub is asked as it wants it, and its refusals are told in our words."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hub_server import COMMIT, Fault
from lmstudio.server.hub import Broken, Hub, HubError, HubFile


def ask(method, *arguments, **settings):
    """Ask a hub something."""
    return asyncio.run(getattr(Hub(**settings), method)(*arguments))


def refused(method, *arguments):
    """The error that it raises."""
    with pytest.raises(HubError) as caught:
        ask(method, *arguments)
    return caught.value


async def read(hub, repo, path, start=0):
    """Where the bytes of a file begin, and the bytes."""
    async with hub.open(repo, path, start) as body:
        return body.start, b"".join([chunk async for chunk in body.chunks])


def test_search(hub):
    """Only repositories with GGUF files are asked for and told, as many as wanted."""
    hub.add("acme/Tiny-GGUF", {"a.gguf": b"x"})
    hub.add("acme/Tiny", {"model.safetensors": b"x"})
    hub.add("acme/Other-GGUF", {"a.gguf": b"x"})

    assert ["acme/Tiny-GGUF"] == ask("search", "tiny", 5)
    assert ["acme/Tiny-GGUF"] == ask("search", None, 1)
    query = hub.requests[0].query
    assert ("gguf", "downloads", "tiny") == tuple(
        query[name] for name in ("filter", "sort", "search")
    )


def test_repo(hub):
    """A repository is told with its state, and its files with size and checksum."""
    hub.add("acme/T", {"a.gguf": b"x", "README.md": b"readme"})
    repo = ask("repo", "acme/T")

    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert ("acme/T", COMMIT) == (repo.name, repo.commit)
    assert (
        HubFile(path="a.gguf", size=1, sha256=digest),
        HubFile(path="README.md", size=6),
    ) == repo.files


def test_bytes(hub):
    """A file is read from any place on; a hub that knows no ranges sends it all."""
    hub.add("acme/T", {"q/a b.gguf": b"0123456789"})
    repo = ask("repo", "acme/T")
    file = "q/a b.gguf"

    assert (0, b"0123456789") == asyncio.run(read(Hub(), repo, file))
    assert (4, b"456789") == asyncio.run(read(Hub(), repo, file, 4))
    hub.fail(file, Fault(whole=True))
    assert (0, b"0123456789") == asyncio.run(read(Hub(), repo, file, 4))
    with pytest.raises(Broken):
        asyncio.run(read(Hub(), repo, file, 10))


def test_broken_connections(hub):
    """A connection that ends too early, or says nothing for long, is broken."""
    hub.add("acme/T", {"a.gguf": b"0123456789"})
    repo = ask("repo", "acme/T")
    hub.fail("a.gguf", Fault(after=5), Fault(after=5, stall=True))

    for silence in (15.0, 0.1):
        with pytest.raises(Broken):
            asyncio.run(read(Hub(silence), repo, "a.gguf"))


@pytest.mark.parametrize(
    ("status", "code", "help_"),
    [
        (401, "hub.unauthorized", "HF_TOKEN"),
        (403, "hub.forbidden", "/acme/T"),
        (404, "hub.notFound", "Check the name"),
        (429, "hub.rateLimited", "Try again in 7 s"),
        (500, "hub.failed", "later"),
        (304, "hub.failed", "later"),
    ],
)
def test_refusals(hub, status, code, help_):
    """Each status is an error of its own, with what was asked and what helps."""
    hub.add("acme/T", {"a.gguf": b"x"})
    repo = ask("repo", "acme/T")
    wait = {"Retry-After": "7", "X-Error-Message": "so it is"}
    hub.fail("/api/models/acme/T", Fault(status=status, headers=wait))
    hub.fail("a.gguf", Fault(status=status, headers=wait))

    with pytest.raises(HubError) as caught:
        asyncio.run(read(Hub(), repo, "a.gguf"))
    for raised, what in (
        (refused("repo", "acme/T"), "acme/T"),
        (caught.value, "acme/T/a.gguf"),
    ):
        assert code == raised.code
        assert what in raised.title
        assert f"{status}: so it is" in raised.cause
        assert help_ in raised.suggestion


def test_locked(hub):
    """A repository with terms is forbidden until they are accepted."""
    hub.add("acme/T", {"a.gguf": b"x"})
    hub.locked["acme/T"] = 403

    assert f"terms at {hub.url}/acme/T" in refused("repo", "acme/T").suggestion


def test_offline(monkeypatch):
    """A hub that can't be reached is told with its address and the variables."""
    with socket.socket() as bound:  # nobody listens, and nobody else may
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"{url}/")
        raised = refused("search", "x", 1)

    assert "hub.offline" == raised.code
    assert f"{url} can't" in raised.title
    assert "HF_HUB_OFFLINE" in raised.suggestion


def test_told_to_stay_offline(hub, monkeypatch):
    """With HF_HUB_OFFLINE nothing is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert "hub.offline" == refused("search", "x", 1).code
    assert [] == hub.requests


@pytest.mark.parametrize("named", ["huggingface.co", "ftp://x", "http://"])
def test_wrong_endpoint(monkeypatch, named):
    """An HF_ENDPOINT that is no address is refused before anything is asked."""
    monkeypatch.setenv("HF_ENDPOINT", named)

    assert "hub.badName" == refused("search", "x", 1).code


def test_default_endpoint(monkeypatch):
    """Without the variable it is the hub that everyone uses."""
    monkeypatch.setenv("HF_ENDPOINT", " ")

    assert "https://huggingface.co" == Hub().endpoint


@pytest.mark.parametrize("answer", [{}, "text", [1, {"id": 5}, {}]])
def test_strange_answers(hub, answer):
    """An answer of another form is refused, or read as far as it goes."""
    hub.listed = answer
    if isinstance(answer, list):
        assert [] == ask("search", "x", 5)
    else:
        assert "hub.failed" == refused("search", "x", 5).code


def test_strange_files(hub, monkeypatch):
    """Entries that are no files are left out, a list that is none refused."""
    told = {"sha": "c", "siblings": [1, {}, {"rfilename": "a", "size": -1}]}
    told["siblings"].append({"rfilename": "b", "size": 1, "lfs": {"sha256": "x"}})

    async def answer(*_):
        return told

    monkeypatch.setattr(Hub, "_ask", answer)
    assert (HubFile(path="b", size=1),) == ask("repo", "acme/T").files
    told["siblings"] = None
    assert "hub.failed" == refused("repo", "acme/T").code


def test_no_json(monkeypatch, hub):
    """A page that is no JSON, as captive portals show, is refused."""
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/acme/T/resolve/main/page")
    hub.add("acme/T", {"page/api/models": b"<html>"})

    assert "hub.failed" == refused("search", "x", 5).code


def test_token_and_name(hub, monkeypatch):
    """The token goes along when there is one; nothing tells of the user's programs."""
    ask("search", "x", 1)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ask("search", "x", 1)
    first, second = (request.headers for request in hub.requests)

    assert (None, "Bearer hf_secret") == (
        first.get("authorization"),
        second.get("authorization"),
    )
    assert first["user-agent"].startswith("lmstudio/")
    assert "python" not in first["user-agent"].lower()
