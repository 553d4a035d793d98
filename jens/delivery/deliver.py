"""One delivery: tells each receiver what it has not been told, at the same time, and remembers who was told of what.

A receiver that fails holds back no other. What it was not told, the next delivery tells it. A delivery that is killed
has told some receivers and not remembered it: they are told once more.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, NamedTuple

from jens import deliveries, lastrun
from jens.config import Config
from jens.deliveries import Failing, Position, Record, Told
from jens.delivery import hook, puppetserver, types
from jens.delivery.news import News, collect
from jens.delivery.telling import Delivery, DeliveryError, Telling
from jens.history.store import Reader
from jens.layout import Layout
from jens.statefile import HISTORY, state_path
from jens.text import one_line, shortened

log = logging.getLogger(__name__)

#: The kinds of receivers: functions that return those who are to be told something. A new kind gets a row here. A
#: stage begins when the one before it has ended: servers are told when the types are there.
_STAGES: Sequence[Sequence[Callable[[Delivery], Iterator[Telling]]]] = (
    (types.tellings,),
    (hook.tellings, puppetserver.tellings),
)

#: Receivers with such names keep their places in the record, whatever is configured.
_KEPT = ("owner ", "admin ")


def deliver(config: Config) -> Mapping[str, str]:
    """Tell all receivers. Returns why those failed who could not be told, by name. Raises HistoryError, OSError."""
    layout = Layout.of(config)
    seen = deliveries.fingerprint(layout)
    _forget_strangers(config, layout)
    problems: dict[str, str] = {}
    for stage in _STAGES if seen else ():
        record = deliveries.load(layout)
        with Reader(state_path(layout, HISTORY)) as reader:
            tellings = [*_tellings(config, reader, record, stage)]
        for result in _told(tellings):
            record = _remember(record, result)
            deliveries.save(layout, record)
            if result.problem:
                problems[result.telling.receiver] = result.problem
    deliveries.save(layout, deliveries.load(layout)._replace(history=seen))
    return problems


def next_due(config: Config) -> float | None:
    """When the next server, or types, are due, in seconds since the epoch; None: none are. People can wait for a run.

    Those that failed are tried again by runs, at any time. Raises OSError.
    """
    record = deliveries.load(Layout.of(config))
    names = {*types.receivers(config), *puppetserver.receivers(config)}.intersection(record.receivers)
    found = [told.due for told in map(record.receivers.__getitem__, names) if told.due and not told.failing]
    return min(found, default=None)


def _forget_strangers(config: Config, layout: Layout) -> None:
    """Take receivers out of the record that are no longer configured. Raises OSError."""
    configured = {*hook.receivers(config), *types.receivers(config), *puppetserver.receivers(config)}
    record = deliveries.load(layout)
    known = {name: told for name, told in record.receivers.items() if name in configured or name.startswith(_KEPT)}
    if len(known) < len(record.receivers):
        log.info("No longer told: %s", sorted(record.receivers.keys() - known))
        deliveries.save(layout, record._replace(receivers=known))


def forget_positions(layout: Layout) -> None:
    """Have the next delivery tell each receiver that every environment has changed. Raises OSError."""
    record = deliveries.load(layout)
    receivers = {
        name: told._replace(position=told.position._replace(history="")) for name, told in record.receivers.items()
    }
    deliveries.save(layout, record._replace(receivers=receivers))


def _tellings(
    config: Config, reader: Reader, record: Record, stage: Sequence[Callable[[Delivery], Iterator[Telling]]]
) -> Iterator[Telling]:
    known: dict[Position, News] = {}

    def news_for(told: Told) -> News:
        if told.position not in known:
            known[told.position] = collect(reader, told.position)
        return known[told.position]

    delivery = Delivery(config, reader, record, time.time(), news_for)
    for tellings in stage:
        yield from tellings(delivery)


class _Result(NamedTuple):
    """What came of a telling: what the receiver knows now (None: what it knew), and why it could not be told."""

    telling: Telling
    told: Told | None
    problem: str = ""
    level: int = logging.WARNING


def _told(tellings: Sequence[Telling]) -> Iterator[_Result]:
    """Tell receivers, each in a thread of its own. The results come as they are ready."""
    results: queue.Queue[_Result] = queue.Queue()
    begin, waiting = time.monotonic(), {telling.receiver: telling for telling in tellings}
    for telling in tellings:
        log.log(logging.DEBUG if telling.is_quiet else logging.INFO, "Telling %s...", telling.receiver)
        threading.Thread(target=lambda telling=telling: results.put(_tell(telling)), daemon=True).start()
    while waiting:
        limits = [telling.limit for telling in waiting.values() if telling.limit]
        try:
            result = results.get(timeout=max(0.0, begin + min(limits) - time.monotonic()) if limits else None)
        except queue.Empty:
            late = next(each for each in waiting.values() if each.limit == min(limits))
            result = _Result(late, None, f"it took longer than {late.limit:.0f} seconds")
        if waiting.pop(result.telling.receiver, None):  # else it was late
            yield result


def _tell(telling: Telling) -> _Result:
    try:
        return _Result(telling, telling.tell())
    except DeliveryError as error:
        return _Result(telling, error.told, one_line(shortened(str(error))), error.level)
    except Exception as error:
        log.debug("%s", telling.receiver, exc_info=True)
        return _Result(telling, None, one_line(shortened(f"unforeseen {type(error).__name__}: {error}")))


def _remember(record: Record, result: _Result) -> Record:
    """The record with what came of a telling, which is logged."""
    name = result.telling.receiver
    record = result.telling.also(record)
    before = record.receivers.get(name, Told())
    now = before if result.told is None else result.told
    if result.problem:
        level = result.level if before.failing is None else logging.INFO
        log.log(level, "Unable to tell %s, the next run tries again: %s", name, result.problem)
        since = lastrun.timestamp(time.time()) if before.failing is None else before.failing.since
        now = now._replace(failing=Failing(result.problem, since))
    else:
        level = logging.DEBUG if result.telling.is_quiet and not before.failing else logging.INFO
        log.log(level, "%s %s", name, "works again, and was told" if before.failing else "was told")
        now = now._replace(failing=None)
    return record._replace(receivers={**record.receivers, name: now})
