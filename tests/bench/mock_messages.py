"""The messages of the mock server, encoded as frames."""

from __future__ import annotations

import json
import struct
import time

MODEL_INFO = {
    "type": "llm",
    "modelKey": "mock-1b",
    "format": "gguf",
    "displayName": "Mock 1B",
    "publisher": "bench",
    "path": "bench/mock-1b/mock-1b-Q4_K_M.gguf",
    "sizeBytes": 807694464,
    "indexedModelIdentifier": "bench/mock-1b/mock-1b-Q4_K_M.gguf",
    "deviceIdentifier": None,
    "paramsString": "1B",
    "architecture": "llama",
    "quantization": {"name": "Q4_K_M", "bits": 4},
    "identifier": "mock-1b",
    "instanceReference": "A1b2C3d4E5f6G7h8I9j0K1l2",
    "ttlMs": None,
    "lastUsedTime": 1700000000000,
    "vision": False,
    "trainedForToolUse": False,
    "maxContextLength": 131072,
    "contextLength": 4096,
}
TOKENS = [
    " the",
    " of",
    " a",
    " model",
    ",",
    "\n",
    ' "quoted"',
    " caf\u00e9",
    " is",
    " to",
    " and",
    ".",
    " performance",
    " \u65e5\u672c",
    " {",
    " x1",
]
LOAD_CONFIG = {"fields": [{"key": "llm.load.contextLength", "value": 4096}]}
PREDICTION_CONFIG = {
    "fields": [
        {"key": "llm.prediction.temperature", "value": 0.8},
        {"key": "llm.prediction.topKSampling", "value": 40},
        {
            "key": "llm.prediction.topPSampling",
            "value": {"checked": True, "value": 0.95},
        },
        {
            "key": "llm.prediction.maxPredictedTokens",
            "value": {"checked": False, "value": 1},
        },
    ]
}


def dumps(obj) -> bytes:
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


def frame(payload: bytes, opcode: int = 1) -> bytes:
    n = len(payload)
    if n < 126:
        return bytes((0x80 | opcode, n)) + payload
    if n < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, n) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, n) + payload


def fragment_frame(channel: int, content: str) -> bytes:
    return frame(
        dumps(
            {
                "type": "channelSend",
                "channelId": channel,
                "message": {
                    "type": "fragment",
                    "fragment": {
                        "content": content,
                        "tokensCount": 1,
                        "containsDrafted": False,
                        "reasoningType": "none",
                        "isStructural": False,
                    },
                },
            }
        )
    )


def success_frames(channel: int, sent: int, reason: str, started: float) -> bytes:
    total = max(time.monotonic() - started, 1e-9)
    return frame(
        dumps(
            {
                "type": "channelSend",
                "channelId": channel,
                "message": {
                    "type": "success",
                    "stats": {
                        "stopReason": reason,
                        "tokensPerSecond": sent / total,
                        "numGpuLayers": 0.0,
                        "timeToFirstTokenSec": 0.001,
                        "totalTimeSec": total,
                        "promptTokensCount": 10,
                        "predictedTokensCount": sent,
                        "totalTokensCount": sent + 10,
                    },
                    "modelInfo": MODEL_INFO,
                    "loadModelConfig": LOAD_CONFIG,
                    "predictionConfig": PREDICTION_CONFIG,
                },
            }
        )
    ) + frame(dumps({"type": "channelClose", "channelId": channel}))
