"""Plans which environments there must be. It touches no disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from jens.environments.model import EnvironmentsPlan, Previous
from jens.model import COMMON, Declared, Definition, Expansion, RepoId
from jens.purgeguard import PurgeGuard
from jens.text import listed

#: Repositories that a message names.
_MOST_NAMED = 5


def plan_environments(
    declared: Mapping[str, Declared],
    previous: Previous,
    protected: Collection[str],
    guard: PurgeGuard,
    most: int | None = None,
) -> EnvironmentsPlan:
    """Compare definitions with what is there. An ill-formed definition does not change an environment.

    No environment is made that would be more than ``most``, in order of name. Holds come before all else, and neither
    the guard nor ``most`` counts environments that are held.
    """
    wanted: dict[str, Definition] = {}
    ill_formed = []
    for name, definition in sorted(declared.items()):
        if isinstance(definition, Definition):
            wanted[name] = definition
        else:
            ill_formed.append(definition)
    held = previous.held
    free = previous.names - set(held)
    undeclared = free - set(declared)
    spared = undeclared & set(protected)
    deleted = undeclared - spared
    refusals = []
    if guard.refuses(deleted, free):
        refusals.append(_refusal(deleted))
        spared |= deleted
        deleted = set()
    for name in spared | {definition.name for definition in ill_formed}:
        before = previous.definition(name)
        if before is not None:
            wanted[name] = before
    damaged = previous.holds.damaged if previous.holds else {}
    for name in {*held, *damaged}:
        wanted.pop(name, None)
    new = sorted(
        (name for name in wanted if name not in previous.existing), key=lambda name: (name not in protected, name)
    )
    room = len(new) if most is None else max(most - (len(wanted) - len(new)), 0)
    refused_new = new[room:]
    not_done = tuple(wanted.pop(name) for name in refused_new)
    wanted.update(held)
    new = sorted([*new[:room], *(name for name in held if name not in previous.existing)])
    changed = [
        name for name in wanted if name in previous.existing and _differs(wanted[name], previous.remembered.get(name))
    ]
    return EnvironmentsPlan(
        new=tuple(wanted[name] for name in new),
        changed=tuple(wanted[name] for name in sorted(changed)),
        unchanged=tuple(wanted[name] for name in sorted(set(wanted) - set(new) - set(changed))),
        deleted=tuple(sorted(deleted)),
        protected=tuple(sorted(undeclared & set(protected))),
        refusals=tuple(refusals),
        ill_formed=tuple(ill_formed),
        excess=_excess(refused_new, most),
        not_done=not_done,
        ended=tuple(previous.holds.over) if previous.holds else (),
        damaged=damaged,
    )


def refuse_losses(
    plan: EnvironmentsPlan, previous: Previous, expansion: Expansion, guard: PurgeGuard
) -> EnvironmentsPlan:
    """Keep environments as they are whose new definitions would take too many modules and hostgroups away.

    That is known only when remotes have replied: a default that no repository has takes everything away.
    """
    changed, kept, refused, refusals = [], [], [], {}
    for after in plan.changed:
        before = previous.definition(after.name)
        held = _held(before, expansion) if before is not None else set()
        lost = held - _held(after, expansion)
        if before is not None and guard.refuses(lost, held):
            refusals[after.name] = _refused_change(after.name, lost, held)
            kept.append(before)
            refused.append(after)
        else:
            changed.append(after)
    if not refusals:
        return plan
    unchanged = sorted((*plan.unchanged, *kept), key=lambda definition: definition.name)
    return plan._replace(
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        refused_changes=refusals,
        not_done=(*plan.not_done, *refused),
    )


def _held(definition: Definition, expansion: Expansion) -> set[RepoId]:
    """The modules and hostgroups of which an environment of a definition has files."""
    refs = {repo: expansion.ref_of(definition, repo) for repo in expansion.inventory if repo.partition != COMMON}
    return {
        repo
        for repo, ref in refs.items()
        if ref is not None and (ref in expansion.inventory[repo] or (repo, ref) in expansion.undetermined)
    }


def _refused_change(name: str, lost: Collection[RepoId], held: Collection[RepoId]) -> str:
    names = sorted(map(str, lost))
    examples = ", ".join(names[:_MOST_NAMED]) + (", …" if names[_MOST_NAMED:] else "")
    return (
        f"Refusing to take {len(lost)} of {len(held)} modules and hostgroups away from environment '{name}' at once "
        f"({examples}); if that is what its definition means, run jens-update --allow-purge"
    )


def _excess(refused: Sequence[str], most: int | None) -> str:
    if not refused:
        return ""
    return (
        f"Refusing to make {len(refused)} environments, expected {most} in all at most (maxenvironments): "
        f"{listed(refused)}"
    )


def _differs(wanted: Definition, remembered: Definition | None) -> bool:
    # A definition that was inferred from links has no source, so there is nothing to rebuild from.
    return bool(wanted.source) and (remembered is None or remembered.source != wanted.source)


def _refusal(deleted: Collection[str]) -> str:
    return (
        f"Refusing to remove {len(deleted)} of the environments at once: {sorted(deleted)}; "
        "if that is what the environment metadata means, run jens-update --allow-purge"
    )
