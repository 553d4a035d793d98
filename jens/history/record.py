"""Decides what is recorded: what differs between what the history believes visible and what is visible. Only values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from jens.history.model import (
    CHANGED,
    CREATED,
    DELETED,
    HELD,
    RELEASED,
    Believed,
    Change,
    EnvironmentBelieved,
    EnvironmentChange,
    EnvironmentSeen,
    FaultRows,
    Holding,
    Link,
    Rows,
    Visible,
    is_held,
    is_same_conf,
    is_same_hold,
    ref_of_name,
)
from jens.model import Commit, Fault, OpenFault
from jens.text import one_line, shortened

#: So many addresses of a fault are kept.
MOST_ADDRESSES = 20


def plan(believed: Believed, visible: Visible) -> Rows:
    """The rows that make the history believe what is visible."""
    changes = [*_changes(believed, visible)]
    appeared = {(each.repository, each.ref) for each in changes if each.before is None}
    vanished = {(each.repository, each.ref) for each in changes if each.now is None}
    environments: list[EnvironmentChange] = []
    opened: list[Holding] = []
    closed: list[Holding] = []
    for name, seen in sorted(visible.environments.items()):
        before = believed.environments.get(name)
        holds = before.holds if before else {}
        more, less = _holdings(name, holds, seen.holds), _holdings(name, seen.holds, holds)
        opened += more
        closed += less
        if before is None:
            environments.append(EnvironmentChange(name, CREATED, seen.time))
        elif not is_same_hold(before.conf, seen.conf):
            time = max(seen.time, visible.holds_changed)
            environments.append(EnvironmentChange(name, HELD if is_held(seen.conf) else RELEASED, time))
        elif _is_changed(before, seen, more, less, appeared, vanished):
            environments.append(EnvironmentChange(name, CHANGED, seen.time))
    for name, time in sorted(visible.gone_environments.items()):
        if name in believed.environments:
            environments.append(EnvironmentChange(name, DELETED, time))
            closed += _holdings(name, {}, believed.environments[name].holds)
    return Rows(changes, environments, opened, closed)


def _changes(believed: Believed, visible: Visible) -> Iterator[Change]:
    for repository, seen in sorted(visible.repositories.items()):
        yield from _moves(repository, believed.links.get(repository, {}), seen.links, seen.time)
    for repository, time in sorted(visible.gone_repositories.items()):
        yield from _moves(repository, believed.links.get(repository, {}), {}, time)


def _moves(repository: str, before: Mapping[str, str], links: Mapping[str, Link], time: float) -> Iterator[Change]:
    for ref in sorted({*before, *links}):
        link = links.get(ref)
        if link is None:
            yield Change(repository, ref, before[ref], None, time)
        elif link.commit != before.get(ref):
            yield Change(repository, ref, before.get(ref), link.commit, link.time)


def _holdings(environment: str, without: Mapping[str, str], holds: Mapping[str, str]) -> list[Holding]:
    """What ``holds`` has and ``without`` has not."""
    return [Holding(environment, *held) for held in sorted(holds.items() - without.items())]


def _is_changed(
    before: EnvironmentBelieved,
    seen: EnvironmentSeen,
    more: Iterable[Holding],
    less: Iterable[Holding],
    appeared: Collection[tuple[str, str]],
    vanished: Collection[tuple[str, str]],
) -> bool:
    """Whether an environment is another one, and not only what it follows.

    Each environment that follows branches gets a new repository: the changes of the repository tell that.
    """
    if not is_same_conf(before.conf, seen.conf):
        return True
    for held in more:
        old = before.holds.get(held.repository)
        is_new = old is None and (held.repository, held.ref) in appeared
        if not is_new and not _is_same_pin(old, held.ref):
            return True
    return any(held.repository not in seen.holds and (held.repository, held.ref) not in vanished for held in less)


def _is_same_pin(old: str | None, new: str) -> bool:
    """Whether both are pins of the same commit, whose files were missing, or are missing now."""
    pin = ref_of_name(new)
    return old is not None and isinstance(pin, Commit) and ref_of_name(old) == pin


def plan_faults(known: Iterable[OpenFault], found: Iterable[OpenFault]) -> FaultRows:
    """What became of the faults that the history ``known`` as open, when these were ``found`` open."""
    before = {opened.fault.identity: opened for opened in known}
    now = {opened.fault.identity: opened for opened in map(_as_kept, found)}
    return FaultRows(
        opened=[opened for key, opened in now.items() if key not in before],
        reworded=[opened for key, opened in now.items() if key in before and opened.fault != before[key].fault],
        closed=[key for key in before if key not in now],
    )


def _as_kept(opened: OpenFault) -> OpenFault:
    """A fault as the history keeps it: others decide how long texts are, what is in them, and how many there are."""
    kind, text, environment, repository, ref, addresses = opened.fault
    told = tuple(map(_line, addresses[:MOST_ADDRESSES]))
    kept = Fault(_line(kind), _line(text), _line(environment), _line(repository), _line(ref), told)
    return OpenFault(kept, _line(opened.since))


def _line(text: str) -> str:
    return one_line(shortened(text))


def hint_for(time: float, hinted: float | None) -> float | None:
    """The time of the hint that led to what became visible at ``time``; a later hint did not."""
    return hinted if hinted is not None and hinted <= time else None
