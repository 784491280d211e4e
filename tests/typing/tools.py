"""Tools: functions, definitions, runs and their results."""

import threading
from collections.abc import Sequence

import lmstudio as lms
from lmstudio.testing import tool_call


def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def subtract(a: int, b: int = 1) -> int:
    return a - b


def guard(request: lms.ToolCallRequest) -> bool | str:
    return request.name == "add" or "not allowed"


def handle(
    error: lms.LMStudioPredictionError, request: lms.ToolCallRequest | None
) -> str | None:
    return None if request is None else str(error)


model = lms.llm()
other = lms.ToolFunctionDef.from_callable(add, name="plus", description="Sum")
parts = lms.ToolFunctionDef(
    name="sub",
    description="Subtract",
    parameters={"a": int, "b": {"type": int, "default": 1}},
    implementation=subtract,
)
raw = {"type": "function", "function": {"name": "now"}, "implementation": print}
chat = lms.Chat("Be short.")

run: lms.ActRun = model.act(
    chat,
    [add, other, parts, raw],
    max_prediction_rounds=3,
    max_parallel_tool_calls=None,
    config={"temperature": 0.2},
    on_message=chat.append,
    on_first_token=print,
    on_prediction_fragment=lambda fragment, index: print(fragment.content, index),
    on_round_start=lambda index: print(index + 1),
    on_prediction_completed=lambda result: print(result.round_index),
    handle_invalid_tool_request=handle,
    guard_tool_call=guard,
    timeout=60,
    signal=threading.Event(),
    tool_choice="auto",
)
rounds: int = run.rounds
seconds: float = run.total_time_seconds
result: lms.ActResult = run.result(timeout=1.5)
calls: Sequence[lms.ToolCall] = result.calls
text: str = result.content + str(calls[0].content)

with model.act("1 + 2?", [add], wait=False) as running:
    for piece in running:
        number: int = piece.round_index + piece.tokens_count
    for event in running.events():
        if isinstance(event, lms.ToolCall):
            print(event.name, event.value, event.error)

for request in model.respond("1 + 2?", tools=[add], on_tool_call=print).tool_calls:
    print(request.name, request.arguments)

packet = tool_call("add", {"a": 1})

model.act("?", [add], on_fragment=lambda fragment, index: print(fragment, index))
model.act("?", [add], max_tokens=5, input_prefix="> ")
model.act("?", [add], temprature=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
model.act("?", [add], temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
model.act("?", [add], response_format=int)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
