"""The server that runs in the background: found, started and stopped."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import attrs

import lmstudio

from . import processes
from .failures import Failure
from .home import check_home, unusable

#: What runs a server; its options follow.
COMMAND = (sys.executable, "-m", "lmstudio.server")
#: Seconds that a server may take until it answers.
START_PATIENCE = 20.0
#: Seconds that it may take to end before it is killed.
STOP_PATIENCE = 6.0
#: Seconds for the connection to a server, and for each part of its greeting.
GREETING_TIME = 2.0
#: Command lines of processes that are a server and nothing else.
OURS = (
    re.compile(r"-m lmstudio\.server(\s|$)"),
    re.compile(r"\bserver start\b.*--foreground"),
)
#: Names a server's token, as `lmstudio.server` reads it.
TOKEN_VARIABLE = "LMSTUDIO_SERVER_API_TOKEN"
#: Options of a server that are on or off, and that its info file does not tell.
FLAGS = ("--no-auto-evict", "--no-memory-guard")
#: Lines of the log's end that an error shows.
LOG_LINES = 5


@attrs.frozen
class Server:
    """A server, as it wrote itself down.

    Attributes:
        host: Where it can be reached from this machine.
        port: Its port.
        pid: Its process, None when that is not known.
        bind: The address that it listens on, None when that is not known.
        cors: Whether it lets web pages in, None when that is not known.
    """

    host: str
    port: int
    pid: int | None = None
    bind: str | None = None
    cors: bool | None = None

    @property
    def address(self) -> str:
        """Its address, such as ``"http://127.0.0.1:1234"``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def answers(self) -> bool:
        """Whether it says that it is a server of LM Studio's kind."""
        from lmstudio.server import ports

        return ports.greets(self.host, self.port, GREETING_TIME)

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach it."""
        from lmstudio.server import ports

        return self.bind is not None and not ports.is_loopback(self.bind)

    @property
    def flags(self) -> list[str] | None:
        """Which of `FLAGS` it was started with, None when that can't be told."""
        command = "" if self.pid is None else processes.command_of(self.pid)
        if not command:
            return None
        return [flag for flag in FLAGS if flag in command.split()]

    @property
    def is_in_background(self) -> bool:
        """Whether its process is a server and nothing else, and lives."""
        if self.pid is None or not processes.is_alive(self.pid):
            return False
        command = processes.command_of(self.pid)
        if not command:  # it can't be told here; the greeting has to do
            return self.answers
        return any(pattern.search(command) for pattern in OURS)


def log_file() -> Path:
    """What a server in the background prints; the last one's is beside it."""
    from lmstudio import paths

    return paths.internal() / "server.log"


def record() -> Path:
    """What `start` has written down of its server; no other one writes there."""
    from lmstudio import paths

    return paths.internal() / "background-server.json"


def started() -> Server | None:
    """The server that `start` has started, which need not run any more."""
    return _server_in(record())


def written_down() -> Server | None:
    """The server that clients find by the info file; it need not run any more."""
    return _server_in(None)


def _server_in(file: Path | None) -> Server | None:
    from lmstudio.server import infofile, ports

    info = infofile.read(file) or {}
    host, port, pid = info.get("host"), info.get("port"), info.get("pid")
    if not isinstance(port, int) or not 0 < port < 65536:
        return None
    bind = host if isinstance(host, str) else None
    pid = pid if isinstance(pid, int) and pid > 1 else None
    cors = info.get("cors")
    cors = cors if isinstance(cors, bool) else None
    return Server(ports.reachable(bind or "127.0.0.1"), port, pid, bind, cors)


def make_folder() -> None:
    """Make the folder of the log and of what else a server writes.

    Raises:
        Failure: The home folder does not allow it.
    """
    check_home()
    folder = log_file().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as exc:
        raise unusable(folder.parent, str(exc)) from None
    if not writable:
        raise unusable(folder.parent, f"{folder} may not be written")


def starting() -> contextlib.AbstractContextManager[bool]:
    """Held by the one who looks for a server and starts one if there is none."""
    from lmstudio.server import locks

    make_folder()
    return locks.only_one(log_file().with_name("server.lock"), lambda: None)


def start(
    port: int,
    bind: str,
    cors: bool,
    token: str | bool | None = None,
    flags: Sequence[str] = (),
) -> Server:
    """Start a server that outlives this process, and wait until it answers.

    Args:
        port: 0 for a free one.
        token: An API token that clients must have; True for those that are saved,
            False for none, None for what fits `bind`.
        flags: Some of `FLAGS`.

    Raises:
        Failure: It did not come up; it does not run any more.
    """
    options = arguments_of(port, bind, cors, token, flags)
    files = ["--log-file", str(log_file()), "--record", str(record())]
    arguments = [*options, *files]
    child = _spawn([*COMMAND, *arguments], token)
    try:
        found = processes.wait_for(
            lambda: child.poll() is not None or _is_up(child.pid), START_PATIENCE
        )
    except BaseException:  # Ctrl-C too: nothing is to be left running
        _end(child)
        raise
    code = child.poll()
    if code is None and found:
        # It lives on by itself; Popen would complain that nobody waits for it.
        child.returncode = 0
        server = started()
        assert server is not None
        return server
    if code is None:
        _end(child)
        happened = f"did not answer within {START_PATIENCE:.0f} seconds"
    else:
        happened = f"ended at once with exit code {code}"
    raise Failure(f"the server on port {port} {happened}. {_log_end()}")


def arguments_of(
    port: int,
    bind: str,
    cors: bool,
    token: str | bool | None,
    flags: Sequence[str] = (),
) -> list[str]:
    """What a server is started with; a token's text is not among it.

    Others see the arguments of a process. Its environment is its user's.
    """
    switches = {"--cors": cors, "--api-token": token is True}
    switches["--no-api-token"] = token is False
    chosen = [switch for switch, is_on in switches.items() if is_on]
    return ["--port", str(port), "--bind", bind, *chosen, *flags]


def stop(server: Server) -> bool:
    """End a server in the background and wait until it is gone.

    Returns:
        Whether it ended by itself; False when it had to be killed.
    """
    assert server.pid is not None
    by_itself = processes.end(server.pid, STOP_PATIENCE)
    forget(server)
    return by_itself


def forget(server: Server) -> None:
    """Remove the files of a server that is gone, unless another one wrote them."""
    from lmstudio.server import infofile

    if written_down() == server:
        infofile.info_file().unlink(missing_ok=True)
    if started() == server:
        record().unlink(missing_ok=True)


def _spawn(
    command: list[str], token: str | bool | None = None
) -> subprocess.Popen[bytes]:
    """Start a process of its own session, which prints into the log file."""
    log = log_file()
    make_folder()
    if log.exists():
        os.replace(log, log.with_suffix(".log.1"))
    windows = ("DETACHED_PROCESS", "CREATE_NEW_PROCESS_GROUP")
    # To append: the server begins a new file when this one is full, and what it has
    # not opened itself must not write into the middle.
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**_environment(), **token_variable(token)},
            start_new_session=True,
            creationflags=sum(getattr(subprocess, name, 0) for name in windows),
        )


def token_variable(token: str | bool | None) -> dict[str, str]:
    """The variable that tells a server its token, if it has one of its own."""
    return {TOKEN_VARIABLE: token} if isinstance(token, str) else {}


def _environment() -> dict[str, str]:
    """Our environment for a process in another folder.

    It does not run in ours: a file there could be taken for a module, and the folder
    may go. So relative paths are made absolute, and the package stays findable when it
    was found in the folder that we are in.
    """
    environment = dict(os.environ)
    if environment.get("LMSTUDIO_HOME"):
        environment["LMSTUDIO_HOME"] = str(log_file().parents[1])
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    folders = [os.path.abspath(folder) for folder in given if folder]
    package = str(Path(lmstudio.__file__).absolute().parents[1])
    installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    if package not in (*installed, *folders):
        folders.append(package)
    if folders:
        environment["PYTHONPATH"] = os.pathsep.join(folders)
    return environment


def _is_up(pid: int) -> bool:
    """Whether the server of this process has written itself down, and answers."""
    server = started()
    return server is not None and server.pid == pid and server.answers


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _log_end() -> str:
    """The last lines of the log, and where it is."""
    log = log_file()
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    ending = " | ".join([line.strip() for line in lines if line.strip()][-LOG_LINES:])
    return f"Its log {log} ends with: {ending or '(nothing)'}"
