// What a web page does with the official JavaScript SDK; bundled by the test.
//
// The address of the server is in the page's query. What came of it is posted to where
// the page comes from.

import { LMStudioClient } from "@lmstudio/sdk";

const query = new URLSearchParams(location.search);
const address = query.get("server");
const errors = [];

for (const kind of ["error", "unhandledrejection"]) {
  window.addEventListener(kind, (event) => {
    errors.push(String(event.reason ?? event.message));
  });
}

const logger = { debug() {}, info() {}, warn: note, error: note };

function note(...words) {
  errors.push(words.join(" "));
}

async function fetched(path) {
  try {
    const answer = await fetch(`http://${address}${path}`);
    return { status: answer.status, body: await answer.json() };
  } catch (error) {
    return { error: String(error) };
  }
}

// The SDK goes on trying; a socket of our own tells at once.
function socketOpens() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://${address}/llm`);
    socket.onopen = () => (socket.close(), resolve(true));
    socket.onerror = () => resolve(false);
  });
}

async function drive() {
  const client = new LMStudioClient({ baseUrl: `ws://${address}`, logger });
  const [{ modelKey }] = await client.system.listDownloadedModels();
  const progress = [];
  const model = await client.llm.load(modelKey, {
    verbose: false,
    onProgress: (share) => progress.push(share),
  });
  const prediction = model.respond("Count from 1 to 10.", {
    maxTokens: 16,
    temperature: 0,
  });
  const texts = [];
  for await (const fragment of prediction) texts.push(fragment.content);
  const result = await prediction.result();
  return {
    modelKey,
    progress,
    texts,
    content: result.content,
    stop: result.stats.stopReason,
    tokens: await model.countTokens("Hello"),
  };
}

async function run() {
  const result = { opens: await socketOpens() };
  result.greeting = await fetched("/lmstudio-greeting");
  result.status = await fetched("/nothing");
  if (result.opens) result.driven = await drive();
  return result;
}

let result;
try {
  result = await run();
} catch (error) {
  result = { failed: error.stack ?? String(error) };
}
await fetch("/result", {
  method: "POST",
  body: JSON.stringify({ ...result, errors }),
});
