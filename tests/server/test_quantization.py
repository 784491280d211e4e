"""Quantizations are read off file names and told in bits."""

from __future__ import annotations

import pytest

from lmstudio.server.quantization import FILE_TYPES, bits_of, split_suffix


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", ("SmolLM2-135M-Instruct", "q4_1", "Q4_1")),
        ("llama-3.2-1b-instruct-q4_k_m", ("llama-3.2-1b-instruct", "q4_k_m", "Q4_K_M")),
        ("Qwen3-4B-UD-Q4_K_XL", ("Qwen3-4B", "ud-q4_k_xl", "Q4_K_XL")),
        ("Phi.i1-IQ3_XXS", ("Phi", "i1-iq3_xxs", "IQ3_XXS")),
        ("x_Q6_K", ("x", "q6_k", "Q6_K")),
        ("x-Q4_0_4_4", ("x", "q4_0_4_4", "Q4_0_4_4")),
        ("x-fp16", ("x", "fp16", "F16")),
        ("x.BF16", ("x", "bf16", "BF16")),
        ("x-TQ1_0", ("x", "tq1_0", "TQ1_0")),
        ("gpt-oss-MXFP4", ("gpt-oss", "mxfp4", "MXFP4")),
        ("Q8_0", ("", "q8_0", "Q8_0")),
        ("Q4_0-model", ("Q4_0-model", "", "")),
        ("xQ4_0", ("xQ4_0", "", "")),
        ("model-Q4", ("model-Q4", "", "")),
        ("plain", ("plain", "", "")),
        ("", ("", "", "")),
    ],
)
def test_suffixes(stem: str, expected: tuple[str, str, str]) -> None:
    """A quantization at the end of a name is taken off, whatever its spelling."""
    assert expected == split_suffix(stem)


@pytest.mark.parametrize("name", sorted(set(FILE_TYPES.values())))
def test_every_file_type(name: str) -> None:
    """What a header names is found in file names too, and has bits."""
    assert ("m", name.lower(), name) == split_suffix(f"m-{name}")
    assert bits_of(name) in (1, 2, 3, 4, 5, 6, 8, 16, 32)


def test_no_bits() -> None:
    """A name that tells no bits has none."""
    assert bits_of("") is None
    assert bits_of("odd") is None
