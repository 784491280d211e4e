"""The items of a response, and the events that tell of them as they grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import shapes
from .answers import Call, Change, new_id

Event = dict[str, Any]


class Items:
    """Makes the output of a response out of what a prediction says.

    Args:
        candidates: Candidates to report with each token; None for no report.

    Attributes:
        output: The items so far.
    """

    def __init__(self, candidates: int | None = None) -> None:
        self.output: list[dict[str, Any]] = []
        self._candidates = candidates
        self._texts: list[str] = []  # of the item that is open
        self._logprobs: list[dict[str, Any]] = []
        self._open: str | None = None  # "message" or "reasoning"

    def take(self, change: Change) -> Iterator[Event]:
        """The events for what came in."""
        if change.call is not None:
            yield from self.close()
            yield from self._called(change.call)
        elif change.reasoning:
            yield from self._enter("reasoning")
            yield self._delta("reasoning_text", change.reasoning)
        elif change.text:
            yield from self._enter("message")
            event = self._delta("output_text", change.text)
            reported = self._reported(change)
            self._logprobs += reported
            yield {**event, "logprobs": reported}

    def close(self, status: str = "completed") -> Iterator[Event]:
        """End the item that is open, if there is one."""
        if self._open is None:
            return
        text = "".join(self._texts)
        item, part = self.output[-1], self._part(text)
        item["content"], item["status"] = [part], status
        done = f"response.{part['type']}.done"
        if self._open == "message":
            part["logprobs"] = self._logprobs
            yield self._event(done, text=text, logprobs=self._logprobs)
        else:
            yield self._event(done, text=text)
        yield self._event("response.content_part.done", part=part)
        yield self._item_event("response.output_item.done")
        self._open, self._texts, self._logprobs = None, [], []

    def _enter(self, kind: str) -> Iterator[Event]:
        if self._open == kind:
            return
        yield from self.close()
        self._open = kind
        made: dict[str, Any] = {"type": kind, "status": "in_progress", "content": []}
        if kind == "message":
            made |= {"id": new_id("msg_"), "role": "assistant"}
        else:
            made |= {"id": new_id("rs_"), "summary": []}
        self.output.append(made)
        yield self._item_event("response.output_item.added")
        yield self._event("response.content_part.added", part=self._part(""))

    def _called(self, call: Call) -> Iterator[Event]:
        """A call comes as a whole: its pieces need not be JSON."""
        item = {
            "type": "function_call",
            "id": new_id("fc_"),
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        self.output.append(item)
        yield self._item_event("response.output_item.added")
        about = {"item_id": item["id"], "output_index": len(self.output) - 1}
        name = "response.function_call_arguments"
        yield {"type": f"{name}.delta", **about, "delta": call.text}
        item["arguments"], item["status"] = call.text, "completed"
        yield {
            "type": f"{name}.done",
            **about,
            "name": call.name,
            "arguments": call.text,
        }
        yield self._item_event("response.output_item.done")

    def _delta(self, kind: str, text: str) -> Event:
        self._texts.append(text)
        return self._event(f"response.{kind}.delta", delta=text)

    def _part(self, text: str) -> dict[str, Any]:
        if self._open == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": [],
        }

    def _event(self, name: str, **fields: Any) -> Event:
        """An event about the part that is open."""
        return {
            "type": name,
            "item_id": self.output[-1]["id"],
            "output_index": len(self.output) - 1,
            "content_index": 0,
            **fields,
        }

    def _item_event(self, name: str) -> Event:
        index = len(self.output) - 1
        return {"type": name, "output_index": index, "item": dict(self.output[-1])}

    def _reported(self, change: Change) -> list[dict[str, Any]]:
        if self._candidates is None or not change.logprobs:
            return []
        made = shapes.chat_logprobs(change.logprobs, self._candidates)["content"]
        found: list[dict[str, Any]] = made
        return found
