"""Using a non-default LM Studio server port: give it as the first argument."""

import sys

from lmstudio import LMStudioClient

port = sys.argv[1] if len(sys.argv) > 1 else "8080"
client = LMStudioClient(f"ws://127.0.0.1:{port}")

print(f"{client.api_host} has version {client.system.get_version()}")
# client.llm.load(...)
