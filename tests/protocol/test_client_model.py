"""Whatever is opened, answered and forgotten in whatever order: as a simple model says.

The model keeps one list of open requests and looks at one message after the other.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lmstudio.protocol.client import ClientProtocol, End

pytestmark = pytest.mark.slow

ENDPOINTS = ("predict", "countTokens", "version")
#: Type of a message: its number's field, its body's field, whom it ends, and how.
ENDS = {
    "rpcResult": ("callId", "result", "rpc", "result"),
    "rpcError": ("callId", "error", "rpc", "error"),
    "channelClose": ("channelId", None, "channel", "closed"),
    "channelError": ("channelId", "error", "channel", "error"),
}
numbers = st.integers(-1, 12) | st.just("1") | st.none() | st.just([1])
bodies = st.none() | st.integers() | st.text(max_size=3)
names = st.sampled_from(ENDPOINTS)


def messages():
    """Messages of every kind, and what is none."""
    packets = st.builds(
        lambda n, body: {"type": "channelSend", "channelId": n, "message": body},
        *(numbers, bodies),
    )
    ends = st.builds(
        lambda kind, n, body: {
            "type": kind,
            ENDS[kind][0]: n,
            **({ENDS[kind][1]: body} if ENDS[kind][1] else {}),
        },
        *(st.sampled_from(sorted(ENDS)), numbers, bodies),
    )
    warnings = st.builds(
        lambda kind, text: {
            "type": "communicationWarning",
            "warning": text,
            **({"kind": kind} if kind else {}),
        },
        st.sampled_from([None, "channelUnknown", "rpcUnknown", "other"]),
        st.sampled_from(["Beware."])
        | names.map(lambda name: f"unknown endpoint = '{name}'")
        | names.map(lambda name: f'bad parameter, endpointName = "{name}"'),
    )
    odd = st.sampled_from(
        [None, 7, "text", [], {}, {"type": "channelSend"}, {"type": None}, {"type": []}]
    )
    return packets | packets | ends | warnings | odd


class Model(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.protocol = ClientProtocol()
        self.last = 0
        self.open = {}  # number -> (kind, endpoint), in the order of opening

    @rule(kind=st.sampled_from(["rpc", "channel"]), name=names, parameter=bodies)
    def opens(self, kind, name, parameter):
        number, message = self.protocol.open(kind, name, parameter)
        self.last += 1
        self.open[number] = (kind, name)
        rpc = kind == "rpc"
        expected = {
            "endpoint": name,
            "type": "rpcCall" if rpc else "channelCreate",
            "callId" if rpc else "channelId": self.last,
        }
        if parameter is not None:
            expected["parameter" if rpc else "creationParameter"] = parameter
        assert (self.last, expected) == (number, message)

    @rule(number=st.integers(0, 12))
    def forgets(self, number):
        self.protocol.forget(number)
        self.open.pop(number, None)

    @rule(number=st.integers(0, 12), body=bodies)
    def sends(self, number, body):
        is_open = self.open.get(number, ("", ""))[0] == "channel"
        message = {"type": "channelSend", "channelId": number, "message": body}
        assert (message if is_open else None) == self.protocol.packet(number, body)

    @rule(several=st.lists(messages(), max_size=8))
    def receives(self, several):
        got, strays, complaints, ended = {}, [], [], []
        for message in several:
            self.one(message, got, strays, complaints, ended)
        received = self.protocol.receive(several)
        assert got == received.batches
        assert ended == received.ended
        assert (strays, complaints) == (received.strays, received.complaints)

    def one(self, message, got, strays, complaints, ended):
        """What one message means."""

        def end(number, how, body=None):
            del self.open[number]
            got.setdefault(number, []).append(End(how, body))
            ended.append(number)

        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "communicationWarning":
            text = message["warning"]
            if message.get("kind") in ("channelUnknown", "rpcUnknown"):
                strays.append(message)
                return
            rpcs_first = sorted(self.open, key=lambda n: self.open[n][0] != "rpc")
            same = [n for n in rpcs_first if f"{self.open[n][1]}" in text]
            if not same or ("endpointName" in text and len(same) > 1):
                complaints.append(text)
                return
            for number in same:
                end(number, "refused", text)
            return
        field, body, of, how = "channelId", "message", "channel", None
        if isinstance(kind, str) and kind in ENDS:
            field, body, of, how = ENDS[kind]
        elif kind != "channelSend":
            strays.append(message)
            return
        number = message.get(field)
        is_number = isinstance(number, int) and number in self.open
        if not is_number or self.open[number][0] != of:
            strays.append(message)
        elif how is None:
            got.setdefault(number, []).append(message[body])
        else:
            end(number, how, message[body] if body else None)

    @rule(reason=st.text(max_size=3))
    def loses(self, reason):
        lost = {number: End("lost", reason) for number in self.open}
        assert lost == self.protocol.end(reason)
        self.open.clear()

    @invariant()
    def counts(self):
        assert len(self.open) == self.protocol.open_requests


TestClient = Model.TestCase
TestClient.__doc__ = "The protocol and the model agree after any steps."
TestClient.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
