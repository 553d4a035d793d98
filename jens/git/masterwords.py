"""What a program and a master of ssh say to each other. Source: PROTOCOL.mux of OpenSSH."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum

_VERSION = b"\0\0\0\4"
_HELLO, _NEW_SESSION, _FAILED, _EXIT, _OPENED = 0x00000001, 0x10000002, 0x80000003, 0x80000004, 0x80000006
_NO_ESCAPE = 0xFFFFFFFF
#: The length of what comes, which does not count itself, and what it is. Bytes of the former, and the longest.
_HEAD, _COUNT, _LONGEST = struct.Struct(">II"), 4, 1 << 16


class Word(Enum):
    """What a master says."""

    OPENED = "the server has opened the session"
    REFUSED = "the server does not want one more session"
    OTHER = "something that does not matter"


def opening(command: str) -> bytes:
    """What asks a master for a session without a terminal, with the variable that Git sends.

    Three messages with a descriptor each, for input, output and complaints, have to follow.
    """
    nothing, none = _text(b""), _number(0)
    options = (none, none, none, none, _number(_NO_ESCAPE))  # terminal, X11, agent, subsystem
    session = (_number(0), nothing, *options, nothing, _text(command.encode()), _text(b"GIT_PROTOCOL=version=2"))
    return _text(_number(_HELLO) + _VERSION) + _text(_number(_NEW_SESSION) + b"".join(session))


def _number(number: int) -> bytes:
    return struct.pack(">I", number)


def _text(text: bytes) -> bytes:
    return _number(len(text)) + text


def heard(said: bytearray) -> Iterator[Word]:
    """Take the whole words from the beginning of what a master said. Raises ValueError for what is none."""
    while len(said) >= _HEAD.size:
        length, kind = _HEAD.unpack_from(said)
        if not _HEAD.size - _COUNT <= length <= _LONGEST:
            raise ValueError("no word of a master")
        if len(said) < _COUNT + length:
            return
        rest = bytes(said[_HEAD.size : _COUNT + length])
        del said[: _COUNT + length]
        yield _word(kind, rest)


def _word(kind: int, rest: bytes) -> Word:
    if kind == _HELLO and not rest.startswith(_VERSION):
        raise ValueError("a master of another version")
    if kind not in (_HELLO, _EXIT, _OPENED, _FAILED):
        raise ValueError("a master that does not want to")
    return {_OPENED: Word.OPENED, _FAILED: Word.REFUSED}.get(kind, Word.OTHER)
