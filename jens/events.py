"""Lines for the log, made where things are found out and logged by whoever folds the results."""

from __future__ import annotations

import logging
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
