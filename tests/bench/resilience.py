#!/usr/bin/env python3
"""What clients do when things go wrong: steps, times, errors, what the server saw.

    python tests/bench/resilience.py                                this project's client
    python tests/bench/resilience.py --client sync=lmstudio_sync@PYTHON   another's
    python tests/bench/resilience.py --client js=node@SDK_DIR             JavaScript's

Each test runs in a process of its own against the mock server. For this project's client
it says whether what must happen has happened, and exits with 1 if not.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from run import HERE, Client, Server

#: Test -> what a good client does: a function of its row.
TESTS = {
    "die_midstream": lambda row: failed(row, 0) and ends_well(row),
    "many_threads_die": lambda row: row["steps"][0]["returned"] == 8 and quick(row, 0),
    "drop_midstream": lambda row: failed(row, 0) and ends_well(row),
    "frozen_server": lambda row: (
        failed(row, 0) and attempts(row)[0]["s"] < NOTICED and ends_well(row)
    ),
    "idle_restart": lambda row: all_well(row),
    "server_absent": lambda row: failed(row, 1) and quick(row, 1),
    "sigint_stream": lambda row: interrupted(row),
    "sigint_result": lambda row: interrupted(row),
    "sigint_rpc": lambda row: interrupted(row),
    "sigint_then_go_on": lambda row: ends_well(row) and saw(row, "cancel"),
    "break_out": lambda row: all_well(row) and saw(row, "cancel"),
    "cancel_from_thread": lambda row: all_well(row) and saw(row, "cancel"),
    "close_from_thread": lambda row: (
        not failed_late(row, 0) and row["exit"] == 0 and not row["stderr"]
    ),
    "many_calls_first": lambda row: (
        row["steps"][0]["returned"] == 64
        and len(row["steps"][0]["values"]) == row["sockets"] == 1
        and all_well(row)
    ),
    "huge_answer": lambda row: all_well(row) and kept(row) < KEPT,
    "exit_midstream": lambda row: all_well(row) and row["s_to_exit"] < QUICK,
    "no_close": lambda row: all_well(row) and row["s_to_exit"] < QUICK,
    "fork_after_connect": lambda row: ends_well(row) and not hung(row),
    "running_loop": lambda row: all_well(row),
    "silent_rpc": lambda row: failed(row, 0) and ends_well(row),
    "silent_stream": lambda row: failed(row, 0) and ends_well(row),
}
#: Seconds from an error of the connection to its being known.
QUICK = 1.0
#: Seconds until a server that says nothing at all is noticed.
NOTICED = 32.0
#: MB that a client may keep of an answer of 100 MB that nobody holds.
KEPT = 50.0
#: What of the server's events is shown.
SHOWN = {"cancel", "close_frame", "disconnected", "warning", "odd", "finished"}


def attempts(row: dict) -> list[dict]:
    """The steps that could fail."""
    return [step for step in row["steps"] if "ok" in step]


def failed(row: dict, number: int) -> bool:
    """Whether an attempt ended with an error, as it had to."""
    return not attempts(row)[number]["ok"]


def ends_well(row: dict) -> bool:
    """Whether the client worked again in the end, and its process printed nothing."""
    steps = attempts(row)
    return (
        steps[-1]["ok"] and steps[-2]["ok"] and row["exit"] == 0 and not row["stderr"]
    )


def hung(row: dict) -> bool:
    """Whether a child had to be killed."""
    return any(step.get("hung") for step in row["steps"])


def all_well(row: dict) -> bool:
    """Whether nothing failed."""
    steps = attempts(row)
    return all(step["ok"] for step in steps) and row["exit"] == 0 and not row["stderr"]


def quick(row: dict, number: int) -> bool:
    """Whether a step took no time to speak of."""
    return row["steps"][number]["s"] < QUICK


def interrupted(row: dict) -> bool:
    """Whether Ctrl-C ended the process at once, with one traceback."""
    once = row["stderr"].count("Traceback") == 1
    is_quick = row.get("s_from_sigint_to_exit", QUICK) < QUICK
    return once and is_quick and row["exit"] in (1, -signal.SIGINT)


def failed_late(row: dict, number: int) -> bool:
    """Whether what was closed in the middle went on; 0.3 s pass until it is."""
    return attempts(row)[number]["s"] > 0.3 + QUICK


def kept(row: dict) -> float:
    """MB that the client did not give back."""
    return next(step["mb_kept"] for step in row["steps"] if "mb_kept" in step)


def saw(row: dict, kind: str) -> bool:
    """Whether the server got something of a kind."""
    return any(event["kind"] == kind for event in row["server_saw"])


def command_of(client: Client, test: str, host: str) -> list[str]:
    """What runs one test."""
    if client.adapter == "node":
        script = str(HERE / "resilience_child.cjs")
        return ["node", script, client.where, test, host]
    child = str(HERE / "resilience_child.py")
    return [client.where, child, client.adapter, test, host]


class Run:
    """One test with one client.

    Attributes:
        row: What came of it.
    """

    def __init__(self, client: Client, test: str, python: str, limit: float) -> None:
        self.row: dict = {"steps": [], "server_saw": []}
        self._python = python
        self._server = Server(python)
        self._child = subprocess.Popen(
            command_of(client, test, self._server.host),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._killer = threading.Timer(limit, self._child.kill)
        self._signalled = self._said_all = 0
        self._errors: list[str] = []

    def run(self) -> dict:
        """Run it to its end; returns the row."""
        self._killer.start()
        drain = threading.Thread(target=self._drain)
        drain.start()
        interrupt = threading.Timer(0.5, self._interrupt)
        try:
            for line in self._child.stdout or ():
                self._take(json.loads(line), interrupt)
            self.row["exit"] = self._child.wait()
            self._look(time.monotonic_ns())
        finally:
            interrupt.cancel()
            self._killer.cancel()
            self._child.kill()
            self._child.wait()
            drain.join()
            for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
                if pipe is not None:
                    pipe.close()
            self._server.stop()
        self.row["stderr"] = "".join(self._errors).strip()
        return self.row

    def _drain(self) -> None:
        self._errors.extend(self._child.stderr or ())

    def _take(self, said: dict, interrupt: threading.Timer) -> None:
        """Do what the child asks for, or keep what it says."""
        what = said.get("ask")
        if what in ("restart server", "kill server"):
            self._server.stop()
        if what == "freeze server":
            self._server.process.send_signal(signal.SIGSTOP)
        if what in ("restart server", "start server"):
            self._server = Server(self._python, self._server.port)
        if what is not None:
            assert self._child.stdin is not None
            self._child.stdin.write("\n")
            self._child.stdin.flush()
        elif "ready" in said:
            interrupt.start()
        else:
            self.row["steps"].append(said)
            self._said_all = time.monotonic_ns()

    def _interrupt(self) -> None:
        self._signalled = time.monotonic_ns()
        self._child.send_signal(signal.SIGINT)

    def _look(self, ended: int) -> None:
        """Note how long the end took, and ask the server what it has seen."""
        if self._said_all:
            self.row["s_to_exit"] = round((ended - self._said_all) / 1e9, 3)
        if self._signalled:
            self.row["s_from_sigint_to_exit"] = round(
                (ended - self._signalled) / 1e9, 3
            )
        try:
            events = self._server.get("/_bench/events")
        except OSError:
            return  # it is gone
        self.row["sockets"] = sum(
            event.get("path") == "/llm"
            for event in events
            if event["kind"] == "connected"
        )
        for event in events:
            if event["kind"] in SHOWN:
                seen = {k: event[k] for k in ("kind", "clean") if k in event}
                if self._signalled:
                    late = (event["t"] - self._signalled) / 1e6
                    seen["ms_after_sigint"] = round(late, 1)
                self.row["server_saw"].append(seen)


def show(test: str, client: Client, row: dict) -> None:
    """Print a row."""
    print(f"== {test} / {client.name}")
    for step in row["steps"]:
        print("   ", " ".join(f"{key}={value}" for key, value in step.items()))
    rest = {k: v for k, v in row.items() if k not in ("steps", "stderr")}
    lines = row["stderr"].splitlines()
    print("   ->", rest, "| stderr:", len(lines), "lines", lines[-1:], flush=True)


def main() -> int:
    """Run what was asked for; 1 when this project's client did something wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", action="append", type=Client)
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--server-python", default=sys.executable)
    parser.add_argument("--limit", type=float, default=60, help="seconds for a test")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    # In the background of a shell it is ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clients = args.client or [Client(f"ours=ours_patient@{sys.executable}")]
    table: dict = {}
    wrong = []
    for test in args.tests.split(","):
        for client in clients:
            row = Run(client, test, args.server_python, args.limit).run()
            table.setdefault(test, {})[client.name] = row
            show(test, client, row)
            if client.adapter.startswith("ours") and not TESTS[test](row):
                print("   WRONG")
                wrong.append(test)
            if args.out:
                args.out.write_text(json.dumps(table, indent=1) + "\n")
    print(f"== {len(wrong)} wrong {wrong}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
