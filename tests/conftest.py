"""What every test gets: settings of hypothesis, markers, and a look for leftovers."""

from __future__ import annotations

import asyncio.constants
import functools
import gc
import logging
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

import hanging
from hub_server import HubServer, hub_server
from leftovers import Processes, nothing_kept, nothing_left
from lmstudio import LLM, LMStudioClient
from lmstudio.testing import FakeServer

TESTS = Path(__file__).parent
#: Names the model file that live and interop tests load; `make test` sets it.
MODEL_VARIABLE = "LMSTUDIO_TEST_MODEL"
#: Names the embedding model beside it.
EMBEDDER_VARIABLE = "LMSTUDIO_TEST_EMBEDDING_MODEL"
#: Every process that descends from this run carries it, detached ones too.
RUN_VARIABLE = "LMSTUDIO_TEST_RUN"
#: Seconds that a thread or process may take to end after the test that started it.
PATIENCE = 5.0
#: Tests in a folder of this name get the marker of the same name.
MARKED_FOLDERS = ("live", "interop")

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a model file that is not there, and mark what this run starts."""
    for name in (MODEL_VARIABLE, EMBEDDER_VARIABLE):
        model = os.environ.get(name)
        if model is not None and not Path(model).is_file():
            raise pytest.UsageError(f"{name} is {model!r}, which is not a file")
    os.environ[RUN_VARIABLE] = uuid.uuid4().hex
    hanging.begin()
    config.pluginmanager.register(hanging)
    # In the background of a shell Ctrl-C is ignored, and what tests start inherits it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    leave_dev_mode_here(config)
    if runs_tests(config):
        gc.disable()  # until all tests are known: they come to stay
    # Temporary files of this run have a folder of their own, so that none is missed;
    # pytest's stay where they are looked for after a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="lmstudio-")


def runs_tests(config: pytest.Config) -> bool:
    """Whether this process does, and does not only lead those that do."""
    return hasattr(config, "workerinput") or config.getoption("dist", "no") == "no"


def leave_dev_mode_here(config: pytest.Config) -> None:
    """Keep the development mode of `make` for the processes that run tests.

    Other people's programs, which tests start, do not stand it.
    """
    if runs_tests(config):
        for name in ("PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONMALLOC"):
            os.environ.pop(name, None)
    # In that mode asyncio tells what took it long: on a busy machine, anything. And it
    # notes for each callback from where it was asked for, which takes most of its time.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.constants.DEBUG_STACK_DEPTH = 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """What `-n auto` stands for: a process more than cores, as some tests wait.

    More than five take longer to begin than they save. None leaves it to the variable
    of pytest-xdist.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return min((cores or 1) + 1, 5)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder of temporary files; what matters has been reported."""
    shutil.rmtree(tempfile.gettempdir())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and skip those that need a model without one."""
    skip = pytest.mark.skip(reason=f"{MODEL_VARIABLE} names no model; see `make test`")
    for item in items:
        for name in MARKED_FOLDERS:
            if name in item.path.relative_to(TESTS).parts:
                item.add_marker(name)
        needs_model = any(item.iter_markers("live")) or any(
            item.iter_markers("interop")
        )
        if needs_model and MODEL_VARIABLE not in os.environ:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Keep the collector from looking at thousands of tests again and again."""
    gc.enable()
    settle()


def settle() -> None:
    """Collect what nobody holds; what is left, the collector looks at no more.

    Imports and reports come to stay. Many tests ask for a collection, which takes
    longer the more there is to look at.
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that took more than a second and are not marked slow."""
    allowed = {"slow", "live", "interop"}
    reports = terminalreporter.stats.get("passed", [])
    late = [r for r in reports if r.duration > 1.0 and not allowed & set(r.keywords)]
    if late:
        terminalreporter.section("over a second, and not marked slow")
    for report in sorted(late, key=lambda report: -report.duration):
        terminalreporter.write_line(f"{report.duration:6.1f} s  {report.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Make logs of odd texts fit for pytest-xdist: it sends no lone surrogates."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode())
        for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The model file of live and interop tests."""
    return Path(os.environ[MODEL_VARIABLE])


@pytest.fixture(scope="session")
def embedder_file() -> Path:
    """The embedding model of live and interop tests."""
    if EMBEDDER_VARIABLE not in os.environ and "CI" not in os.environ:
        pytest.skip(f"{EMBEDDER_VARIABLE} names no model; see `make test`")
    return Path(os.environ[EMBEDDER_VARIABLE])


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A scripted server with the models ``any`` (loaded) and ``other``."""
    with FakeServer(["any", "other"], loaded=["any"]) as server:
        yield server


@pytest.fixture
def client(fake: FakeServer) -> Iterator[LMStudioClient]:
    """A client of the scripted server."""
    with LMStudioClient(fake.host) as made:
        yield made


@pytest.fixture
def model(client: LMStudioClient) -> LLM:
    """A handle of the scripted server's loaded model."""
    return client.llm.get("any")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty stand-in for the model hub, which everything in this process asks."""
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", tmp_path / "none")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # The stand-in speaks no TLS. Each HTTP client would read the certificates of all
    # authorities for it, which takes longer than the rest of most tests.
    (tmp_path / "certificates").mkdir()
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certificates"))
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads or processes behind.

    What fixtures of a wider scope keep running is theirs: it was there before the
    test. A folder whose tests share a server that grows while they run overrides
    this fixture in its own conftest.py.
    """
    try:
        with nothing_left(processes_of(os.environ[RUN_VARIABLE]), PATIENCE):
            yield
    except AssertionError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(autouse=True, scope="module")
def nothing_kept_behind() -> Iterator[None]:
    """Fail a file whose tests leave sockets, files or temporary files behind."""
    try:
        with nothing_kept(Path(tempfile.gettempdir()), PATIENCE):
            yield
    except AssertionError as exc:
        pytest.fail(str(exc), pytrace=False)
    settle()


processes_of = functools.cache(Processes)
