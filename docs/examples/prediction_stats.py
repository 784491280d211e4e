"""Getting prediction stats."""

import time

from lmstudio import LMStudioClient

client = LMStudioClient()
model = client.llm.load("smollm2-135m-instruct")

prediction = model.complete("The meaning of life is", max_tokens=20)
for text in prediction:
    print(text, end="", flush=True)
print()

# No extra waiting: what was streamed is kept.
begin = time.monotonic()
stats = prediction.result().stats
print(f"after {time.monotonic() - begin:.1f} s more:", stats.stop_reason)
print(f"{stats.predicted_tokens_count} tokens, {stats.tokens_per_second:.0f} a second,")
print(f"the first after {stats.time_to_first_token_sec * 1000:.0f} ms")

# If you only care about the final result, you need not iterate.
result = model.complete("The meaning of life is", max_tokens=5).result()
content, stats = result.content, result.stats

# Or just:
print(model.complete("The meaning of life is", max_tokens=5).stats.stop_reason)
