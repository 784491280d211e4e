"""What the application around a server would do is answered truthfully."""

from __future__ import annotations

import logging

import pytest

from lmstudio.wire.common import KVConfig, KVField
from rawclient import query
from server.benches import code_of, on_a_bench


async def answer(bench, namespace, endpoint, *parameter):
    """The reply of one call on a socket of its own."""
    socket = await bench.another(namespace)
    return await socket.call(endpoint, *parameter)


@pytest.mark.parametrize("parameter", [{}, {"port": 1234}, {"cors": False}], ids=str)
@on_a_bench
async def test_the_http_server_runs_already(bench, parameter):
    """To start what runs is no error, and has no result."""
    bench.service.port = 1234
    reply = await answer(bench, "system", "startHttpServer", parameter)
    assert {"type": "rpcResult", "callId": reply["callId"]} == reply


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ({"port": 1235}, "It serves HTTP on port 1234 and on no other"),
        ({"cors": True}, "lets no web pages in"),
        ({"port": 0}, "port must be from 1 to 65535, not 0"),
    ],
    ids=str,
)
@on_a_bench
async def test_another_http_server(bench, parameter, says):
    """Other options than it has are an error that says which it has."""
    bench.service.port = 1234
    reply = await answer(bench, "system", "startHttpServer", parameter)
    assert "rpcError" == reply["type"]
    assert says in str(reply["error"])


@on_a_bench
async def test_http_does_not_stop_alone(bench):
    """Stopping it is refused, and the error says what ends the server."""
    reply = await answer(bench, "system", "stopHttpServer")
    assert "unsupported" == code_of(reply)
    assert "requestShutdown" in reply["error"]["suggestion"]


@on_a_bench
async def test_notifications_are_logged(bench, caplog):
    """A notification is one line of the log, whatever is in it."""
    caplog.set_level(logging.INFO)
    told = {"title": "Done\nnow", "description": "x" * 999, "noAutoDismiss": True}
    reply = await answer(bench, "system", "notify", told)
    assert "result" not in reply and "rpcResult" == reply["type"]
    lines = [r.message for r in caplog.records if "notifies" in r.message]
    assert [f"a client notifies: 'Done\\nnow' - {'x' * 200!r}"] == lines


@on_a_bench
async def test_experiments(bench):
    """There are none: switching one off is done already, and on is refused."""
    assert [] == (await answer(bench, "system", "getExperimentFlags"))["result"]
    off = await answer(
        bench, "system", "setExperimentFlag", {"code": "x", "value": False}
    )
    assert "rpcResult" == off["type"] and "result" not in off
    on = await answer(
        bench, "system", "setExperimentFlag", {"code": "x", "value": True}
    )
    assert "unsupported" == code_of(on)


@pytest.mark.parametrize(
    ("endpoint", "parameter", "result"),
    [
        ("listEngines", (), []),
        ("getEngineSelections", (), {"json": [], "meta": {"values": ["map"]}}),
        (
            "getEngineSelections",
            ({"json": None, "meta": {"values": ["undefined"]}},),
            {"json": [], "meta": {"values": ["map"]}},
        ),
        ("surveyHardware", (), {"status": "ok", "engines": []}),
        ("surveyHardware", ({"type": "all"},), {"status": "ok", "engines": []}),
    ],
)
@on_a_bench
async def test_runtime_lists(bench, endpoint, parameter, result):
    """There are no engines to choose from, and lists say so."""
    assert result == (await answer(bench, "runtime", endpoint, *parameter))["result"]


@pytest.mark.parametrize(
    "endpoint", ["selectEngine", "removeEngine", "searchRuntimeExtensions"]
)
@on_a_bench
async def test_runtime_changes(bench, endpoint):
    """What would change engines is an error with a code."""
    assert "unsupported" == code_of(await answer(bench, "runtime", endpoint, {}))


@on_a_bench
async def test_no_runtime_downloads(bench):
    """So is the channel that would fetch one."""
    socket = await bench.another("runtime")
    number = await socket.open("downloadRuntimeExtension", {"name": "x"})
    (end,) = await socket.packets(number)
    assert ("channelError", "unsupported") == (end["type"], code_of(end))


@on_a_bench
async def test_base_prediction_config(bench):
    """The settings of predictions where a client gives none, of both kinds."""
    await bench.socket.load()
    (instance,) = bench.service.registry.loaded("llm")
    field = KVField(key="llm.prediction.temperature", value=0.5)
    instance.operation = KVConfig(fields=[field])
    asked = {"specifier": query(identifier="any"), "ignoreServerSessionConfig": True}
    reply = await bench.socket.call("getBasePredictionConfig", asked)
    given = {"key": "llm.prediction.temperature", "value": 0.5}
    assert {"fields": [given]} == reply["result"]
    reply = await answer(bench, "embedding", "getBasePredictionConfig", asked)
    assert "rpcError" == reply["type"]
