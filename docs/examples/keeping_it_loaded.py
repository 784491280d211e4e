"""Loading a model and keeping it loaded after the client has ended (daemon mode).

By default all models that a client has loaded are unloaded when it ends. With `no_hup`
they stay.
"""

import subprocess
import sys
import time

from lmstudio import LMStudioClient

MODEL = "smollm2-135m-instruct"


def loaded(client):
    return [model.identifier for model in client.llm.list_loaded()]


with LMStudioClient() as first:
    first.llm.load(MODEL, identifier="stays", no_hup=True)
    first.llm.load(MODEL, identifier="goes")
    print("while the client is there:", loaded(first))

client = LMStudioClient()
print("after it was closed:", loaded(client))
client.llm.unload("stays")

# The embedded server does the same for a client that is killed. (The application can't
# know of it: there the model stays, unless it was loaded with a `ttl`.)
PROGRAM = f"""
import os, signal
from lmstudio import LMStudioClient

client = LMStudioClient()
client.llm.load({MODEL!r}, identifier="stays", no_hup=True)
client.llm.load({MODEL!r}, identifier="goes")
os.kill(os.getpid(), signal.SIGTERM)
"""
subprocess.run([sys.executable, "-c", PROGRAM])
while "goes" in loaded(client):  # it takes the server a moment to notice
    time.sleep(0.05)
print("after it was killed:", loaded(client))
client.llm.unload("stays")
