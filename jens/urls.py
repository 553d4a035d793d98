"""Clone URLs: checked where they enter, compared, and shown without user names, passwords and queries."""

from __future__ import annotations

import re

_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:[^@:/\s\[]+@)?(\[[^\]/\s]+\]|[^:/@\s\[\]]+):(?P<path>.+)")
_HOST = re.compile(r"(\[[^\]\s]+\]|[^:\s?#]+)(:\d*)?")
_PORT = re.compile(r":\d*$")
_USER_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
_USER_OF_HTTP = re.compile(
    r"(?P<scheme>https?://)(?P<user>[^/?#\s:@]*)(?::(?P<password>[^/?#\s]*))?@(?P<rest>[^@/].*)", re.IGNORECASE
)
_PASSWORD_OF_SSH = re.compile(r"\A(?P<begin>ssh://[^/@:\s]*):[^/\s]*(?=@)")
_HTTP = re.compile(r"https?://(?:[^/\s]*@)?[^/?#\s]*")
#: Where the query or the fragment of a URL begins.
_QUERY = re.compile(r"[?#]")
_WORD = re.compile(r"\S+")
#: What may follow a URL in a text without a space.
_CLOSING = "'\"<>()[]:;,."
_TOKEN = r"(?<![^\s'\"(<])[^\s'\"()<>/@"
_USER_BEFORE_HOST = re.compile(rf"{_TOKEN}:]*:[^\s'\"()<>/]*@(?=[\w.\[-])|{_TOKEN}]+@(?=[\w.\[-]+:)")


def url_problem(url: str) -> str | None:
    """Why a clone URL is unacceptable, or None. The reason never repeats the URL."""
    if not url:
        return "the URL is empty"
    if not url.isprintable():
        return "the URL has control characters in it"
    if url.startswith("-"):
        return "the URL begins with a dash"
    if _HELPER.match(url):
        return "the URL names a transport helper, which is never run"
    if url.startswith("/"):
        return None
    scheme = _SCHEME.match(url)
    if scheme:
        return _scheme_problem(scheme.group(1), url[scheme.end() :])
    scp = _SCP.fullmatch(url)
    if scp is None:
        return "the URL is neither SCHEME://…, nor [user@]host:path, nor an absolute path"
    if "-" in (scp.group(1)[0], scp.group("path")[0], url[0]):
        return "host or path of the URL begins with a dash"
    if scp.group("path").startswith(":"):
        return "the URL has two colons behind its host"  # a reader may take it for a transport helper
    return None


def _scheme_problem(scheme: str, rest: str) -> str | None:
    if scheme not in _SCHEMES:
        return f"the URL's scheme is {scheme!r}, expected one of {', '.join(_SCHEMES)}"
    authority, _, path = rest.partition("/")
    if scheme != "file" and not authority:
        return "the URL names no host"
    if " " in authority:
        return "the URL has spaces before its path"
    if scheme != "file" and not _HOST.fullmatch(authority.rpartition("@")[2]):
        return "the URL's host and port are not of the form HOST[:PORT]"
    if authority.rpartition("@")[2].startswith("-") or authority.startswith("-"):
        return "the host of the URL begins with a dash"
    if not path:
        return "the URL names no path"
    if " " in _query(f"{scheme}://{rest}"):
        return "the URL has spaces in its query"
    return None


def server_of(url: str) -> str:
    """The server of a URL: host and port, without the user; '' for a local path."""
    scheme = _SCHEME.match(url)
    if scheme:
        authority = url[scheme.end() :].partition("/")[0]
        return "" if scheme.group(1) == "file" else authority.rpartition("@")[2].lower()
    scp = None if url.startswith("/") else _SCP.fullmatch(url)
    return scp.group(1).lower() if scp else ""


def endpoint_of(url: str) -> str:
    """The service that answers for a URL: its protocol, host and port, without the user; '' for a local path."""
    scheme = _SCHEME.match(url)
    server = server_of(url)
    return f"{scheme.group(1) if scheme else 'ssh'}://{server}" if server else ""


def location_of(url: str) -> str:
    """The place that a URL names, as ``host/path``: without scheme, user, port and ``.git``.

    It is the same for ``git@h:g/p.git``, ``ssh://git@h:22/g/p`` and ``https://H/g/p.git/``; a local path has no host.
    The query of an HTTP URL does not count.
    """
    url = url.removesuffix(_query(url))
    scheme = _SCHEME.match(url)
    scp = None if scheme or url.startswith("/") else _SCP.fullmatch(url)
    if scheme:
        authority, _, path = url[scheme.end() :].partition("/")
        host = _PORT.sub("", authority.rpartition("@")[2])
    else:
        host, path = (_unbracketed(scp.group(1)), scp.group("path")) if scp else ("", url)
    path = path.strip("/")
    path = path.removesuffix(".git")
    return f"{host.lower()}/{path.rstrip('/')}"


def _unbracketed(host: str) -> str:
    """The host of ``[user@host:port]:path``; an IPv6 address keeps its brackets."""
    inner = host.strip("[]").rpartition("@")[2]
    return inner.partition(":")[0] if inner.count(":") < 2 else f"[{inner}]"


def redact(text: str) -> str:
    """The text without the users, passwords and queries of URLs, also where only user@host is left of a URL."""
    return _WORD.sub(_without_query, _USER_BEFORE_HOST.sub("", _USER_IN_URL.sub("", text)))


def _without_query(word: re.Match[str]) -> str:
    # Not one expression: what remotes say may be long, and must not take quadratic time.
    text = word.group()
    query = _query(text)
    return text.removesuffix(query) + query[len(query.rstrip(_CLOSING)) :]


def _query(text: str) -> str:
    """What is behind the path of the first HTTP URL, with the ``?`` or ``#``, up to the end of the text; or ''."""
    url = _HTTP.search(text)
    query = _QUERY.search(text, url.end()) if url else None
    return text[query.start() :] if query else ""


def secrets_of(url: str) -> tuple[str, ...]:
    """The parts of a URL that no log may have: user name and password with the ``@`` behind them, and the query."""
    user = _USER_IN_URL.search(url)
    return tuple(part for part in (user.group() if user else "", _query(url)) if len(part) > 1)


def split_user(url: str) -> tuple[str, str, str | None] | None:
    """An HTTP URL without its user, the user, and the password (None for none); None when there is no user in it."""
    match = _USER_OF_HTTP.fullmatch(url) if "@" in url else None
    return (match["scheme"] + match["rest"], match["user"], match["password"]) if match else None


def public_url(url: str) -> str:
    """A URL that everybody may see: an HTTP URL without user and password, an SSH URL without password."""
    if "@" not in url:
        return url
    found = split_user(url)
    return found[0] if found else _PASSWORD_OF_SSH.sub(r"\g<begin>", url)
