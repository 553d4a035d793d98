"""One delivery: tells each receiver what it has not been told, and remembers who was told of what.

A receiver that fails, or takes long, holds back no other. What it was not told, the next delivery tells it. A delivery
that is killed has told some receivers and not remembered it: they are told once more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable

from jens import deliveries, lastrun
from jens.config import Config
from jens.deliveries import Failing, Position, Record, Told
from jens.delivery import hook, notify, puppetserver, types
from jens.delivery.lanes import Lanes, Result
from jens.delivery.news import News, collect
from jens.delivery.telling import Delivery, Telling
from jens.history.store import Reader
from jens.layout import Layout
from jens.statefile import HISTORY, state_path

log = logging.getLogger(__name__)

#: The kinds of receivers: functions that return those who are to be told something. A new kind gets a row here. Types
#: come first, and are waited for: servers are told when they are there.
_FIRST = (types.tellings,)
_THEN = (hook.tellings, puppetserver.tellings, notify.tellings)

#: Seconds between two looks whether somebody asks, while a receiver is being told.
_PAUSE = 0.2


def deliver(config: Config, is_asked: Callable[[], bool] = bool) -> Mapping[str, str]:
    """Tell all receivers. Returns why those failed who could not be told, by name. Raises HistoryError, OSError.

    While it waits for a receiver, it begins with others when ``is_asked`` says that there is something new.
    """
    layout, lanes = Layout.of(config), Lanes()
    problems: dict[str, str] = {}
    seen: tuple[int, ...] = ()
    waiting: set[str] = set()
    must_look = True
    while must_look or lanes.busy:
        if must_look:
            seen = deliveries.fingerprint(layout)
            waiting = _begin(config, lanes, problems) if seen else set()
        results = lanes.collect(_PAUSE)
        _remember(layout, results, problems)
        must_look = is_asked() or any(result.telling.receiver in waiting for result in results)
    deliveries.save(layout, deliveries.load(layout)._replace(history=seen))
    return problems


def _begin(config: Config, lanes: Lanes, problems: dict[str, str]) -> set[str]:
    """Begin to tell those receivers something who are not busy. Returns the busy ones for whom there is something."""
    layout = Layout.of(config)
    _forget_strangers(config, layout)
    first = Lanes()
    first.start(_tellings(config, _FIRST))
    while first.busy:
        _remember(layout, first.collect(_PAUSE), problems)
    tellings = _tellings(config, _THEN)
    busy = lanes.busy
    lanes.start([telling for telling in tellings if telling.receiver not in busy])
    return {telling.receiver for telling in tellings if telling.receiver in busy}


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
    record = deliveries.load(layout)
    configured = {
        *(*hook.receivers(config), *types.receivers(config), *puppetserver.receivers(config)),
        *notify.receivers(config.notify, record.receivers, time.time()),
    }
    known = {name: told for name, told in record.receivers.items() if name in configured}
    if len(known) < len(record.receivers):
        gone = sorted(record.receivers.keys() - known)
        level = logging.DEBUG if all(name.startswith(notify.OWNER) for name in gone) else logging.INFO
        log.log(level, "No longer told: %s", gone)
        deliveries.save(layout, record._replace(receivers=known))


def forget_positions(layout: Layout) -> None:
    """Have the next delivery tell each receiver that every environment has changed. Raises OSError."""
    record = deliveries.load(layout)
    receivers = {
        name: told._replace(position=told.position._replace(history="")) for name, told in record.receivers.items()
    }
    deliveries.save(layout, record._replace(receivers=receivers))


def _tellings(config: Config, kinds: Sequence[Callable[[Delivery], Iterator[Telling]]]) -> list[Telling]:
    layout = Layout.of(config)
    known: dict[Position, News] = {}

    def news_for(told: Told) -> News:
        if told.position not in known:
            known[told.position] = collect(reader, told.position)
        return known[told.position]

    with Reader(state_path(layout, HISTORY)) as reader:
        delivery = Delivery(config, reader, deliveries.load(layout), time.time(), news_for)
        return [telling for tellings in kinds for telling in tellings(delivery)]


def _remember(layout: Layout, results: Sequence[Result], problems: dict[str, str]) -> None:
    """Log what came of tellings, and remember it. Raises OSError."""
    if not results:
        return
    record = deliveries.load(layout)
    for result in results:
        problems.pop(result.telling.receiver, None)
        if result.problem:
            problems[result.telling.receiver] = result.problem
        record = _with(record, result)
    deliveries.save(layout, record)


def _with(record: Record, result: Result) -> Record:
    """The record with what came of a telling, which is logged."""
    name = result.telling.receiver
    record = result.telling.also(record)
    before = record.receivers.get(name, Told())
    now = before if result.told is None else result.telling.meanwhile(before, result.told)
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
