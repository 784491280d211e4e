"""Tasks of an owner are kept, ended with it, and their failures are not lost."""

from __future__ import annotations

import asyncio

from lmstudio.server.engine import LoadFailed
from lmstudio.server.tasks import Tasks


def test_join_waits_for_tasks_that_start_meanwhile():
    """Everything that was started has ended after a join."""
    done = []

    async def main():
        tasks = Tasks()

        async def second():
            done.append(2)

        async def first():
            await asyncio.sleep(0)
            tasks.spawn(second())
            done.append(1)

        tasks.spawn(first())
        await tasks.join()

    asyncio.run(main())
    assert [1, 2] == done


def test_cancel():
    """A cancelled task has ended after a join, and is no failure."""

    async def main():
        tasks = Tasks()
        task = tasks.spawn(asyncio.sleep(1000))
        tasks.cancel()
        await tasks.join()
        return task.cancelled()

    assert asyncio.run(main())


def test_only_what_nobody_foresaw_is_logged(caplog):
    """An error of the engine is someone's answer, any other is a fault."""

    async def fail(exc):
        raise exc

    async def main():
        tasks = Tasks()
        tasks.spawn(fail(LoadFailed("no")))
        tasks.spawn(fail(KeyError("oops")))
        await tasks.join()

    asyncio.run(main())
    (record,) = caplog.records
    assert "unexpected failure" == record.message
    assert isinstance(record.exc_info[1], KeyError)
