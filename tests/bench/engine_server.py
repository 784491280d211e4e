"""The embedded server with a real model, which also says how to ask its engine.

    PYTHON engine_server.py MODEL_FILE

Prints two JSON lines: where the server is, and, once a model is loaded, where the
engine's own HTTP server is. Ends with its standard input.
"""

import json
import sys
import threading
from pathlib import Path

from lmstudio.server import serve
from lmstudio.server.engines import llama_cpp

_child_config = llama_cpp.child_config


class Telling(llama_cpp.LlamaCppEngine):
    """The engine; it prints the address and the key of each child."""

    def __init__(self) -> None:
        super().__init__()
        llama_cpp.child_config = self._config
        self._keys = []

    def _config(self, model, settings, key, *more):
        self._keys.append(key)
        return _child_config(model, settings, key, *more)

    async def _ready(self, child, loading):
        port, layers = await super()._ready(child, loading)
        print(json.dumps({"port": port, "key": self._keys[-1]}), flush=True)
        return port, layers


def main() -> None:
    model = Path(sys.argv[1]).resolve()
    with serve(port=0, models_dir=model.parents[2], engine=Telling()) as server:
        print(json.dumps({"url": server.url}), flush=True)
        ended = threading.Event()
        threading.Thread(
            target=lambda: (sys.stdin.read(), ended.set()), daemon=True
        ).start()
        ended.wait()


if __name__ == "__main__":
    main()
