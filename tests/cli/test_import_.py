"""`lms import` puts a model file into the models folder."""

from __future__ import annotations

import json
import os

import pytest

from gguf_files import write_gguf
from lmstudio.cli import import_
from terminals import Terminal


@pytest.fixture
def file(tmp_path):
    """A model somewhere, called tiny-instruct.Q4_K_M.gguf."""
    return write_gguf(tmp_path / "there" / "tiny-instruct.Q4_K_M.gguf")


@pytest.fixture
def target(home, file):
    """Where it is to go with --user-repo acme/tiny."""
    return home / "models" / "acme" / "tiny" / file.name


def test_moves(lms, file, target):
    """Without a flag the file is moved."""
    content = file.read_bytes()
    result = lms("import", str(file), "--user-repo", "acme/tiny")

    assert (0, "") == (result.exit_code, result.stderr)
    assert f"{file.name} is in {target.parent}\n" == result.stdout
    assert content == target.read_bytes()
    assert not file.exists()
    assert [file.name] == os.listdir(target.parent)


@pytest.mark.parametrize("flag", ["--copy", "-c"])
def test_copies(lms, file, target, flag):
    """A copy leaves the file where it is."""
    assert 0 == lms("import", str(file), flag, "--user-repo", "acme/tiny").exit_code

    assert file.read_bytes() == target.read_bytes()
    assert not os.path.samefile(file, target)
    assert [file.name] == os.listdir(target.parent)


@pytest.mark.parametrize("flag", ["--hard-link", "-L", "--symbolic-link", "-l"])
def test_links(lms, file, target, flag):
    """A link is the same file in two places."""
    assert 0 == lms("import", str(file), flag, "--user-repo", "acme/tiny").exit_code

    assert os.path.samefile(file, target)
    assert (flag in ("--symbolic-link", "-l")) == target.is_symlink()


def test_is_listed(lms, file, nobody):
    """An imported model is a model of `lms ls`."""
    lms("import", str(file), "-y", "-c")
    (model,) = json.loads(lms("ls", "--json").stdout)

    assert f"imported/tiny-instruct/{file.name}" == model["path"]


def test_guesses_from_the_file(lms, home, tmp_path):
    """The user is who made the model, as it says itself; the name loses its ending."""
    fields = {"general.organization": "Acme / Labs"}
    file = write_gguf(tmp_path / "Big-7B-Q8_0-00001-of-00002.gguf", extra=fields)
    result = lms("import", str(file), "--json")

    path = str(home / "models" / "Acme-Labs" / "Big-7B" / file.name)
    assert {
        "path": path,
        "user": "Acme-Labs",
        "repo": "Big-7B",
        "way": "move",
    } == json.loads(result.stdout)


def test_asks(file, home):
    """On a terminal it asks where to, and whether to move."""
    with Terminal("import", str(file)) as terminal:
        terminal.until("User/repo [imported/tiny-instruct]: ")
        terminal.type("me/mine\n")
        terminal.until("[Y/n]: ")
        terminal.type("n\n")
        assert 1 == terminal.end()
    assert file.exists()
    assert not (home / "models" / "me").exists()


def test_dry_run(lms, file, target):
    """A dry run says what it would do, and does nothing."""
    result = lms("import", str(file), "--dry-run", "--user-repo", "acme/tiny")

    assert (0, f"Would move {file} to {target}\n") == (result.exit_code, result.stdout)
    assert file.exists()
    assert not target.parent.exists()


def test_nothing_is_replaced(lms, file, target):
    """A file that is there already stays as it is."""
    target.parent.mkdir(parents=True)
    target.write_bytes(b"other")
    for flag in ("--copy", "-L", "-l", "--move"):
        result = lms("import", str(file), flag, "--user-repo", "acme/tiny")
        assert (1, "") == (result.exit_code, result.stdout)
        assert f"there is a file already: {target}" in result.stderr
    assert b"other" == target.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "code", "line"),
    [
        ("none.gguf", None, 4, "there is no file"),
        ("model.bin", b"GGUF", 1, "is not called .gguf"),
        ("model.gguf", b"not a model at all", 1, "model.gguf"),
    ],
    ids=str,
)
def test_no_model(lms, home, tmp_path, name, content, code, line):
    """What is no GGUF file is refused before anything is touched."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = lms("import", str(tmp_path / name), "-y")

    assert (code, "") == (result.exit_code, result.stdout)
    assert line in result.stderr
    assert 1 == result.stderr.count("\n")
    assert not (home / "models").exists()


def test_a_folder(lms, tmp_path):
    """A folder is no file."""
    assert "is no file" in lms("import", str(tmp_path), "-y").stderr


def test_moving_between_disks(lms, file, target, monkeypatch):
    """Where a file can't be renamed it is copied, and goes only then."""

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(import_.os, "link", refuse)
    content = file.read_bytes()

    assert 0 == lms("import", str(file), "--user-repo", "acme/tiny").exit_code
    assert content == target.read_bytes()
    assert not file.exists()


def test_a_copy_that_breaks_off(lms, file, target, monkeypatch):
    """A copy that fails leaves neither a part of it nor its folders."""

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_.os, "fsync", refuse)
    result = lms("import", str(file), "--copy", "--user-repo", "acme/tiny")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "No space left on device" in result.stderr
    assert not target.parent.parent.exists()
    assert file.exists()


def test_no_room(lms, file, target, monkeypatch):
    """Too little room is told before a byte is copied."""
    room = import_.shutil.disk_usage(file.parent)._replace(free=10)
    monkeypatch.setattr(import_.shutil, "disk_usage", lambda _: room)
    result = lms("import", str(file), "--copy", "--user-repo", "acme/tiny")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "has not enough room" in result.stderr
