"""How far away a server is: it is worth more questions at once when they are on the way for most of their time."""

from __future__ import annotations

import math

#: Seconds to a server and back, from which on it is far away, if so many ways took at least as long.
_FAR, _ENOUGH = 0.05, 4


class Distance:
    """The way to one server and back. What is measured may take longer, never less, so the shortest time counts."""

    def __init__(self) -> None:
        self._seconds = math.inf
        self._count = 0

    def measure(self, seconds: float) -> None:
        """Note how long one way there and back took."""
        self._seconds = min(self._seconds, seconds)
        self._count += 1

    @property
    def is_far(self) -> bool:
        """Whether the server is known to be far away."""
        return self._count >= _ENOUGH and self._seconds >= _FAR
