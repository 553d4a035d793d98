"""What the page remembers, for a while and within bounds: many readers look at the same things."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Callable, Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class _Item(NamedTuple):
    stamp: Hashable
    until: float
    value: object
    size: int


class Memory(Generic[Value]):
    """Values by key, each of which counts for some seconds, and while its stamp is the same.

    Who asks for a value that is being made waits for it, so that it is made once. The values used last stay, as long as
    their number and their sizes together are not more than the most.
    """

    def __init__(self, seconds: float, most: int, most_bytes: int = 0) -> None:
        self._seconds = seconds
        self._most = most
        self._most_bytes = most_bytes
        self._items: OrderedDict[Hashable, _Item] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()
        self._makers: dict[Hashable, threading.Lock] = {}

    def get(
        self,
        key: Hashable,
        make: Callable[[], Value],
        stamp: Hashable = None,
        size: Callable[[Value], int] | None = None,
    ) -> Value:
        """The value of a key, made when there is none that counts. What ``make`` raises passes on, and is forgotten."""
        found = self._find(key, stamp)
        if found is not None:
            return found.value  # type: ignore[return-value]
        with self._guard:
            maker = self._makers.setdefault(key, threading.Lock())
        with maker:
            found = self._find(key, stamp)
            if found is not None:
                return found.value  # type: ignore[return-value]
            try:
                value = make()
                until = time.monotonic() + self._seconds
                self._put(key, _Item(stamp, until, value, size(value) if size else 0))
                return value
            finally:
                with self._guard:
                    self._makers.pop(key, None)

    def look(self, key: Hashable) -> Value | None:
        """The value of a key, None when there is none that counts."""
        found = self._find(key, None)
        return None if found is None else found.value  # type: ignore[return-value]

    def put(self, key: Hashable, value: Value) -> None:
        """Remember a value."""
        self._put(key, _Item(None, time.monotonic() + self._seconds, value, 0))

    def _find(self, key: Hashable, stamp: Hashable) -> _Item | None:
        with self._guard:
            item = self._items.get(key)
            if item is None or item.stamp != stamp or time.monotonic() >= item.until:
                return None
            self._items.move_to_end(key)
            return item

    def _put(self, key: Hashable, item: _Item) -> None:
        with self._guard:
            before = self._items.pop(key, None)
            self._bytes += item.size - (before.size if before else 0)
            self._items[key] = item
            while len(self._items) > self._most or (self._most_bytes and self._bytes > self._most_bytes):
                _, old = self._items.popitem(last=False)
                self._bytes -= old.size
