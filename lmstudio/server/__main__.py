"""``python -m lmstudio.server``: a server in the foreground."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from ..wire.ports import DEFAULT_PORT
from . import infofile
from .ports import PortUnavailable, bound_address, is_loopback
from .runner import serve

#: Exit codes: a server that ran and ended well, one that could not start.
ENDED, FAILED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or a client's request; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
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
            # A server on any free port is for whoever reads which one it got.
            discoverable=options.port != 0 and not options.undiscoverable,
            shutdown=None if is_open else stop.set,  # clients are not checked yet
        )
    except PortUnavailable as exc:
        print(f"error: {exc}", file=sys.stderr)
        return FAILED
    with server:
        if is_open:
            logging.warning("everyone who reaches %s can use this server", server.url)
        try:
            infofile.write(server.host, server.port, cors=options.cors)
        except OSError as exc:
            logging.warning("programs that look for this server won't find it: %s", exc)
        print(f"serving on {server.url}", flush=True)
        try:
            # Without a time limit some systems don't run signal handlers meanwhile.
            while not stop.wait(1.0):
                pass
        finally:
            infofile.remove()
    return ENDED


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
    parser.add_argument(
        "--undiscoverable",
        action="store_true",
        help="don't listen where official SDKs look; --port 0 means this as well",
    )
    parser.add_argument("--verbose", action="store_true", help="log every request")
    return parser


if __name__ == "__main__":
    sys.exit(main())
