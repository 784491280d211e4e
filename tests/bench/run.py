#!/usr/bin/env python3
"""Compare LM Studio clients against the mock server; see README.md."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent

SCENARIOS: dict[str, tuple[str, dict]] = {
    "import": ("import", {}),
    "connect": ("connect", {}),
    "rpc": ("rpc", {"n": 1500}),
    "stream": ("stream", {"n": 20000}),
    "stream_framewise": ("stream", {"n": 20000, "spec": {"chunk": 1}}),
    "respond": ("respond", {"n": 20000}),
    "paced200": ("paced", {"n": 600, "rate": 200}),
    "paced1000": ("paced", {"n": 2000, "rate": 1000}),
    "conc1": ("concurrent", {"k": 1, "total": 64000}),
    "conc8": ("concurrent", {"k": 8, "total": 64000}),
    "conc32": ("concurrent", {"k": 32, "total": 64000}),
    "conc64": ("concurrent", {"k": 64, "total": 64000}),
    "conc16_paced60": ("concurrent", {"k": 16, "total": 3200, "rate": 60}),
    "cancel_paced": ("cancel", {"times": 20, "spec": {"rate": 200, "ts": True}}),
    "cancel_blast": ("cancel", {"times": 3, "n": 300000}),
    "soak": ("soak", {"count": 1000, "n": 200}),
}


class Client:
    def __init__(self, text: str) -> None:
        self.name, _, rest = text.partition("=")
        self.adapter, _, where = rest.partition("@")
        if not (self.name and self.adapter and where):
            sys.exit(
                f"--client wants NAME=ADAPTER@PYTHON or NAME=node@SDK_DIR, not {text!r}"
            )
        # The path may be a venv's python, which must not be resolved to its target.
        self.where = str(Path(where).absolute())

    def command(self, scenario: str, host: str, params: dict) -> list[str]:
        if self.adapter == "node":
            return [
                "node",
                str(HERE / "worker.cjs"),
                self.where,
                scenario,
                host,
                json.dumps(params),
            ]
        return [
            self.where,
            str(HERE / "worker.py"),
            self.adapter,
            scenario,
            host,
            json.dumps(params),
        ]


class Server:
    def __init__(self, python: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "mock_server.py"), "--port", str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = json.loads(self.process.stdout.readline())
        self.host, self.loop = f"{hello['host']}:{hello['port']}", hello["loop"]
        self.port = hello["port"]

    def get(self, path: str):
        with urllib.request.urlopen(
            f"http://{self.host}{path}", timeout=10
        ) as response:
            return json.load(response)

    def cpu_s(self) -> float:
        fields = (
            Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        )
        return (int(fields[11]) + int(fields[12])) / 100

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def join_cancels(result: dict, events: list[dict]) -> dict:
    """Put the server's receipt times beside the client's cancel times."""
    at = {e["tag"]: e for e in events if e["kind"] == "cancel"}
    rows = result.pop("cancels")
    seen = [(at[r["tag"]]["t"] - r["t_cancel"]) / 1e3 for r in rows if r["tag"] in at]
    ends = [r["iterator_end_us"] for r in rows]
    med = statistics.median
    return {
        "received": len(seen),
        "of": len(rows),
        "server_got_it_us": med(seen) if seen else None,
        "server_got_it_max_us": max(seen) if seen else None,
        "iterator_end_us": med(ends),
        "iterator_end_max_us": max(ends),
        "call_us": med(r["call_us"] for r in rows),
        "fragments_after": med(r["after"] for r in rows),
    }


def once(client: Client, scenario: str, server: Server, timeout: float) -> dict:
    kind, params = SCENARIOS[scenario]
    server.get("/_bench/reset")
    cpu0, t0 = server.cpu_s(), time.perf_counter()
    done = subprocess.run(
        client.command(kind, server.host, params),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    wall = time.perf_counter() - t0
    if done.returncode or not done.stdout.strip():
        return {"error": (done.stderr or "no output").strip()[-800:]}
    result = json.loads(done.stdout.strip().splitlines()[-1])
    events = server.get("/_bench/events")
    if "cancels" in result:
        result = join_cancels(result, events)
    bad = [e for e in events if e["kind"] in ("warning", "odd")]
    if bad:
        result["protocol_complaints"] = len(bad)
    if done.stderr.strip():
        result["stderr"] = done.stderr.strip()[-300:]
    result["process_s"] = wall
    result["server_cpu_s"] = server.cpu_s() - cpu0
    return result


def middle(runs: list[dict]) -> dict:
    keys = dict.fromkeys(
        k for r in runs for k, v in r.items() if isinstance(v, (int, float))
    )
    out = {
        k: statistics.median(r[k] for r in runs if isinstance(r.get(k), (int, float)))
        for k in keys
    }
    for r in runs:
        for k in ("error", "stderr"):
            if k in r:
                out[k] = r[k]
    out["runs"] = len(runs)
    return out


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument(
        "--client",
        action="append",
        required=True,
        type=Client,
        help="NAME=ADAPTER@PYTHON (adapters/ADAPTER.py), or NAME=node@SDK_DIR",
    )
    ap.add_argument("--scenarios", default=",".join(SCENARIOS))
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument(
        "--server-python",
        default=sys.executable,
        help="interpreter for the mock server (uvloop is used if it has it)",
    )
    ap.add_argument("--timeout", type=float, default=180)
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    names = args.scenarios.split(",")
    server = Server(args.server_python)
    print(f"# mock server at {server.host}, loop {server.loop}", file=sys.stderr)
    table: dict[str, dict[str, dict]] = {}
    try:
        for scenario in names:
            runs: dict[str, list[dict]] = {c.name: [] for c in args.client}
            for rep in range(args.reps):
                order = args.client if rep % 2 == 0 else args.client[::-1]
                for client in order:
                    try:
                        runs[client.name].append(
                            once(client, scenario, server, args.timeout)
                        )
                    except subprocess.TimeoutExpired:
                        runs[client.name].append({"error": f"over {args.timeout} s"})
            table[scenario] = {name: middle(rs) for name, rs in runs.items()}
            for name, row in table[scenario].items():
                shown = " ".join(
                    f"{k}={v:.4g}" if isinstance(v, (int, float)) else f"{k}={v!r}"
                    for k, v in row.items()
                )
                print(f"{scenario:18} {name:14} {shown}", flush=True)
            if args.out:
                args.out.write_text(json.dumps(table, indent=1) + "\n")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
