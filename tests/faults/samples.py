"""How much of what could be tried is tried: all of it in a soak, some of it whenever the tests run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

#: ``make soak`` has all the time that it needs.
IS_SOAK = bool(os.environ.get("JENS_SOAK"))

Case = TypeVar("Case")
Other = TypeVar("Other")


def pairs(cases: Sequence[Case], others: Sequence[Other]) -> list[tuple[Case, Other]]:
    """Each case with each of the others in a soak, or else just so many that all cases and all others occur."""
    if IS_SOAK:
        return [(case, other) for case in cases for other in others]
    count = max(len(cases), len(others))
    return [(cases[number % len(cases)], others[number % len(others)]) for number in range(count)]
