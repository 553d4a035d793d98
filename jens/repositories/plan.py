"""Plans which repositories there must be, and which refs of them are needed. It touches no disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
    Moving,
    Ref,
    RepoId,
)
from jens.purgeguard import PurgeGuard
from jens.repositories.model import Needs, RepositoriesPlan


def plan_repositories(
    library: Library,
    known: Iterable[RepoId],
    guard: PurgeGuard,
    held: Collection[RepoId] = (),
    shown: Collection[RepoId] = (),
) -> RepositoriesPlan:
    """Compare the library with the repositories that are known from earlier runs, and that snapshots hold.

    Of those that only snapshots hold from now on, other environments still have the ``shown`` ones. That these lose
    them is a removal like any other.
    """
    before = set(known)
    pinned = (before - set(library.urls) - set(library.unusable)).intersection(held)
    gone = before - set(library.urls) - set(library.unusable) - pinned
    leaving = gone | pinned.intersection(shown)
    in_use = before - pinned | leaving
    refused: set[RepoId] = set()
    refusals = []
    for partition in PARTITIONS:
        removed = {repo for repo in leaving if repo.partition == partition}
        if _refuses(guard, partition, removed, {repo for repo in in_use if repo.partition == partition}):
            refused |= removed
            refusals.append(_refusal(partition, removed))
    return RepositoriesPlan(
        new=tuple(sorted(set(library.urls) - before)),
        existing=tuple(sorted(set(library.urls) & before)),
        kept=tuple(sorted((before & set(library.unusable)) | refused)),
        deleted=tuple(sorted(gone - refused)),
        pinned=tuple(sorted(pinned - refused)),
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


def held_by_snapshots(definitions: Iterable[Definition]) -> set[RepoId]:
    """The repositories that snapshots and holds name.

    A definition that was inferred from links only looks like a snapshot.
    """
    snapshots = [each for each in definitions if each.is_held or (each.default is None and each.source)]
    return {repo for snapshot in snapshots for repo in snapshot.overrides}


def plan_needs(
    repos: Iterable[RepoId],
    mandatory: Sequence[str],
    definitions: Iterable[Definition],
    former: Iterable[Definition] = (),
    pinned: Collection[RepoId] = (),
) -> dict[RepoId, Needs]:
    """The refs that definitions need of each repository. ``former`` definitions are those being replaced.

    Of ``pinned`` repositories only what snapshots name is needed.
    """
    always = frozenset(map(Branch, mandatory))
    now, before = _Wanted.by(definitions), _Wanted.by(former)
    needs = {}
    for repo in repos:
        current = Needs(always, now.overrides_of(repo), now.implied_of(repo))
        if repo in pinned:
            current = Needs(overrides=frozenset(now.pins.get(repo, ())))
        former_refs = before.overrides_of(repo) | before.implied_of(repo)
        needs[repo] = current._replace(former=former_refs.difference(current.refs)) if former_refs else current
    return needs


class _Wanted(NamedTuple):
    """What a set of definitions needs."""

    overrides: Mapping[RepoId, set[Ref]]
    pins: Mapping[RepoId, set[Ref]]
    defaults: frozenset[Moving]
    by_snapshots: frozenset[RepoId]

    @classmethod
    def by(cls, definitions: Iterable[Definition]) -> _Wanted:
        overrides: dict[RepoId, set[Ref]] = {}
        pins: dict[RepoId, set[Ref]] = {}
        defaults: set[Moving] = set()
        by_snapshots: set[RepoId] = set()
        for definition in definitions:
            for repo, ref in definition.overrides.items():
                overrides.setdefault(repo, set()).add(ref)
                if definition.default is None:
                    pins.setdefault(repo, set()).add(ref)
            if definition.default is not None:
                defaults.add(definition.default)
            elif not definition.is_held:
                by_snapshots |= {SITE, HIERADATA}.difference(definition.overrides)
        return cls(overrides, pins, frozenset(defaults), frozenset(by_snapshots))

    def overrides_of(self, repo: RepoId) -> frozenset[Ref]:
        return frozenset(self.overrides.get(repo, ()))

    def implied_of(self, repo: RepoId) -> frozenset[Moving]:
        return self.defaults | {SNAPSHOT_COMMON} if repo in self.by_snapshots else self.defaults
