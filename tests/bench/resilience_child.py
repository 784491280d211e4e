"""One resilience test with one adapter, in a process of its own; see resilience.py.

It tells its steps as lines of JSON, and waits for a line where the server must change.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time

#: Seconds that a child after a fork may take.
CHILD_LIMIT = 6
#: Seconds that threads may take to hear of the end of the server.
THREADS_LIMIT = 15.0
THREADS = 8
#: A stream that goes on.
ENDLESS = {"n": 100_000, "rate": 200}


def say(**row):
    print(json.dumps(row), flush=True)


def ask(what):
    """Have the server changed."""
    say(ask=what)
    sys.stdin.readline()


def attempt(label, work):
    """Do something, and tell how it went; False when it failed."""
    began = time.monotonic()
    try:
        value = work()
    except BaseException as exc:
        took = round(time.monotonic() - began, 4)
        say(step=label, ok=False, s=took, error=type(exc).__name__, text=str(exc)[:300])
        if isinstance(exc, KeyboardInterrupt):
            raise
        return False
    say(
        step=label,
        ok=True,
        s=round(time.monotonic() - began, 4),
        value=repr(value)[:80],
    )
    return True


class Script:
    """What the tests do. Each is a method of its name.

    Args:
        adapter: The client.
        host: The server.
    """

    def __init__(self, adapter, host):
        self.adapter, self.host = adapter, host
        self.closes = True

    def begin(self):
        """Connect, and see that all works."""
        self.adapter.open(self.host)
        self.call()

    def call(self, text="hello"):
        return self.adapter.count_tokens(text)

    def stream(self, **spec):
        return self.adapter.stream(json.dumps(spec))

    def read(self, **spec):
        """Iterate to the end; how many fragments came."""
        got, last = 0, time.monotonic()
        try:
            for _ in self.stream(**spec):
                got, last = got + 1, time.monotonic()
        finally:
            late = round(time.monotonic() - last, 4)
            say(step="iteration over", fragments=got, s_after_last=late)
        return got

    def die_midstream(self):
        self.begin()
        attempt(
            "stream while server exits",
            lambda: self.read(n=1000, rate=200, exitAfter=50),
        )
        attempt("call while server is down", self.call)
        ask("start server")
        attempt("call after restart", self.call)
        attempt("stream after restart", lambda: self.read(n=20))

    def many_threads_die(self):
        """Threads wait in streams when the server is killed: do all return?"""
        self.begin()
        ends, begun = [], threading.Semaphore(0)

        def one():
            try:
                for number, _ in enumerate(self.stream(**ENDLESS)):
                    if number == 0:
                        begun.release()
            except Exception as exc:
                ends.append(type(exc).__name__)

        threads = [threading.Thread(target=one, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        ask("kill server")
        began = time.monotonic()
        for thread in threads:
            thread.join(max(0, began + THREADS_LIMIT - time.monotonic()))
        took = round(time.monotonic() - began, 3)
        say(step="threads", returned=len(ends), kinds=sorted({*ends}), s=took)

    def drop_midstream(self):
        self.begin()
        attempt(
            "stream while connection drops",
            lambda: self.read(n=1000, rate=200, dropAfter=50),
        )
        attempt("call after drop", self.call)
        attempt("stream after drop", lambda: self.read(n=20))

    def idle_restart(self):
        self.begin()
        ask("restart server")
        attempt("call after idle restart", self.call)
        attempt("stream after idle restart", lambda: self.read(n=20))

    def server_absent(self):
        attempt("open", lambda: self.adapter.open("127.0.0.1:9"))
        attempt("call", self.call)

    def silent_rpc(self):
        self.begin()
        attempt("silent call", lambda: self.call("SILENT"))
        attempt("call after it", self.call)

    def silent_stream(self):
        self.begin()
        attempt("silent stream", lambda: self.read(n=100, silentAfter=20))
        attempt("call after it", self.call)

    def sigint_stream(self):
        self.begin()
        stream = self.stream(**ENDLESS)
        say(ready=True)
        for _ in stream:
            pass

    def sigint_rpc(self):
        self.begin()
        say(ready=True)
        self.call("SILENT")

    def sigint_then_go_on(self):
        """Catches KeyboardInterrupt, as a REPL does, and uses the client again."""
        self.begin()
        stream = self.stream(**ENDLESS)
        say(ready=True)
        try:
            for _ in stream:
                pass
        except KeyboardInterrupt:
            say(step="caught KeyboardInterrupt")
        attempt("call after it", self.call)
        attempt("stream after it", lambda: self.read(n=20))

    def break_out(self):
        """Leaves the loop early and drops the stream, without cancel or close."""
        self.begin()

        def early():
            for number, _ in enumerate(self.stream(**ENDLESS)):
                if number == 20:
                    break

        attempt("break out", early)
        gc.collect()
        attempt("call after it", self.call)
        time.sleep(0.5)  # for the server to hear of it, before it hears of the close

    def cancel_from_thread(self):
        self.begin()
        stream = self.stream(**ENDLESS)
        timer = threading.Timer(0.3, stream.cancel)
        timer.start()
        attempt("iterate until cancelled", lambda: sum(1 for _ in stream))
        timer.join()

    def no_close(self):
        self.begin()
        attempt("stream", lambda: self.read(n=20))
        self.closes = False

    def fork_after_connect(self):
        self.begin()
        pid = os.fork()
        if pid == 0:
            signal.alarm(CHILD_LIMIT)  # ends a child that hangs
            good = attempt("child call", self.call)
            os._exit(not good)
        began = time.monotonic()
        _, status = os.waitpid(pid, 0)
        took = round(time.monotonic() - began, 3)
        say(step="child ended", hung=os.WIFSIGNALED(status), s=took)
        attempt("parent call", self.call)

    def running_loop(self):
        """The client inside a coroutine, as in a cell of Jupyter."""
        import asyncio

        async def inside():
            attempt("open", lambda: self.adapter.open(self.host))
            attempt("call in running loop", self.call)
            attempt("stream in running loop", lambda: self.read(n=100))

        asyncio.run(inside())


def main():
    adapter, test, host = sys.argv[1:4]
    script = Script(importlib.import_module(f"adapters.{adapter}").Adapter(), host)
    getattr(script, test)()
    if script.closes:
        attempt("close", script.adapter.close)
    say(step="end of script", ok=True)


if __name__ == "__main__":
    main()
