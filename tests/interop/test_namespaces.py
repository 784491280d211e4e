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
  }
  await ask("loaded", async () => (await client.llm.listLoaded()).length);
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.parametrize(("version", "number"), [("1.5.0", 2), ("2.0.0", 5)])
def test_plugins_and_runtime(tmp_path, model_file, version, number):
    """What is not there is an error at once, all else goes on, and the script ends."""
    node, folders = environments.schemas()
    modules = folders[version].parents[1]
    with embedded_server(make_home(tmp_path, model_file)) as address:
        words = [node, "-e", JS, str(modules), f"sdk-{version}", f"ws://{address}"]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LONGEST_RUN
        )
    said = json.loads(done.stdout)
    assert (0, {"value": 0}) == (done.returncode, said.pop("loaded"))
    assert number == len(said)
    assert {"error"} == {key for one in said.values() for key in one}, said
    assert all("No such c" in one["error"] for one in said.values()), said
