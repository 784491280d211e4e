"""Issue 5: 64 threads on one client from the first call.

There is one socket per namespace, and all answers are right.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lmstudio import LMStudioClient
from lmstudio.testing import FakeServer
from tcp_proxy import Proxy, join, split

THREADS = 64
PATIENCE = 30.0


@pytest.mark.slow
@pytest.mark.parametrize("harm", [None, split(1), split(7), join(3)])
def test_from_the_first_call(harm):
    """Calls, predictions and embeddings that all begin at once, however they travel."""
    models = ["any", "some-embed"]
    with FakeServer(models, loaded=models) as fake, Proxy(fake.port) as proxy:
        for path in ("/llm", "/embedding", "/system"):
            if harm is not None:
                proxy.plan("down", 2, harm, path=path)
        together = threading.Barrier(THREADS)
        with LMStudioClient(proxy.host) as client:

            def work(number):
                together.wait(PATIENCE)
                model, text = client.llm.get("any"), f"text {number}"
                return (
                    model.count_tokens(" ".join(["word"] * number)),
                    model.respond(text).content,
                    [model.tokenize(text) == model.tokenize(text)],
                    client.embedding.get("some-embed").embed(text),
                    len(client.system.list_downloaded_models()),
                    "".join(model.complete(text)),
                )

            with ThreadPoolExecutor(THREADS) as pool:
                got = list(pool.map(work, range(THREADS)))

            embedder = client.embedding.get("some-embed")
            for number, answer in enumerate(got):
                text = f"text {number}"
                assert answer == (number, text, [True], embedder.embed(text), 2, text)
        paths = sorted(link.path for link in proxy.links)
        assert ["/embedding", "/llm", "/system"] == [
            path for path in paths if path != "/lmstudio-greeting"
        ]
