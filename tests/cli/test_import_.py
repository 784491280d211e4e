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
    write_gguf(tmp_path / "Big-7B-Q8_0-00002-of-00002.gguf")
    result = lms("import", str(file), "--json")

    path = str(home / "models" / "Acme-Labs" / "Big-7B" / file.name)
    assert {
        "path": path,
        "user": "Acme-Labs",
        "repo": "Big-7B",
        "way": "move",
    } == json.loads(result.stdout)


@pytest.mark.slow
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


@pytest.fixture
def parts(tmp_path):
    """A model in three files."""
    names = [f"tiny.Q4_K_M-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    return [write_gguf(tmp_path / "there" / name) for name in names]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("flag", ["--move", "--copy"])
def test_all_parts_come_along(lms, home, parts, which, flag):
    """Of a split model all files are imported, whichever of them is named."""
    result = lms("import", str(parts[which]), flag, "--user-repo", "acme/tiny")

    folder = home / "models" / "acme" / "tiny"
    names = [part.name for part in parts]
    said = "".join(f"{name} is in {folder}\n" for name in names)
    assert (0, said, "") == (result.exit_code, result.stdout, result.stderr)
    assert names == sorted(os.listdir(folder))
    assert [flag == "--copy"] * 3 == [part.exists() for part in parts]


def test_a_split_model_as_json(lms, home, parts):
    """Its path is that of the first part, which is what loads it."""
    words = ["--copy", "--user-repo", "acme/tiny", "--json"]
    result = lms("import", str(parts[2]), *words)
    target = home / "models" / "acme" / "tiny" / parts[0].name
    assert str(target) == json.loads(result.stdout)["path"]


def test_missing_parts(lms, home, parts):
    """A part whose others are not beside it is refused, and they are named."""
    for part in parts[1:]:
        part.unlink()
    result = lms("import", str(parts[0]), "--copy", "--user-repo", "acme/tiny")

    names = f"{parts[1].name}, {parts[2].name}"
    said = (
        f"lms: {parts[0]} is one of 3 parts of a model, and beside it there is"
        f" no {names}\n"
    )
    assert (4, "", said) == (result.exit_code, result.stdout, result.stderr)
    assert not (home / "models").exists()


@pytest.mark.parametrize("name", ["t-00004-of-00003.gguf", "t-00001-of-99999.gguf"])
def test_impossible_parts(lms, tmp_path, name):
    """A name that no part can have is an error, and nothing is looked for."""
    file = write_gguf(tmp_path / name)
    result = lms("import", str(file), "--copy", "--user-repo", "acme/tiny")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "can't be a part: its name says" in result.stderr


@pytest.mark.parametrize("flag", ["--move", "--copy"])
def test_all_parts_or_none(lms, home, parts, monkeypatch, flag):
    """When one can't be brought there, the others are not there either."""
    put = import_._put

    def fails(source, target, way):
        if source.name == parts[2].name:
            raise import_.Failure("no room")
        put(source, target, way)

    monkeypatch.setattr(import_, "_put", fails)
    result = lms("import", str(parts[0]), flag, "--user-repo", "acme/tiny")
    assert (1, "lms: no room\n") == (result.exit_code, result.stderr)
    assert [True] * 3 == [part.exists() for part in parts]
    assert [] == os.listdir(home / "models" / "acme" / "tiny")
