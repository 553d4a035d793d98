"""The request for branches of protocol version 2, and its reply. Sources: gitprotocol-v2(5), gitprotocol-common(5)."""

from __future__ import annotations

import re

from jens import __version__

_FLUSH, _DELIMITER = b"0000", b"0001"
#: The digits of a length, which counts these digits, too.
_DIGITS = 4
_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")
#: A ref whose name no program reads in another way, without what nobody has asked for.
_REF = re.compile(rb"(?P<commit>[0-9a-f]{40}) (?P<ref>refs/heads/[^\x00-\x20\x7f~^:?*\[\\]+)\n?")
#: Who asks, for the server's log. Some web servers tell Git from people by the beginning.
AGENT = f"git/jens-{__version__}"


def request(agent: str = AGENT) -> bytes:
    """The request for all branches. It names no object format: a server takes that for SHA-1."""
    head = _line("command=ls-refs") + _line(f"agent={agent}")
    return head + _DELIMITER + _line("ref-prefix refs/heads/") + _FLUSH


def _line(text: str) -> bytes:
    content = f"{text}\n".encode()
    return b"%04x%s" % (len(content) + _DIGITS, content)


def listing(reply: bytes) -> bytes | None:
    """What ``git ls-remote --heads`` prints for a reply; None unless the reply is whole, usual, and has branches."""
    found = []
    place = 0
    while reply[place : place + _DIGITS] != _FLUSH:
        if not _LENGTH.fullmatch(reply, place, place + _DIGITS):
            return None
        end = place + int(reply[place : place + _DIGITS], 16)
        match = _REF.fullmatch(reply, place + _DIGITS, end) if place + _DIGITS < end <= len(reply) else None
        if match is None:
            return None
        found.append(b"%s\t%s\n" % match.groups())
        place = end
    return b"".join(found) if found and place + _DIGITS == len(reply) else None
