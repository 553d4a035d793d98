"""Plans which repositories there must be, and which refs of them are needed. It touches no disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jens.model import (
    COMMON,
    HIERADATA,
    PARTITIONS,
    PLAIN,
    SITE,
    SNAPSHOT_COMMON,
    Branch,
    Definition,
    Directories,
    Library,
    Moving,
    Ref,
    RepoId,
    Usage,
    Usages,
    common_branch,
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
    definitions = [*definitions]
    snapshots = [each for each in definitions if each.is_held or (each.default is None and each.source)]
    followed = {repo for each in definitions for repo in each.follow if each.pins(repo)}
    return followed.union(repo for snapshot in snapshots for repo in snapshot.overrides)


def plan_needs(
    repos: Iterable[RepoId],
    mandatory: Sequence[str],
    definitions: Iterable[Definition],
    former: Iterable[Definition] = (),
    pinned: Collection[RepoId] = (),
    usages: Usages = MappingProxyType({}),
) -> dict[RepoId, Needs]:
    """The refs that definitions need of each repository. ``former`` definitions are those being replaced.

    Of ``pinned`` repositories only what snapshots name is needed.
    """
    always, common = frozenset(map(Branch, mandatory)), common_branch(mandatory)
    now, before = _Wanted.by(definitions), _Wanted.by(former)
    needs = {}
    for repo in repos:
        usage = usages.get(repo, PLAIN)
        if repo in pinned:
            current = Needs(overrides=frozenset(now.pins.get(repo, ())))
        else:
            branches = always if usage.has_mandatory_branches else frozenset[Branch]()
            current = Needs(branches, now.overrides_of(repo), now.implied_of(repo, usage, common))
            current = current._replace(incidental=now.incidental_of(repo, usage, common, current))
        current = current._replace(directories=usage.directories, others=now.others_of(repo, usage))
        former_refs = before.overrides_of(repo) | before.implied_of(repo, usage, common)
        needs[repo] = current._replace(former=former_refs.difference(current.refs)) if former_refs else current
    return needs


class _Wanted(NamedTuple):
    """What a set of definitions needs.

    ``defaults`` has the defaults of each definition, ``by_following`` those for single repositories of holds.
    ``directories`` is what definitions say of where overridden repositories have what.
    """

    overrides: Mapping[RepoId, set[Ref]]
    pins: Mapping[RepoId, set[Ref]]
    defaults: frozenset[tuple[Moving, ...]]
    by_following: Mapping[RepoId, set[tuple[Moving, ...]]]
    by_snapshots: frozenset[RepoId]
    directories: Mapping[RepoId, list[tuple[Ref, Mapping[str, str | None]]]]

    @classmethod
    def by(cls, definitions: Iterable[Definition]) -> _Wanted:
        overrides: dict[RepoId, set[Ref]] = {}
        pins: dict[RepoId, set[Ref]] = {}
        defaults: set[tuple[Moving, ...]] = set()
        by_snapshots: set[RepoId] = set()
        given = [*definitions]
        for definition in given:
            for repo, ref in definition.overrides.items():
                overrides.setdefault(repo, set()).add(ref)
                if definition.default is None:
                    pins.setdefault(repo, set()).add(ref)
            if definition.default is not None:
                defaults.add(definition.defaults)
            elif not definition.is_held:
                by_snapshots |= {SITE, HIERADATA}.difference(definition.overrides)
        following: dict[RepoId, set[tuple[Moving, ...]]] = {}
        followed = [pair for definition in given for pair in definition.follow.items()]
        for repo, definition in followed:
            if repo in definition.overrides:
                overrides.setdefault(repo, set()).add(definition.overrides[repo])
            elif definition.default is not None:
                following.setdefault(repo, set()).add(definition.defaults)
            elif repo in (SITE, HIERADATA):
                by_snapshots.add(repo)
        directories = _said_of_directories([*given, *(definition for _, definition in followed)])
        return cls(overrides, pins, frozenset(defaults), following, frozenset(by_snapshots), directories)

    def overrides_of(self, repo: RepoId) -> frozenset[Ref]:
        return frozenset(self.overrides.get(repo, ()))

    def _defaults_for(self, repo: RepoId) -> frozenset[tuple[Moving, ...]]:
        return self.defaults.union(self.by_following.get(repo, ()))

    def _choices(self, repo: RepoId, usage: Usage, common: Branch) -> Iterator[tuple[Ref, ...]]:
        """The refs of which environments have the first that there is."""
        yield from map(usage.refs_for, self._defaults_for(repo))
        if repo in self.by_snapshots:
            yield usage.refs_for((SNAPSHOT_COMMON, common))

    def implied_of(self, repo: RepoId, usage: Usage, common: Branch) -> frozenset[Ref]:
        return frozenset(ref for refs in self._choices(repo, usage, common) for ref in refs)

    def incidental_of(self, repo: RepoId, usage: Usage, common: Branch, needs: Needs) -> frozenset[Ref]:
        """The branches that only lists of defaults name. Tags are not: a mirror has only those that were needed."""
        single = {defaults[0] for defaults in self._defaults_for(repo) if len(defaults) == 1}
        certain = {*needs.mandatory, *needs.overrides, *single, usage.fallback, SNAPSHOT_COMMON, common}
        return frozenset(ref for ref in needs.implied if isinstance(ref, Branch) and ref not in certain)

    def others_of(self, repo: RepoId, usage: Usage) -> dict[Ref, frozenset[Directories]]:
        """The directories of overridden refs, where a definition says something of any of them."""
        found: dict[Ref, frozenset[Directories]] = {}
        for ref, said in self.directories.get(repo, ()):
            found[ref] = found.get(ref, frozenset()) | {usage.directories.changed(said)}
        return found


def _said_of_directories(
    definitions: Sequence[Definition],
) -> dict[RepoId, list[tuple[Ref, Mapping[str, str | None]]]]:
    """What definitions say of the refs of each repository of which any of them says where it has what."""
    repos = {repo for definition in definitions for repo in definition.directories}
    return {
        repo: [(each.overrides[repo], each.directories.get(repo, {})) for each in definitions if repo in each.overrides]
        for repo in repos
    }
