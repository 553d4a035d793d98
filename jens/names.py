"""Every check of a name, a ref or a URL, made where it enters: nothing else is ever a path or an argument."""

from __future__ import annotations

import re

from jens.model import PARTITIONS, Branch, Commit, Ref, RepoId

#: Bytes in a file's name: on disk an environment is one entry, and a branch is, slashes and all.
LONGEST = 255

_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # links prefix it, and a file name ends at 255
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_]{1,255}")
_COMMIT = re.compile(r"[0-9a-f]{4,40}")
_BRANCH_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:[^@:/\s\[]+@)?(\[[^\]/\s]+\]|[^:/@\s\[\]]+):(?P<path>.+)")
_HOST = re.compile(r"(\[[^\]\s]+\]|[^:\s]+)(:\d*)?")
_PORT = re.compile(r":\d*$")
_USER_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
_TOKEN = r"(?<![^\s'\"(<])[^\s'\"()<>/@"
_USER_BEFORE_HOST = re.compile(rf"{_TOKEN}:]*:[^\s'\"()<>/]*@(?=[\w.\[-])|{_TOKEN}]+@(?=[\w.\[-]+:)")


def is_repository_name(name: str) -> bool:
    """Whether a repository may be called so."""
    return _REPOSITORY.fullmatch(name) is not None


def parse_repository(text: str) -> RepoId:
    """A repository as ``str`` of it has it, ``partition/name``. Raises ValueError."""
    partition, _, name = text.partition("/")
    if partition not in PARTITIONS or not is_repository_name(name):
        raise ValueError(f"{text!r} is no repository")
    return RepoId(partition, name)


def is_environment_name(name: str) -> bool:
    """Whether an environment may be called so (Puppet's own rule)."""
    return _ENVIRONMENT.fullmatch(name) is not None


def is_branch_name(name: str) -> bool:
    """The rules of ``git check-ref-format --branch``, without a process a name.

    Source: git-check-ref-format(1). Shorthands such as ``@{-1}`` are not expanded but refused.
    """
    if not name or name == "HEAD" or name[0] in "-/" or name[-1] in "/." or _BRANCH_FORBIDDEN.search(name):
        return False
    return not any(part.startswith(".") or part.endswith(".lock") for part in name.split("/"))


def parse_ref(text: str, hashprefix: str) -> Ref:
    """Turn a ref as declared into a Branch or a Commit; ValueError says what was expected."""
    if text[: len(hashprefix)].lower() == hashprefix.lower():
        digits = text[len(hashprefix) :].lower()
        if not _COMMIT.fullmatch(digits):
            raise ValueError(f"{text!r} is no commit: 4 to 40 hexadecimal digits are expected after {hashprefix!r}")
        return Commit(digits)
    if not is_branch_name(text):
        raise ValueError(f"{text!r} is no branch name that Git accepts")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST:
        raise ValueError(f"{text[:20]!r}... is longer than the name of a file can be, {LONGEST} bytes")
    return Branch(text)


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
        return "the URL has two colons behind its host"  # who reads it in haste takes it for a transport helper
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
    return None


def server_of(url: str) -> str:
    """The server a URL speaks to (host and port, no user), or '' for a local path."""
    scheme = _SCHEME.match(url)
    if scheme:
        authority = url[scheme.end() :].partition("/")[0]
        return "" if scheme.group(1) == "file" else authority.rpartition("@")[2].lower()
    scp = None if url.startswith("/") else _SCP.fullmatch(url)
    return scp.group(1).lower() if scp else ""


def location_of(url: str) -> str:
    """Where a URL leads, ``host/path``, whatever way it is written: without scheme, user, port and ``.git``.

    The same for ``git@h:g/p.git``, ``ssh://git@h:22/g/p`` and ``https://H/g/p.git/``; a local path has no host.
    """
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
    """The text without the user names and passwords of the URLs in it, and of what is left of a URL: user@host."""
    return _USER_BEFORE_HOST.sub("", _USER_IN_URL.sub("", text))


def user_of(url: str) -> str:
    """User name and password of a URL, with the ``@`` behind them, or ''."""
    match = _USER_IN_URL.search(url)
    return match.group() if match else ""


def one_line(text: str) -> str:
    """The text with whatever could begin a new line, or steer a terminal, escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
