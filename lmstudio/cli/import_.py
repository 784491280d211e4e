"""`lms import`: a model file into the models folder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from .choices import agrees, can_ask
from .failures import NOT_FOUND, Failure
from .home import check_home
from .output import print_json, progress_bar, say

#: What the quantization and the number of a part look like at a file name's end.
_ENDING = re.compile(r"([-.](I?Q\d\w*|BF16|F16|F32|\d{5}-of-\d{5}))+$", re.IGNORECASE)
_FOLDER = re.compile(r"(?![.\s])[^/<>:\"\\|?*\x00-\x1f]{1,100}(?<![.\s])")
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<total>\d{5})")
#: More parts than any model has.
_MOST_PARTS = 1000
_CHUNK = 1 << 22  # bytes that are copied at once


def user_repo(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, str] | None:
    """Read ``user/repo``.

    Raises:
        click.BadParameter: It is something else, or no name for folders.
    """
    if text is None:
        return None
    user, slash, repo = text.partition("/")
    if not slash or not (_FOLDER.fullmatch(user) and _FOLDER.fullmatch(repo)):
        raise click.BadParameter(f"{text!r} is not user/repo")
    return user, repo


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--user-repo", callback=user_repo, metavar="USER/REPO", help="Where to.")
@click.option("--copy", "-c", is_flag=True, help="Leave the file where it is, too.")
@click.option("--hard-link", "-L", is_flag=True, help="Make a hard link to it.")
@click.option("--symbolic-link", "-l", is_flag=True, help="Make a link to it.")
@click.option("--move", is_flag=True, help="Move it there; so it is without others.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(
    file: Path,
    user_repo: tuple[str, str] | None,
    copy: bool,
    hard_link: bool,
    symbolic_link: bool,
    move: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put the GGUF file FILE into the models folder, as <user>/<repo>/<FILE>.

    It is moved there, or copied or linked; of a model in several files all of them are,
    which have to be beside it. The folder is guessed from what the file
    says of itself, and asked for on a terminal.

    \b
    Example:
      lms import ~/Downloads/mistral-7b-instruct.Q4_K_M.gguf --copy
    """
    from lmstudio import paths

    ways = {"copy": copy, "hard-link": hard_link, "symbolic-link": symbolic_link}
    asked = [name for name, is_on in {**ways, "move": move}.items() if is_on]
    if len(asked) > 1:
        raise click.UsageError(
            "say one of --copy, --hard-link, --symbolic-link, --move"
        )
    way = asked[0] if asked else "move"
    maker = _checked(file)
    parts = _parts(file)
    check_home()
    user, repo = user_repo or _place(file, maker, yes)
    folder = paths.models() / user / repo
    target = folder / parts[0].name
    for taken in (folder / part.name for part in parts):
        if os.path.lexists(taken):
            raise Failure(f"there is a file already: {taken}")
    what = f"the {len(parts)} parts of {file}" if len(parts) > 1 else f"{file}"
    if dry_run:
        say(f"Would {way} {what} to {target}")
    else:
        asks = way == "move" and not (asked or yes) and can_ask()
        if asks and not agrees(f"Move {what} to {target}?"):
            raise Failure("nothing was done; --copy leaves the file where it is")
        _put_all([part.absolute() for part in parts], folder, way)
        if not as_json:
            for part in parts:
                say(f"{part.name} is in {folder}")
    if as_json:
        print_json({"path": str(target), "user": user, "repo": repo, "way": way})


def _checked(file: Path) -> str | None:
    """Who made a model, as its file says; None where it does not.

    Raises:
        Failure: There is none, or it is no model.
    """
    from lmstudio.server.gguf import GGUFError, read_header

    if not file.exists():
        raise Failure(f"there is no file {file}", NOT_FOUND)
    if not file.is_file():
        raise Failure(f"{file} is no file")
    if file.suffix.lower() != ".gguf":
        raise Failure(f"{file} is not called .gguf; only GGUF files can be imported")
    try:
        header = read_header(file)
    except GGUFError as exc:
        raise Failure(str(exc)) from None
    return header.text("general.organization") or header.text("general.quantized_by")


def _parts(file: Path) -> list[Path]:
    """All files of a model, in order: the file alone, or with the others of its parts.

    Raises:
        Failure: Others are missing, or one of them is no model.
    """
    match = _PART.fullmatch(file.stem)
    if match is None or int(match["total"]) < 2:
        return [file]
    total = int(match["total"])
    if total > _MOST_PARTS or not 1 <= int(match["part"]) <= total:
        raise Failure(
            f"{file} can't be a part: its name says {match['part']} of {total}"
        )
    stems = [f"{match['stem']}-{n:05}-of-{total:05}" for n in range(1, total + 1)]
    parts = [file.with_name(stem + file.suffix) for stem in stems]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise Failure(
            f"{file} is one of {total} parts of a model, and beside it there is no"
            f" {', '.join(missing[:3])}{more}",
            NOT_FOUND,
        )
    for part in parts:
        _checked(part)
    return parts


def _place(file: Path, maker: str | None, yes: bool) -> tuple[str, str]:
    """The folders for a file, guessed, and confirmed where somebody can be asked."""
    repo = _ENDING.sub("", file.stem)
    guess = f"{_folder_name(maker or 'imported')}/{_folder_name(repo or 'model')}"
    if yes or not can_ask():
        text = guess
    else:
        text = click.prompt("User/repo", default=guess, err=True)
    context = click.get_current_context()
    place = user_repo(context, context.command.params[1], text)
    assert place is not None
    return place


def _folder_name(text: str) -> str:
    """The text as the name of one folder."""
    name = re.sub(r"[/<>:\"\\|?*\x00-\x1f\s]+", "-", text)[:100].strip(".- ")
    return name or "model"


def _put_all(sources: list[Path], folder: Path, way: str) -> None:
    """Bring all files to their places, or none.

    Raises:
        Failure: The system refuses.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for source in sources:
            _put(source, folder / source.name, way)
            done.append((source, folder / source.name))
    except BaseException:  # Ctrl-C too: a part of a model is of no use
        for source, target in done:
            if way == "move":
                _put(target, source, way)
            else:
                target.unlink(missing_ok=True)
        raise


def _put(source: Path, target: Path, way: str) -> None:
    """Bring a file to its place. It is there as a whole, or not at all.

    Raises:
        Failure: The system refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if way == "hard-link":
            os.link(source.resolve(), target)
        elif way == "symbolic-link":
            target.symlink_to(source)
        elif way == "copy" or not _renamed(source, target):
            _copy(source, target)
            if way == "move":
                source.unlink()
    except FileExistsError:
        raise Failure(f"there is a file already: {target}") from None
    except OSError as exc:
        with contextlib.suppress(OSError):  # which is empty, if it is ours
            target.parent.rmdir()
            target.parent.parent.rmdir()
        hint = " (try --copy)" if "link" in way else ""
        raise Failure(f"{source} can't get to {target}: {exc}{hint}") from exc


def _renamed(source: Path, target: Path) -> bool:
    """Move within one file system; False when there are two."""
    try:
        os.link(source, target)  # fails where something is, a rename would replace it
    except FileExistsError:
        raise
    except OSError:
        return False
    source.unlink()
    return True


def _copy(source: Path, target: Path) -> None:
    size = source.stat().st_size
    if shutil.disk_usage(target.parent).free < size:
        raise Failure(f"{target.parent} has not enough room for {size} bytes")
    with (
        _draft(target) as draft,
        progress_bar(f"Copying {source.name}") as show,
        source.open("rb") as there,
        draft.open("wb") as here,
    ):
        done = 0
        while chunk := there.read(_CHUNK):
            here.write(chunk)
            done += len(chunk)
            show(done / size)
        here.flush()
        os.fsync(here.fileno())


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file beside the target that becomes it if the block ends well."""
    number, name = tempfile.mkstemp(prefix=".import-", dir=target.parent)
    os.close(number)
    draft = Path(name)
    try:
        yield draft
        if os.path.lexists(target):
            raise FileExistsError(target)
        draft.chmod(0o644)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
