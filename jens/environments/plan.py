"""Which environments there must be: decided from values, touching nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jens.environments.previous import Previous
from jens.model import Declared, Definition, IllFormed
from jens.purgeguard import PurgeGuard


@dataclass(frozen=True)
class EnvironmentsPlan:
    """What to do with each environment; those in ``protected`` and ``refused`` are not removed after all."""

    new: tuple[Definition, ...]
    changed: tuple[Definition, ...]
    unchanged: tuple[Definition, ...]
    deleted: tuple[str, ...]
    protected: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    ill_formed: tuple[IllFormed, ...] = ()

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """What every environment is to be built from."""
        return (*self.new, *self.changed, *self.unchanged)


def plan_environments(
    declared: Mapping[str, Declared], past: Previous, protected: Collection[str], guard: PurgeGuard
) -> EnvironmentsPlan:
    """Compare definitions with what is there. An ill-formed one never takes an environment away."""
    wanted: dict[str, Definition] = {}
    ill_formed = []
    for name, definition in declared.items():
        if isinstance(definition, Definition):
            wanted[name] = definition
        else:
            ill_formed.append(definition)
    undeclared = (set(past.remembered) | set(past.inferred)) - set(declared)
    spared = undeclared & set(protected)
    deleted = undeclared - spared
    refusals = []
    if guard.refuses(deleted, set(past.remembered) | set(past.inferred)):
        refusals.append(_refusal(deleted))
        spared |= deleted
        deleted = set()
    for name in spared | {definition.name for definition in ill_formed}:
        before = past.definition(name)
        if before is not None:
            wanted[name] = before
    new = [name for name in wanted if name not in past.existing]
    changed = [name for name in wanted if name in past.existing and _differs(wanted[name], past.remembered.get(name))]
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
    # What was inferred from links has no source: there is nothing to rebuild it from.
    return bool(wanted.source) and (remembered is None or remembered.source != wanted.source)


def _refusal(deleted: Collection[str]) -> str:
    return (
        f"Refusing to remove {len(deleted)} of the environments at once: {sorted(deleted)}; "
        "if that is what the environment metadata means, run jens-update --allow-purge"
    )
