"""A service on a scripted engine, and sockets of it that are queues."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json

import attrs

from lmstudio.server.peer import Peer
from lmstudio.server.service import Service
from lmstudio.testing.engine import (
    ScriptedEngine,
    ScriptedModels,
    Scripts,
    prediction_of,
    scripted_model,
)
from lmstudio.testing.script import Reply
from rawclient import prediction

AUTH = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "key"}
STACK = {"layers": []}


class Socket:
    """A peer without a socket: what it sends is a queue."""

    def __init__(self, service, namespace="llm", **options):
        self.sent = asyncio.Queue()
        self.is_closed = False
        self.numbers = 0
        self.peer = Peer(namespace, service, self.put, self.close, **options)
        self.peer.start()

    async def put(self, text):
        self.sent.put_nowait(json.loads(text))

    async def close(self):
        self.is_closed = True

    async def say(self, message):
        await self.peer.receive(json.dumps(message))

    async def authenticate(self, **fields):
        await self.say(AUTH | fields)
        return await self.sent.get()

    async def call(self, endpoint, *parameter):
        self.numbers += 1
        message = {"type": "rpcCall", "endpoint": endpoint, "callId": self.numbers}
        await self.say(message | dict(zip(["parameter"], parameter, strict=False)))
        answer = await self.sent.get()
        assert self.numbers == answer["callId"]
        return answer

    async def open(self, endpoint, *parameter):
        self.numbers += 1
        message = {"type": "channelCreate", "endpoint": endpoint}
        message["channelId"] = self.numbers
        parameter = dict(zip(["creationParameter"], parameter, strict=False))
        await self.say(message | parameter)
        return self.numbers

    async def cancel(self, number):
        message = {"type": "cancel"}
        await self.say({"type": "channelSend", "channelId": number, "message": message})

    async def packets(self, number):
        """All packets up to the end, and the end."""
        got = []
        while True:
            message = await self.sent.get()
            assert number == message["channelId"]
            if message["type"] != "channelSend":
                return [*got, message]
            got.append(message["message"])

    async def predict(self, text="hi", *fields, **more):
        number = await self.open("predict", prediction(text, *fields) | more)
        return await self.packets(number)

    async def load(self, **fields):
        parameter = {"modelKey": "any", "loadConfigStack": STACK, **fields}
        return await self.packets(await self.open("loadModel", parameter))


class Bench:
    """A service on a scripted engine, and one authenticated socket of it."""

    def __init__(self):
        self.scripts = Scripts()
        self.engine = ScriptedEngine(self.scripts)
        keys = ("any", "other", "text-embed")
        self.models = ScriptedModels([scripted_model(key) for key in keys])
        self.service = Service(
            self.models,
            self.engine,
            predict=self._predict,
            control_tokens_of=lambda _: (),
        )
        self.socket = Socket(self.service)
        self.sockets = [self.socket]

    async def _predict(self, instance, *, history, raw_prompt, config, files):
        return prediction_of(instance, self.scripts, history, raw_prompt, config)

    async def another(self, namespace="llm", **fields):
        socket = Socket(self.service, namespace)
        self.sockets.append(socket)
        assert {"success": True} == await socket.authenticate(**fields)
        return socket

    def add_variant(self, key, quantization):
        """Another file of a model is on the disk."""
        models = self.models.models
        first = next(model for model in models if model.key == key)
        path = first.relative_path.replace("Q4_K_M", quantization.upper())
        variants = (first.variant, f"{key}@{quantization}")
        models[models.index(first)] = attrs.evolve(first, variants=variants)
        models.append(
            attrs.evolve(
                first, relative_path=path, variant=variants[1], variants=variants
            )
        )

    def loaded(self):
        return [i.identifier for i in self.service.registry.loaded("llm")]

    def reply(self, *steps, **fields):
        self.scripts.add_reply(Reply(steps, **fields))


def on_a_bench(test):
    """Run a coroutine function with a bench, and end everything after it."""

    @functools.wraps(test)
    def run(**arguments):
        async def main():
            bench = Bench()
            assert {"success": True} == await bench.socket.authenticate()
            try:
                await asyncio.wait_for(test(bench, **arguments), 10)
            finally:
                for socket in bench.sockets:
                    await socket.peer.ended()
                await bench.service.close()
            assert 0 == len(bench.service.clients)

        asyncio.run(main())

    signature = inspect.signature(test)
    rest = [p for name, p in signature.parameters.items() if name != "bench"]
    run.__signature__ = signature.replace(parameters=rest)
    return run


async def reached(gate):
    """Wait until a request has come to a gate."""
    while not gate.reached.is_set():
        await asyncio.sleep(0)


def code_of(message):
    error = message["error"]
    return (error.get("displayData") or error.get("errorData") or {}).get("code")
