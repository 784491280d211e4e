"""Many prompts: what the results are for type checkers."""

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
