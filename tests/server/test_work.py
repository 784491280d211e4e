"""No client takes the threads of the others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lmstudio.server.work import EACH, Workers, belongs_to, in_turn

PATIENCE = 10.0


def of_one_client(workers, name, function, count):
    """Tasks of one client that run a function each."""

    async def one():
        belongs_to(workers.of(name))
        return await in_turn(function)

    return [asyncio.ensure_future(one()) for _ in range(count)]


@pytest.mark.slow
def test_many_works_of_one_client():
    """A client whose works don't end has a few of them running; others go on."""
    gate, running = threading.Semaphore(0), []

    def stuck():
        running.append(threading.get_ident())
        assert gate.acquire(timeout=PATIENCE)

    async def main():
        workers = Workers()
        try:
            tasks = of_one_client(workers, "greedy", stuck, 100)
            others = of_one_client(workers, "other", threading.get_ident, 1)
            assert await asyncio.wait_for(others[0], PATIENCE)
            while len(running) < EACH:
                await asyncio.sleep(0)
            assert EACH == len(running)
            gate.release(100)
            await asyncio.gather(*tasks)
            assert 100 == len(running)
        finally:
            gate.release(100)
            workers.close()

    asyncio.run(main())


def test_a_cancelled_work_keeps_its_turn():
    """Who hangs up while a work runs begins no further one in its place."""
    gate, running = threading.Semaphore(0), []

    def stuck():
        running.append(1)
        assert gate.acquire(timeout=PATIENCE)

    async def main():
        workers = Workers()
        try:
            tasks = of_one_client(workers, "a", stuck, EACH)
            while len(running) < EACH:
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            (late,) = of_one_client(workers, "a", lambda: "late", 1)
            (other,) = of_one_client(workers, "b", lambda: "other", 1)
            assert "other" == await asyncio.wait_for(other, PATIENCE)
            assert not late.done()
            gate.release(EACH)
            assert "late" == await asyncio.wait_for(late, PATIENCE)
        finally:
            gate.release(EACH)
            workers.close()

    asyncio.run(main())


def test_without_a_client():
    """Work that belongs to nobody runs as well, and errors come through."""

    async def main():
        assert 3 == await in_turn(max, 1, 3)
        workers = Workers()
        belongs_to(workers.of("a"))
        with_error = asyncio.ensure_future(in_turn(int, "x"))
        await asyncio.wait([with_error])
        assert isinstance(with_error.exception(), ValueError)
        workers.close()

    asyncio.run(main())
