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
#: Calls that begin at once, before anything is connected.
CALLS = 64
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


def resident():
    """MB of memory that this process has at the moment; 0 where that can't be told."""
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


class Steps:
    """What the tests are made of.

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

    def read(self, each=lambda got: None, **spec):
        """Iterate to the end; how many fragments came."""
        got, last = 0, time.monotonic()
        try:
            for _ in self.stream(**spec):
                got, last = got + 1, time.monotonic()
                each(got)
        finally:
            late = round(time.monotonic() - last, 4)
            say(step="iteration over", fragments=got, s_after_last=late)
        return got


class Faults(Steps):
    """What the tests do to a connection. Each is a method of its name."""

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

    def frozen_server(self):
        """The server's machine sleeps: its socket is there, and says nothing more."""
        self.begin()

        def freeze(got):
            if got == 20:
                ask("freeze server")

        attempt("stream while frozen", lambda: self.read(freeze, **ENDLESS))
        ask("restart server")
        attempt("call after restart", self.call)
        attempt("stream after restart", lambda: self.read(n=20))

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

    def many_calls_first(self):
        """Many threads make the first calls of a client at once."""
        self.adapter.open(self.host)
        together, values = threading.Barrier(CALLS), []

        def one():
            together.wait()
            values.append(self.call())

        threads = [threading.Thread(target=one, daemon=True) for _ in range(CALLS)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + THREADS_LIMIT
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))
        say(step="calls", returned=len(values), values=sorted({*values}))

    def huge_answer(self):
        """100 MB in fragments of 100 KB; is the memory released?"""
        self.begin()
        before = resident()
        attempt("stream 100 MB", lambda: self.read(n=1000, size=100_000))
        gc.collect()
        say(step="memory", mb_kept=round(resident() - before, 1))
        attempt("call after it", self.call)


class Script(Faults):
    """What the tests do in a process of their own, to the end. Each is a method."""

    def sigint_stream(self):
        self.begin()
        stream = self.stream(**ENDLESS)
        say(ready=True)
        for _ in stream:
            pass

    def sigint_result(self):
        """Waits for the whole of an answer."""
        self.begin()
        say(ready=True)
        self.adapter.respond(json.dumps(ENDLESS))

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
        time.sleep(0.5)  # for the server to hear of it, before it hears of the close

    def close_from_thread(self):
        """The client is closed while a thread iterates."""
        self.begin()
        stream = self.stream(**ENDLESS)
        timer = threading.Timer(0.3, self.adapter.close)
        timer.start()
        attempt("iterate until closed", lambda: sum(1 for _ in stream))
        timer.join()
        self.closes = False

    def exit_midstream(self):
        """The program ends while a stream is running, and closes nothing."""
        self.begin()
        self.running = self.stream(**ENDLESS)
        attempt("first fragment", lambda: next(iter(self.running)))
        self.closes = False

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
