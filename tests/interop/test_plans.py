"""Planners of the official SDK for JavaScript plan, choose and download."""

from __future__ import annotations

import json
import subprocess

import pytest

from hub_server import model_bytes
from interop import environments
from lmstudio.server.runner import serve
from lmstudio.testing.engine import ScriptedEngine, Scripts

SMALL, LARGE = "Tiny.Q4_K_M.gguf", "Tiny.Q8_0.gguf"
FILES = {
    SMALL: model_bytes(size=300_000),
    LARGE: model_bytes(size=400_000, file_type=7),
}
#: How long a client may take, seconds.
LONGEST_RUN = 60.0

JS = """
const [modules, name, baseUrl] = process.argv.slice(1);
const load = require("node:module").createRequire(modules + "/x.js");
const { LMStudioClient } = load(name);
const warnings = [];
const keep = (...words) => warnings.push(words.join(" "));
const logger = { debug() {}, info() {}, warn: keep, error: keep };
const client = new LMStudioClient({ baseUrl, logger });
const said = { warnings };
const brief = (plan) => ({
  states: plan.nodes.map((node) => node.state),
  selected: plan.nodes.at(-1).selected?.quantName,
  size: plan.downloadSizeBytes,
});
async function bring(planner, what) {
  let last, finalizing = 0;
  await planner.download({
    onProgress: (update) => { last = update.downloadedBytes; },
    onStartFinalizing: () => { finalizing += 1; },
  });
  said[what] = { last, finalizing };
  planner[Symbol.dispose]();
}
(async () => {
  let updates = 0;
  const artifact = client.repository.createArtifactDownloadPlanner({
    owner: "acme", name: "tiny", onPlanUpdated: () => { updates += 1; },
  });
  await artifact.untilReady();
  said.artifact = { ...brief(artifact.getPlan()), updates };
  await bring(artifact, "brought");
  if (client.repository.createModelDownloadPlanner) {
    const source = { type: "huggingface", user: "acme", repo: "tiny" };
    const model = client.repository.createModelDownloadPlanner({ source });
    await model.untilReady();
    said.here = brief(model.getPlan());
    await model.selectModelDownloadOption({ nodeIndex: 0, downloadOptionIndex: 1 });
    said.other = brief(model.getPlan());
    await model.selectAlreadyOwnedModel({ nodeIndex: 0 });
    said.back = brief(model.getPlan());
    await model.selectModelDownloadOption({ nodeIndex: 0, downloadOptionIndex: 1 });
    await bring(model, "chosen");
    const controller = new AbortController();
    const given = client.repository.createModelDownloadPlanner({
      source, signal: controller.signal,
    });
    await given.untilReady();
    controller.abort();
    said.aborted = await given.download({}).then(() => "done", (e) => e.message);
  }
  said.models = (await client.system.listDownloadedModels()).length;
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.parametrize("version", ["1.5.0", "2.0.0"])
def test_planners(tmp_path, hub, version):
    """Every packet of a plan is understood, and what was chosen is here afterwards."""
    hub.add("acme/tiny", FILES)
    node, folders = environments.schemas()
    modules, models = folders[version].parents[1], tmp_path / "models"
    with serve(port=0, models_dir=models, engine=ScriptedEngine(Scripts())) as server:
        words = [node, "-e", JS, str(modules), f"sdk-{version}", server.url]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LONGEST_RUN
        )

    assert (0, "") == (done.returncode, done.stderr)
    small, large = len(FILES[SMALL]), len(FILES[LARGE])
    chosen = {"selected": "Q4_K_M", "size": small}
    expected = {
        "artifact": {"states": ["completed"] * 2, "updates": 1, **chosen},
        "brought": {"last": small, "finalizing": 1},
        "warnings": [],
        "models": 1,
    }
    if version == "2.0.0":
        expected["here"] = expected["back"] = {"states": ["satisfied"], "size": 0}
        other = {"states": ["completed"], "selected": "Q8_0", "size": large}
        expected["other"] = other
        expected["chosen"] = {"last": large, "finalizing": 1}
        expected["models"] = 2
    said = json.loads(done.stdout)
    if version == "2.0.0":
        assert "was cancelled" in said.pop("aborted")
    assert expected == said
