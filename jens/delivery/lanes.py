"""Tells receivers at the same time: each in a thread of its own, but for messages, which share a few.

A thread that hangs cannot be ended. It is given up: what it comes to is not heard any more, and it holds up nobody.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jens.deliveries import Told
from jens.delivery.telling import DeliveryError, Telling
from jens.text import one_line, shortened

log = logging.getLogger(__name__)

#: Threads for messages: there may be as many as there are addresses.
_MOST_FOR_MESSAGES = 8


class Result(NamedTuple):
    """What came of a telling: what the receiver knows now (None: what it knew), and why it could not be told."""

    telling: Telling
    told: Told | None
    problem: str = ""
    level: int = logging.WARNING


class _Lane:
    """Receivers that are told one after the other, in a thread."""

    def __init__(self, tellings: Sequence[Telling], results: queue.Queue[tuple[_Lane, Result]]) -> None:
        self._left = [*reversed(tellings)]
        self._results = results
        self._lock = threading.Lock()
        self.current: Telling | None = None
        self.begun = 0.0

    def start(self) -> None:
        """Begin. Raises RuntimeError when there can be no more threads."""
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while self._next() is not None:
            assert self.current is not None
            self._results.put((self, _tell(self.current)))

    def _next(self) -> Telling | None:
        with self._lock:
            self.begun = time.monotonic()
            self.current = self._left.pop() if self._left else None
            return self.current

    def is_late(self) -> bool:
        """Whether a receiver takes longer than it may."""
        current = self.current
        return current is not None and current.limit > 0 and time.monotonic() > self.begun + current.limit

    def give_up(self, problem: str) -> list[Result]:
        """Go on with none of the receivers. Returns why they fail who have not been told."""
        with self._lock:
            current, left = self.current, self._left
            self._left, self.current = [], None
            return [Result(each, None, problem) for each in [*([current] if current else []), *left]]


class Lanes:
    """The receivers that are being told."""

    def __init__(self) -> None:
        self._results: queue.Queue[tuple[_Lane, Result]] = queue.Queue()
        self._lanes: dict[str, _Lane] = {}
        self._failed: list[Result] = []

    @property
    def busy(self) -> Collection[str]:
        """The names of those whose results have not been collected."""
        return {*self._lanes, *(result.telling.receiver for result in self._failed)}

    def start(self, tellings: Sequence[Telling]) -> None:
        """Begin to tell receivers, none of which is busy."""
        for telling in tellings:
            log.log(logging.DEBUG if telling.is_quiet else logging.INFO, "Telling %s...", telling.receiver)
        messages = [telling for telling in tellings if telling.is_message]
        shared = [messages[number::_MOST_FOR_MESSAGES] for number in range(_MOST_FOR_MESSAGES)]
        for group in [*([each] for each in tellings if not each.is_message), *filter(None, shared)]:
            lane = _Lane(group, self._results)
            self._lanes.update({telling.receiver: lane for telling in group})
            try:
                lane.start()
            except RuntimeError as error:
                self._drop(lane.give_up(f"it cannot be told now: {error}"))

    def _drop(self, results: Sequence[Result]) -> None:
        for result in results:
            self._lanes.pop(result.telling.receiver, None)
        self._failed += results

    def collect(self, seconds: float) -> list[Result]:
        """The results that there are; the first one is waited for so many seconds."""
        for lane in {*self._lanes.values()}:
            current = lane.current
            if current is not None and lane.is_late():
                self._drop(lane.give_up(f"it took longer than {current.limit:.0f} seconds"))
        found, self._failed = self._failed, []
        while self._lanes or not self._results.empty():
            try:
                lane, result = self._results.get(timeout=0 if found else seconds)
            except queue.Empty:
                break
            if self._lanes.get(result.telling.receiver) is lane:  # else it was given up
                del self._lanes[result.telling.receiver]
                found.append(result)
        return found


def _tell(telling: Telling) -> Result:
    try:
        return Result(telling, telling.tell())
    except DeliveryError as error:
        return Result(telling, error.told, one_line(shortened(str(error))), error.level)
    except Exception as error:
        log.debug("%s", telling.receiver, exc_info=True)
        return Result(telling, None, one_line(shortened(f"unforeseen {type(error).__name__}: {error}")))
