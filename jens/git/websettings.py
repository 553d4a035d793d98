"""How Git would ask a web server, according to its configuration and the environment.

Only what is understood exactly as Git and its HTTP library understand it counts. Whatever else could matter is a reason
to leave the question to Git. Nothing here starts a process or opens a connection.
Sources: git-config(1), http.c and urlmatch.c of Git, libcurl-env(3).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from jens.git.lsrefs import AGENT
from jens.git.settings import Entry, rewritten, strange_keys

_HOST = r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
#: URLs that every program reads in the same way.
_URL = re.compile(
    rf"(?P<scheme>https?)://(?:(?P<user>[^\s/:?#@\\]+)(?::(?P<password>[^\s/?#@\\]*))?@)?{_HOST}(?P<path>/[A-Za-z0-9_./~+@,=-]*)"
)
_PLACE = re.compile(rf"(?P<scheme>https?)://{_HOST}(?P<path>/[A-Za-z0-9_./~+@,=-]*)?")
#: Paths with parts that some program or other leaves out.
_ODD_PATH = re.compile(r"//|/\.\.?(?:/|\Z)")
_PROXY = re.compile(r"(?:http://)?(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*):(?P<port>\d{1,5})/?")
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9-]+):[ \t]*(?P<value>[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "")
_PORTS = {"https": 443, "http": 80}

#: Keys of ``http`` that are understood, and those that do not matter to one good answer.
_UNDERSTOOD = {"proxy", "sslcainfo", "extraheader", "useragent", "sslverify"}
_HARMLESS = {"postbuffer", "maxrequests", "minsessions", "followredirects", "version"}
#: Headers that a request has in any case.
_OWN_HEADERS = {
    *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
    *("git-protocol", "host", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
    *("upgrade", "user-agent"),
}
#: Variables that are understood, by the beginnings of their names; all others that begin so are left to Git.
_BEGINNINGS = ("GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_", "SSLKEYLOGFILE", "OPENSSL_", "GNUTLS_", "NETTLE_")
_VARIABLES = ("GIT_SSL_CAINFO", "GIT_HTTP_USER_AGENT")
#: Variables with the certificates of the system, which only some libraries read.
_OF_SYSTEM = ("SSL_CERT_FILE", "SSL_CERT_DIR")
#: A part of ``credential.<url>.*`` that is the same for all repositories of a server.
_OF_SERVER = re.compile(r"https?://[^/]*/?")


class Place(NamedTuple):
    """Where a URL leads: scheme, host (an IPv6 address without brackets), port, and a path that begins with a slash."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def server(self) -> Place:
        """The server alone."""
        return self._replace(path="/")

    @property
    def authority(self) -> str:
        """Host and port as in a URL; the usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Way(NamedTuple):
    """How to ask for a repository. ``user`` is '' and ``password`` None when the URL has none.

    ``proxy`` is host and port; ``authorities`` a file with certificates, '' for those of the system.
    ``may_log_in``: all repositories of the server have the same credentials, which ``git credential`` knows.
    ``tags`` are to be asked for beside branches.
    """

    place: Place
    user: str = ""
    password: str | None = None
    proxy: tuple[str, int] | None = None
    authorities: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    agent: str = AGENT
    may_log_in: bool = True
    tags: tuple[str, ...] = ()


class _Unclear(Exception):
    """Git may do otherwise."""


class WebSettings:
    """What Git's configuration and the environment say about web servers."""

    def __init__(self, entries: Iterable[Entry], environment: Mapping[str, str]) -> None:
        self._entries = [*entries]
        self._environment = environment
        self._may_log_in = all(map(_is_of_servers, self._entries))
        self._http = [entry for entry in self._entries if entry[0].startswith("http.")]
        self._strange = next(iter((*_strange_variables(environment), *strange_keys(self._entries))), "")
        self.why = ""  # why the last question was left to Git

    def way(self, url: str) -> Way | None:
        """How to ask for the repository with a URL; None when Git has to ask."""
        try:
            if self._strange:
                raise _Unclear(self._strange)
            return self._way(rewritten(url, self._entries))
        except _Unclear as unclear:
            self.why = str(unclear)
            return None

    def _way(self, url: str) -> Way:
        match = _URL.fullmatch(url)
        if match is None:
            raise _Unclear("the URL")
        place = _place(match)
        user, password = (_decoded(match[part]) for part in ("user", "password"))
        values = dict(self._values(place))
        if values.get("sslverify", ["true"])[-1].lower() not in _TRUE:
            raise _Unclear("http.sslVerify")
        return Way(
            place,
            user or "",
            password,
            self._proxy(place, values.get("proxy")),
            self._authorities(place.scheme, values.get("sslcainfo")),
            _headers(values.get("extraheader", ())),
            self._agent(values.get("useragent")),
            self._may_log_in,
        )

    def _values(self, place: Place) -> Iterator[tuple[str, list[str]]]:
        """The values of each key of ``http`` that go for a place: those of the most specific URL, later ones last."""
        best: dict[str, int] = {}
        values: dict[str, list[str]] = {}
        for key, value in self._http:
            section, _, name = key.rpartition(".")
            rank = _rank(section[len("http.") :], place)
            if name in _HARMLESS or rank is None or rank < best.get(name, -1):
                continue
            if name not in _UNDERSTOOD:
                raise _Unclear(f"http.{name}")
            best[name] = rank
            values.setdefault(name, []).append("true" if value is None and name == "sslverify" else _expected(value))
        yield from values.items()

    def _proxy(self, place: Place, configured: Sequence[str] | None) -> tuple[str, int] | None:
        proxy = configured[-1] if configured else self._proxy_of_environment(place.scheme)
        if not proxy or self._needs_no_proxy(place.host):
            return None
        match = _PROXY.fullmatch(proxy)
        if match is None or ":" in place.host:
            raise _Unclear("the proxy")
        return match["host"], int(match["port"])

    def _proxy_of_environment(self, scheme: str) -> str:
        names = ("https_proxy", "HTTPS_PROXY") if scheme == "https" else ("http_proxy",)
        return self._variable(*names, "all_proxy", "ALL_PROXY")

    def _variable(self, *names: str) -> str:
        """The value of the first of these variables that is set."""
        return next((self._environment[name] for name in names if name in self._environment), "")

    def _needs_no_proxy(self, host: str) -> bool:
        names = [name for name in re.split(r"[\s,]+", self._variable("no_proxy", "NO_PROXY").lower()) if name]
        if names == ["*"]:
            return True
        if any(re.search(r"[^a-z0-9_.-]|\.\Z|\A\.*\Z", name) for name in names) or (names and _is_address(host)):
            raise _Unclear("no_proxy")  # networks, ports and the like: releases of libcurl differ
        if host in (name.lstrip(".") for name in names if name.startswith(".")):
            raise _Unclear("no_proxy")
        return any(host == name or host.endswith(f".{name.lstrip('.')}") for name in names)

    def _authorities(self, scheme: str, configured: Sequence[str] | None) -> str:
        if scheme == "http":
            return ""
        path = self._environment.get("GIT_SSL_CAINFO", configured[-1] if configured else "")
        if path.startswith("~/"):
            path = os.path.expanduser(path)
        is_of_system = not path and any(name in self._environment for name in _OF_SYSTEM)
        if is_of_system or (path and not path.startswith("/")):
            raise _Unclear("SSL_CERT_FILE or SSL_CERT_DIR" if is_of_system else "http.sslCAInfo")
        return path

    def _agent(self, configured: Sequence[str] | None) -> str:
        agent = self._environment.get("GIT_HTTP_USER_AGENT", configured[-1] if configured else AGENT)
        if not agent.isascii() or not agent.isprintable() or not agent.strip():
            raise _Unclear("http.userAgent")
        return agent


def _place(match: re.Match[str]) -> Place:
    """The place of a match of ``_URL`` or ``_PLACE``. Raises _Unclear."""
    path = match["path"] or "/"
    port = int(match["port"] or _PORTS[match["scheme"]])
    if _ODD_PATH.search(path) or not 0 < port < 1 << 16:
        raise _Unclear("the URL")
    return Place(match["scheme"], match["host"].strip("[]").lower(), port, path)


def _decoded(part: str | None) -> str | None:
    """A user or a password of a URL. Raises _Unclear for what Git refuses."""
    text = None if part is None else unquote(part, "utf-8", "surrogateescape")
    if text is not None and _CONTROL.search(text):
        raise _Unclear("the URL")
    return text


def _rank(where: str, place: Place) -> int | None:
    """How well the URL of a setting (``http.<url>.*``) matches; None: not at all. '' matches everything, but worst."""
    if not where:
        return 0
    match = _PLACE.fullmatch(where)
    if match is None:
        raise _Unclear("a pattern, a user or the like in http.<url>")
    found = _place(match)
    prefix = found.path.rstrip("/")
    if found.server != place.server or not f"{place.path}/".startswith(f"{prefix}/"):
        return None
    return len(prefix) + 1


def _expected(value: str | None) -> str:
    if value is None:
        raise _Unclear("a key of http without a value")
    return value


def _headers(values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The headers that the user has configured; an empty one drops those before it."""
    found: list[tuple[str, str]] = []
    for value in values:
        match = _HEADER.fullmatch(value)
        if not value:
            found.clear()
        elif match is None or match["name"].lower() in _OWN_HEADERS:
            raise _Unclear("http.extraHeader")
        else:
            found.append((match["name"], match["value"]))
    return tuple(found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _strange_variables(environment: Mapping[str, str]) -> list[str]:
    return sorted(name for name in environment if name.startswith(_BEGINNINGS) and name not in _VARIABLES)


def _is_of_servers(entry: Entry) -> bool:
    """Whether a setting leaves all repositories of a server with the same credentials."""
    key, value = entry
    if not key.startswith("credential."):
        return True
    section, _, name = key.rpartition(".")
    if name == "usehttppath":
        return value is not None and value.lower() in _FALSE
    return section == "credential" or _OF_SERVER.fullmatch(section[len("credential.") :]) is not None
