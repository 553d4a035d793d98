"""The purge guard: removals need good evidence, and a metadata repository gone wrong is none.

A refusal stands until somebody allows the removal, or declares again what would be removed. Without that memory it
would end by itself: a library in which everything has another name doubles what is known, and the next run would find
only half of it gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from jens import statefile
from jens.layout import REFUSALS, Layout
from jens.model import HOSTGROUPS, MODULES, RepoId
from jens.statefile import StateError
from jens.system import files

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


_ENVIRONMENTS = "environments"


def load_refusals(layout: Layout) -> frozenset[object]:
    """The repositories and environments (by name) that were known when standing refusals began."""
    try:
        content = statefile.load(layout, REFUSALS)
        repos = {RepoId(kind, str(name)) for kind in (MODULES, HOSTGROUPS) for name in content[kind]}
        return frozenset({*repos, *map(str, content[_ENVIRONMENTS])})
    except (StateError, KeyError, TypeError):
        return frozenset()


def save_refusals(
    layout: Layout, before: frozenset[object], repos: Collection[RepoId], environments: Collection[str]
) -> None:
    """Replace what was remembered: given is what is known of each kind of which a run refuses removals.

    Before anything new becomes known. Raises OSError.
    """
    found = {_ENVIRONMENTS: sorted([name for name in environments if name in before] or environments)}
    for kind in (MODULES, HOSTGROUPS):
        known = {repo for repo in repos if repo.partition == kind}
        found[kind] = sorted(repo.name for repo in known & before or known)
    if any(found.values()):
        statefile.save(layout, REFUSALS, found)
    else:
        files.remove_tree(layout.state(REFUSALS))
