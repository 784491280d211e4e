"""Plain HTTP for programs that speak OpenAI's protocol, or LM Studio's own."""

from __future__ import annotations

from .routes import Rest

__all__ = ["Rest"]
