"""Keeps the log of a run short that has nothing to do: its lines are held back, and dropped at its end.

The first line that tells of something done writes them all. So do a WARNING and the end of a run that failed. While the
run goes on, they are written every few seconds: the log tells where a run is that takes long, or hangs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from threading import RLock, Timer
from typing import Callable, NamedTuple

from jens.commands.logs import our_handlers

#: The longest time in seconds that a line is held back.
HELD_BACK = 5.0

#: What every run logs. Any other line tells of something that was done.
_ROUTINE = frozenset(
    (
        *("Refreshing metadata...", "Getting and processing hints...", "Refreshing repositories..."),
        *("Fetching repositories inventory...", "New repositories: []", "Deleted repositories: []"),
        *("Cloning and expanding NEW bare repositories...", "Expanding EXISTING bare repositories..."),
        *("Purging REMOVED bare repositories...", "Persisting repositories inventory...", "Refreshing environments..."),
        *("New environments: []", "Existing and changed environments: []"),
        *("Creating new environments...", "Purging deleted environments...", "Recreating changed environments..."),
        "Refreshing not changed environments...",
    )
)
_BEGINNINGS = (
    *("Obtaining lock '", "Releasing lock '", "Executed '", "Refreshing bare repositories ("),
    *("Only repositories that were pushed to are looked at until ", "More than tips of branches changed, so "),
    # Each environment that goes has a line of its own; of one that stays as it is protected a WARNING tells first.
    *("Deleted environments: ", "Refusing to delete '"),
)
#: A run that can do nothing with the hints that it found is idle, too: the end of the run knows.
_ENDS = " messages found"


def is_routine(line: str) -> bool:
    """Whether every run logs this line."""
    return line in _ROUTINE or line.startswith(_BEGINNINGS) or line.endswith(_ENDS)


#: What marks a warning that every run gives, until somebody changes the host.
_STANDING = "is_standing"
STANDING = {_STANDING: True}


def _is_of_every_run(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.WARNING:
        return getattr(record, _STANDING, False)
    return record.levelno < logging.INFO or is_routine(record.getMessage())


class _Watch(logging.Handler):
    """Notes whether a line has told of something done."""

    is_idle = True

    def emit(self, record: logging.LogRecord) -> None:
        self.is_idle = self.is_idle and _is_of_every_run(record)


class HeldBack(logging.Handler):
    """Holds records back from a handler, until one tells of something done; no record longer than so many seconds."""

    def __init__(self, handler: logging.Handler, seconds: float) -> None:
        super().__init__()
        self._handler = handler
        self._records: list[logging.LogRecord] = []
        self._is_holding = True
        self._one_at_a_time = RLock()  # the timer has a thread of its own
        self._seconds = seconds
        self._start_timer()

    def _start_timer(self) -> None:
        self._timer = Timer(self._seconds, self._write_and_go_on)
        self._timer.daemon = True
        self._timer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, or pass it on."""
        with self._one_at_a_time:
            if not self._is_holding:
                self._handler.handle(record)
                return
            record.msg, record.args = record.getMessage(), None  # what it quotes may change before it is written
            self._records.append(record)
            if getattr(record, _STANDING, False):
                self._write()
            elif not _is_of_every_run(record):
                self.let_go()

    def let_go(self) -> None:
        """Pass on what is held back, and from now on everything."""
        with self._one_at_a_time:
            self._write()
            self._is_holding = False
            self._timer.cancel()

    def _write(self) -> None:
        records, self._records = self._records, []
        for record in records:
            self._handler.handle(record)

    def _write_and_go_on(self) -> None:
        with self._one_at_a_time:
            if self._is_holding:
                self._write()
                self._start_timer()

    def drop(self) -> None:
        """Forget what is held back."""
        with self._one_at_a_time:
            self._records.clear()


class Log(NamedTuple):
    """The log of a run: whether no line has told of anything done, and what drops the lines that are held back."""

    is_idle: Callable[[], bool]
    drop: Callable[[], None]


@contextlib.contextmanager
def lines_held_back() -> Iterator[Log]:
    """Hold back what is logged in the block, as HeldBack does, and write it at the end of the block.

    Nothing is held back at the level DEBUG, and with -v.
    """
    root, handlers, watch = logging.getLogger(), our_handlers(), _Watch()
    is_short = root.level >= logging.INFO and len(handlers) == 1
    held = HeldBack(handlers[0], HELD_BACK) if is_short else None
    if held is not None:
        root.removeHandler(handlers[0])
        root.addHandler(held)
    root.addHandler(watch)
    try:
        yield Log(lambda: watch.is_idle, held.drop if held is not None else lambda: None)
    finally:
        root.removeHandler(watch)
        if held is not None:
            root.removeHandler(held)
            root.addHandler(handlers[0])
            held.let_go()
