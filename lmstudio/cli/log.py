"""`lms log`: what the server does, as it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from .client import connected, server_options
from .output import note

if TYPE_CHECKING:
    from lmstudio import LogEntry

SOURCES = {"model": "llm.prediction.", "server": "server.log", "runtime": "runtime.log"}
DIRECTIONS = ("input", "output")


@click.group(invoke_without_command=True)
@click.pass_context
def log(ctx: click.Context) -> None:
    """Watch what the server does.

    \b
    Example:
      lms log stream
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def directions(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    """Read the kinds of a filter.

    Raises:
        click.BadParameter: One is neither ``input`` nor ``output``.
    """
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words or set(words) - set(DIRECTIONS):
        raise click.BadParameter(f"{text!r} is not input, output or input,output")
    return words


@log.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one entry a line.")
@click.option("--stats", is_flag=True, help="Print what was measured, with the output.")
@click.option(
    "--source",
    "-s",
    type=click.Choice(list(SOURCES)),
    default="model",
    show_default=True,
    help="What to watch.",
)
@click.option(
    "--filter",
    "kinds",
    metavar="KINDS",
    callback=directions,
    help="Of models: input, output, or input,output; without it both.",
)
@server_options
def stream(
    as_json: bool,
    stats: bool,
    source: str,
    kinds: tuple[str, ...] | None,
    host: str | None,
    port: int | None,
) -> None:
    """Print what goes into models and what comes out, until Ctrl-C.

    \b
    Example:
      lms log stream --source model --filter input,output --stats
    """
    if source != "model" and (stats or kinds is not None):
        raise click.UsageError("--stats and --filter are for --source model")
    prefix = SOURCES[source]
    wanted = [prefix + kind for kind in kinds or DIRECTIONS]
    if source != "model":
        wanted = [prefix]
    with connected(host, port) as client, client.diagnostics.stream_logs() as entries:
        note(f"Watching {client.address}; Ctrl-C ends it")
        try:
            for entry in entries:
                _show(entry, wanted, as_json, stats)
        except KeyboardInterrupt:
            pass  # that is how it ends


def _show(entry: LogEntry, wanted: Collection[str], as_json: bool, stats: bool) -> None:
    if entry.type not in wanted:
        return
    data = _fields(entry)
    if as_json:
        whole = {"timestamp": round(entry.timestamp * 1000), "data": data}
        click.echo(json.dumps(whole, ensure_ascii=False))
    elif entry.type in (SOURCES["server"], SOURCES["runtime"]):
        click.echo(data.get("content", data.get("message", "")))
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.timestamp))
        click.echo(f"timestamp: {when}\ntype: {entry.type}")
        for name in ("modelIdentifier", "modelPath"):
            if name in data:
                click.echo(f"{name}: {data[name]}")
        name = entry.type.rpartition(".")[2]
        click.echo(f"{name}:\n{data.get(name, '')}")
        measured = data.get("stats") or {}
        for key, value in measured.items() if stats else ():
            click.echo(f"{key}: {value}")
        click.echo("\n")
    sys.stdout.flush()  # whoever reads a pipe waits for it


def _fields(entry: LogEntry) -> Mapping[str, Any]:
    """The entry's fields by their names on the wire."""
    raw = getattr(entry.data, "raw", None)
    if raw is not None:
        fields: Mapping[str, Any] = raw
        return fields
    return {"type": entry.type, **_wire_names(entry.data)}


def _wire_names(value: Any) -> dict[str, Any]:
    import attrs

    fields = {}
    for field in attrs.fields(type(value)):
        given = getattr(value, field.name)
        if given is None or field.name == "raw":
            continue
        first, *rest = field.name.split("_")
        name = first + "".join(word.capitalize() for word in rest)
        fields[name] = _wire_names(given) if attrs.has(type(given)) else given
    return fields
