"""Predictions as futures, iterators and context managers."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import lmstudio as lms

with lms.LMStudioClient("localhost:1234", timeout=60.0, idle_timeout=None) as client:
    model = client.llm.model("key", ttl=None, on_load_progress=print)
    address: str = client.address
    closed: bool = client.is_closed


def count(fragment: lms.Fragment) -> int:
    return fragment.tokens_count


predictions: list[lms.Prediction[Any]] = [
    model.respond(
        [("user", "Hi")],
        on_first_token=lambda: print("first"),
        on_fragment=count,
        on_prompt_progress=lambda share: None,
        timeout=10,
        idle_timeout=5.5,
        signal=threading.Event(),
        temperature=0.2,
    )
    for _ in range(2)
]
done, left = concurrent.futures.wait(predictions, timeout=1)
for finished in concurrent.futures.as_completed(predictions):
    answer: lms.PredictionResult[Any] = finished.result()
    text: str = answer.content


def tell(future: concurrent.futures.Future[lms.PredictionResult[Any]]) -> None:
    print(future.result().stats.tokens_per_second)


predictions[0].add_done_callback(tell)
failure: lms.LMStudioError | None = predictions[0].exception(timeout=1)


async def ask() -> str:
    result = await asyncio.wrap_future(model.respond("Hi"))
    return result.content


with model.respond("Write a long story.") as prediction:
    for piece in prediction:
        if "dragon" in piece:
            break

try:
    prediction.result(timeout=0.5)
except TimeoutError:
    pass
except lms.LMStudioWebsocketError as error:
    partial: str = error.partial
except lms.LMStudioModelCrashedError as error:
    title: str = error.title
