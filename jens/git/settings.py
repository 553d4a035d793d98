"""The user's configuration of Git, as the Gits see it that speak to remotes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from jens.errors import GitError
from jens.git import process
from jens.git.process import GitOptions

#: A key of Git's configuration and its value, None when only the key is there.
Entry = tuple[str, Optional[str]]


def read(options: GitOptions) -> list[Entry] | None:
    """All settings, the last ones of a key last. None when they cannot be read: Git will say why."""
    try:
        return entries(
            process.run(["config", "--list", "-z"], remote=options._replace(left=None), limit=options.timeout)
        )
    except GitError:
        return None


def entries(output: bytes) -> list[Entry]:
    """What ``git config --list -z`` has printed."""
    found = []
    for text in output.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        key, line_end, value = text.partition("\n")
        found.append((key, value if line_end else None))
    return found


def rewritten(url: str, settings: Iterable[Entry]) -> str:
    """The URL that Git uses instead of this one (``insteadOf``)."""
    length, base = 0, ""
    for key, value in settings:
        section, _, name = key.rpartition(".")
        if section.startswith("url.") and name == "insteadof" and value and url.startswith(value):
            length, base = max((length, base), (len(value), section[len("url.") :]), key=lambda found: found[0])
    return base + url[length:]


def strange_keys(settings: Iterable[Entry]) -> list[str]:
    """Settings outside of ``http`` and ``credential`` that could matter: remotes, another protocol version."""
    found = (key for key, value in settings if key == "protocol.version" and value != "2")
    remotes = (f"remote.….{key.rpartition('.')[2]}" for key, _ in settings if key.startswith("remote."))
    return [*found, *remotes]
