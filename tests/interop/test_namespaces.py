"""Namespaces with nothing in them keep the official clients alive."""

from __future__ import annotations

import json
import subprocess

import pytest

from interop import environments
from interop.clients import LONGEST_RUN, embedded_server
from interop.conftest import make_home

JS = """
const [modules, name, baseUrl] = process.argv.slice(1);
const load = require("node:module").createRequire(modules + "/x.js");
const { LMStudioClient } = load(name);
const logger = { debug() {}, info() {}, warn() {}, error() {} };
const client = new LMStudioClient({ baseUrl, logger });
const said = {};
async function ask(what, action) {
  try {
    said[what] = { value: (await action()) ?? null };
  } catch (error) {
    said[what] = { error: error.message };
  }
}
(async () => {
  await ask("tools", () => client.plugins.pluginTools("somebody/something"));
  await ask("reindex", () => client.plugins.reindexPlugins());
  if (client.runtime) {
    await ask("engines", () => client.runtime.engine.list());
    await ask("selections", () => client.runtime.engine.getSelections());
    await ask("hardware", () => client.runtime.surveyHardware());
    await ask("select", () =>
      client.runtime.engine.select({ name: "a", version: "1" }, "GGUF"));
    await ask("base", async () => {
      const model = await client.llm.model("smollm2-135m-instruct");
      return await model.getBasePredictionConfig();
    });
  }
  await ask("flags", () => client.system.unstable_getExperimentFlags());
  await ask("notify", () => client.system.notify({ title: "a", description: "b" }));
  await ask("start", () => client.system.startHttpServer({ port: 1, cors: false }));
  await ask("stop", () => client.system.stopHttpServer());
  await ask("plan", () =>
    client.repository
      .createArtifactDownloadPlanner({ owner: "a", name: "b" })
      .untilReady());
  await ask("loaded", async () => (await client.llm.listLoaded()).length);
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.parametrize("version", ["1.5.0", "2.0.0"])
def test_plugins_and_runtime(tmp_path, hub, model_file, version):
    """What is not there is an error at once, all else goes on, and the script ends."""
    node, folders = environments.schemas()
    modules = folders[version].parents[1]
    with embedded_server(make_home(tmp_path, model_file)) as address:
        words = [node, "-e", JS, str(modules), f"sdk-{version}", f"ws://{address}"]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LONGEST_RUN
        )
    said = json.loads(done.stdout)
    assert 0 == done.returncode
    errors = {what: one["error"] for what, one in said.items() if "error" in one}
    expected = {
        "tools": "No such c",
        "reindex": "No such c",
        "start": "can't start another HTTP server",
        "stop": "can't stop to serve HTTP",
        "plan": "a/b is no model repository of the hub",
    }
    values = {"loaded": 0, "flags": [], "notify": None}
    if version == "2.0.0":
        expected["select"] = "no engines to choose from"
        hardware = {"status": "ok", "engines": []}
        values.update(engines=[], selections={}, hardware=hardware, loaded=1)
        assert False is said.pop("base")["value"]["maxTokens"]
    assert {*expected} == {*errors}, errors
    assert [] == [w for w, text in expected.items() if text not in errors[w]], errors
    assert values == {w: one["value"] for w, one in said.items() if w not in errors}
