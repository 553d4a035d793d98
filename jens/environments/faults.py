"""What is wrong with environments: decided from values, touching nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from jens.environments.dangling import Dangling
from jens.environments.model import Applied, EnvironmentsPlan, Previous
from jens.events import (
    CHECKOUT,
    COMMIT,
    CONTENT,
    DANGLING_LINK,
    DEFINITION,
    ENVIRONMENT,
    HELD,
    PURGE_GUARD,
    TOO_MANY,
    UNDECLARED,
    UNKNOWN_KEY,
    VOID_OVERRIDE,
    WAY_OUT,
)
from jens.layout import ref_entry
from jens.metadata.definition import MOST_DOUBTS
from jens.model import Declared, Definition, Fault, Library
from jens.text import one_line

#: Kinds of faults of a repository's ref.
_OF_REFS = (CHECKOUT, COMMIT, CONTENT)


def plan_faults(
    plan: EnvironmentsPlan, previous: Previous, applied: Applied, library: Library, dangling: Collection[Dangling]
) -> list[Fault]:
    """Everything that is wrong with the environments of a plan, once it was applied."""
    before = filter(None, (previous.definition(bad.name) for bad in plan.ill_formed))
    addresses = _addresses([*plan.definitions, *applied.standing, *before, *plan.ill_formed, *plan.not_done])
    found = [
        Fault(PURGE_GUARD, refusal, environment=name, addresses=addresses.get(name, ()))
        for name, refusal in plan.refused_changes.items()
    ]
    found += [Fault(PURGE_GUARD, refusal, ref="environments") for refusal in plan.refusals]
    if plan.excess:
        names = {definition.name for definition in plan.not_done} - plan.refused_changes.keys()
        told = dict.fromkeys(address for name in sorted(names) for address in addresses[name])
        found.append(Fault(TOO_MANY, plan.excess, ref="environments", addresses=(*told,)))
    found += (
        Fault(DEFINITION, one_line(bad.reason), environment=bad.name, addresses=addresses[bad.name])
        for bad in plan.ill_formed
    )
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
        found += [] if definition.is_held else _doubtful(definition, library)
    for name in plan.protected:
        text = "is declared by no definition, and stays because it is protected"
        found.append(Fault(UNDECLARED, text, environment=name, addresses=addresses.get(name, ())))
    for name, hold in previous.holds.there.items() if previous.holds else ():
        if hold.until is None:
            found.append(Fault(HELD, f"is held {hold.why}", environment=name, addresses=addresses.get(name, ())))
    found += (_dangling(entry, addresses) for entry in sorted(dangling))
    return found


def _addresses(declared: Iterable[Declared]) -> dict[str, tuple[str, ...]]:
    """Whom to tell of each environment: all whom its old and its new definition name."""
    found: dict[str, dict[str, None]] = {}
    for definition in declared:
        found.setdefault(definition.name, {}).update(dict.fromkeys(definition.notifications))
    return {name: (*told,) for name, told in found.items()}


def tell_who_names_it(faults: Iterable[Fault], definitions: Iterable[Definition]) -> list[Fault]:
    """Faults of repositories, with the addresses of definitions that override the repository with the faulty ref."""
    named: dict[tuple[str, str], dict[str, None]] = {}
    faulty = [*faults]
    repositories = {fault.repository for fault in faulty if fault.kind in _OF_REFS}
    for definition in definitions if repositories else ():
        for repo, ref in definition.overrides.items():
            if str(repo) in repositories:
                named.setdefault((str(repo), ref_entry(ref, None)), {}).update(dict.fromkeys(definition.notifications))
    return [fault._replace(addresses=(*_names(named, fault),)) if fault.kind in _OF_REFS else fault for fault in faulty]


def _names(named: Mapping[tuple[str, str], Mapping[str, None]], fault: Fault) -> dict[str, None]:
    """Whom to tell of a faulty ref. A commit is named by any abbreviation."""
    commit = fault.ref if fault.kind == CONTENT else f".{fault.ref}"
    return dict.fromkeys(
        address
        for (repo, entry), addresses in named.items()
        if repo == fault.repository and (entry == fault.ref or (entry[0] == "." and commit.startswith(entry)))
        for address in addresses
    )


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
