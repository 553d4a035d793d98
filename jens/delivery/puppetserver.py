"""The Puppet servers: each is asked to read the environments anew that have changed since it read them.

A server is owed a flush from the moment when an environment changes until it has answered. What it is owed is in its
memory: so nothing is lost when it is down, and nothing is told twice when it comes back.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jens.config import Config, PuppetServer
from jens.deliveries import AT, SERVER, Record, Told
from jens.delivery.certname import certname
from jens.delivery.telling import Delivery, DeliveryError, Telling
from jens.history import since as changes

#: All environments, where names of environments are.
EVERYTHING = ""
#: More environments than this are flushed by one request for all.
MOST = 20
#: Where in its sources OpenSSL found an error.
_PLACE = re.compile(r" \(_ssl\.c:\d+\)$")
_PATH = "/puppet-admin-api/v1/environment-cache"
_PORT = 8140

#: Seconds for a connection with its handshake, for an answer, and for all that a server is told.
_CONNECT, _ANSWER, _WHOLE = 10, 30, 60
#: Seconds after which nobody waits any longer, for what has no limit of its own, such as a name server.
_LIMIT = _WHOLE + 15
_TOO_LONG = f"it took longer than {_WHOLE} seconds"
#: Bytes of an answer that are read.
_MOST_READ = 4096

#: What auth.conf of a Puppet server needs. docs/after-a-run.md has it, too.
RULE = (
    '{{ match-request: {{ path: "{path}", type: path, method: delete }}, allow: ["{name}"], sort-order: 400, '
    'name: "jens" }}'
)


class Owed(NamedTuple):
    """What a server is owed: the environments to flush now, and those to flush again, with the time when.

    Times are in seconds since the epoch.
    """

    now: frozenset[str] = frozenset()
    again: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def of(cls, memory: Mapping[str, Any]) -> Owed:
        """What the memory of a receiver says; everything, when it cannot be understood."""
        try:
            again = {str(name): float(when) for name, when in memory.get("again", {}).items()}
            return cls(frozenset(map(str, memory.get("owed", ()))), again)
        except (AttributeError, TypeError, ValueError):
            return cls(frozenset((EVERYTHING,)))

    def memory(self) -> dict[str, Any]:
        """The same for the memory of a receiver."""
        return {"owed": sorted(self.now), "again": dict(self.again)}

    def due(self, now: float, interval: float) -> frozenset[str]:
        """The environments whose time to be flushed again has come; also when the clock was set back."""
        return frozenset(name for name, when in self.again.items() if not now < when <= now + interval)

    def more(self, names: Iterable[str]) -> Owed:
        """What is owed when more environments have changed."""
        return self._replace(now=_few(self.now.union(names)))

    def flushed(self, done: str, now: float, interval: float) -> Owed:
        """What is still owed when an environment was flushed, or all."""
        is_all = done == EVERYTHING
        fresh = self.now if is_all else self.now.intersection([done])
        past = self.due(now, interval) if is_all else self.due(now, interval).intersection([done])
        again = {name: when for name, when in self.again.items() if name not in past}
        if interval:
            again.update(dict.fromkeys(fresh, now + interval))
        return Owed(self.now - fresh, again)


def _few(names: Collection[str]) -> frozenset[str]:
    """The names, or one that stands for all environments."""
    return frozenset((EVERYTHING,)) if EVERYTHING in names or len(names) > MOST else frozenset(names)


def receivers(config: Config) -> Iterator[str]:
    """The names of the servers as receivers."""
    yield from (f"{SERVER}{url}" for url in config.puppetserver.urls)


def owe(record: Record, names: Collection[str]) -> Record:
    """The record, in which each server that it knows is owed a flush of these environments, too."""
    servers = {
        name: told._replace(memory=Owed.of(told.memory).more(names).memory())
        for name, told in record.receivers.items()
        if name.startswith(SERVER)
    }
    return record._replace(receivers={**record.receivers, **servers})


def tellings(delivery: Delivery) -> Iterator[Telling]:
    """The servers that are owed something. Raises HistoryError."""
    settings = delivery.config.puppetserver
    for name, url in zip(receivers(delivery.config), settings.urls):
        told = delivery.told(name)
        news = delivery.news_for(told)
        changed = {EVERYTHING} if news.is_all else changes.touched(delivery.reader, told.position.deployment)
        owed = Owed.of(told.memory).more(changed)
        if told.failing and not owed.now:
            owed = owed.more((EVERYTHING,))  # nobody knows what it has been told
        wanted = plan_flush(owed, delivery.now, settings.flush_again)
        if wanted or news.position != told.position:
            known = Told(news.position, memory={AT: delivery.now})
            tell = functools.partial(_tell, settings, url, wanted, owed, known)
            meanwhile = functools.partial(_with_what_came, Owed.of(told.memory))
            yield Telling(name, tell, _LIMIT, is_quiet=not wanted, meanwhile=meanwhile)


def _with_what_came(begun: Owed, before: Told, after: Told) -> Told:
    """What a server is owed after it was told, with what it came to be owed meanwhile."""
    came = Owed.of(before.memory).now - begun.now
    return after._replace(memory={**after.memory, **Owed.of(after.memory).more(came).memory()}) if came else after


def plan_flush(owed: Owed, now: float, interval: float) -> Sequence[str]:
    """The environments to flush, a request each; only EVERYTHING when they are many."""
    return sorted(_few(owed.now | owed.due(now, interval)))


def _tell(settings: PuppetServer, url: str, wanted: Sequence[str], owed: Owed, told: Told) -> Told:
    """Flush environments of a server. Raises DeliveryError: what was flushed until then need not be flushed again."""
    left = owed
    try:
        for name in _flush(settings, url, wanted):
            left = left.flushed(name, time.time(), settings.flush_again)
    except DeliveryError as error:
        left_over = _remembered(told._replace(memory={}), left)._replace(due=None)  # the next run tries again
        raise DeliveryError(str(error), left_over, error.level) from error
    return _remembered(told, left)


def _remembered(told: Told, left: Owed) -> Told:
    return told._replace(memory={**told.memory, **left.memory()}, due=min(left.again.values(), default=None))


# One server


def _flush(settings: PuppetServer, url: str, names: Sequence[str]) -> Iterator[str]:
    """Flush environments, one after the other, and return each that was flushed. Raises DeliveryError."""
    if not names:
        return
    where = urlsplit(url)
    context = _context(settings)
    end = time.monotonic() + _WHOLE
    connection = http.client.HTTPSConnection(
        where.hostname or "", where.port or _PORT, context=context, timeout=_CONNECT
    )
    with contextlib.closing(connection), _ended_after(connection, _WHOLE):
        for name in names:
            try:
                _ask(connection, name, settings)
            except (OSError, http.client.HTTPException, ValueError) as error:
                late = time.monotonic() > end
                raise DeliveryError(_TOO_LONG if late else _problem(error, settings)) from error
            if time.monotonic() > end:  # the end of a connection ends an answer, too
                raise DeliveryError(_TOO_LONG)
            yield name


@contextlib.contextmanager
def _ended_after(connection: http.client.HTTPSConnection, seconds: float) -> Iterator[None]:
    """End a connection after so many seconds: who sends a byte now and then is never silent."""

    def end() -> None:
        if connection.sock is not None:
            with contextlib.suppress(OSError):  # only the socket: another thread is at work with what is on top of it
                socket.socket.shutdown(_socket_of(connection), socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _socket_of(connection: http.client.HTTPSConnection) -> socket.socket:
    found: socket.socket = connection.sock
    return found


def _ask(connection: http.client.HTTPSConnection, name: str, settings: PuppetServer) -> None:
    """Flush one environment, or all. Raises DeliveryError, OSError, HTTPException."""
    if connection.sock is None:
        connection.connect()
        _socket_of(connection).settimeout(_ANSWER)
    query = f"?environment={name}" if name != EVERYTHING else ""
    connection.request("DELETE", f"{_PATH}{query}", headers={"Accept": "*/*", "User-Agent": "jens"})
    reply = connection.getresponse()
    text = reply.read(_MOST_READ).decode("utf-8", "replace")
    if not reply.isclosed():
        connection.close()
    if reply.status == http.client.FORBIDDEN:
        rule = RULE.format(path=_PATH, name=certname(settings.ssl_cert) or "the name in ssl_cert")
        raise DeliveryError(f"403 Forbidden, its auth.conf needs the rule {rule}", level=logging.ERROR)
    if reply.status != http.client.NO_CONTENT:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = f": {lines[0]}" if lines else ""
        raise DeliveryError(f"expected the status 204, not {reply.status} {reply.reason}{said}")


def _context(settings: PuppetServer) -> ssl.SSLContext:
    """What the connection is made with. Raises DeliveryError."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca or None)
    except (OSError, ValueError) as error:
        raise DeliveryError(f"ssl_ca '{settings.ssl_ca}' cannot be used: {_reason(error)}") from error
    # Puppet's own agents do not ask for what Python 3.13 asks for by default.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    try:
        # Without a password it would be asked for on the terminal.
        context.load_cert_chain(settings.ssl_cert, settings.ssl_key, password="")
    except (OSError, ValueError) as error:
        files = f"ssl_cert '{settings.ssl_cert}' with ssl_key '{settings.ssl_key}'"
        raise DeliveryError(f"{files} cannot be used: {_reason(error)}") from error
    return context


def _problem(error: Exception, settings: PuppetServer) -> str:
    """Why a server could not be asked, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        signers = f"ssl_ca '{settings.ssl_ca}'" if settings.ssl_ca else "the system's certificates, as ssl_ca is unset"
        return f"its certificate is not accepted: {error.verify_message} (checked with {signers})"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return f"it does not accept ssl_cert '{settings.ssl_cert}': {_reason(error)}"
    if isinstance(error, (ssl.SSLError, ConnectionResetError, http.client.RemoteDisconnected)):
        return f"it has ended the connection, as if it did not accept ssl_cert '{settings.ssl_cert}': {_reason(error)}"
    if isinstance(error, socket.timeout):  # TimeoutError only since Python 3.10
        return f"no answer within {_ANSWER} seconds"
    if isinstance(error, http.client.HTTPException):
        return f"its answer is no HTTP: {type(error).__name__} {error}".rstrip()
    return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else _PLACE.sub("", str(error))
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
