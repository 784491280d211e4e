"""What the tests of predictions have in common."""

from __future__ import annotations

import concurrent.futures
import threading

import lmstudio
from scripts import is_cancel


def cancels(fake):
    return [seen for seen in fake.requests if is_cancel(seen)]


def channel_of(fake):
    """The number of the first prediction's channel."""
    return fake.wait_for_call("predict").message["channelId"]


def send(fake, body):
    number = channel_of(fake)
    fake.send("llm", {"type": "channelSend", "channelId": number, "message": body})


def close(fake):
    fake.send("llm", {"type": "channelClose", "channelId": channel_of(fake)})


def in_threads(count, work):
    """Do the same in threads that start together; the results, or exceptions."""
    together = threading.Barrier(count)

    def run():
        together.wait()
        return work()

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [
            done.exception() or done.result()
            for done in concurrent.futures.wait(
                [pool.submit(run) for _ in range(count)]
            ).done
        ]


def waits(waitable, name):
    """An event that is set when a method that waits is called next."""
    begun, real = threading.Event(), getattr(waitable, name)

    def wait(*arguments):
        begun.set()
        return real(*arguments)

    setattr(waitable, name, wait)
    return begun


def until_error(prediction):
    texts = iter(prediction)
    while True:
        try:
            yield next(texts)
        except lmstudio.LMStudioError:
            return
