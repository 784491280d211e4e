// What a user of the official JavaScript SDK does with the hub and with documents.
//
// node download_client.mjs MODULES HOST:PORT, where MODULES is a folder in which the SDK
// is installed. It prints one line of JSON with all that it saw. "stall" on standard
// input means that the download stands still.

import { createRequire } from "node:module";
import { join } from "node:path";
import { once } from "node:events";

const [modules, address] = process.argv.slice(2);
const sdk = createRequire(join(modules, "x.js"))("@lmstudio/sdk");
const client = new sdk.LMStudioClient({ baseUrl: `ws://${address}` });
const seen = {};

// Node.js 18 warns of its own `fetch`, which the SDK uses; that is no word of the SDK.
process.removeAllListeners("warning");
// A download that fails rejects a second promise inside of the SDK, which nobody sees.
process.on("unhandledRejection", (error) => {
  if (error.name !== "AbortError") throw error;
});

const found = await client.repository.searchModels({ searchTerm: "tiny", limit: 5 });
const options = await found[0].getDownloadOptions();
seen.names = found.map((model) => model.name);
seen.options = options.map((o) => [o.quantization, o.fitEstimation, o.isRecommended()]);

const stop = new AbortController();
const stopped = options[0].download({ signal: stop.signal }).catch((error) => error.name);
await once(process.stdin, "data");
stop.abort();
seen.stopped = await stopped;

const updates = [];
let finalizing = 0;
seen.key = await options[0].download({
  onProgress: (update) => updates.push(update),
  onStartFinalizing: () => (finalizing += 1),
});
seen.last = updates[updates.length - 1];
seen.finalizing = finalizing;
seen.downloaded = (await client.system.listDownloadedModels()).map((m) => m.modelKey);

const none = await client.repository.searchModels({ searchTerm: "nothing" });
seen.none = none.length;

const file = await client.files.prepareFileBase64(
  "notes.txt",
  Buffer.from("hay\n\nneedle").toString("base64"),
);
const model = await client.embedding.model("text-embedding-seeker", { verbose: false });
const steps = [];
const result = await client.files.retrieve("needle", [file], {
  embeddingModel: model,
  chunkingMethod: { type: "recursive-v1", chunkSize: 6, chunkOverlap: 0 },
  limit: 1,
  onFileProcessList: (files) => steps.push(files.length),
  onFileProcessingStepEnd: (_, step) => steps.push(step),
  onSearchingEnd: () => steps.push("searched"),
});
seen.steps = steps;
seen.entries = result.entries.map((e) => [e.content, e.source.name]);
seen.score = result.entries[0].score;

const parsed = await client.files.parseDocument(file);
seen.parsed = parsed.content;
const library = await client.files.getDocumentParsingLibrary(file);
seen.same = library.library === parsed.parser.library;
process.stdout.write(JSON.stringify(seen) + "\n");
process.exit(0);
