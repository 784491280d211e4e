"""`lms server`: start, stop and status."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

import lmstudio

from . import background
from .background import Server
from .failures import Failure
from .home import check_home
from .output import note, print_json, say

PORT = 1234


@click.group(invoke_without_command=True)
@click.pass_context
def server(ctx: click.Context) -> None:
    """Start, stop and look at the server.

    \b
    Example:
      lms server start
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@server.command()
@click.option(
    "--port",
    "-p",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 opens the server to the network.",
)
@click.option(
    "--cors",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=False,
    metavar="",
    help="Let every website talk to the server.",
)
@click.option(
    "--api-token",
    is_flag=False,
    flag_value="",
    metavar="[TOKEN]",
    help="Ask clients for this token, or for one that is saved in the home folder.",
)
@click.option("--no-api-token", is_flag=True, help="Let in everyone who reaches it.")
@click.option(
    "--no-auto-evict",
    is_flag=True,
    help="Keep models that were loaded on demand when another one is.",
)
@click.option(
    "--no-memory-guard",
    is_flag=True,
    help="Load models even if they don't seem to fit into memory.",
)
@click.option("--foreground", is_flag=True, help="Run in this terminal until Ctrl-C.")
@click.pass_context
def start(
    ctx: click.Context,
    port: int,
    bind: str,
    cors: bool,
    api_token: str | None,
    no_api_token: bool,
    no_auto_evict: bool,
    no_memory_guard: bool,
    foreground: bool,
) -> None:
    """Start the server in the background, and return when it answers.

    \b
    Example:
      lms server start --port 8080
    """
    token = _token(api_token, no_api_token)
    chosen = zip(background.FLAGS, (no_auto_evict, no_memory_guard), strict=True)
    flags = [flag for flag, is_on in chosen if is_on]
    if foreground:
        ctx.exit(_run(port, bind, cors, token, flags))
    found, was_running = start_in_background(port, bind, cors, token, flags)
    state = "is running already" if was_running else "is running"
    say(f"The server {state} at {found.address}")
    if found.is_open or token:
        note(_who_may_come(found, token))


@server.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stop(as_json: bool) -> None:
    """Stop the server that runs in the background.

    \b
    Example:
      lms server stop
    """
    known = background.started()
    if known is not None and known.is_in_background:
        by_itself = background.stop(known)
        if as_json:
            print_json({"stopped": True, "port": known.port})
            return
        how = "Stopped" if by_itself else "Killed, as it did not end by itself,"
        say(f"{how} the server at {known.address}")
        return
    for gone in (known, background.written_down()):
        if gone is not None and not gone.answers:
            background.forget(gone)  # it was killed, and could not do so itself
    other = running_server()
    if other is not None:
        process = f" (process {other.pid})" if other.pid else ""
        raise Failure(
            f"the server at {other.address} is not one of `lms server start` with this"
            f" home folder: end the program that it runs in{process}"
        )
    if as_json:
        print_json({"stopped": False, "port": None})
    else:
        say("The server is not running")


@server.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show whether the server is running, and where.

    \b
    Example:
      lms server status --json
    """
    found = running_server()
    if as_json:
        print_json(status_of(found))
    else:
        say(status_text(found))


def start_in_background(
    port: int = PORT,
    bind: str = "127.0.0.1",
    cors: bool = False,
    token: str | bool | None = None,
    flags: Sequence[str] = (),
) -> tuple[Server, bool]:
    """The server of this home folder, started if it does not run.

    Args:
        token: As for `background.start`.
        flags: Likewise.

    Returns:
        The server, and whether it ran already.

    Raises:
        Failure: It does not come up, or another one runs.
    """
    with background.starting():
        found = _running(port, bind, cors, flags)
        if found is None:
            return background.start(port, bind, cors, token, flags), False
        _check_token(found, token)
        return found, True


def _token(api_token: str | None, no_api_token: bool) -> str | bool | None:
    """What the two options say of tokens: one, the saved ones, none, or nothing.

    Raises:
        click.UsageError: Both are given, or the token has a wrong form.
    """
    if api_token is None:
        return False if no_api_token else None
    if no_api_token:
        raise click.UsageError("say either --api-token or --no-api-token")
    if api_token:
        from lmstudio.server.tokens import read_token

        read_token(api_token)
    return api_token or True


def _check_token(found: Server, token: str | bool | None) -> None:
    """Refuse a server that runs and treats strangers otherwise than is asked for.

    Raises:
        Failure: It does.
    """
    from lmstudio.server.tokens import new_token

    if token is None:
        return
    asks = not _lets_in(found, new_token().text)
    if asks != (token is not False):
        how = "asks for an API token" if asks else "asks for no API token"
        raise Failure(
            f"the server at {found.address} runs already, and {how}: stop it first"
            " with `lms server stop`"
        )


def _lets_in(found: Server, token: str) -> bool:
    """Whether a server takes clients with an API token."""
    try:
        with lmstudio.LMStudioClient(found.address, api_token=token) as client:
            client.system.get_version()
    except lmstudio.LMStudioAuthenticationError:
        return False
    return True


def _who_may_come(found: Server, token: str | bool | None) -> str:
    """What the owner of a server has to know of its tokens, one line.

    The server is asked: one that ran already may have been started otherwise.
    """
    from lmstudio.server.tokens import new_token, saved, tokens_file

    if _lets_in(found, new_token().text):
        return (
            f"Everyone who reaches port {found.port} of {found.bind} can use the"
            " server: it asks for no token; `lms server stop` ends it"
        )
    known = [] if isinstance(token, str) else saved()
    if known and _lets_in(found, known[0].text):
        return (
            f"Clients need an API token of {tokens_file()}; `lms` takes it from there"
        )
    what = "that API token" if isinstance(token, str) else "the API token it began with"
    return f"Clients need {what}, `lms` too: in the variable LM_API_TOKEN"


def running_server() -> Server | None:
    """The server in the background, or another one that clients find."""
    usual = Server("127.0.0.1", PORT)
    for found in (background.started(), background.written_down(), usual):
        if found is not None and found.answers:
            return found
    return None


def status_of(found: Server | None) -> dict[str, object]:
    """What ``--json`` prints of a server, None for none."""
    if found is None:
        return {"running": False, "port": None}
    return {
        "running": True,
        "port": found.port,
        "host": found.host,
        "address": found.address,
        "pid": found.pid,
    }


def status_text(found: Server | None) -> str:
    """The same for people."""
    if found is None:
        return "The server is not running; `lms server start` starts it"
    process = f" (process {found.pid})" if found.pid else ""
    return f"The server is running at {found.address}{process}"


def _running(
    port: int, bind: str, cors: bool, flags: Sequence[str] = ()
) -> Server | None:
    """The server that runs where one is to be started; None if it can be.

    Raises:
        Failure: Another one of this home folder runs, or this one does not answer.
        LMStudioOSError: The port can't be had.
    """
    from lmstudio.server import ports

    known = background.started()
    if known is not None and known.is_in_background:
        _check_options(known, port, bind, cors, flags)
        return known
    there = Server(ports.reachable(bind), port)
    if port and there.answers:
        return there
    ports.listen(bind, port).close()  # or say at once why it can't be done
    return None


def _check_options(
    known: Server, port: int, bind: str, cors: bool, flags: Sequence[str]
) -> None:
    """Refuse a server that runs and is not the one that is asked for.

    Raises:
        Failure: It has other options, or does not answer.
    """
    from lmstudio.server import ports

    if port not in (0, known.port):
        raise Failure(
            f"a server runs already at {known.address} (process {known.pid});"
            " `lms server stop` ends it, and with LMSTUDIO_HOME set to another"
            " folder a second one can run"
        )
    if not known.answers:
        raise Failure(
            f"the server at {known.address} (process {known.pid}) does not answer;"
            " `lms server stop` ends it"
        )
    address, theirs = ports.bound_address(bind), known.flags
    if (
        known.bind not in (None, address)
        or known.cors not in (None, cors)
        or theirs not in (None, list(flags))
    ):
        pages = "web pages let in" if known.cors else "no web pages let in"
        listed = "".join(f", {flag}" for flag in theirs or ())
        raise Failure(
            f"the server at {known.address} (process {known.pid}) runs with other"
            f" options (it listens on {known.bind}, {pages}{listed}): stop it first"
            " with `lms server stop`"
        )


def _run(
    port: int, bind: str, cors: bool, token: str | bool | None, flags: Sequence[str]
) -> int:
    """Run the server in this process until it is told to end; returns its exit code."""
    from lmstudio.server.__main__ import main

    check_home()
    found = _running(port, bind, cors, flags)
    if found is not None:
        _check_token(found, token)
        say(f"The server is running already at {found.address}")
        return 0
    os.environ.update(background.token_variable(token))
    return main(background.arguments_of(port, bind, cors, token, flags))
