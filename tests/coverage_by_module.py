"""Measures how much of each module its own test files reach, run alone.

``make coverage`` runs it for all modules, ``make coverage ARGS="connection"`` for those
whose path has one of the words. Exits with 1 when a module of `WHOLE` is not reached
completely.
"""

from __future__ import annotations

import argparse
import configparser
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import attrs

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "lmstudio"
#: What everything else stands on: its own tests reach every branch.
WHOLE = (
    "lmstudio/arrivals.py",
    "lmstudio/calls.py",
    "lmstudio/connection.py",
    "lmstudio/dial.py",
    "lmstudio/mailbox.py",
    "lmstudio/prediction.py",
    "lmstudio/protocol/client.py",
    "lmstudio/protocol/server.py",
    "lmstudio/sender.py",
    "lmstudio/session.py",
    "lmstudio/transport.py",
    "lmstudio/turns.py",
    "lmstudio/worker.py",
)
#: How many of the others are listed at the end, the least reached first.
LISTED = 10
#: Seconds that the tests of one module may take.
PATIENCE = 300


@attrs.frozen(kw_only=True)
class Row:
    """One module, and what its own tests reach of it.

    Attributes:
        lines: Lines reached, and lines in all.
        branches: Branches reached, and branches in all.
        missing: Lines that were not reached, and branches as ``from->to``.
        problem: Why there are no figures; empty when there are some.
    """

    module: str
    lines: tuple[int, int] = (0, 0)
    branches: tuple[int, int] = (0, 0)
    missing: Sequence[str] = ()
    problem: str = ""

    @property
    def share(self) -> float:
        """Lines and branches reached, of all, in percent."""
        whole = self.lines[1] + self.branches[1]
        return 100.0 * (self.lines[0] + self.branches[0]) / whole if whole else 100.0

    def __str__(self) -> str:
        if self.problem:
            return f"{self.module:42} {self.problem}"
        lines, branches = ("%d/%d" % pair for pair in (self.lines, self.branches))  # noqa: UP031
        return f"{self.module:42} {lines:>9} {branches:>9} {self.share:6.1f} %"


def own_tests(module: Path) -> list[Path]:
    """The test files of a module: ``test_<name>.py`` and ``test_<name>_<part>.py``.

    A part that is the end of another module's name is that one's.
    """
    folder = TESTS / module.parent.relative_to(PACKAGE)
    others = {f"test_{other.stem}.py" for other in module.parent.glob("*.py")}
    name = f"test_{module.stem}"
    parts = sorted(folder.glob(f"{name}_*.py"))
    return [
        path
        for path in (folder / f"{name}.py", *parts)
        if path.is_file() and (path.stem == name or path.name not in others)
    ]


def settings_for(name: str) -> str:
    """The settings of coverage, for one module.

    Those of the project name the whole package, which coverage would then trace, and
    read for its report: that takes longer than most of the tests.
    """
    given = configparser.ConfigParser()
    given.read(ROOT / "setup.cfg")
    made = configparser.ConfigParser()
    for section in ("run", "report"):
        made[section] = given[f"coverage:{section}"]
    del made["run"]["source"]
    made["run"]["include"] = name
    text = io.StringIO()
    made.write(text)
    return text.getvalue()


def measure(module: Path, tests: Sequence[Path]) -> Row:
    """Run the tests of one module under coverage."""
    name = str(module.relative_to(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder, "data"), Path(folder, "report.json")
        settings = Path(folder, "settings")
        settings.write_text(settings_for(name))
        coverage = (sys.executable, "-m", "coverage")
        files = (f"--rcfile={settings}", f"--data-file={data}")
        run = (*coverage, "run", *files)
        options = ("-q", "-p", "no:cacheprovider", "-m", "not live and not interop")
        command = (*run, "-m", "pytest", *options, *map(str, tests))
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return Row(module=name, problem=f"not done within {PATIENCE} s")
        if done.returncode:
            last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
            return Row(module=name, problem=f"its tests fail: {''.join(last)}")
        subprocess.run(
            (*coverage, "json", "-q", *files, "-o", str(report)),
            cwd=ROOT,
            check=True,
        )
        return row(name, json.loads(report.read_text())["files"].get(name))


def row(name: str, found: dict[str, Any] | None) -> Row:
    """What coverage's own report says of a file."""
    if found is None:
        return Row(module=name, problem="its tests don't import it")
    sums = found["summary"]
    gaps = [str(line) for line in found["missing_lines"]]
    gaps += [f"{start}->{end}" for start, end in found["missing_branches"]]
    return Row(
        module=name,
        lines=(sums["covered_lines"], sums["num_statements"]),
        branches=(sums["covered_branches"], sums["num_branches"]),
        missing=gaps,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say whether all is as it must be."""
    parser = argparse.ArgumentParser(description="Coverage of modules by their tests.")
    parser.add_argument("words", nargs="*", help="parts of the paths of modules")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at once")
    given = parser.parse_args(arguments)
    modules = {
        path: own_tests(path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if not given.words or any(w in str(path.relative_to(ROOT)) for w in given.words)
    }
    tested = {path: tests for path, tests in modules.items() if tests}
    print(f"{'module':42} {'lines':>9} {'branches':>9}", flush=True)
    rows = []
    with ThreadPoolExecutor(max(1, given.jobs)) as pool:
        under_way = [pool.submit(measure, *module) for module in tested.items()]
        for done in as_completed(under_way):
            found = done.result()
            rows.append(found)
            # At once, so that a run that is stopped has said what it knew.
            print(found, flush=True)
            if found.missing and (found.module in WHOLE or given.words):
                print(f"    not reached: {', '.join(found.missing)}", flush=True)
    untested = [str(path.relative_to(ROOT)) for path in modules if path not in tested]
    if untested:
        print(f"No test file of their own: {', '.join(untested)}")
    least = sorted((r for r in rows if r.share < 100), key=lambda r: r.share)[:LISTED]
    if least:
        print("Reached least:")
    for found in least:
        print(f"{found}\n    not reached: {', '.join(found.missing)}")
    partly = [r for r in rows if r.module in WHOLE and r.share < 100]
    short = [r.module for r in rows if r.problem or r in partly]
    if short:
        print(f"Not as it must be: {', '.join(short)}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
