"""Inference engines, as `lmstudio.server.engine` describes them."""
