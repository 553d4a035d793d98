"""What one sender, or all of them together, may take from the producer."""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Iterator

#: A larger body is refused, in bytes.
LARGEST_BODY = 5 * 2**20
#: Bodies that are being received take at most so many bytes of memory together, in each process.
MOST_BYTES = 2**26
#: Bodies of so many bytes do not count: there are more connections than MOST_BYTES has room for.
SMALL_BODY = 2**15
#: A request that is not complete after so many seconds is ended.
REQUEST_SECONDS = 10.0
#: So many connections at once; each needs a file descriptor.
MOST_CONNECTIONS = 2000
#: Descriptors for everything else.
_OTHER_FILES = 64


def room_for_connections() -> int:
    """How many connections there may be at once. Raises the soft limit of open files, as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(max(soft - _OTHER_FILES, 1), MOST_CONNECTIONS)


class BusyError(Exception):
    """All bodies together take too much memory."""


class Budget:
    """The bytes of all bodies that are being received in this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """A share for one body, given back at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.change(-share.taken)

    def change(self, size: int) -> None:
        """Take bytes, or give them back. Raises BusyError when there are not so many left."""
        with self._guard:
            if size > 0 and self._taken + size > MOST_BYTES:
                raise BusyError
            self._taken += size


class Share:
    """The bytes of one body; the first ones, SMALL_BODY, do not count."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken = 0
        self._size = 0

    def take(self, size: int) -> None:
        """Take so many bytes more. Raises BusyError."""
        self._size += size
        more = max(self._size - SMALL_BODY, 0) - self.taken
        if more > 0:
            self._budget.change(more)
            self.taken += more
