"""Downloads for ``/api/v1``: starts them, and says how far they are."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ..downloads import Downloads, Status
from ..hub import HubError
from ..service import Service
from .errors import RestError
from .exchange import Exchange
from .reading import body, read

#: What the states of a download are called here. Source: docs/wire/rest.md.
_STATES = {"finalizing": "downloading", "cancelled": "paused"}


@body(kw_only=True)
class _Download:
    model: str
    quantization: str | None = None


class Jobs:
    """Answers requests about downloads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def start(self, exchange: Exchange, given: dict[str, Any]) -> None:
        """Start a download that goes on when the client hangs up."""
        asked = read(given, _Download)
        downloads = self._downloads()
        job_id = await downloads.start(asked.model, asked.quantization)
        await exchange.reply(told(downloads.status(job_id)))

    async def status(self, exchange: Exchange, _: dict[str, Any]) -> None:
        """Say how far a download is."""
        name = exchange.params["id"]
        try:
            status = self._downloads().status(name)
        except HubError as exc:
            raise RestError(
                f"No download has the id {name[:100]!r}",
                status=404,
                code="job_not_found",
                param="job_id",
            ) from exc
        await exchange.reply(told(status))

    def _downloads(self) -> Downloads:
        found = self._service.downloads
        if found is None:
            raise RestError(
                "This server downloads no models", status=501, code="not_implemented"
            )
        return found


def told(status: Status) -> dict[str, Any]:
    """How far a download is, as it travels."""
    if status.was_there and status.state == "completed":
        return {"status": "already_downloaded"}
    state = _STATES.get(status.state, status.state)
    made: dict[str, Any] = {
        "job_id": status.job_id,
        "status": state,
        "downloaded_bytes": status.downloaded_bytes,
        "total_size_bytes": status.total_bytes,
        "started_at": _time(status.started_at),
    }
    if state == "downloading":
        made["bytes_per_second"] = status.bytes_per_second
        left = status.total_bytes - status.downloaded_bytes
        if status.bytes_per_second > 0:
            now = datetime.now(timezone.utc).timestamp()
            made["estimated_completion"] = _time(now + left / status.bytes_per_second)
    if state == "completed" and status.ended_at is not None:
        made["completed_at"] = _time(status.ended_at)
    if status.error is not None:
        made["error"] = {"message": str(status.error)}
    return made


def _time(seconds: float) -> str:
    """A time as ISO 8601 has it."""
    then = datetime.fromtimestamp(seconds, timezone.utc)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")
