"""Texts for readers: nothing in them can be mistaken for markup, reach around its place, or tell where files are."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timezone
from operator import itemgetter

from jens import urls
from jens.config import Config
from jens.text import one_line

#: An absolute path, or a URL of one; its last part is the group.
_PATH = re.compile(r"(?<![\w/:.~…-])(?:file://)?/(?:[^\s'\"()<>/:,;]+/)+([^\s'\"()<>/:,;]*)")
#: Longer texts are cut: whoever wrote them may have written any number of characters.
LONGEST = 1000


class Redaction:
    """Takes out of texts what is nobody's business: where files are on this host, and users and passwords of URLs."""

    def __init__(self, config: Config) -> None:
        directories = {
            **{key: str(value) for key, value in config.main._asdict().items() if key.endswith("dir")},
            "queuedir": str(config.messaging.queuedir),
            "lockdir": str(config.filelock.lockdir),
        }
        self._directories = sorted(filter(itemgetter(1), directories.items()), key=lambda item: -len(item[1]))

    def text(self, text: str) -> str:
        """A text without paths of this host: configured directories have their keys, others their last part."""
        for key, path in self._directories:
            text = text.replace(path, key)
        return _PATH.sub(r"…/\1", urls.redact(text[:LONGEST]))

    def url(self, url: str | None) -> str | None:
        """A clone URL that everybody may see; of a path of this host only its end."""
        if url is None or urls.server_of(url):
            return url and urls.redact(url)
        return f"…/{url.rstrip('/').rpartition('/')[2]}"


def clean(text: str) -> str:
    """A text in one line, with all characters escaped that would change how others look; a very long one is cut."""
    return one_line(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


# Times

#: So many times are remembered as people write them: many pages have the same ones.
_MOST_TIMES = 20_000


def local(moment: str | None) -> str:
    """A time (UTC, ISO 8601) as people on this host write it."""
    return "unknown" if moment is None else _local(moment)


@functools.lru_cache(_MOST_TIMES)
def _local(moment: str) -> str:
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return "unknown"


#: Units of time: seconds, name, and from how many of them on.
_UNITS = ((86_400, "days", 2), (3600, "h", 2), (60, "min", 2), (1, "s", 0))


def lasting(seconds: float) -> str:
    """A length of time in the largest unit of which there are at least two."""
    for length, name, least in _UNITS:
        if seconds >= least * length:
            return f"{int(seconds // length)} {name}"
    return "0 s"


def ago(moment: str | None) -> str:
    """How long ago a time (UTC, ISO 8601) was."""
    if moment is None:
        return "unknown"
    try:
        seconds = datetime.now(timezone.utc).timestamp() - datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError, OSError):
        return "unknown"
    return f"{lasting(seconds)} ago" if seconds >= 0 else _local(moment)


def seconds(value: float | None) -> str:
    """Seconds with one decimal, minutes and hours when there are many."""
    if value is None:
        return "unknown"
    return f"{value:.1f} s" if value < 120 else lasting(value)


def short(commit: str | None) -> str:
    """The first digits of a commit."""
    return (commit or "")[:7] or "none"


#: A commit's whole id.
_ID = re.compile(r"[0-9a-f]{40}")


def short_ref(ref: str) -> str:
    """A ref as definitions write it, with the first digits of a commit's whole id."""
    return _ID.sub(lambda found: found.group()[:7], ref)
