"""What a user of the official Python SDK does with the hub.

``download_client.py HOST:PORT`` prints one line of JSON with all that it saw.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import lmstudio

seen: dict[str, Any] = {}
with lmstudio.Client(sys.argv[1]) as client:
    found = client.repository.search_models("tiny", 5)
    options = found[0].get_download_options()
    seen["names"] = [model.search_result.name for model in found]
    seen["options"] = [
        [o.info.quantization, o.info.fit_estimation, bool(o.info.recommended)]
        for o in options
    ]
    updates: list[Any] = []
    finalizing: list[int] = []
    seen["key"] = options[0].download(updates.append, lambda: finalizing.append(1))
    seen["last"] = updates[-1].to_dict()
    seen["finalizing"] = len(finalizing)
    seen["downloaded"] = [m.model_key for m in client.list_downloaded_models()]
    seen["none"] = len(client.repository.search_models("nothing"))
    try:
        found[1].get_download_options()
    except lmstudio.LMStudioServerError as exc:
        seen["refused"] = str(exc)
print(json.dumps(seen))
