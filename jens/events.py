"""Lines for the log: workers make them, and the caller that collects the results logs them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

# Kinds of faults.
NOT_FETCHED = "repository not fetched"
REFUSED = "repository refused"
CHECKOUT = "checkout refused"
MANDATORY_BRANCH = "missing mandatory branch"
COMMIT = "unknown commit"
CONTENT = "repository content"
LIBRARY_ENTRY = "library entry"
CONFIGURATION = "configuration"
PURGE_GUARD = "purge guard"
DEFINITION = "definition"
ENVIRONMENT = "environment"
DANGLING_LINK = "dangling link"
VOID_OVERRIDE = "void override"
UNDECLARED = "undeclared environment"
UNKNOWN_KEY = "unknown key"
TOO_MANY = "too many"
MORE = "more"
WAY_OUT = "link out of a checkout"
METADATA = "metadata"
DELIVERY = "delivery"
HELD = "held"

#: All kinds of faults that have a name here.
KINDS = (
    *(NOT_FETCHED, REFUSED, CHECKOUT, MANDATORY_BRANCH, COMMIT, CONTENT),
    *(CONFIGURATION, LIBRARY_ENTRY, PURGE_GUARD, DEFINITION, ENVIRONMENT, DANGLING_LINK, VOID_OVERRIDE),
    *(UNDECLARED, UNKNOWN_KEY, TOO_MANY, MORE, WAY_OUT, METADATA, DELIVERY, HELD),
)


class Event(NamedTuple):
    """A line for the log: a worker makes it, and the caller that collects the results logs it.

    An event of level ERROR also counts as a failure of the run (with ``--strict``). An event with a ``kind`` tells of
    a fault of its repository: one of the constants above. ``ref`` is the ref that it concerns, if any. ``is_slow``: a
    time limit has ended the work, which needs more time than a run has.
    """

    level: int
    text: str
    kind: str = ""
    ref: str = ""
    is_slow: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether something that should have been done was not done."""
        return self.level >= logging.ERROR


def tell(log: logging.Logger, events: Iterable[Event]) -> list[str]:
    """Log events, one line each. Returns the texts of those that are failures."""
    failures = []
    for event in events:
        log.log(event.level, "%s", event.text)
        if event.is_failure:
            failures.append(event.text)
    return failures
