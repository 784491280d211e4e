"""Models of the ``embedding`` namespace."""

from __future__ import annotations

from .common import ModelSpecifier
from .model import model


@model(kw_only=True)
class EmbedString:
    """Parameter of ``embedString``.

    Source: docs/wire/endpoints.md.
    """

    model_specifier: ModelSpecifier
    input_string: str


@model(kw_only=True)
class Embedding:
    """Reply of ``embedString``: one float per dimension of the model."""

    embedding: list[float]
