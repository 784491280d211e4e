"""``python -m lmstudio.server``: a server in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from .._version import __version__
from ..errors import LMStudioValueError
from ..wire.ports import DEFAULT_PORT
from . import infofile
from .logfile import LogFile
from .memory import Policy
from .ports import PortUnavailable, bound_address, is_loopback
from .runner import serve
from .tokens import TokensUnusable, tokens_file

#: A token that clients must have.
TOKEN_VARIABLE = "LMSTUDIO_SERVER_API_TOKEN"
#: Exit codes: a server that ran and ended well, one that could not start.
ENDED, FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or a client's request; returns the exit code."""
    options = _parser().parse_args(arguments)
    _begin_log(options.log_file, options.verbose)
    stop = threading.Event()
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # the last is Windows' own
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, lambda *_: stop.set())
    try:
        is_open = not is_loopback(bound_address(options.bind))
        server = serve(
            options.bind,
            options.port,
            cors=options.cors,
            api_token=_asked_for(options),
            hosts=options.host_name,
            # A server on any free port is for whoever reads which one it got.
            discoverable=options.port != 0 and not options.undiscoverable,
            # Whoever is let in without a token from elsewhere may not end it.
            shutdown=None if is_open and options.no_api_token else stop.set,
            memory=_policy(options),
        )
    except (PortUnavailable, TokensUnusable, LMStudioValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return FAILED
    with server:
        if server.tokens is not None:
            logging.info("clients need an API token: %s", _source(options))
        elif is_open and server.tokens is None:
            logging.warning("everyone who reaches %s can use this server", server.url)
        try:
            infofile.write(
                server.host, server.port, cors=options.cors, record=options.record
            )
        except OSError as exc:
            logging.warning("programs that look for this server won't find it: %s", exc)
        print(f"serving on {server.url}", flush=True)
        logging.info("started %s as process %d", __version__, os.getpid())
        try:
            # Without a time limit some systems don't run signal handlers meanwhile.
            while not stop.wait(1.0):
                pass
        finally:
            infofile.remove(options.record)
            logging.info("ending")
    return ENDED


def _policy(options: argparse.Namespace) -> Policy:
    return Policy(
        auto_evict=not options.no_auto_evict, guard=not options.no_memory_guard
    )


def _begin_log(file: Path | None, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=None if file is None else [LogFile(file)],
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if verbose:
        logging.getLogger("lmstudio.server").setLevel(logging.DEBUG)


def _asked_for(options: argparse.Namespace) -> str | bool | None:
    """What `serve` takes as its ``api_token``."""
    if options.no_api_token:
        return False
    if options.api_token == "":
        return True
    token: str | None = options.api_token or os.environ.get(TOKEN_VARIABLE)
    return token or None


def _source(options: argparse.Namespace) -> str:
    """Where the tokens of a server that asks for them come from."""
    if options.api_token:
        return "the one of --api-token"
    if isinstance(_asked_for(options), str):
        return f"the one of the variable {TOKEN_VARIABLE}"
    return f"one of {tokens_file()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lmstudio.server",
        description="Serve the models of this machine to LM Studio clients.",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one"
    )
    parser.add_argument(
        "--bind", default="127.0.0.1", metavar="ADDRESS", help="where to listen"
    )
    parser.add_argument(
        "--cors", action="store_true", help="let web pages of any origin in"
    )
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--api-token",
        nargs="?",
        const="",
        metavar="TOKEN",
        help="ask clients for a token: this one (others on this machine can see it in"
        f" the list of processes; {TOKEN_VARIABLE} hides it), or those saved in"
        " the home folder, where one is made up if there is none. Where other"
        " machines reach the server it asks anyway",
    )
    tokens.add_argument(
        "--no-api-token", action="store_true", help="let everyone in, from everywhere"
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name besides localhost under which clients reach the server here",
    )
    _add_rest(parser)
    return parser


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Options that few need."""
    parser.add_argument(
        "--undiscoverable",
        action="store_true",
        help="don't listen where official SDKs look; --port 0 means this as well",
    )
    _add_memory(parser)
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="the file that standard output and standard error are: begin a new one"
        " when it is full",
    )
    # What `lms server start` writes down of the server that it started.
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="log every request: who, what, how it ended, and how long it took",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-auto-evict",
        action="store_true",
        help="keep models that were loaded on demand when another one is",
    )
    parser.add_argument(
        "--no-memory-guard",
        action="store_true",
        help="load models even if they don't seem to fit into memory",
    )


if __name__ == "__main__":
    sys.exit(main())
