"""Who has been told of what: the record that jens-deliver keeps, and that runs read.

Each receiver has a position of its own: what it was told last. What it was not told, it is told by the next delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jens import statefile
from jens.events import DELIVERY
from jens.layout import Layout
from jens.model import Fault
from jens.statefile import DELIVERIES, HISTORY, StateError, state_path
from jens.system import files

#: How the names of Puppet servers begin, and what their memory calls the time until when they know all changes.
SERVER, AT = "puppetserver ", "at"


class Position(NamedTuple):
    """Up to where a receiver has been told: the history's id, the number of a deployment and that of a fault.

    ``faults`` are those that it knows as open: kind, environment, repository, ref, and since when.
    """

    history: str = ""
    deployment: int = 0
    fault: int = 0
    faults: frozenset[tuple[str, ...]] = frozenset()


class Failing(NamedTuple):
    """Why a receiver could not be told, and since when (UTC, ISO 8601)."""

    problem: str
    since: str


class Told(NamedTuple):
    """What is known of a receiver. ``due``: when it wants to be looked at again, in seconds since the epoch, or None.

    ``memory`` is the receiver's own: JSON.
    """

    position: Position = Position()
    failing: Failing | None = None
    due: float | None = None
    memory: Mapping[str, Any] = MappingProxyType({})


class Record(NamedTuple):
    """The receivers by name, and a fingerprint of the history that they were told of."""

    receivers: Mapping[str, Told] = MappingProxyType({})
    history: tuple[int, ...] = ()

    def is_due(self, now: float) -> bool:
        """Whether a receiver is to be looked at, although the history has nothing new: one that failed, for example."""
        return any(
            told.due <= now if told.due is not None else told.failing is not None for told in self.receivers.values()
        )


def load(layout: Layout) -> Record:
    """The record; an empty one when there is none, or it is damaged. Raises OSError when nobody can look now."""
    try:
        return _decode(statefile.load(layout, DELIVERIES))
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return Record()


def save(layout: Layout, record: Record) -> None:
    """Save the record. Raises OSError."""
    statefile.save(layout, DELIVERIES, _encode(record))


def fingerprint(layout: Layout) -> tuple[int, ...]:
    """Other numbers when the history has changed; none when there is no history. Raises OSError."""
    found = files.status_of(state_path(layout, HISTORY))
    return () if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def faults(layout: Layout) -> list[Fault]:
    """The receivers that could not be told, a fault each. Raises OSError when nobody can look now."""
    return [
        Fault(DELIVERY, f"{name}: {told.failing.problem}", ref=name)
        for name, told in sorted(load(layout).receivers.items())
        if told.failing
    ]


def flushed(layout: Layout) -> float:
    """Until when the Puppet server that is furthest behind has been told of all changes, in seconds since the epoch.

    0 when none has been. Raises OSError when nobody can look now.
    """
    servers = [told for name, told in load(layout).receivers.items() if name.startswith(SERVER)]
    times = [told.memory.get(AT, 0) for told in servers]
    return float(min((time for time in times if isinstance(time, (int, float))), default=0))


def _encode(record: Record) -> dict[str, Any]:
    return {
        "history": list(record.history),
        "receivers": {
            name: {
                "history": told.position.history,
                "deployment": told.position.deployment,
                "fault": told.position.fault,
                "faults": sorted(map(list, told.position.faults)),
                "failing": told.failing and list(told.failing),
                "due": told.due,
                "memory": dict(told.memory),
            }
            for name, told in record.receivers.items()
        },
    }


def _decode(content: Any) -> Record:
    return Record(
        {name: _decode_told(each) for name, each in content["receivers"].items()}, tuple(map(int, content["history"]))
    )


def _decode_told(content: Mapping[str, Any]) -> Told:
    faults = frozenset(tuple(map(str, fault)) for fault in content["faults"])
    position = Position(str(content["history"]), int(content["deployment"]), int(content["fault"]), faults)
    failing = content["failing"] and Failing(*map(str, content["failing"]))
    due = content["due"]
    return Told(position, failing, None if due is None else float(due), dict(content["memory"]))
