// What a user of the official JavaScript SDK does, step by step.
//
// node js_client.mjs MODULES MODE [HOST:PORT], where MODULES is a folder in which the
// SDK is installed. Every step prints one line of JSON. Nothing is closed at the end:
// the process ends by itself when no channel is open, and hangs when one is.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, mode, address] = process.argv.slice(2);
const sdk = createRequire(join(modules, "x.js"))("@lmstudio/sdk");
const { Chat, LMStudioClient, rawFunctionTool } = sdk;

const ROW = { type: "array", items: { type: "integer" }, minItems: 400 };
// An answer of this form can't end before it is cancelled.
const ENDLESS = { type: "array", items: ROW, minItems: 400 };
const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer", minimum: 1, maximum: 99 },
  },
  required: ["name", "age"],
};
const WRONG = { type: "object", properties: { a: { type: "no such type" } } };
const GREEDY = { temperature: 0, maxTokens: 24 };
// Goes on in one likely way. The engine rounds by what else is in its cache, so where
// two words are as likely as each other, the same prompt may go either way.
const PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,";

// Without progress in the terminal.
const quiet = { verbose: false };
const json = (jsonSchema) => ({ structured: { type: "json", jsonSchema } });
const names = (models) => models.map((model) => model.identifier);

// Node.js 18 warns of its own `fetch`, which the SDK uses; that is no word of the SDK.
process.removeAllListeners("warning");
process.on("warning", (warning) => {
  if (warning.name !== "ExperimentalWarning") console.error(warning);
});

function say(step, values) {
  console.log(JSON.stringify({ step, ...values }));
}

function resultOf(result) {
  const stats = result.stats;
  return {
    content: result.content,
    stop: stats.stopReason,
    predicted: stats.predictedTokensCount,
    prompt: stats.promptTokensCount,
    total: stats.totalTokensCount,
    first: stats.timeToFirstTokenSec,
    model: result.modelInfo.modelKey,
  };
}

async function failure(action) {
  try {
    return { type: null, text: String(await action()) };
  } catch (error) {
    return { type: error.name, text: error.message };
  }
}

// Models on disk and in memory.
async function* loading(client) {
  const models = await client.system.listDownloadedModels();
  yield ["downloaded", { models: models.map((m) => [m.modelKey, m.path, m.type]) }];
  const llms = await client.system.listDownloadedModels("llm");
  yield ["downloaded llm", { keys: llms.map((m) => m.modelKey) }];
  const key = models[0].modelKey;
  const progress = [];
  const first = await client.llm.load(key, {
    identifier: "first",
    ttl: 600,
    config: { contextLength: 1024, seed: 7, gpu: { ratio: 0 } },
    onProgress: (share) => progress.push(share),
    ...quiet,
  });
  yield ["load", { identifier: first.identifier, progress }];
  yield ["loaded", { identifiers: names(await client.llm.listLoaded()) }];
  yield ["context length", { tokens: await first.getContextLength() }];
  const info = await first.getModelInfo();
  yield [
    "info",
    {
      identifier: info.identifier,
      key: info.modelKey,
      format: info.format,
      context: info.contextLength,
      max_context: info.maxContextLength,
      vision: info.vision,
    },
  ];
  const get = async (name) => {
    const model = await client.llm.model(name, quiet);
    return { identifier: model.identifier };
  };
  yield ["get by identifier", await get("first")];
  yield ["get by key", await get(key)];
  yield ["get any", { identifier: (await client.llm.model()).identifier }];
  yield ["version", await client.system.getLMStudioVersion()];
}

// Text, whole and in pieces.
async function* predicting(client) {
  const model = await client.llm.model();
  const chat = Chat.from([
    { role: "system", content: "You count." },
    { role: "user", content: "Count from 1 to 20." },
  ]);
  yield ["complete", resultOf(await model.complete(PROMPT, GREEDY))];
  yield ["respond", resultOf(await model.respond(chat, GREEDY))];
  const progress = [];
  let firstTokens = 0;
  let prediction = model.respond(chat, {
    ...GREEDY,
    onFirstToken: () => firstTokens++,
    onPromptProcessingProgress: (share) => progress.push(share),
  });
  let texts = [];
  for await (const fragment of prediction) texts.push(fragment.content);
  let values = resultOf(await prediction.result());
  yield ["respond streamed", { ...values, texts, progress, first_tokens: firstTokens }];
  prediction = model.complete(PROMPT, GREEDY);
  texts = [];
  for await (const fragment of prediction) texts.push(fragment.content);
  yield ["complete streamed", { ...resultOf(await prediction.result()), texts }];
  yield ["max tokens", resultOf(await model.complete(PROMPT, { maxTokens: 5 }))];
  const whole = (await model.complete(PROMPT, GREEDY)).content;
  const middle = Math.floor(whole.length / 2);
  const string = whole.slice(middle, middle + 4);
  const stopped = await model.complete(PROMPT, { ...GREEDY, stopStrings: [string] });
  yield ["stop string", { ...resultOf(stopped), whole, string }];
  const person = await model.respond("Describe a person.", json(PERSON));
  yield ["structured", { ...resultOf(person), parsed: JSON.parse(person.content) }];
}

// Two predictions at once on one connection.
async function* together(client) {
  const model = await client.llm.model();
  const both = await Promise.all([
    model.complete(PROMPT, GREEDY).result(),
    model.complete(PROMPT, GREEDY).result(),
  ]);
  yield ["two at once", { results: both.map(resultOf) }];
}

// More predictions than a model has slots, each cancelled.
async function* cancelling(client) {
  const model = await client.llm.model();
  const results = [];
  for (let i = 0; i < 6; i++) {
    const prediction = model.respond("Count.", json(ENDLESS));
    let number = 0;
    for await (const _ of prediction) if (number++ === 2) prediction.cancel();
    results.push(await prediction.result());
  }
  const began = Date.now();
  const after = await model.complete(PROMPT, { maxTokens: 1 });
  yield [
    "cancel",
    {
      stops: results.map((result) => result.stats.stopReason),
      predicted: results.map((result) => result.stats.predictedTokensCount),
      next: after.stats.stopReason,
      seconds: (Date.now() - began) / 1000,
    },
  ];
}

// Tokens and templates.
async function* tokens(client) {
  const model = await client.llm.model();
  const text = "Hello, world! \u00e4\u4f60";
  yield [
    "tokenize",
    {
      one: await model.tokenize(text),
      many: await model.tokenize([text, "a"]),
      count: await model.countTokens(text),
    },
  ];
  const chat = Chat.from([
    { role: "system", content: "Be brief." },
    { role: "user", content: "Hi" },
  ]);
  yield ["template", { text: await model.applyPromptTemplate(chat) }];
}

// What goes wrong says so.
async function* failing(client) {
  const llm = client.llm;
  const model = await llm.model();
  const key = (await client.system.listDownloadedModels())[0].modelKey;
  const nobody = llm.createDynamicHandle("nobody");
  yield ["load unknown key", await failure(() => llm.load("no/such-model", quiet))];
  yield ["get unknown key", await failure(() => llm.model("no/such-model", quiet))];
  yield ["unknown identifier", await failure(() => nobody.complete("Hi"))];
  yield ["unknown identifier's info", { info: (await nobody.getModelInfo()) ?? null }];
  yield ["unload unknown", await failure(() => llm.unload("nobody"))];
  const clash = () => llm.load(key, { identifier: "first", ...quiet });
  yield ["identifier clash", await failure(clash)];
  yield ["wrong schema", await failure(() => model.respond("Hi", json(WRONG)))];
  const preset = { preset: "none such" };
  yield ["unknown preset", await failure(() => model.respond("Hi", preset))];
}

// Out of memory, and in again by its key.
async function* unloading(client) {
  const loaded = async () => ({ identifiers: names(await client.llm.listLoaded()) });
  const first = await client.llm.model("first");
  await first.unload();
  yield ["unload", await loaded()];
  yield ["use unloaded", await failure(() => first.respond("Hi"))];
  const key = (await client.system.listDownloadedModels())[0].modelKey;
  const abort = new AbortController();
  const loading = client.llm.load(key, {
    identifier: "aborted",
    signal: abort.signal,
    onProgress: () => abort.abort(),
    ...quiet,
  });
  yield ["abort a load", { ...(await failure(() => loading)), ...(await loaded()) }];
  const progress = [];
  const onProgress = (share) => progress.push(share);
  const model = await client.llm.model(key, { ttl: 60, onProgress, ...quiet });
  yield ["get and load", { identifier: model.identifier, key, progress }];
  const second = await client.llm.load(key, quiet);
  yield ["load a second", { identifier: second.identifier, key }];
  await client.llm.unload(second.identifier);
  await model.unload();
  yield ["unload all", await loaded()];
}

const GROUPS = [loading, predicting, together, cancelling, tokens, failing, unloading];

// Everything, in groups: a failure skips the rest of its group.
async function steps(client) {
  for (const group of GROUPS) {
    try {
      for await (const [step, values] of group(client)) say(step, values);
    } catch (error) {
      say(`${group.name} failed`, { type: error.name, text: error.message });
    }
  }
}

// An endless answer, cancelled when a line comes on standard input.
async function stream(client) {
  const model = await client.llm.model();
  const prediction = model.respond("Count.", json(ENDLESS));
  process.stdin.once("data", () => {
    prediction.cancel();
    process.stdin.destroy();
  });
  for await (const fragment of prediction) {
    say("fragment", { content: fragment.content });
  }
  say("result", resultOf(await prediction.result()));
}

// Texts as vectors, one by one and together.
async function embed(client) {
  const models = await client.system.listDownloadedModels();
  const ours = await client.system.listDownloadedModels("embedding");
  say("downloaded", {
    models: models.map((model) => [model.modelKey, model.type]),
    keys: ours.map((model) => model.modelKey),
  });
  const model = await client.embedding.model("all-minilm-l6-v2", quiet);
  const line = await new Promise((done) => process.stdin.once("data", done));
  process.stdin.destroy();
  const texts = JSON.parse(line);
  const alone = await model.embed(texts[0]);
  say("alone", { vectors: [alone.embedding] });
  const together = await model.embed(texts);
  say("together", { vectors: together.map((one) => one.embedding) });
  say("tokens", {
    count: await model.countTokens(texts[0]),
    ids: await model.tokenize(texts[0]),
  });
  const info = await model.getModelInfo();
  const context = await model.getContextLength();
  say("info", { key: info.modelKey, type: info.type, context });
  await model.unload();
}

// A function that the model calls, by a preset that forces it.
async function tools(client) {
  const calls = [];
  const stops = [];
  const messages = [];
  const packets = [];
  const add = rawFunctionTool({
    name: "add",
    description: "Add two whole numbers.",
    parametersJsonSchema: {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      required: ["a", "b"],
      additionalProperties: false,
    },
    implementation: ({ a, b }) => {
      calls.push([a, b]);
      return a + b;
    },
  });
  const [{ modelKey }] = await client.system.listDownloadedModels("llm");
  const model = await client.llm.load(modelKey, quiet);
  const result = await model.act("What is 12 plus 30?", [add], {
    preset: "forced",
    maxPredictionRounds: 2,
    onPredictionCompleted: (done) => stops.push(done.stats.stopReason),
    onMessage: (message) => messages.push(message.data ?? message),
    onToolCallRequestStart: () => packets.push("start"),
    onToolCallRequestNameReceived: (_, __, name) => packets.push(name),
    onToolCallRequestEnd: () => packets.push("end"),
  });
  say("act", { calls, rounds: result.rounds, stops, messages, packets });
}

// Images in front of a model: their paths come on a line of stdin.
async function vision(client) {
  const [downloaded] = await client.system.listDownloadedModels("llm");
  const model = await client.llm.model(downloaded.modelKey, quiet);
  const info = await model.getModelInfo();
  say("info", { downloaded: downloaded.vision, loaded: info.vision });
  const line = await new Promise((done) => process.stdin.once("data", done));
  process.stdin.destroy();
  for (const path of JSON.parse(line)) {
    const images = [await client.files.prepareImage(path)];
    const message = { role: "user", content: "What is it?", images };
    try {
      const result = await model.respond([message], { temperature: 0, maxTokens: 12 });
      say("answer", { content: result.content, prompt: result.stats.promptTokensCount });
    } catch (error) {
      say("refused", { text: error.message });
    }
  }
}

// Models of the server that was found.
async function find(client) {
  const models = await client.system.listDownloadedModels();
  say("find", { paths: models.map((model) => model.path) });
}

const client = new LMStudioClient(address ? { baseUrl: `ws://${address}` } : {});
await { steps, stream, find, embed, tools, vision }[mode](client);
say("end", {});
