// Every example of the first README, run by the client that it came with.
//
// node alpha_client.mjs MODULES HOST:PORT REPO, where MODULES is a folder in which the
// SDK is installed, and REPO the path of a model. Every example prints one line of JSON.
// The client keeps its sockets open, so the script ends the process itself.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, address, REPO] = process.argv.slice(2);
const { LMStudioClient } = createRequire(join(modules, "x.js"))("@lmstudio/sdk");

const logger = { debug() {}, info() {}, warn: complain, error: complain };
const baseUrl = `ws://${address}`;
const newClient = () => new LMStudioClient({ baseUrl, logger });
const complaints = [];

function complain(...words) {
  complaints.push(words.join(" "));
}

const quiet = { verbose: false };
const short = { maxPredictedTokens: 12, temperature: 0 };
const PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,";
const HISTORY = [
  { role: "system", content: "Answer the following questions." },
  { role: "user", content: "What is the meaning of life?" },
];
const SCHEMA = {
  type: "object",
  properties: {
    setup: { type: "string", maxLength: 12 },
    punchline: { type: "string", maxLength: 12 },
  },
  required: ["setup", "punchline"],
};

async function read(prediction) {
  const texts = [];
  for await (const text of prediction) texts.push(text);
  const { content, stats, modelInfo } = await prediction;
  return { texts, content, stats, model: modelInfo };
}

async function failure(action) {
  try {
    return { text: null, result: String(await action()) };
  } catch (error) {
    return { text: error.message ?? String(error) };
  }
}

const client = newClient();
const get = (what) => client.llm.get(what);

const EXAMPLES = {
  async usage() {
    const model = await newClient().llm.load(REPO, quiet);
    return await read(model.complete(PROMPT, short));
  },
  async "keeping a model loaded"() {
    await client.llm.load(REPO, { noHup: true, identifier: "kept", ...quiet });
    return await client.llm.listLoaded();
  },
  async "a friendly name"() {
    await client.llm.load(REPO, { identifier: "my-model", ...quiet });
    const model = await get("my-model");
    const { content } = await model.complete(PROMPT, short);
    return { identifier: model.identifier, path: model.path, content };
  },
  async "a name that is taken"() {
    const again = { identifier: "my-model", ...quiet };
    return await failure(() => client.llm.load(REPO, again));
  },
  async "a custom configuration"() {
    const config = { contextLength: 1024, gpuOffload: 0.5 };
    const model = await client.llm.load(REPO, { config, ...quiet });
    return await model.getModelInfo();
  },
  async "a preset"() {
    const options = { preset: "My ChatML", identifier: "with preset", ...quiet };
    const model = await client.llm.load(REPO, options);
    return await read(model.complete(PROMPT, { temperature: 0 }));
  },
  async "an unknown preset"() {
    const options = { preset: "none such", ...quiet };
    return await failure(() => client.llm.load(REPO, options));
  },
  async "loading progress"() {
    const progress = [];
    const onProgress = (share) => progress.push(share);
    const options = { identifier: "slow", verbose: false, onProgress };
    await client.llm.load(REPO, options);
    await client.llm.unload("slow");
    return { progress };
  },
  async "listing what can be loaded"() {
    const models = await client.system.listDownloadedModels();
    const llms = models.filter((model) => model.type === "llm");
    const options = { identifier: "by path", ...quiet };
    const model = await client.llm.load(llms[0].path, options);
    return { models, loaded: await model.getModelInfo() };
  },
  async "canceling a load"() {
    const controller = new AbortController();
    const loading = client.llm.load(REPO, {
      identifier: "aborted",
      signal: controller.signal,
      onProgress: () => controller.abort(),
      ...quiet,
    });
    return await failure(() => loading);
  },
  async unloading() {
    await client.llm.load(REPO, { identifier: "short-lived", ...quiet });
    const has = async () =>
      (await client.llm.listLoaded()).some((m) => m.identifier === "short-lived");
    const before = await has();
    await client.llm.unload("short-lived");
    return { before, after: await has() };
  },
  async "unloading what is not there"() {
    return await failure(() => client.llm.unload("nobody"));
  },
  async "loading what is not there"() {
    return await failure(() => client.llm.load("no/such-model", quiet));
  },
  async "getting by identifier"() {
    const one = await get({ identifier: "my-model" });
    const other = await get("my-model");
    return { same: one.identifier === other.identifier, path: one.path };
  },
  async "getting by path"() {
    const any = await get({ path: REPO });
    const [{ path }] = await client.system.listDownloadedModels();
    return { any: any.path, exact: (await get({ path })).path, path };
  },
  async "getting what is not there"() {
    return await failure(() => get("nobody"));
  },
  async "a model's info"() {
    const handle = client.llm.createDynamicHandle("my-model");
    const nobody = client.llm.createDynamicHandle("nobody");
    const missing = await nobody.getModelInfo();
    return { info: await handle.getModelInfo(), missing: missing ?? null };
  },
  async "any model"() {
    const model = await get({});
    return { content: (await model.complete(PROMPT, short)).content };
  },
  async "the first that is loaded"() {
    const [first] = await client.llm.listLoaded();
    return { first, got: (await get({ identifier: first.identifier })).identifier };
  },
  async "text completion"() {
    return await read((await get("my-model")).complete(PROMPT, short));
  },
  async "completion with options"() {
    const options = {
      contextOverflowPolicy: "stopAtLimit",
      maxPredictedTokens: 100,
      prePrompt: "Some pre-prompt",
      stopStrings: ["13"],
      temperature: 0,
    };
    return await read((await get("my-model")).complete(PROMPT, options));
  },
  async conversation() {
    return await read((await get("my-model")).respond(HISTORY, short));
  },
  async "conversation with options"() {
    const options = {
      contextOverflowPolicy: "stopAtLimit",
      maxPredictedTokens: 20,
      stopStrings: ["\n\n\n"],
      temperature: 0.7,
      inputPrefix: "Q: ",
      inputSuffix: "\nA:",
    };
    return await read((await get("my-model")).respond(HISTORY, options));
  },
  async json() {
    const options = { maxPredictedTokens: 60, structured: { type: "json" } };
    const model = await get("my-model");
    return await read(model.complete("Here is a joke in JSON:", options));
  },
  async "json with a schema"() {
    const structured = { type: "json", jsonSchema: SCHEMA };
    const model = await get("my-model");
    const options = { maxPredictedTokens: 100, structured };
    const { content } = await model.complete("Here is a joke in JSON:", options);
    return { parsed: JSON.parse(content) };
  },
  async "canceling a prediction"() {
    const row = { type: "array", items: { type: "integer" }, minItems: 400 };
    const options = { structured: { type: "json", jsonSchema: row } };
    const prediction = (await get("my-model")).complete("Numbers:", options);
    let count = 0;
    for await (const _ of prediction) if (count++ === 2) prediction.cancel();
    return { stats: (await prediction).stats };
  },
  async "the server's log"() {
    let unsubscribe;
    const logged = new Promise((resolve) => {
      unsubscribe = client.diagnostics.unstable_streamLogs(resolve);
    });
    const model = await get("my-model");
    // The subscription travels on another socket than the prediction.
    const answers = [];
    let entry;
    logged.then((value) => (entry = value));
    while (entry === undefined) answers.push(await model.complete("Hello", short));
    unsubscribe();
    return { kind: entry.data.type, input: entry.data.input };
  },
};

for (const [step, run] of Object.entries(EXAMPLES)) {
  try {
    console.log(JSON.stringify({ step, value: await run() }));
  } catch (error) {
    console.log(JSON.stringify({ step, failed: error.stack ?? String(error) }));
  }
}
console.log(JSON.stringify({ step: "end", complaints }));
process.exit(0);
