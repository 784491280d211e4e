"""What a client adapter has to offer.

An adapter module defines a class `Adapter` with this base, and a list `IMPORTS` of the module names whose import cost is to be measured.  Prompts
are JSON texts that steer the mock server (see mock_server.py); pass them on as
one user message.
"""


class SyncAdapter:
    def open(self, host: str) -> None:
        """Create a client for HOST ("127.0.0.1:1234"); connecting may be lazy."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """One RPC round trip."""
        raise NotImplementedError

    def stream(self, prompt: str):
        """Start a streamed prediction: an iterable of fragments with .cancel()."""
        raise NotImplementedError

    def content(self, fragment) -> str:
        return fragment.content

    def respond(self, prompt: str) -> str:
        """A whole prediction without streaming; returns its text."""
        raise NotImplementedError
