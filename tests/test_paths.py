"""The home folder is where the application would look for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmstudio import paths


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's empty home folder."""
    monkeypatch.delenv("LMSTUDIO_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_default(user: Path) -> None:
    """With nothing else said it is ~/.lmstudio, and it need not exist."""
    assert user / ".lmstudio" == paths.home()
    assert user / ".lmstudio/models" == paths.models()
    assert user / ".lmstudio/config-presets" == paths.presets()
    assert user / ".lmstudio/.internal" == paths.internal()
    assert [] == list(user.iterdir())


def test_variable(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMSTUDIO_HOME goes before all else, as a path of any form."""
    (user / ".lmstudio-home-pointer").write_text("/pointed")
    monkeypatch.setenv("LMSTUDIO_HOME", "~/mine")
    assert user / "mine" == paths.home()
    monkeypatch.chdir(user)
    monkeypatch.setenv("LMSTUDIO_HOME", "here")
    assert user / "here" == paths.home()
    monkeypatch.setenv("LMSTUDIO_HOME", "")
    assert Path("/pointed") == paths.home()


def test_old_folder(user: Path) -> None:
    """The folder of older versions is used where it exists."""
    (user / ".cache/lm-studio").mkdir(parents=True)
    assert user / ".cache/lm-studio" == paths.home()


def test_pointer(user: Path) -> None:
    """The first line of the pointer file names the folder."""
    (user / ".cache/lm-studio").mkdir(parents=True)
    (user / ".lmstudio-home-pointer").write_text(f" {user}/there \r\nmore\n")
    assert user / "there" == paths.home()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n/second", b"relative/path", b"\xff\xfe", b"/a\0b", b"~nobody!/x"],
)
def test_unusable_pointer(user: Path, content: bytes) -> None:
    """A pointer that points nowhere is as good as none."""
    (user / ".lmstudio-home-pointer").write_bytes(content)
    assert user / ".lmstudio" == paths.home()
