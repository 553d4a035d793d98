"""Reads the name of who has a certificate: X.509, as DER in PEM. It is only read, nothing is proved by it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

_PEM = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
#: The object identifier of a common name, 2.5.4.3.
_COMMON_NAME = b"\x55\x04\x03"
_VERSION = 0xA0
#: Parts of a certificate's body, after the version: serial number, algorithm, issuer, validity, subject.
_SUBJECT = 4


def certname(path: str) -> str:
    """The common name in a certificate; '' when it cannot be told."""
    try:
        text = Path(path).read_text("ascii", "replace")
        begin = text.index(_PEM[0])
        der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(_PEM[1], begin) + len(_PEM[1])])
        return _common_name(der)
    except (OSError, ValueError, IndexError, StopIteration):
        return ""


def _common_name(der: bytes) -> str:
    _, certificate = next(_parts(der))
    _, body = next(_parts(certificate))
    parts = [part for part in _parts(body) if part[0] != _VERSION]
    for _, names in _parts(parts[_SUBJECT][1]):
        for _, attribute in _parts(names):
            (_, kind), (_, value) = _parts(attribute)
            if kind == _COMMON_NAME:
                return value.decode("utf-8", "replace")
    return ""


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of something that is put together: the tag and the content of each. Raises IndexError."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            more = size & 0x7F
            size = int.from_bytes(der[at : at + more], "big")
            at += more
        yield tag, der[at : at + size]
        at += size
