"""This project's client. Run with the interpreter of an environment that has it."""

# Not `lmstudio` alone, which imports its names when they are used.
IMPORTS = ["lmstudio.client"]

from adapters.base import SyncAdapter


class Adapter(SyncAdapter):
    def open(self, host):
        import lmstudio

        self.client = lmstudio.LMStudioClient(host)
        self.model = self.client.llm.get("mock-1b")

    def close(self):
        self.client.close()

    def count_tokens(self, text):
        return self.model.count_tokens(text)

    def stream(self, prompt):
        return self.model.respond([{"role": "user", "content": prompt}])

    def content(self, fragment):
        return fragment

    def respond(self, prompt):
        return (
            self.model.respond([{"role": "user", "content": prompt}]).result().content
        )
