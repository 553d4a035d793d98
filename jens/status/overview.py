"""The first page: is all well? If not: what is wrong, since when, and whom it concerns."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from jens.errors import QueueError
from jens.history import queries
from jens.history.queries import Filter
from jens.lastrun import LastRun
from jens.messaging.queue import Queue
from jens.model import OpenFault
from jens.repositories import transfers
from jens.status import deployments
from jens.status.page import Page
from jens.status.sources import Sources
from jens.status.words import lasting
from jens.tools.show import Past, when

# What is known of the whole instance.
WELL, WRONG, UNKNOWN = "well", "wrong", "unknown"

#: Later than this after the last run began, in seconds, it is worth a look; and so are so many messages that wait.
LATE, MANY_HINTS = 600, 100
#: So many faults and deployments are shown; other pages have the rest.
_MOST_FAULTS, _MOST_DEPLOYMENTS = 100, 10
_DAY = 86_400


def plan_state(
    last_run: LastRun | None, faults: Sequence[OpenFault], hints: int | None, now: float
) -> tuple[str, list[str]]:
    """Whether all is well, and if not why, a sentence each. The check for monitoring in operation.md says the same."""
    if last_run is None:
        return UNKNOWN, ["No run has ended yet, or nothing tells of it."]
    reasons = []
    if faults:
        reasons.append(f"{len(faults)} {'fault is' if len(faults) == 1 else 'faults are'} open.")
    if last_run.status:
        reasons.append(f"The last run ended with exit status {last_run.status}.")
    if last_run.failures:
        failures = len(last_run.failures)
        reasons.append(f"The last run had {failures} failure{'' if failures == 1 else 's'}.")
    age = now - last_run.begin
    if age > LATE:
        reasons.append(f"The last run began {lasting(age)} ago.")
    if hints is not None and hints >= MANY_HINTS:
        reasons.append(f"{hints} hints wait.")
    return (WRONG if reasons else WELL), reasons


def plan_spread(seconds: Sequence[float]) -> dict[str, Any] | None:
    """Median and 95 % of sorted times; None when there are none."""
    if not seconds:
        return None
    at = [seconds[math.ceil(share * len(seconds)) - 1] for share in (0.5, 0.95)]
    return {"pushes": len(seconds), "median": round(at[0], 3), "p95": round(at[1], 3)}


def look(sources: Sources) -> Page:
    """The page."""
    instance, now = sources.instance(), time.time()
    waiting = hints_waiting(sources)
    state, reasons = plan_state(instance.last_run, instance.faults, waiting, now)
    with sources.past() as past:
        last = past.ask(lambda reader: queries.deployments(reader, count=_MOST_DEPLOYMENTS)) or []
        found = deployments.grouped(sources, past, Filter(), _MOST_DEPLOYMENTS, 3) if last else None
        return Page(
            "overview.html",
            {
                **sources.head(),
                "state": state,
                "reasons": reasons,
                "last_run": _last_run(sources, instance.last_run),
                "mode": sources.config.main.mode,
                "faults": [sources.fault(each) for each in _newest(instance.faults)[:_MOST_FAULTS]],
                "faults_open": len(instance.faults),
                "push_to_visible": _spread(sources, past, now),
                "deployments": found.groups if found else [],
                "hints_waiting": waiting,
                "transfers": _transfers(sources),
                "environments": _count(sources),
                "history_problem": sources.problem(past),
            },
        )


def _newest(faults: Sequence[OpenFault]) -> list[OpenFault]:
    return sorted(faults, key=lambda each: each.since, reverse=True)


def _last_run(sources: Sources, last_run: LastRun | None) -> dict[str, Any] | None:
    if last_run is None:
        return None
    return {
        "began": when(last_run.begin),
        "seconds": last_run.seconds,
        "status": last_run.status,
        "failed": [sources.redaction.text(text) for text in last_run.failures[:_MOST_FAULTS]],
    }


def hints_waiting(sources: Sources) -> int | None:
    """How many messages wait; None in mode POLL, which does not read them, or when nobody can look."""
    if sources.config.main.mode == "POLL":
        return None
    try:
        return len(Queue(sources.config.messaging.queuedir).names())
    except QueueError:
        return None


def _spread(sources: Sources, past: Past, now: float) -> dict[str, Any] | None:
    """The time from push to visible of the last day."""
    found = sources.kept(
        "spread", lambda: past.ask(lambda reader: queries.seconds_to_visible(reader, now - _DAY)), sources.recorded
    )
    return plan_spread(found or [])


def _transfers(sources: Sources) -> list[dict[str, Any]]:
    """The repositories that are left to jens-transfer, and those that it works on."""
    try:
        asked, under_way = transfers.asked_for(sources.layout), transfers.under_way(sources.layout)
    except OSError:
        return []
    return [
        {"repository": str(repo), "since": when({**asked, **under_way}[repo]), "under_way": repo in under_way}
        for repo in sorted({*asked, *under_way})
    ]


def _count(sources: Sources) -> int | None:
    try:
        return len(sources.layout.environments())
    except OSError:
        return None
