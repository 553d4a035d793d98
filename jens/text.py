"""Text for people and logs: always one line, whatever it quotes."""

from __future__ import annotations

import time
from collections.abc import Sequence

#: At most so many names are listed in one line.
_MOST_NAMES = 20


def listed(names: Sequence[str]) -> str:
    """A list of names for a line; of very many only the first ones, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{[*names[:_MOST_NAMES]]}{more}"


#: Characters of a name that are quoted; environments have no longer ones.
_LONGEST_NAME = 255

#: Longer texts are cut where others decide how long they are, in characters.
_LONGEST = 1000


def shortened(text: str) -> str:
    """A text, or the beginning of a very long one."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... (cut, {len(text)} characters)"


def name_in_line(name: str) -> str:
    """A name for a line: whoever chose a very long one must not push out what is said of it."""
    return one_line(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def one_line(text: str) -> str:
    """The text with all characters escaped that could begin a new line or control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


#: Seconds of the units in which people say how long ago something was.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_moment(text: str) -> float:
    """A time in seconds since the epoch: so long ago (``90m``), or ISO 8601, local unless it says otherwise.

    Raises ValueError.
    """
    from datetime import datetime  # noqa: PLC0415 - a run needs no dates

    number, unit = text[:-1], text[-1:]
    try:
        if unit in UNITS and number.isascii() and number.isdecimal():
            return max(0.0, time.time() - int(number) * UNITS[unit])
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        expected = "a time such as 90m, 1h, 1d, 2026-03-03 or 2026-03-03T14:05"
        raise ValueError(f"expected {expected}, not {one_line(text)!r}") from None
