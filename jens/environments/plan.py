"""Plans which environments there must be. It touches no disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jens.environments.model import EnvironmentsPlan, Previous
from jens.model import COMMON, Declared, Definition, RepoId
from jens.purgeguard import PurgeGuard


def plan_environments(
    declared: Mapping[str, Declared],
    previous: Previous,
    protected: Collection[str],
    guard: PurgeGuard,
    repos: Collection[RepoId] = (),
) -> EnvironmentsPlan:
    """Compare definitions with what is there; ``repos`` are those that the library has.

    Neither an ill-formed definition nor one that takes too much away changes an environment.
    """
    wanted: dict[str, Definition] = {}
    ill_formed = []
    refused_changes = {}
    for name, definition in sorted(declared.items()):
        if not isinstance(definition, Definition):
            ill_formed.append(definition)
            continue
        before = previous.definition(name) if name in previous.existing else None
        lost = _lost(before, definition, repos) if before is not None else set()
        if before is not None and guard.refuses(lost, _held(before, repos)):
            refused_changes[name] = _refused_change(name, len(lost), len(_held(before, repos)))
            wanted[name] = before
        else:
            wanted[name] = definition
    undeclared = previous.names - set(declared)
    spared = undeclared & set(protected)
    deleted = undeclared - spared
    refusals = []
    if guard.refuses(deleted, previous.names):
        refusals.append(_refusal(deleted))
        spared |= deleted
        deleted = set()
    for name in spared | {definition.name for definition in ill_formed}:
        before = previous.definition(name)
        if before is not None:
            wanted[name] = before
    new = [name for name in wanted if name not in previous.existing]
    changed = [
        name for name in wanted if name in previous.existing and _differs(wanted[name], previous.remembered.get(name))
    ]
    return EnvironmentsPlan(
        new=tuple(wanted[name] for name in sorted(new)),
        changed=tuple(wanted[name] for name in sorted(changed)),
        unchanged=tuple(wanted[name] for name in sorted(set(wanted) - set(new) - set(changed))),
        deleted=tuple(sorted(deleted)),
        protected=tuple(sorted(undeclared & set(protected))),
        refusals=tuple(refusals),
        ill_formed=tuple(ill_formed),
        refused_changes=refused_changes,
    )


def _held(definition: Definition, repos: Collection[RepoId]) -> set[RepoId]:
    """The modules and hostgroups that an environment of a definition holds."""
    return {repo for repo in repos if repo.partition != COMMON and definition.ref_of(repo) is not None}


def _lost(before: Definition, after: Definition, repos: Collection[RepoId]) -> set[RepoId]:
    """The modules and hostgroups that a change of definition takes away from an environment."""
    if before.source == after.source or after.default is not None:
        return set()
    return _held(before, repos) - _held(after, repos)


def _refused_change(name: str, lost: int, held: int) -> str:
    return (
        f"Refusing to take {lost} of {held} modules and hostgroups away from environment '{name}' at once; "
        "if that is what its definition means, run jens-update --allow-purge"
    )


def _differs(wanted: Definition, remembered: Definition | None) -> bool:
    # A definition that was inferred from links has no source, so there is nothing to rebuild from.
    return bool(wanted.source) and (remembered is None or remembered.source != wanted.source)


def _refusal(deleted: Collection[str]) -> str:
    return (
        f"Refusing to remove {len(deleted)} of the environments at once: {sorted(deleted)}; "
        "if that is what the environment metadata means, run jens-update --allow-purge"
    )
