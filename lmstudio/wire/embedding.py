"""Models of the ``embedding`` namespace."""

from __future__ import annotations

import attrs

from .common import ModelSpecifier


@attrs.frozen(kw_only=True)
class EmbedString:
    """Parameter of ``embedString``.

    Source: docs/wire/endpoints.md.
    """

    model_specifier: ModelSpecifier
    input_string: str


@attrs.frozen(kw_only=True)
class Embedding:
    """Reply of ``embedString``: one float per dimension of the model."""

    embedding: list[float]
