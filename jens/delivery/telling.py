"""How a receiver is told: what each kind of receiver returns, and how it fails."""

from __future__ import annotations

import logging
from typing import Callable, NamedTuple

from jens.config import Config
from jens.deliveries import Record, Told
from jens.delivery.news import News
from jens.history.store import Reader


class DeliveryError(Exception):
    """A receiver could not be told: the message says why.

    ``told`` is what it knows all the same, None: what it knew before. ``level`` is that of the line in the log.
    """

    def __init__(self, problem: str, told: Told | None = None, level: int = logging.WARNING) -> None:
        super().__init__(problem)
        self.told = told
        self.level = level


def _unchanged(record: Record) -> Record:
    return record


def _after(_before: Told, after: Told) -> Told:
    return after


class Telling(NamedTuple):
    """A receiver that is to be told something.

    ``tell`` does it, in a thread of its own, and returns what the receiver knows now; it raises DeliveryError. It must
    bound itself; ``limit`` is for what it cannot bound: seconds after which it counts as failed, 0 for none. One that
    ``is_quiet`` is not worth a line in the log when all is well. Messages share a few threads, as there
    may be many of them. ``also``: what else changes in the record, when ``tell`` has ended, however it ended.
    ``meanwhile``: what the receiver knows now, made of what the record has by now and of what ``tell`` has returned.
    """

    receiver: str
    tell: Callable[[], Told]
    limit: float
    is_quiet: bool = False
    is_message: bool = False
    also: Callable[[Record], Record] = _unchanged
    meanwhile: Callable[[Told, Told], Told] = _after


class Delivery(NamedTuple):
    """What the kinds of receivers work with: the history, the record of who was told what, and the time."""

    config: Config
    reader: Reader
    record: Record
    now: float
    news_for: Callable[[Told], News]

    def told(self, receiver: str) -> Told:
        """What a receiver was told."""
        return self.record.receivers.get(receiver, Told())
