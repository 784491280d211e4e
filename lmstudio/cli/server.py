"""`lms server`: start, stop and status."""

from __future__ import annotations

import click

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
@click.option("--foreground", is_flag=True, help="Run in this terminal until Ctrl-C.")
@click.pass_context
def start(
    ctx: click.Context, port: int, bind: str, cors: bool, foreground: bool
) -> None:
    """Start the server in the background, and return when it answers.

    \b
    Example:
      lms server start --port 8080
    """
    if foreground:
        ctx.exit(_run(port, bind, cors))
    found, was_running = start_in_background(port, bind, cors)
    state = "is running already" if was_running else "is running"
    say(f"The server {state} at {found.address}")
    if found.is_open:
        note(
            f"Everyone who reaches port {found.port} of {found.bind} can use the"
            " server: it asks for no password; `lms server stop` ends it"
        )


@server.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stop(as_json: bool) -> None:
    """Stop the server that runs in the background.

    \b
    Example:
      lms server stop
    """
    known = background.written_down()
    if known is not None and known.is_in_background:
        by_itself = background.stop(known)
        if as_json:
            print_json({"stopped": True, "port": known.port})
            return
        how = "Stopped" if by_itself else "Killed, as it did not end by itself,"
        say(f"{how} the server at {known.address}")
        return
    if known is not None and not known.answers:
        background.forget(known)  # it was killed, and could not do so itself
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
    port: int = PORT, bind: str = "127.0.0.1", cors: bool = False
) -> tuple[Server, bool]:
    """The server of this home folder, started if it does not run.

    Returns:
        The server, and whether it ran already.

    Raises:
        Failure: It does not come up, or another one runs.
    """
    with background.starting():
        found = _running(port, bind, cors)
        was_running = found is not None
        return found or background.start(port, bind, cors), was_running


def running_server() -> Server | None:
    """The server that was written down, or whatever greets on the usual port."""
    for found in (background.written_down(), Server("127.0.0.1", PORT)):
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


def _running(port: int, bind: str, cors: bool) -> Server | None:
    """The server that runs where one is to be started; None if it can be.

    Raises:
        Failure: Another one of this home folder runs, or this one does not answer.
        LMStudioOSError: The port can't be had.
    """
    from lmstudio.server import ports

    known = background.written_down()
    if known is not None and known.is_in_background:
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
        address = ports.bound_address(bind)
        if known.bind not in (None, address) or known.cors not in (None, cors):
            pages = "web pages let in" if known.cors else "no web pages let in"
            raise Failure(
                f"the server at {known.address} (process {known.pid}) runs with other"
                f" options (it listens on {known.bind}, {pages}): stop it first with"
                " `lms server stop`"
            )
        return known
    there = Server(ports.reachable(bind), port)
    if port and there.answers:
        return there
    ports.listen(bind, port).close()  # or say at once why it can't be done
    return None


def _run(port: int, bind: str, cors: bool) -> int:
    """Run the server in this process until it is told to end; returns its exit code."""
    from lmstudio.server.__main__ import main

    check_home()
    found = _running(port, bind, cors)
    if found is not None:
        say(f"The server is running already at {found.address}")
        return 0
    arguments = ["--port", str(port), "--bind", bind]
    return main(arguments + (["--cors"] if cors else []))
