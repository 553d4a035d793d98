"""Lines for the log, made where things are found out and logged by whoever folds the results."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple


class Event(NamedTuple):
    """A line for the log, made by a worker and logged by whoever folds the results.

    An ERROR among them is also a failure of the run (with ``--strict``).
    """

    level: int
    text: str

    @property
    def is_failure(self) -> bool:
        """Whether something was not done that should have been."""
        return self.level >= logging.ERROR


def tell(log: logging.Logger, events: Iterable[Event]) -> list[str]:
    """Log events, one line each. Returns the texts of those that are failures."""
    failures = []
    for event in events:
        log.log(event.level, "%s", event.text)
        if event.is_failure:
            failures.append(event.text)
    return failures
