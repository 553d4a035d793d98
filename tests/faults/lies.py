"""Lies of Git servers, told within the output of a real ``git upload-pack``."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Callable

Write = Callable[[bytes], object]

#: For how many seconds a server lies: longer than any test waits, but not for ever.
PATIENCE = 90.0
#: Branches, and the names of the same length that the server sends instead.
NAMES = {
    "climbs-out-of-here": "../../../../escape",
    "looks-like-options": "--upload-pack=evil",
    "is-a-lock-of-git's": ".git/../conf.lock/",
}


class Lie:
    """What a server does: ``WHAT`` lies at once, ``WHAT-pack`` when the pack has begun; '' is an honest server.

    "slow" is honest, but takes a second for 40 KiB, "throttle2" for 2 MiB.
    """

    def __init__(self, name: str, reached: Callable[[], object], stop: threading.Event) -> None:
        self.what, _, when = name.partition("-")
        self._in_pack = when == "pack"
        self._reached = reached
        self._stop = stop
        self._end = time.monotonic() + PATIENCE

    def tell(self, answer: IO[bytes], write: Write) -> None:
        """Pass on an honest reply until the lie begins, then tell the lie."""
        seen, sent, begin = b"", 0, time.monotonic()
        for chunk in iter(lambda: os.read(answer.fileno(), 1 << 16), b""):
            seen = seen[-3:] + chunk
            if self.what == "names":
                self._reached()
                write(_renamed(chunk))
            elif self.what == "slow":
                self._reached()
                self._dawdle(chunk, write)
            elif self.what.startswith("throttle"):
                self._reached()
                write(chunk)
                sent += len(chunk)
                self._wait(begin + sent / (int(self.what[len("throttle") :]) << 20) - time.monotonic())
            elif self.what and (not self._in_pack or b"PACK" in seen):
                half = len(chunk) // 2 if self._in_pack else 0
                write(chunk[:half])
                self._reached()
                self._lie(chunk[half:], write)
                return
            else:
                write(chunk)

    def _lie(self, rest: bytes, write: Write) -> None:
        if self.what == "silent":
            self._wait(PATIENCE)
        elif self.what == "drip":
            for number in range(len(rest)):
                write(rest[number : number + 1])
                if self._wait(1):
                    break
        elif self.what == "garbage":
            write(bytes(range(256)) * 256)
        elif self.what == "endless":
            self._list_endlessly(write)

    def _dawdle(self, chunk: bytes, write: Write) -> None:
        for begin in range(0, len(chunk), 4096):
            write(chunk[begin : begin + 4096])
            self._wait(0.1)

    def _list_endlessly(self, write: Write) -> None:
        count = 0
        while not self._wait(0):
            lines = []
            for number in range(count, count + 1000):
                line = f"{number + 1:040x} refs/heads/{number:040}".encode()
                line += b"\0side-band-64k ofs-delta\n" if number == 0 else b"\n"
                lines.append(f"{len(line) + 4:04x}".encode() + line)
            count += 1000
            write(b"".join(lines))

    def _wait(self, seconds: float) -> bool:
        """Wait; whether the lie must end now."""
        return self._stop.wait(max(0.0, min(seconds, self._end - time.monotonic()))) or time.monotonic() >= self._end


def _renamed(chunk: bytes) -> bytes:
    for plain, hostile in NAMES.items():
        chunk = chunk.replace(f"refs/heads/{plain}".encode(), f"refs/heads/{hostile}".encode())
    return chunk


@contextmanager
def upload_pack(command: list[str], protocol: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an honest server for one conversation, in a version of Git's protocol; it ends with the block."""
    environment = {**os.environ, "GIT_PROTOCOL": protocol}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def copy(questions: IO[bytes], to: IO[bytes]) -> None:
    """Pass on all that the client sends, until it ends or nobody reads it."""
    with suppress(OSError, ValueError), to:
        for chunk in iter(lambda: os.read(questions.fileno(), 1 << 16), b""):
            to.write(chunk)
            to.flush()
