"""What is wrong with environments: decided from values, touching nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from jens.environments.dangling import Dangling
from jens.environments.model import Applied, EnvironmentsPlan, Previous
from jens.events import (
    DANGLING_LINK,
    DEFINITION,
    ENVIRONMENT,
    PURGE_GUARD,
    TOO_MANY,
    UNKNOWN_KEY,
    VOID_OVERRIDE,
    WAY_OUT,
)
from jens.metadata.definition import MOST_DOUBTS
from jens.model import Definition, Fault, Library
from jens.text import one_line


def plan_faults(
    plan: EnvironmentsPlan, previous: Previous, applied: Applied, library: Library, dangling: Collection[Dangling]
) -> list[Fault]:
    """Everything that is wrong with the environments of a plan, once it was applied."""
    addresses = {definition.name: definition.notifications for definition in applied.standing}
    found = [Fault(PURGE_GUARD, refusal, environment=name) for name, refusal in plan.refused_changes.items()]
    found += [Fault(PURGE_GUARD, refusal, ref="environments") for refusal in plan.refusals]
    found += [Fault(TOO_MANY, plan.excess, ref="environments")] if plan.excess else []
    for bad in plan.ill_formed:
        before = previous.definition(bad.name)
        told = before.notifications if before is not None else ()
        found.append(Fault(DEFINITION, one_line(bad.reason), environment=bad.name, addresses=told))
    found += (
        Fault(ENVIRONMENT, text, environment=name, addresses=addresses.get(name, ()))
        for name, text in applied.problems.items()
    )
    found += (
        Fault(
            WAY_OUT,
            str(refused),
            environment=refused.environment,
            repository=str(refused.repo),
            addresses=addresses.get(refused.environment, ()),
        )
        for refused in applied.refused
    )
    for definition in plan.definitions:
        found += _doubtful(definition, library)
    found += (_dangling(entry, addresses) for entry in sorted(dangling))
    return found


def _doubtful(definition: Definition, library: Library) -> Iterator[Fault]:
    """What a definition says, but hardly means."""
    name, addresses = definition.name, definition.notifications
    for key in definition.unknown_keys[:MOST_DOUBTS]:
        yield Fault(UNKNOWN_KEY, f"has an unknown key '{one_line(key)}'", name, ref=key, addresses=addresses)
    void = sorted(repo for repo in definition.overrides if repo not in library.urls and repo not in library.unusable)
    for repo in void[:MOST_DOUBTS]:
        text = f"overrides {repo.partition} '{one_line(repo.name)}', which the library does not have"
        yield Fault(VOID_OVERRIDE, text, name, str(repo), addresses=addresses)
    if more := len(definition.unknown_keys[MOST_DOUBTS:]) + len(void[MOST_DOUBTS:]):
        text = f"has {more} more unknown keys and overrides of repositories that the library does not have"
        yield Fault(VOID_OVERRIDE, text, name, addresses=addresses)


def _dangling(entry: Dangling, addresses: Mapping[str, tuple[str, ...]]) -> Fault:
    text = f"dangling links, there is no {entry.lacks} in {entry.repository}"
    told = addresses.get(entry.environment, ())
    return Fault(DANGLING_LINK, text, entry.environment, entry.repository, entry.lacks, told)


def newly_doubtful(faults: Iterable[Fault], before: Collection[tuple[str, str, str, str]]) -> Iterator[Fault]:
    """The doubtful definitions among faults that were not open before: it may be the library that changed."""
    for fault in faults:
        if fault.kind in (VOID_OVERRIDE, UNKNOWN_KEY) and fault.identity not in before:
            yield fault
