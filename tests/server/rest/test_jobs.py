"""Models are downloaded by request, and how far they are can be asked."""

from __future__ import annotations

import pytest

from hub_server import Fault, model_bytes
from lmstudio.server.downloads import Downloads, Status
from lmstudio.server.engine import EngineError
from lmstudio.server.hub import Hub
from lmstudio.server.rest.jobs import told
from lmstudio.server.store import Store

START = "/api/v1/models/download"
FILE = "Tiny.Q4_K_M.gguf"
REPO = "acme/Tiny-GGUF"


@pytest.fixture
def downloading(served, hub, tmp_path):
    """A server that downloads from a hub with one model."""
    hub.add(REPO, {FILE: model_bytes(size=300_000)})
    models = tmp_path / "models"
    service = served.scripted.services[0]
    service.downloads = Downloads(Store(models), models, Hub(60.0))
    return served


def until(served, job_id, status):
    """Ask until a download has a status."""
    while (made := served.ask(f"{START}/status/{job_id}").json)["status"] != status:
        assert "downloading" == made["status"]
    return made


@pytest.mark.slow
def test_a_download(downloading, hub):
    """A download starts, is asked for, and ends; then the model is there."""
    started = downloading.ask(START, {"model": REPO, "quantization": "Q4_K_M"}).json
    assert "downloading" == started["status"]
    made = until(downloading, started["job_id"], "completed")
    size = len(hub.repos[REPO][FILE])
    assert (size, size) == (made["downloaded_bytes"], made["total_size_bytes"])
    assert made["started_at"] <= made["completed_at"]
    assert made["completed_at"].endswith("Z")
    again = downloading.ask(START, {"model": REPO}).json
    if again["status"] == "downloading":  # it looks at what is there
        again = until(downloading, again["job_id"], "already_downloaded")
    assert {"status": "already_downloaded"} == again


def test_a_running_download(downloading, hub):
    """While it runs its speed is told; the client need not wait for it."""
    hub.fail(FILE, Fault(after=100_000, stall=True))
    started = downloading.ask(START, {"model": REPO}).json
    assert hub.stalled.wait(10)
    made = downloading.ask(f"{START}/status/{started['job_id']}").json
    assert "downloading" == made["status"]
    assert made["bytes_per_second"] >= 0
    assert "completed_at" not in made


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 400, "invalid_request"),
        ({"model": "acme/none"}, 404, "model_not_found"),
        ({"model": REPO, "quantization": 5}, 400, "invalid_request"),
    ],
)
def test_what_is_refused(downloading, body, status, kind):
    """What can't be downloaded is told before anything starts."""
    answer = downloading.ask(START, body)
    assert (status, kind) == (answer.status, answer.error["type"])


def test_an_unknown_job(downloading):
    """An id that no download has is a 404."""
    answer = downloading.ask(f"{START}/status/none")
    assert (404, "job_not_found") == (answer.status, answer.error["type"])


def test_a_server_without_downloads(served):
    """Where there is no disk to download to, that is said."""
    answer = served.ask(START, {"model": REPO})
    assert (501, "not_implemented") == (answer.status, answer.error["type"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "cancelled"}, {"status": "paused"}),
        (
            {"state": "failed", "error": EngineError("The disk is full")},
            {"status": "failed", "error": {"message": "The disk is full"}},
        ),
        (
            {"state": "completed", "ended_at": 1.5},
            {"status": "completed", "completed_at": "1970-01-01T00:00:01.500Z"},
        ),
        (
            {"state": "finalizing"},
            {"status": "downloading", "bytes_per_second": 0.0},
        ),
    ],
)
def test_states(fields, expected):
    """Each state has its name and its figures."""
    status = Status(
        job_id="1",
        model="a/b",
        downloaded_bytes=5,
        total_bytes=10,
        bytes_per_second=0.0,
        started_at=0.0,
        **fields,
    )
    always = {
        "job_id": "1",
        "downloaded_bytes": 5,
        "total_size_bytes": 10,
        "started_at": "1970-01-01T00:00:00.000Z",
    }
    assert {**always, **expected} == told(status)
