"""The purge guard: removals need good evidence, and a metadata repository gone wrong is none."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

#: So few removals at once are nothing unusual, whatever their share.
FEW = 10


class PurgeGuard(NamedTuple):
    """Says when a run would remove too much; ``limit`` in percent, 100 switches the guard off.

    ``before`` is what was known when a refusal began that still stands: what has come since makes no removal small.
    """

    limit: int
    allowed: bool = False
    before: frozenset[object] = frozenset()

    def refuses(self, removed: Collection[object], known: Collection[object]) -> bool:
        """Whether removing these of the known ones is more than a run may do by itself."""
        return self.is_on and (
            self._is_much(removed, known)
            or self._is_much(self.before.intersection(removed), self.before.intersection(known))
        )

    def _is_much(self, removed: Collection[object], known: Collection[object]) -> bool:
        return len(removed) > FEW and len(removed) * 100 > self.limit * len(known)

    @property
    def is_on(self) -> bool:
        """Whether anything is refused at all."""
        return not self.allowed and self.limit < 100
