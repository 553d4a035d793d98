"""Plans which repositories there must be, and which refs of them are needed. It touches no disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jens.model import (
    COMMON,
    HIERADATA,
    PARTITIONS,
    SITE,
    SNAPSHOT_COMMON,
    Branch,
    Definition,
    Library,
    Ref,
    RepoId,
)
from jens.purgeguard import PurgeGuard
from jens.repositories.model import Needs, RepositoriesPlan


def plan_repositories(library: Library, known: Iterable[RepoId], guard: PurgeGuard) -> RepositoriesPlan:
    """Compare the library with the repositories that are known from earlier runs."""
    before = set(known)
    gone = before - set(library.urls) - set(library.unusable)
    refused: set[RepoId] = set()
    refusals = []
    for partition in PARTITIONS:
        removed = {repo for repo in gone if repo.partition == partition}
        if _refuses(guard, partition, removed, {repo for repo in before if repo.partition == partition}):
            refused |= removed
            refusals.append(_refusal(partition, removed))
    return RepositoriesPlan(
        new=tuple(sorted(set(library.urls) - before)),
        existing=tuple(sorted(set(library.urls) & before)),
        kept=tuple(sorted((before & set(library.unusable)) | refused)),
        deleted=tuple(sorted(gone - refused)),
        refusals=tuple(refusals),
    )


def _refuses(guard: PurgeGuard, partition: str, removed: set[RepoId], known: set[RepoId]) -> bool:
    if partition == COMMON:
        return guard.is_on and not removed.isdisjoint({SITE, HIERADATA})
    return guard.refuses(removed, known)


def _refusal(partition: str, removed: set[RepoId]) -> str:
    return (
        f"Refusing to remove {len(removed)} of the {partition} at once: {sorted(repo.name for repo in removed)}; "
        "if that is what the library means, run jens-update --allow-purge"
    )


def plan_needs(
    repos: Iterable[RepoId],
    mandatory: Sequence[str],
    definitions: Iterable[Definition],
    former: Iterable[Definition] = (),
) -> dict[RepoId, Needs]:
    """The refs that definitions need of each repository. ``former`` definitions are those being replaced."""
    always = frozenset(map(Branch, mandatory))
    now, before = _Wanted.by(definitions), _Wanted.by(former)
    needs = {}
    for repo in repos:
        current = Needs(always, now.overrides_of(repo), now.implied_of(repo))
        former_refs = before.overrides_of(repo) | before.implied_of(repo)
        needs[repo] = current._replace(former=former_refs.difference(current.refs)) if former_refs else current
    return needs


class _Wanted(NamedTuple):
    """What a set of definitions needs."""

    overrides: Mapping[RepoId, set[Ref]]
    defaults: frozenset[Branch]
    by_snapshots: frozenset[RepoId]

    @classmethod
    def by(cls, definitions: Iterable[Definition]) -> _Wanted:
        overrides: dict[RepoId, set[Ref]] = {}
        defaults: set[Branch] = set()
        by_snapshots: set[RepoId] = set()
        for definition in definitions:
            for repo, ref in definition.overrides.items():
                overrides.setdefault(repo, set()).add(ref)
            if definition.default is not None:
                defaults.add(definition.default)
            else:
                by_snapshots |= {SITE, HIERADATA}.difference(definition.overrides)
        return cls(overrides, frozenset(defaults), frozenset(by_snapshots))

    def overrides_of(self, repo: RepoId) -> frozenset[Ref]:
        return frozenset(self.overrides.get(repo, ()))

    def implied_of(self, repo: RepoId) -> frozenset[Branch]:
        return self.defaults | {SNAPSHOT_COMMON} if repo in self.by_snapshots else self.defaults
