"""Measure this project: beside the engine alone, and beside other clients.

    python tests/bench            everything
    python tests/bench engine     what client and server add to the engine
    python tests/bench clients    fragments and calls a second, next to other clients
    python tests/bench steps      where the time of a fragment and of a call goes

Only ratios within one run count: absolute times move with the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE.parents[1] / ".venv"
#: What is measured, and its promise in docs/performance.md: name, field, promise.
ROWS = (
    ("import", "import_ms", "at most 80 ms"),
    ("import", "rss_mb", "at most 25 MB"),
    ("stream", "per_s", "at least 150,000, aim 250,000"),
    ("stream", "cpu_ms_per_1000", "at most 4 µs a fragment"),
    ("rpc", "per_s", "at least 8,000, aim 11,000"),
    ("conc64", "per_s", "at least 140,000"),
    ("conc64", "slowest_over_fastest", "at least 0.98"),
    ("cancel_blast", "iterator_end_us", "at most 100,000"),
    ("soak", "rss_growth_kb", "what may wait at once"),
    ("soak", "rss_later_bytes", "no growth"),
)


def official_python() -> Path | None:
    """An environment with the official Python SDK, made at first use."""
    folder = VENVS / "bench-official"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print("== Making an environment with the official Python SDK", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "-qq", "lmstudio==1.5.0"]
        if subprocess.run(install).returncode:
            return None
        (folder / "made").touch()
    return python


def official_js() -> Path | None:
    """A folder with the official JavaScript SDK, None without Node.js."""
    folder = VENVS / "bench-js"
    if not shutil.which("node") or not shutil.which("npm"):
        print("== Without the JavaScript SDK: there is no node and npm")
        return None
    if not (folder / "made").exists():
        print("== Installing the official JavaScript SDK", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install = ["npm", "install", "--silent", "@lmstudio/sdk@1.5.0"]
        if subprocess.run(install, cwd=folder).returncode:
            return None
        (folder / "made").touch()
    return folder


def compare_clients(repetitions: int) -> None:
    """Run the scenarios with each client in turns, and print the table."""
    clients = [f"ours=ours@{sys.executable}", f"floor=floor@{sys.executable}"]
    python, js = official_python(), official_js()
    clients += [f"python-sdk=lmstudio_sync@{python}"] if python else []
    clients += [f"js-sdk=node@{js}"] if js else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        scenarios = dict.fromkeys(row[0] for row in ROWS)
        command = [sys.executable, HERE / "run.py", "--reps", str(repetitions)]
        command += ["--scenarios", ",".join(scenarios), "--out", out]
        for client in clients:
            command += ["--client", client]
        print("== Measuring the clients in turns; some minutes", flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        table = json.loads(out.read_text())
    names = [client.partition("=")[0] for client in clients]
    print(f"\n{'':34}" + "".join(f"{name:>12}" for name in names) + "   promise")
    for scenario, field, promise in ROWS:
        row = table[scenario]
        values = [row.get(name, {}).get(field) for name in names]
        shown = "".join(f"{'-' if v is None else f'{v:,.4g}':>12}" for v in values)
        print(f"{scenario + ' ' + field:34}{shown}   {promise}")
        for name in names:
            if "error" in row.get(name, {}):
                print(f"    {name}: {row[name]['error'].splitlines()[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["engine", "clients", "steps"])
    parser.add_argument("--reps", type=int, default=3, help="runs of each scenario")
    args = parser.parse_args()
    engine = 0
    if args.what in (None, "engine"):
        print("== What client and server add to the engine", flush=True)
        engine = subprocess.run([sys.executable, HERE / "engine.py"]).returncode
    if args.what in (None, "clients"):
        compare_clients(args.reps)
    if args.what in (None, "steps"):
        print("\n== Where the time of a fragment and of a call goes", flush=True)
        subprocess.run([sys.executable, HERE / "steps.py"], check=True)
    sys.exit(engine)


if __name__ == "__main__":
    main()
