"""The record of the last run: how it went, for other tools and for monitoring."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from jens import statefile
from jens.layout import Layout
from jens.statefile import LAST_RUN, StateError


class LastRun(NamedTuple):
    """``begin`` in seconds since the epoch, the ``seconds`` that it took, its exit ``status``, and its ``failures``."""

    begin: float
    seconds: float
    status: int
    failures: tuple[str, ...]

    def encode(self) -> dict[str, Any]:
        """The record as it is written to disk; the time is UTC, in ISO 8601."""
        return {
            "began": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(self.begin)),
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "failed": list(self.failures),
        }


def save(layout: Layout, last_run: LastRun) -> None:
    """Save the record of the last run. Raises OSError."""
    statefile.save(layout, LAST_RUN, last_run.encode())


def load(layout: Layout) -> LastRun | None:
    """The record of the last run; None when the file is missing or unusable."""
    try:
        return _decode(statefile.load(layout, LAST_RUN))
    except (StateError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _decode(content: Any) -> LastRun:
    from datetime import datetime  # noqa: PLC0415 - only readers need it

    return LastRun(
        begin=datetime.fromisoformat(content["began"]).timestamp(),
        seconds=float(content["seconds"]),
        status=int(content["status"]),
        failures=tuple(map(str, content["failed"])),
    )
