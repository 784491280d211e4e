// One resilience test with @lmstudio/sdk, in a process of its own; see resilience.py.
//   node resilience_child.cjs SDK_DIR TEST HOST
// It tells its steps as lines of JSON, and waits for a line where the server must change.
const { createRequire } = require("module");
const path = require("path");
const readline = require("readline");

const [sdkDir, test, host] = process.argv.slice(2);
const { LMStudioClient } = createRequire(path.resolve(sdkDir) + "/")("@lmstudio/sdk");

const ENDLESS = { n: 100_000, rate: 200 };
const CALLS = 64;
const lines = readline.createInterface({ input: process.stdin });
let client, model;

const say = row => process.stdout.write(JSON.stringify(row) + "\n");
const since = began => +((performance.now() - began) / 1e3).toFixed(4);
const ask = what => new Promise(done => { lines.once("line", done); say({ ask: what }); });
const call = (text = "hello") => model.countTokens(text);
const stream = spec => model.respond(JSON.stringify(spec));

function open(where) {
  client = new LMStudioClient({ baseUrl: "ws://" + where });
  model = client.llm.createDynamicHandle("mock-1b");
}

async function begin() { open(host); await call(); }

async function attempt(step, work) {
  const began = performance.now();
  try {
    const value = String(await work());
    say({ step, ok: true, s: since(began), value });
  } catch (error) {
    const text = String(error.message).slice(0, 300);
    say({ step, ok: false, s: since(began), error: error.constructor.name, text });
  }
}

async function read(spec, each = async () => {}) {
  let got = 0, last = performance.now();
  try {
    for await (const _ of stream(spec)) {
      got += 1;
      last = performance.now();
      await each(got);
    }
  } finally {
    say({ step: "iteration over", fragments: got, s_after_last: since(last) });
  }
  return got;
}

const tests = {
  async die_midstream() {
    await begin();
    const dying = { n: 1000, rate: 200, exitAfter: 50 };
    await attempt("stream while server exits", () => read(dying));
    await attempt("call while server is down", call);
    await ask("start server");
    await attempt("call after restart", call);
    await attempt("stream after restart", () => read({ n: 20 }));
  },
  async drop_midstream() {
    await begin();
    const dropped = { n: 1000, rate: 200, dropAfter: 50 };
    await attempt("stream while connection drops", () => read(dropped));
    await attempt("call after drop", call);
    await attempt("stream after drop", () => read({ n: 20 }));
  },
  async frozen_server() {
    await begin();
    const freeze = async got => { if (got === 20) await ask("freeze server"); };
    await attempt("stream while frozen", () => read(ENDLESS, freeze));
    await ask("restart server");
    await attempt("call after restart", call);
    await attempt("stream after restart", () => read({ n: 20 }));
  },
  async idle_restart() {
    await begin();
    await ask("restart server");
    await attempt("call after idle restart", call);
    await attempt("stream after idle restart", () => read({ n: 20 }));
  },
  async server_absent() {
    await attempt("open", async () => open("127.0.0.1:9"));
    await attempt("call", call);
  },
  async silent_rpc() {
    await begin();
    await attempt("silent call", () => call("SILENT"));
    await attempt("call after it", call);
  },
  async silent_stream() {
    await begin();
    await attempt("silent stream", () => read({ n: 100, silentAfter: 20 }));
    await attempt("call after it", call);
  },
  async sigint_stream() {
    await begin();
    const endless = stream(ENDLESS);
    say({ ready: true });
    for await (const _ of endless);
  },
  async sigint_result() {
    await begin();
    say({ ready: true });
    await stream(ENDLESS).result();
  },
  async sigint_rpc() {
    await begin();
    say({ ready: true });
    await call("SILENT");
  },
  async break_out() {
    await begin();
    await attempt("break out", async () => {
      let got = 0;
      for await (const _ of stream(ENDLESS)) if (++got === 20) break;
    });
    await attempt("call after it", call);
    await new Promise(done => setTimeout(done, 500));
  },
  async many_calls_first() {
    open(host);
    const values = await Promise.all(Array.from({ length: CALLS }, () => call()));
    say({ step: "calls", returned: values.length, values: [...new Set(values)] });
  },
  async huge_answer() {
    await begin();
    await attempt("stream 100 MB", () => read({ n: 1000, size: 100_000 }));
    await attempt("call after it", call);
  },
  async no_close() {
    await begin();
    await attempt("stream", () => read({ n: 20 }));
  },
};

async function main() {
  if (tests[test] === undefined) say({ step: "not tested with this client" });
  else await tests[test]();
  say({ step: "end of script", ok: true });
  lines.close();
  if (test !== "no_close") process.exit(0);
}

main().catch(error => { console.error(error); process.exit(1); });
