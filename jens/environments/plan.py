"""Plans which environments there must be. It touches no disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jens.environments.model import EnvironmentsPlan, Previous
from jens.model import Declared, Definition
from jens.purgeguard import PurgeGuard


def plan_environments(
    declared: Mapping[str, Declared], previous: Previous, protected: Collection[str], guard: PurgeGuard
) -> EnvironmentsPlan:
    """Compare definitions with what is there. An ill-formed definition never removes an environment."""
    wanted: dict[str, Definition] = {}
    ill_formed = []
    for name, definition in declared.items():
        if isinstance(definition, Definition):
            wanted[name] = definition
        else:
            ill_formed.append(definition)
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
        ill_formed=tuple(sorted(ill_formed, key=lambda definition: definition.name)),
    )


def _differs(wanted: Definition, remembered: Definition | None) -> bool:
    # A definition that was inferred from links has no source, so there is nothing to rebuild from.
    return bool(wanted.source) and (remembered is None or remembered.source != wanted.source)


def _refusal(deleted: Collection[str]) -> str:
    return (
        f"Refusing to remove {len(deleted)} of the environments at once: {sorted(deleted)}; "
        "if that is what the environment metadata means, run jens-update --allow-purge"
    )
