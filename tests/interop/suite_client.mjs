// Calls that the official JavaScript SDK's own live tests make, one line of JSON each.
// suite_client.mjs FOLDER_WITH_THE_SDK HOST:PORT

import { createRequire } from "node:module";

const [folder, address] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { Chat, LMStudioClient } = require("@lmstudio/sdk");

const fromPublisher = "acme-quants/some-1b-instruct";
const key = "some-1b-instruct";
const embedder = "text-embedding-all-minilm-l6-v2";
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ" +
  "RU5ErkJggg==";
const quiet = { verbose: false };

const say = (step, values = {}) => console.log(JSON.stringify({ step, ...values }));
const names = (models) => models.map((model) => model.identifier);

const client = new LMStudioClient({ baseUrl: `ws://${address}`, verboseErrorMessages: false });
const loaded = await client.llm.load(key, quiet);
say("names", {
  loaded: loaded.identifier,
  found: (await client.llm.model(fromPublisher, quiet)).identifier,
  info: (await client.llm.createDynamicHandle(fromPublisher).getModelInfo()).identifier,
  embedder: (await client.embedding.model("acme/all-minilm-l6-v2", quiet)).identifier,
});
await client.llm
  .load(fromPublisher, { ...quiet, identifier: key })
  .catch((error) => say("taken", { error: error.message }));
const another = await client.llm.load(fromPublisher, quiet);
say("another", { identifier: another.identifier });
await another.unload();
const images = [];
for (let n = 0; n < 2; n++) {
  images.push(await client.files.prepareImageBase64("dot.png", PNG));
}
say("images", { identifiers: names(images) });
const chat = Chat.from([
  { role: "system", content: "Be brief." },
  { role: "user", content: "Read this." },
]);
const notes = Buffer.from("Some text.").toString("base64");
chat.at(-1).appendFile(await client.files.prepareFileBase64("notes.txt", notes));
say("template", { formatted: await loaded.applyPromptTemplate(chat) });

await client.embedding.model(embedder, { ...quiet, ttl: 300 });
const before = names(await client.embedding.listLoaded());
await client.llm.model("some-2b-instruct", { ...quiet, ttl: 300 });
const after = names(await client.embedding.listLoaded());
say("evicted", { before, after, texts: names(await client.llm.listLoaded()).sort() });

const greedy = { temperature: 0, maxTokens: 8 };
const results = await Promise.all(Array.from({ length: 5 }, () => loaded.respond("Hello", greedy)));
say("together", { predicted: results.map((result) => result.stats.predictedTokensCount) });

// Cancelled before a word has come, in both ways.
const stops = [];
for (const cancel of [(p) => p.cancel(), (_, controller) => controller.abort()]) {
  const controller = new AbortController();
  const prediction = loaded.respond("Hello", { maxTokens: 50, signal: controller.signal });
  cancel(prediction, controller);
  stops.push((await prediction.result()).stats.stopReason);
}
say("cancelled", { stops });
say("end");
process.exit(0);
