"""The purge guard: a run removes much only on good evidence, and damaged metadata is no evidence.

A refusal stands until somebody allows the removal, or declares again what would be removed. Refusals are saved, because
otherwise they would end by themselves. For example, a library may suddenly give everything another name. The new names
double what is known, so the next run would find only half of it gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from jens import statefile
from jens.layout import Layout
from jens.model import HOSTGROUPS, MODULES, RepoId
from jens.statefile import REFUSALS, StateError, state_path
from jens.system import files

#: A run may always remove this many at once, whatever their percentage.
FEW = 10


class PurgeGuard(NamedTuple):
    """Decides whether a run would remove too much; ``limit`` in percent, 100 turns the guard off.

    ``before`` is what was known when the standing refusals began. Removals are also compared with ``before`` alone, so
    later additions cannot make a removal look small.
    """

    limit: int
    allowed: bool = False
    before: frozenset[object] = frozenset()

    def refuses(self, removed: Collection[object], known: Collection[object]) -> bool:
        """Whether a run may not remove these of the known ones by itself."""
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
    """Replace the saved refusals.

    ``repos`` and ``environments`` are all known ones of each kind of which this run refuses removals. A kind that has
    names in ``before`` keeps only those. Call this before anything new becomes known. Raises OSError.
    """
    found = {_ENVIRONMENTS: sorted([name for name in environments if name in before] or environments)}
    for kind in (MODULES, HOSTGROUPS):
        known = {repo for repo in repos if repo.partition == kind}
        found[kind] = sorted(repo.name for repo in known & before or known)
    if any(found.values()):
        statefile.save(layout, REFUSALS, found)
    else:
        files.remove_tree(state_path(layout, REFUSALS))
