"""What client and server add to the engine: first token, and tokens per second.

Asks one llama.cpp process in turns: through our client and server, and directly over
its own HTTP server. The same prompts, the same settings, one after the other.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKENS = 96
#: What DESIGN.md and the issue promise.
ALLOWED_MS, ALLOWED_SHARE = 15.0, 0.97


def prompt(number: int) -> str:
    """About 60 tokens that no earlier prompt begins with, so no cache helps."""
    words = " ".join(f"item{number}x{i}" for i in range(8))
    return f"List {number}: {words}. Write on and on about them:"


def ours(model, number: int) -> tuple[float, float]:
    """Milliseconds to the first token and tokens per second, through everything."""
    began, first, last, count = time.perf_counter(), 0.0, 0.0, 0
    prediction = model.complete(
        prompt(number), max_tokens=TOKENS, temperature=0.0, repeat_penalty=1.3
    )
    for fragment in prediction:
        last = time.perf_counter()
        if not count:
            first = last
            begin = fragment.tokens_count
        count += fragment.tokens_count
    return (first - began) * 1e3, (count - begin) / (last - first)


def direct(port: int, key: str, number: int) -> tuple[float, float]:
    """The same, asking the engine's process itself."""
    body = {
        "prompt": prompt(number),
        "n_predict": TOKENS,
        "temperature": 0.0,
        "repeat_penalty": 1.3,
        "stream": True,
        "cache_prompt": True,
    }
    began, first, last, count, begin = time.perf_counter(), 0.0, 0.0, 0, 0
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/completion", json.dumps(body), headers)
    response = connection.getresponse()
    while line := response.readline():
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["content"]:
                last = time.perf_counter()
                if not first:
                    first, begin = last, event["tokens_predicted"]
                count = event["tokens_predicted"]
    connection.close()
    return (first - began) * 1e3, (count - begin) / (last - first)


def main(rounds: int = 15) -> bool:
    """Measure, print, and say whether the promises hold."""
    import lmstudio

    file = Path(os.environ["LMSTUDIO_TEST_MODEL"])
    server = subprocess.Popen(
        [sys.executable, str(HERE / "engine_server.py"), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = json.loads(server.stdout.readline())["url"]
        with lmstudio.LMStudioClient(url) as client:
            model = client.llm.load("/".join(file.parts[-3:]))
            child = json.loads(server.stdout.readline())
            rows = {"ours": [], "direct": []}
            for number in range(-2, rounds):  # the first two only warm up
                pair = [
                    ("ours", lambda: ours(model, number * 2)),
                    (
                        "direct",
                        lambda: direct(child["port"], child["key"], number * 2 + 1),
                    ),
                ]
                for name, ask in pair if number % 2 else reversed(pair):
                    row = ask()
                    if number >= 0:
                        rows[name].append(row)
    finally:
        server.stdin.close()
        server.wait(20)
    return report(rows)


def report(rows: dict[str, list[tuple[float, float]]]) -> bool:
    """Print medians and what is promised of them."""
    first = {name: statistics.median(r[0] for r in rs) for name, rs in rows.items()}
    speed = {name: statistics.median(r[1] for r in rs) for name, rs in rows.items()}
    pairs = list(zip(rows["ours"], rows["direct"], strict=True))
    more = statistics.median(a[0] - b[0] for a, b in pairs)
    share = statistics.median(a[1] / b[1] for a, b in pairs)
    print(f"{'':24}{'first token':>14}{'tokens/s':>12}")
    for name, label in (("direct", "engine directly"), ("ours", "client and server")):
        print(f"{label:24}{first[name]:11.1f} ms{speed[name]:12.1f}")
    print(f"more to the first token: {more:.1f} ms (promised: at most {ALLOWED_MS:g})")
    print(f"share of the tokens/s:   {share:.3f} (promised: at least {ALLOWED_SHARE})")
    return more <= ALLOWED_MS and share >= ALLOWED_SHARE


if __name__ == "__main__":
    sys.exit(not main())
