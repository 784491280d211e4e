"""The `lmstudio` distribution from PyPI, sync API."""

IMPORTS = ["lmstudio"]

from adapters.base import SyncAdapter


class Adapter(SyncAdapter):
    def open(self, host):
        import lmstudio

        self.client = lmstudio.Client(host)
        self.model = self.client.llm._create_handle("mock-1b")

    def close(self):
        self.client.close()

    def count_tokens(self, text):
        return self.model.count_tokens(text)

    def stream(self, prompt):
        return self.model.respond_stream(prompt)

    def respond(self, prompt):
        return self.model.complete(prompt).content
