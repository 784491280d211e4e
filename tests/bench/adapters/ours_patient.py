"""This project's client, with limits for a server that falls silent."""

IMPORTS = ["lmstudio"]

from adapters import ours

#: Seconds of silence that are too many.
IDLE = 3.0


class Adapter(ours.Adapter):
    def open(self, host):
        import lmstudio

        self.client = lmstudio.LMStudioClient(host, idle_timeout=IDLE)
        self.model = self.client.llm.get("mock-1b")

    def stream(self, prompt):
        messages = [{"role": "user", "content": prompt}]
        return self.model.respond(messages, idle_timeout=IDLE)
