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
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus

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
_LIMIT = 90.0
#: Seconds for which Apprise waits for a server; and those until a second attempt, each further one waits twice as long.
_PATIENCE, _FIRST_PAUSE = 30, 60.0


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
    ripe = tuple(
        fault for fault in news if not now - settings.grace < _begin(fault) <= now
    )  # the clock may be set back
    closed = tuple(sorted(known - still_open))
    kept = known & still_open  # also of those that concern others now: who was told of the beginning is told of the end
    waiting = [_begin(fault) + settings.grace for fault in news if fault not in ripe]
    free = max(now, *_pauses(told, settings, now))
    if (ripe or closed) and free > now:
        return Due(again=free, known=known)
    if not (ripe or closed):
        return Due(again=max(free, min(waiting)) if waiting else None, known=kept)
    again = max(now + settings.interval, min(waiting)) if waiting else None
    return Due(ripe, closed, again, kept | frozenset(map(identity, ripe)))


def _pauses(told: Told, settings: Notify, now: float) -> Iterator[float]:
    """Until when nobody writes: after a message, and after attempts that failed, longer each time.

    A server that is only slow may have delivered a message all the same.
    """
    memory = told.memory
    sent, tried = float(memory.get("sent", 0)), float(memory.get("tried", 0))
    yield sent + settings.interval if sent <= now else now  # a clock that was set back lets nobody wait
    pause = min(settings.interval, _FIRST_PAUSE * (2 ** min(int(memory.get("tries", 0)), 10) - 1))
    yield tried + pause if tried <= now else now


def _begin(fault: FaultLife) -> float:
    try:
        return datetime.fromisoformat(fault.since).timestamp()
    except ValueError:
        return 0.0


def receivers(settings: Notify, known: Mapping[str, Told], now: float) -> Iterator[str]:
    """The names of the administrators, and of those owners who know of faults, or have just been told."""
    yield from map(_admin, settings.admins)
    for name, told in known.items() if settings.owners else ():
        pauses = _pauses(told, settings, now)
        if name.startswith(OWNER) and (told.position.faults or told.failing or told.due or max(pauses) > now):
            yield name


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
    for name in receivers(settings, delivery.record.receivers, delivery.now):
        if name.startswith(OWNER):
            urls.setdefault(name, _url_for(settings.owners, name[len(OWNER) :]))
    still_open = frozenset(map(identity, faults))
    pushes = Pushes(delivery.config, delivery.reader, faults)
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
        if after != told and not (told.failing and due.again is not None):
            yield Telling(name, lambda: after, 0, is_quiet=True, is_message=True)
        return
    closed = [ended(delivery.reader, key) for key in due.closed]
    after = Told(Position(faults=due.known), due=due.again, memory={"sent": delivery.now})

    def tell() -> Told:
        try:
            send(url, *compose(pushes.host, due.opened, closed, pushes.who))
        except DeliveryError as error:
            raise DeliveryError(str(error), _tried(told, delivery)) from error
        return after

    yield Telling(name, tell, _LIMIT, is_message=True)


def _tried(told: Told, delivery: Delivery) -> Told:
    """What is remembered of a receiver to whom no message could be sent: when it is tried again."""
    memory = {**told.memory, "tries": int(told.memory.get("tries", 0)) + 1, "tried": delivery.now}
    after = told._replace(memory=memory)
    return after._replace(due=max(_pauses(after, delivery.config.notify, delivery.now)))


def send(url: str, subject: str, text: str) -> None:
    """Send a message through Apprise. Raises DeliveryError."""
    try:
        import apprise  # noqa: PLC0415 - an optional extra, which takes a tenth of a second
    except ImportError as error:
        raise DeliveryError("Apprise is not installed, expected the Python package apprise") from error
    logging.getLogger("apprise").propagate = False  # it logs URLs
    service = apprise.Apprise()
    with _heard() as complaints:
        if not service.add(_patient(url)):
            raise DeliveryError("Apprise does not know this kind of URL, or it is not complete")
        result = service.notify(title=subject, body=text, body_format=apprise.NotifyFormat.TEXT)
        if result:
            return
    logs = getattr(result, "logs", None)  # Apprise 2 sends in threads of its own, and collects what they say
    said = [str(line).split(" - ", 2)[-1] for line in logs()] if callable(logs) else complaints
    raise DeliveryError(without_secrets(said[-1], url) if said else "Apprise gives no reason")


def _patient(url: str) -> str:
    """A URL with which Apprise waits longer for a server than it usually does, unless the URL says how long."""
    return (
        url if "cto=" in url or "rto=" in url else f"{url}{'&' if '?' in url else '?'}cto={_PATIENCE}&rto={_PATIENCE}"
    )


def without_secrets(complaint: str, url: str) -> str:
    """What Apprise complains of, without the parts of the URL that may be secret: all but addresses and hosts."""
    for part in sorted({*_secrets(url)}, key=len, reverse=True):
        complaint = complaint.replace(part, "…")
    return complaint


def _secrets(url: str) -> Iterator[str]:
    """The parts of a URL, as they are and decoded, that are neither the name of a host nor an address."""
    _, _, rest = url.partition("://")
    where, _, query = rest.partition("?")
    place, *path = where.split("/")
    user, _, host = place.rpartition("@")
    values = [pair.partition("=")[2] for pair in query.split("&")]
    parts = [*user.split(":"), *path, *(value for value in values if not re.search("@|%40", value))]
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?|localhost(:\d+)?", host):  # some services have tokens there
        parts.append(host)
    for part in parts:
        yield from (each for each in (part, unquote(part), unquote_plus(part)) if len(each) > 2)


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
