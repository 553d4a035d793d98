"""Questions to web servers over connections that stay open: one request a repository, and no process.

It never says that something is wrong: whatever is not plainly a good answer is a question for Git. It does not follow
redirects, and unpacks nothing. http.client of Python is enough for that: urllib3 would add retries, redirects and
proxies of its own, which are not those of Git, and a package that AlmaLinux 9 has in an old release; dulwich asks with
version 2 of the protocol only in releases that AlmaLinux 9 does not have.
Sources: gitprotocol-http(5), gitprotocol-v2(5), remote-curl.c of Git.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import os
import ssl
import threading
import time
from collections import Counter
from typing import NamedTuple, Optional

from jens.errors import GitError
from jens.git import lsrefs, process, wrapper
from jens.git.environment import inherited_environment
from jens.git.netrc import netrc_of
from jens.git.process import GitOptions
from jens.git.settings import Entry
from jens.git.speaker import Command
from jens.git.websettings import Place, Way, WebSettings
from jens.git.webslots import Slot, Turns

log = logging.getLogger(__name__)

#: Bytes of an answer. Longer lists of branches are left to Git: several of them would be in memory at once.
_LONGEST = 1 << 22
#: So many bad answers of a server that has given no good one, and Git alone asks it.
_MOST_BAD = 4
#: Seconds in which a connection may say nothing. The caller has less patience; this ends threads.
_SILENCE = 20.0
_UNAUTHORIZED = 401
#: What servers answer that want fewer questions.
_TOO_MUCH = {429, 503}
_BODY = "application/x-git-upload-pack-{}"

#: Who asks, and where the connection leads: the server, the proxy, the certificates.
_Connections = tuple[Place, Optional[tuple[str, int]], str]


class _Answer(NamedTuple):
    status: int
    kind: str
    challenges: tuple[str, ...]
    body: bytes


class _Login:
    """What a server wants to have in a header, '' until somebody who knows has been asked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_asked = self.is_bad = self.is_good = False
        self.header = ""
        self.approved = b""  # what is still to be told to credential helpers


class Web:
    """The connections of one run: ``few`` to a server, or ``many`` when it is far away.

    ``takes`` is called by one thread; each slot has a thread of its own.
    """

    def __init__(self, options: GitOptions, few: int, many: int, settings: list[Entry] | None) -> None:
        self._options = options
        self._few, self._many = few, many
        self._turns: dict[Place, Turns] = {}
        self._settings = WebSettings(settings or [], inherited_environment())
        self._is_over = settings is None
        self._told: set[str] = set()
        self._ways: dict[Command, Way] = {}
        self._bad: Counter[Place] = Counter()
        self._good: set[Place] = set()
        self._idle: dict[_Connections, list[http.client.HTTPConnection]] = {}
        self._logins: dict[tuple[Place, str, str | None], _Login] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def takes(self, command: Command) -> bool:
        """Whether a command is a question that may be asked here."""
        tags = None if self._is_over else wrapper.asked_tags(command)
        if tags is None:
            return False
        way = self._settings.way(wrapper.asked_url(command))
        if way is None:
            self._tell(f"Git asks servers for https and http itself, because of {self._settings.why}")
            return False
        if self._is_left_to_git(way.place.server):
            self._tell(f"Git asks {way.place.scheme}://{way.place.authority} itself, as no answer was a usual one")
            return False
        self._ways[command] = way._replace(tags=tags)
        return True

    def _is_left_to_git(self, server: Place) -> bool:
        return self._bad[server] >= _MOST_BAD and server not in self._good

    def most(self, url: str) -> int:
        """How many questions to the server of a URL may be under way at once."""
        way = None if self._is_over else self._settings.way(url)
        if way is None or self._is_left_to_git(way.place.server):
            return self._few
        return self._turns_with(way).most

    def _tell(self, text: str) -> None:
        """Log once why a POLL takes longer."""
        if text not in self._told:
            self._told.add(text)
            log.debug("%s", text)

    def another(self) -> Slot:
        """One more slot. Raises OSError when no thread can be started."""
        try:
            return Slot(self, self._options.timeout)
        except (OSError, RuntimeError) as error:
            self._is_over = True
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Close all connections that nobody uses."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def ask(self, command: Command, slot: Slot) -> bytes | None:
        """What Git would print; None when Git has to be asked."""
        way = self._ways[command]
        found = None
        with contextlib.suppress(OSError, http.client.HTTPException, GitError, ValueError):
            found = self._ask(way, slot)
        with self._lock:
            if found is not None:
                self._good.add(way.place.server)
            elif not slot.is_dismissed:
                self._bad[way.place.server] += 1
        return found

    def _ask(self, way: Way, slot: Slot) -> bytes | None:
        login = self._login_of(way)
        sent = "" if login.is_bad else login.header
        answer = self._post(way, sent, slot)
        if answer.status == _UNAUTHORIZED and not sent and (sent := self._log_in(way, login, answer, slot)):
            answer = self._post(way, sent, slot)
        if answer.status != http.client.OK or answer.kind != _BODY.format("result"):
            login.is_bad |= answer.status == _UNAUTHORIZED and not login.is_good
            return None
        login.is_good |= bool(sent)
        self._approve(login, slot)
        return lsrefs.listing(answer.body, way.tags)

    # Connections

    def _post(self, way: Way, authorization: str, slot: Slot) -> _Answer:
        """Send the request. A server that refuses one of many gets few from then on, and this one once more."""
        turns = self._turns_with(way)
        with slot.turn(turns):
            is_one_of_many = turns.are_many
            try:
                answer = self._post_in_turn(way, authorization, slot)
                if not is_one_of_many or answer.status not in _TOO_MUCH:
                    return answer
            except ConnectionError:
                if not is_one_of_many or not slot.left():
                    raise
        turns.refuse()
        with slot.turn(turns):
            return self._post_in_turn(way, authorization, slot)

    def _turns_with(self, way: Way) -> Turns:
        with self._lock:
            return self._turns.setdefault(way.place.server, Turns(self._few, self._many))

    def _post_in_turn(self, way: Way, authorization: str, slot: Slot) -> _Answer:
        """Send the request. A connection that was kept open may be closed by now: then it is sent once more."""
        key = (way.place.server, way.proxy, way.authorities)
        with self._lock:
            kept = self._idle.get(key, [])
            connection = kept.pop() if kept else None
        if connection is not None:
            with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError, ssl.SSLError):
                return self._converse(connection, key, way, authorization, slot)
        return self._converse(self._connection(way), key, way, authorization, slot)

    def _converse(
        self, connection: http.client.HTTPConnection, key: _Connections, way: Way, authorization: str, slot: Slot
    ) -> _Answer:
        is_kept = False
        try:
            slot.use(connection)
            if connection.sock is None:
                self._connect(connection, way)
                slot.use(connection)  # now it has a socket
            connection.request("POST", _target(way), lsrefs.request(way.tags), _headers(way, authorization))
            answer = _received(connection.getresponse())
            is_kept = connection.sock is not None and slot.leave()
        finally:
            if not is_kept:
                connection.close()
        with self._lock:
            self._idle.setdefault(key, []).append(connection)
        return answer

    def _connect(self, connection: http.client.HTTPConnection, way: Way) -> None:
        """Connect: that is one way to the server and back, and one more for TLS."""
        begin = time.monotonic()
        connection.connect()
        ways = 2 if way.place.scheme == "https" else 1
        self._turns_with(way).distance.measure((time.monotonic() - begin) / ways)

    def _connection(self, way: Way) -> http.client.HTTPConnection:
        host, port = way.proxy or way.place[1:3]
        if way.place.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_SILENCE)
        connection = http.client.HTTPSConnection(host, port, timeout=_SILENCE, context=self._context(way.authorities))
        if way.proxy:
            connection.set_tunnel(*way.place[1:3])
        return connection

    def _context(self, authorities: str) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get(authorities)
            if context is None:
                context = ssl.create_default_context(cafile=authorities or None)
                self._contexts[authorities] = context
        return context

    # Logging in

    def _login_of(self, way: Way) -> _Login:
        with self._lock:
            return self._logins.setdefault((way.place.server, way.user, way.password), _Login())

    def _log_in(self, way: Way, login: _Login, answer: _Answer, slot: Slot) -> str:
        """The header for a server that wants a password; '' when Git has to ask. Only the first one who asks waits."""
        if any(challenge.split()[:1] != ["Basic"] for challenge in answer.challenges) or not answer.challenges:
            return ""
        if any(name.lower() == "authorization" for name, _ in way.headers):
            return ""
        with slot.logging_in(login.lock):
            if login.is_bad:
                return ""
            if not login.is_asked:
                login.is_asked = True
                login.header = self._credentials(way, login, slot)
            return login.header

    def _credentials(self, way: Way, login: _Login, slot: Slot) -> str:
        if way.password is not None:
            return _basic(way.user, way.password)
        found = netrc_of(way.place.host, way.user, os.environ)
        if found is None:
            return ""
        if found:
            return _basic(*found)
        if not way.may_log_in:
            return ""
        lines = {"protocol": way.place.scheme, "host": way.place.authority, "username": way.user}
        text = "".join(f"{key}={value}\n" for key, value in lines.items() if value)
        output = _credential("fill", f"{text}\n".encode("utf-8", "surrogateescape"), self._options, slot)
        said = dict(line.partition("=")[::2] for line in output.decode("utf-8", "surrogateescape").splitlines())
        if "username" not in said or "password" not in said:
            return ""
        login.approved = output
        return _basic(said["username"], said["password"])

    def _approve(self, login: _Login, slot: Slot) -> None:
        """Tell credential helpers once that the password was right, as Git does."""
        if not login.approved:
            return
        with slot.logging_in(login.lock):
            output, login.approved = login.approved, b""
            if output:
                _credential("approve", output, self._options, slot)


def _credential(action: str, text: bytes, options: GitOptions, slot: Slot) -> bytes:
    """Speak to credential helpers, until the slot is to end. Raises GitError."""
    limited = options._replace(left=slot.left)
    return process.run(["credential", action], remote=limited, limit=options.timeout, stdin=text)


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode('utf-8', 'surrogateescape')).decode('ascii')}"


def _target(way: Way) -> str:
    """What stands behind POST: a path, or for a proxy the whole URL."""
    path = f"{way.place.path.rstrip('/')}/git-upload-pack"
    return f"http://{way.place.authority}{path}" if way.proxy and way.place.scheme == "http" else path


def _headers(way: Way, authorization: str) -> dict[str, str]:
    headers = {
        "User-Agent": way.agent,
        "Content-Type": _BODY.format("request"),
        "Accept": _BODY.format("result"),
        "Git-Protocol": "version=2",
    }
    headers.update(way.headers)
    if authorization:
        headers["Authorization"] = authorization
    return headers


def _received(response: http.client.HTTPResponse) -> _Answer:
    """An answer, read to its end. Raises OSError, HTTPException, and ValueError when it is longer than usual."""
    body = response.read(_LONGEST)
    if response.read(1) or response.headers.get("Content-Encoding", "identity") != "identity":
        response.close()
        raise ValueError("not plain")
    kind = response.headers.get("Content-Type", "")
    return _Answer(response.status, kind, tuple(response.headers.get_all("WWW-Authenticate", ())), body)
