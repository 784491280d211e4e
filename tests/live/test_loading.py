"""Load settings do on the real engine what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lmstudio
from live.conftest import KEY

EMBEDDER = "text-embedding-all-minilm-l6-v2"


@pytest.fixture
def home(home: Path, embedder_file: Path) -> Path:
    """A home with both models."""
    target = home / "models" / "tests" / "minilm-GGUF" / "all-MiniLM-L6-v2.F16.gguf"
    target.parent.mkdir(parents=True)
    target.symlink_to(embedder_file)
    return home


def answer(model):
    """The likeliest next words."""
    return model.complete("1, 2, 3, 4, 5, 6,", temperature=0, max_tokens=8).content


@pytest.mark.parametrize(
    "options",
    [
        {"eval_batch_size": 64, "physical_batch_size": 32, "cpu_thread_pool_size": 2},
        {"flash_attention": False, "use_fp16_for_kv_cache": False},
        {
            "llama_k_cache_quantization_type": "q8_0",
            "llama_v_cache_quantization_type": "q8_0",
        },
        {"try_mmap": False, "offload_kv_cache_to_gpu": False, "gpu": "off"},
        {"try_direct_io": True, "context_checkpoints": 2, "seed": 3},
        {"gpu": {"ratio": 0.5, "main_gpu": 0, "split_strategy": "favorMainGpu"}},
        {"auto_fit": True, "num_experts": 2, "llama_cpp_arguments_override": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_settings(client, options):
    """A model counts on, however it was loaded."""
    model = client.llm.load(KEY, config={"context_length": 512, **options})
    assert answer(model).startswith(" 7, 8")
    assert 512 == model.get_context_length()
    model.unload()


@pytest.mark.parametrize("is_unified", [True, False])
def test_contexts_of_parallel_predictions(client, is_unified):
    """Each of them has the whole context that was asked for."""
    config = {
        "context_length": 512,
        "max_parallel_predictions": 2,
        "use_unified_kv_cache": is_unified,
    }
    model = client.llm.load(KEY, config=config)
    assert 512 == model.get_context_length()


def test_draft_model(client):
    """A model drafts for itself, and the answer is the same."""
    alone = answer(
        client.llm.load(KEY, identifier="alone", config={"context_length": 512})
    )
    config = {
        "context_length": 512,
        "speculative_draft_simple": True,
        "speculative_draft_model": KEY,
        "speculative_draft_max_tokens": 4,
    }
    assert alone == answer(client.llm.load(KEY, identifier="drafted", config=config))
    config["speculative_draft_model"] = EMBEDDER
    with pytest.raises(lmstudio.LMStudioModelNotFoundError, match="kind 'embedding'"):
        client.llm.load(KEY, config=config)


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line[:4] == "Rss:")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("context_length", [512, 2048, 8192])
def test_estimate(client, server, context_length):
    """What a load takes is known beforehand, to a fifth."""
    config = {"context_length": context_length}
    usage = client.llm.estimate_resources_usage(KEY, config=config)
    model = client.llm.load(KEY, config=config)
    model.complete("word " * 300, max_tokens=4).result(60)
    (child,) = server.children()

    assert usage.passes_guardrails
    assert pytest.approx(resident(child), rel=0.2) == usage.memory.total_bytes


def test_what_does_not_fit(client, server):
    """A context larger than any memory is refused at once; the error says what fits."""
    config = {"context_length": 2**28, "rope_frequency_scale": 0.001}
    with pytest.raises(lmstudio.LMStudioServerError, match="not enough") as caught:
        client.llm.load(KEY, config=config)
    assert "are available" in caught.value.cause
    assert "a context_length of at most" in caught.value.suggestion
    assert not client.llm.estimate_resources_usage(KEY, config=config).passes_guardrails
    assert [] == server.children()


def test_on_demand(client, server):
    """A model on demand makes the one before it go, of the other kind as well."""
    client.llm.load(KEY, identifier="kept", config={"context_length": 256})
    client.embedding.model(EMBEDDER)
    assert 2 == len(server.children())
    client.llm.model(KEY + "@q4_1")  # is there already
    client.llm.unload("kept")
    client.llm.model(KEY)
    assert [] == client.embedding.list_loaded()
    assert 1 == len(server.children())


def ports_of(pid: int) -> list[int]:
    """Where a process listens."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [
        line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
    ][1:]
    mine = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert all(address.startswith("0100007F:") for address in mine)  # loopback
    return [int(address.partition(":")[2], 16) for address in mine]


PROBE = """
import encodings.idna, http.client, os, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for request in sys.argv[2:]:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
    connection.request(*request.split(":"), body='{"content": "x", "prompt": "x"}')
    print(connection.getresponse().status)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="takes another user's id"
)
def test_other_users_are_kept_out(client, server):
    """Another user of the machine gets nothing from the child's port."""
    client.llm.load(KEY, config={"context_length": 256})
    (child,) = server.children()
    (port,) = ports_of(child)
    asked = ["POST:/completion", "POST:/v1/chat/completions", "POST:/tokenize"]
    asked += ["GET:/slots", "GET:/props", "GET:/models"]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(port), *asked],
        capture_output=True,
        text=True,
    )
    assert ["401"] * len(asked) == done.stdout.split(), done.stderr
    secrets = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    assert not any(len(word) == 64 for word in secrets)  # the key is not among them
