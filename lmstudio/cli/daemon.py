"""`lms daemon`: the server in the background, under LM Studio's other name."""

from __future__ import annotations

import click

import lmstudio

from . import background
from .client import connected, server_options
from .failures import FAILED, Failure
from .output import print_json, say
from .server import PORT, running_server, start_in_background


@click.group(invoke_without_command=True)
@click.pass_context
def daemon(ctx: click.Context) -> None:
    """Start, stop and look at the server that runs in the background.

    It is the one of `lms server`: here there is no application around it.

    \b
    Example:
      lms daemon up
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@daemon.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def up(as_json: bool) -> None:
    """Start the server in the background, unless one is running.

    \b
    Example:
      lms daemon up --json
    """
    found = running_server()
    was_running = found is not None
    found = found or start_in_background(PORT)[0]
    if as_json:
        with connected(None, None) as client:
            version = client.system.get_version()
        print_json({**_state(found.address, found.pid), "version": version})
    elif was_running:
        say(f"The server is already running ({_process(found.pid)})")
    else:
        say(f"The server is started ({_process(found.pid)})")


@daemon.command()
def down() -> None:
    """Stop the server that runs in the background.

    \b
    Example:
      lms daemon down
    """
    known = background.started()
    if known is None or not known.is_in_background:
        if running_server() is not None:
            raise Failure("the server that runs is not one of `lms daemon up`", FAILED)
        raise Failure("the server is not running", FAILED)
    background.stop(known)
    say("The server is stopped")


@daemon.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def status(as_json: bool, host: str | None, port: int | None) -> None:
    """Show whether the server is running.

    \b
    Example:
      lms daemon status --json
    """
    try:
        with connected(host, port) as client:
            address, version = client.address, client.system.get_version()
    except lmstudio.LMStudioConnectionError:
        if host or port:
            raise
        if as_json:
            print_json({"status": "not-running"})
        else:
            say("The server is not running")
        return
    pid = None
    for known in (background.written_down(), background.started()):
        if known is not None and address.endswith(f":{known.port}"):
            pid = known.pid
    if as_json:
        print_json(_state(address, pid))
    else:
        say(f"The server {version} is running at {address} ({_process(pid)})")


def _state(address: str, pid: int | None) -> dict[str, object]:
    return {"status": "running", "pid": pid, "isDaemon": True, "address": address}


def _process(pid: int | None) -> str:
    return "process unknown" if pid is None else f"process {pid}"
