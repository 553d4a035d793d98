"""Messages to people, through Apprise: to those whom definitions name, and to the administrators.

A receiver gets one message for everything since the last one, when faults open and when they close. Nobody is told of
a fault that is over within ``grace`` seconds, and of the end of a fault only who was told of its beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from jens.config import Notify
from jens.deliveries import Position, Told
from jens.delivery.messages import compose
from jens.delivery.news import ended, identity
from jens.delivery.pushes import Pushes
from jens.delivery.telling import Delivery, DeliveryError, Telling
from jens.history import since as changes
from jens.history.queries import FaultLife

#: How the names of receivers begin.
OWNER, ADMIN = "owner ", "admin "
#: Seconds that a message may take. Apprise has its own limits for each connection.
_LIMIT = 60.0


class Due(NamedTuple):
    """What a receiver is to be told now, and when it is to be looked at again (None: when there is something new).

    ``known`` are the faults that it knows as open afterwards.
    """

    opened: tuple[FaultLife, ...] = ()
    closed: tuple[tuple[str, ...], ...] = ()
    again: float | None = None
    known: frozenset[tuple[str, ...]] = frozenset()


def plan(
    faults: Sequence[FaultLife],
    still_open: frozenset[tuple[str, ...]],
    told: Told,
    settings: Notify,
    now: float,
) -> Due:
    """What a receiver is to be told of its open faults, when all those are ``still_open``.

    Faults that it knows as open are over when nobody has them any more.
    """
    known = told.position.faults
    news = [fault for fault in faults if identity(fault) not in known]
    ripe = tuple(fault for fault in news if _begin(fault) + settings.grace <= now)
    closed = tuple(sorted(known - still_open))
    kept = known & frozenset(map(identity, faults))
    waiting = [_begin(fault) + settings.grace for fault in news if fault not in ripe]
    sent = float(told.memory.get("sent", 0))
    free = sent + settings.interval if sent <= now else now  # a clock that was set back lets nobody wait
    if (ripe or closed) and free > now:
        return Due(again=free, known=known)
    if not (ripe or closed):
        return Due(again=max(free, min(waiting)) if waiting else None, known=kept)
    again = max(now + settings.interval, min(waiting)) if waiting else None
    return Due(ripe, closed, again, kept | frozenset(map(identity, ripe)))


def _begin(fault: FaultLife) -> float:
    try:
        return datetime.fromisoformat(fault.since).timestamp()
    except ValueError:
        return 0.0


def receivers(settings: Notify, known: Iterable[str]) -> Iterator[str]:
    """The names of the administrators, and of the ``known`` owners if they are still told."""
    yield from map(_admin, settings.admins)
    if settings.owners:
        yield from (name for name in known if name.startswith(OWNER))


def tellings(delivery: Delivery) -> Iterator[Telling]:
    """The people who are to be told something, or whose next time changes. Raises HistoryError."""
    settings = delivery.config.notify
    if not (settings.owners or settings.admins):
        return
    faults = [
        fault
        for fault in changes.faults_since(delivery.reader, changes.last_fault(delivery.reader))
        if fault.until is None
    ]
    concerned = whom(faults, settings)
    urls = {name: url for name, (url, _) in concerned.items()}
    for name in receivers(settings, delivery.record.receivers):
        if name.startswith(OWNER):
            urls.setdefault(name, _url_for(settings.owners, name[len(OWNER) :]))
    still_open = frozenset(map(identity, faults))
    pushes = Pushes(delivery.config, delivery.reader)
    for name, url in urls.items():
        told = delivery.told(name)
        due = plan(concerned.get(name, ("", []))[1], still_open, told, settings, delivery.now)
        yield from _telling(delivery, name, url, told, due, pushes)


def whom(faults: Sequence[FaultLife], settings: Notify) -> dict[str, tuple[str, list[FaultLife]]]:
    """The receivers with their URLs of Apprise, and the faults that concern them.

    Definitions name whom to tell of an environment. What concerns no environment is told to the administrators.
    """
    found: dict[str, tuple[str, list[FaultLife]]] = {}
    for url in settings.admins:
        found[_admin(url)] = (url, [fault for fault in faults if not fault.environment])
    for fault in faults if settings.owners else ():
        for address in dict.fromkeys(fault.addresses):
            found.setdefault(f"{OWNER}{address}", (_url_for(settings.owners, address), []))[1].append(fault)
    return found


def _admin(url: str) -> str:
    """A name for the log and the record: the URL is a secret."""
    return f"{ADMIN}{url.partition('://')[0]} {hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:6]}"


def _url_for(owners: str, address: str) -> str:
    return owners.replace("{address}", quote(address, safe="", errors="surrogateescape"))


def _telling(delivery: Delivery, name: str, url: str, told: Told, due: Due, pushes: Pushes) -> Iterator[Telling]:
    if not (due.opened or due.closed):
        after = told._replace(position=Position(faults=due.known), due=due.again)
        if after != told._replace(failing=None) or told.failing:
            yield Telling(name, lambda: after, 0, is_quiet=True)
        return
    closed = [ended(delivery.reader, key) for key in due.closed]
    subject, text = compose(pushes.host, due.opened, closed, pushes.who)
    after = Told(Position(faults=due.known), due=due.again, memory={"sent": delivery.now})

    def tell() -> Told:
        send(url, subject, text)
        return after

    yield Telling(name, tell, _LIMIT)


def send(url: str, subject: str, text: str) -> None:
    """Send a message through Apprise. Raises DeliveryError."""
    try:
        import apprise  # noqa: PLC0415 - an optional extra, which takes a tenth of a second
    except ImportError as error:
        raise DeliveryError("Apprise is not installed, expected the Python package apprise") from error
    logging.getLogger("apprise").propagate = False  # it logs URLs
    service = apprise.Apprise()
    with _heard() as complaints:
        if not service.add(url):
            raise DeliveryError("Apprise does not know this kind of URL, or it is not complete")
        if service.notify(title=subject, body=text, body_format=apprise.NotifyFormat.TEXT):
            return
    raise DeliveryError(without_secrets(complaints[-1], url) if complaints else "Apprise gives no reason")


def without_secrets(complaint: str, url: str) -> str:
    """What Apprise complains of, without parts of the URL that may be secret: all but addresses and names of hosts."""
    for part in sorted(filter(_may_be_secret, re.split(r"[/?&=:,@]+", url)), key=len, reverse=True):
        complaint = complaint.replace(part, "…").replace(unquote(part), "…")
    return complaint


def _may_be_secret(part: str) -> bool:
    return len(part) > 3 and not re.fullmatch(r"[\w.+-]*(@|%40)?[\w-]+(\.[\w-]+)+|localhost", part)


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what Apprise complains of in this thread."""
    handler = _Ear(threading.get_ident())
    logging.getLogger("apprise").addHandler(handler)
    try:
        yield handler.found
    finally:
        logging.getLogger("apprise").removeHandler(handler)


class _Ear(logging.Handler):
    def __init__(self, thread: int) -> None:
        super().__init__(logging.WARNING)
        self._thread = thread
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what this thread says."""
        if record.thread == self._thread:
            self.found.append(record.getMessage())
