"""Many prompts: what the results are for type checkers."""

from typing_extensions import assert_type

import lmstudio as lms

model = lms.llm("key")
texts: list[str] = [result.content for result in model.map(["a", "b"], workers=2)]
numbers: list[int] = [r.parsed for r in model.map(["a"], response_format=int)]
with model.map(("a",), complete=True, temperature=0.5, progress=print) as batch:
    first: lms.PredictionResult[str] = next(batch)
for outcome in model.map(["a"], on_error="return"):
    if isinstance(outcome, lms.LMStudioError):
        which: int | None = outcome.index
    else:
        text: str = outcome.parsed

lists = model.map(["a"], response_format=list[int], on_error="return")
assert_type(lists, lms.Batch[lms.PredictionResult[list[int]] | lms.LMStudioError])
assert_type(next(model.map(["a"], structured=int)).parsed, int)
print(model.map(["a"], {"temperature": 0}))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
print(model.map(["a"], temprature=0))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
print(model.map(["a"], temperature="hot"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
print(model.map(["a"], response_format=int, seed="x"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
