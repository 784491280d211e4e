"""Vectors of texts."""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any

from ...errors import shown
from ...wire.common import ModelSpecifier
from ...wire.embedding import EmbedString
from ..calls import CALLS
from ..engine import longest_embedded
from ..instances import Instance
from ..service import Service
from .errors import wrong
from .exchange import Exchange
from .reading import body, choose, read, refuse, text
from .running import Run, Wanted, each

#: Most texts in one request.
MOST_TEXTS = 2048
_REFUSED = {"dimensions": "Leave it out: the model's own number of them is used"}


@body(kw_only=True)
class _Asked:
    model: str
    input: Any
    encoding_format: str = "float"
    ttl: float | None = None


class Embeddings:
    """Answers requests for vectors."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def embed(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Answer one request."""
        asked = read(given, _Asked)
        form = choose(asked.encoding_format, ("float", "base64"), "encoding_format")
        refuse(given, _REFUSED)
        texts = _texts(asked.input)
        run = Run(self._service, "embedding")
        instance = await run.obtain(Wanted(name=asked.model, ttl=asked.ttl))
        with self._service.registry.use(instance):
            works = [functools.partial(_vector, run, instance, one) for one in texts]
            made = await each(works)
        tokens = sum(count for _, count in made)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if form == "base64" else vector,
            }
            for index, (vector, _) in enumerate(made)
        ]
        await exchange.reply(
            {
                "object": "list",
                "data": data,
                "model": instance.identifier,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


async def _vector(run: Run, instance: Instance, one: str) -> tuple[list[float], int]:
    """The vector of a text, and the tokens that it was made of."""
    specifier = ModelSpecifier(
        type="instanceReference", instance_reference=instance.reference
    )
    asked = EmbedString(model_specifier=specifier, input_string=one)
    reply = await CALLS["embedding", "embedString"](run.context, asked)
    tokens = await instance.model.tokenize(one, add_special=True)
    # Of a longer text the rest was left out.
    longest = longest_embedded(instance.file, instance.settings)
    return reply.embedding, min(len(tokens), longest)


def _texts(value: Any) -> list[str]:
    """The texts of a request.

    Raises:
        RestError: They are token ids, or something else.
    """
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_TEXTS:
        right = f"a text, or a list of 1 to {MOST_TEXTS} texts"
        what = f"{len(given)} of them" if isinstance(given, list) else shown(value)
        raise wrong("input", right, what)
    for index, one in enumerate(given):
        at = "input" if isinstance(value, str) else f"input[{index}]"
        if isinstance(one, (int, list)):
            raise wrong(at, "a text: this server takes no token ids", shown(one))
        if not text(one, at):
            raise wrong(at, "a text with at least one character", "''")
    return given


def _packed(vector: list[float]) -> str:
    """Base64 of little-endian floats of 32 bits, as the `openai` package reads them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
