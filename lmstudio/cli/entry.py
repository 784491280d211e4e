"""Where the command `lms` begins: Ctrl-C is one line from its first moment on."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process, and end with its exit code."""
    try:
        import signal
        from importlib import import_module

        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as nohup has it
            _run()
        # Until the command runs there is nothing to tidy up, and nothing when it has
        # ended: an exception would only be a traceback from somewhere in an import.
        signal.signal(signal.SIGINT, lambda *_: _leave())
        import_module("lmstudio.cli.main")

        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            _run()
        finally:
            signal.signal(signal.SIGINT, lambda *_: _leave())
    except KeyboardInterrupt:
        _leave()


def _run() -> NoReturn:
    from .main import main as run

    run(prog_name="lms")
    sys.exit(0)


def _leave() -> NoReturn:
    os.write(2, b"lms: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
