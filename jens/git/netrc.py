"""Reads the password of a host in a simple ``.netrc``, as Git's HTTP library does. Other files are left to Git."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jens.system.files import read_if_there

#: What only the library reads aright: quotes, comments, macros, an entry for all hosts.
_ODD = re.compile(r"[\"'\\#]|\b(?:macdef|default|account)\b")
_ENTRY = re.compile(r"\s*machine\s+(?P<host>\S+)\s+login\s+(?P<user>\S+)\s+password\s+(?P<password>\S+)(?=\s|\Z)")


def netrc_of(host: str, user: str, environment: Mapping[str, str]) -> tuple[str, str] | tuple[()] | None:
    """User and password for a host; () when the file has none for it, None when Git has to look."""
    if "HOME" not in environment:
        return None
    try:
        text = (read_if_there(f"{environment['HOME']}/.netrc") or b"").decode("utf-8", "surrogateescape")
    except OSError:
        return None
    if not text.strip():
        return ()
    if _ODD.search(text) or _ENTRY.sub("", text).strip():
        return None
    found = [(entry["user"], entry["password"]) for entry in _ENTRY.finditer(text) if entry["host"].lower() == host]
    if not found:
        return ()
    return None if user or len(found) > 1 else found[0]
