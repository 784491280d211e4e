"""Official clients show images to a model of this server."""

from __future__ import annotations

import json

import pytest

from image_files import png, png_head
from interop.clients import embedded_server
from interop.conftest import MODEL, make_home
from lmstudio.server.gguf import read_header
from projector_file import TOKENS, write_projector


@pytest.fixture
def home(tmp_path, model_file):
    """A home whose model has a projector beside it."""
    made = make_home(tmp_path, model_file)
    width = read_header(model_file).integer("llama.embedding_length")
    write_projector(made / "models" / MODEL / "mmproj-F16.gguf", width)
    return made


def test_images(client, home):
    """Infos tell who sees, the answer follows the image, and a bomb is refused."""
    paths = {name: home / f"{name}.png" for name in ("red", "blue", "bomb")}
    paths["red"].write_bytes(png(32, 32, (255, 0, 0)))
    paths["blue"].write_bytes(png(32, 32, (0, 0, 255)))
    paths["bomb"].write_bytes(png_head(60_000, 60_000))
    order = ("red", "blue", "bomb", "red")
    with (
        embedded_server(home) as server,
        client.start("vision", server) as script,
    ):
        script.tell([str(paths[name]) for name in order])
        output, errors, code = script.rest()
    assert ("", 0) == (errors, code)
    lines = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
    info, red, blue, bomb, again, _ = lines

    assert {"step": "info", "downloaded": True, "loaded": True} == info
    assert red == again
    assert red["content"] != blue["content"] != ""
    assert red["prompt"] == blue["prompt"] > TOKENS
    assert "refused" == bomb["step"]
    assert "60000 x 60000 pixels" in bomb["text"]
