"""The request for branches of protocol version 2, its reply, and what servers of ssh say before.

Sources: gitprotocol-v2(5), gitprotocol-pack(5), gitprotocol-common(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jens import __version__

_FLUSH, _DELIMITER = b"0000", b"0001"
#: The digits of a length, which counts these digits, too.
_DIGITS = 4
#: How a greeting of version 2 begins.
_VERSION_2 = b"000eversion 2\n"
_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")
#: A ref whose name no program reads in another way, without what nobody has asked for.
_WANTED = (b"refs/heads/", b"refs/tags/")
_NAME = rb"[^\x00-\x20\x7f~^:?*\[\\]+"
_REF = re.compile(
    rb"(?P<commit>[0-9a-f]{40}) (?:(?P<branch>refs/heads/" + _NAME + rb")|(?P<tag>refs/tags/" + _NAME + rb")"
    rb"(?: peeled:(?P<peeled>[0-9a-f]{40})|(?P<is_peeled>\^\{\}))?)\n?"
)
#: Any line of a ref in a greeting.
_LINE = re.compile(rb"[0-9a-f]{40} [^\x00-\x20\x7f]+\n?")
#: Who asks, for the server's log. Some web servers tell Git from people by the beginning.
AGENT = f"git/jens-{__version__}"


def request(tags: Iterable[str] = (), agent: str = AGENT) -> bytes:
    """The request for all branches, and some tags. It names no object format: a server takes that for SHA-1."""
    head = _line("command=ls-refs") + _line(f"agent={agent}")
    prefixes = ["refs/heads/", *(f"refs/tags/{tag}" for tag in tags)]
    peel = _line("peel") if len(prefixes) > 1 else b""
    return head + _DELIMITER + peel + b"".join(_line(f"ref-prefix {prefix}") for prefix in prefixes) + _FLUSH


def _line(text: str) -> bytes:
    return _packet(f"{text}\n".encode("utf-8", "surrogateescape"))


def _packet(content: bytes) -> bytes:
    return b"%04x%s" % (len(content) + _DIGITS, content)


def listing(reply: bytes, tags: Iterable[str] = ()) -> bytes | None:
    """What ``git ls-remote`` prints for a reply, of branches and these tags.

    None unless the reply is whole, usual, and has branches.
    """
    wanted = {f"refs/tags/{tag}".encode("utf-8", "surrogateescape") for tag in tags}
    found = []
    place = 0
    while reply[place : place + _DIGITS] != _FLUSH:
        if not _LENGTH.fullmatch(reply, place, place + _DIGITS):
            return None
        end = place + int(reply[place : place + _DIGITS], 16)
        match = _REF.fullmatch(reply, place + _DIGITS, end) if place + _DIGITS < end <= len(reply) else None
        if match is None or (match["tag"] and not wanted):
            return None
        found += _printed(match) if match["branch"] or match["tag"] in wanted else []
        place = end
    return b"".join(found) if found and place + _DIGITS == len(reply) else None


def _printed(match: re.Match[bytes]) -> list[bytes]:
    """The lines that Git prints for a ref, and for what an annotated tag leads to."""
    commit, branch, tag, peeled, is_peeled = match.groups()
    ref = branch or tag
    lines = [b"%s\t%s%s\n" % (commit, ref, is_peeled or b"")]
    return [*lines, b"%s\t%s^{}\n" % (peeled, ref)] if peeled else lines


def speaks_version_2(greeting: bytes) -> bool | None:
    """Whether a server of ssh greets in version 2, else in version 0; None while it goes on.

    Raises ValueError when that is no greeting.
    """
    return None if _greeting(greeting) is None else greeting.startswith(_VERSION_2)


def words(tags: Iterable[str], *, version_2: bool) -> bytes:
    """What to say to a server of ssh that has greeted."""
    return request(tags) + _FLUSH if version_2 else _FLUSH


def told(said: bytes, tags: Iterable[str] = ()) -> bytes | None:
    """What ``git ls-remote`` prints for all that a server of ssh said, greeting and reply; None as above."""
    try:
        found = _greeting(said)
    except ValueError:
        found = None
    if found is None:
        return None
    lines, end = found
    if said.startswith(_VERSION_2):
        return listing(said[end:], tags)
    return _of_greeting(lines, tags) if end == len(said) else None


def _greeting(said: bytes) -> tuple[list[bytes], int] | None:
    """The lines of a greeting, and where it ends; None while it goes on. Raises ValueError when it is none."""
    lines, place = [], 0
    while said[place : place + _DIGITS] != _FLUSH:
        digits = said[place : place + _DIGITS]
        if len(digits) < _DIGITS:
            return None
        end = place + (int(digits, 16) if _LENGTH.fullmatch(digits) else 0)
        if end <= place + _DIGITS:
            raise ValueError("no line")
        if end > len(said):
            return None
        lines.append(said[place + _DIGITS : end])
        place = end
    return lines, place + _DIGITS


def _of_greeting(lines: list[bytes], tags: Iterable[str]) -> bytes | None:
    """The listing in a greeting of version 0, which has all refs, and behind the first one what the server can do."""
    first, nul, _ = lines[0].partition(b"\0") if lines else (b"", b"", b"")
    refs = [first, *lines[1:]]
    if not nul or not all(map(_LINE.fullmatch, refs)):
        return None
    given = [*tags]
    wanted = [line for line in refs if line.partition(b" ")[2].startswith(_WANTED if given else _WANTED[:1])]
    return listing(b"".join(map(_packet, wanted)) + _FLUSH, given)
