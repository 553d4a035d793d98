"""Environments: all of them, one with all that it has and why, and how two differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jens.environments import hold as holds
from jens.environments.hold import Hold
from jens.errors import DirectoryError
from jens.events import DANGLING_LINK
from jens.history import summaries
from jens.history.queries import EnvironmentChange, Filter
from jens.model import Definition, OpenFault
from jens.names import is_environment_name
from jens.status import deployments
from jens.status.page import Page, RefusedError, number, slice_of
from jens.status.sources import Sources
from jens.text import one_line
from jens.tools import show_environment
from jens.tools.show import Past, when

# What an environment is like.
WELL, FAULTY, MISSING = "well", "faulty", "missing"

#: So many entries of its history are on the page of an environment.
_MOST_ENTRIES = 10


# All


def plan_rows(
    existing: Collection[str],
    definitions: Mapping[str, Definition | None],
    faults: Sequence[OpenFault],
    changed: Mapping[str, EnvironmentChange],
    shown: Mapping[str, float],
    held: Mapping[str, Hold],
) -> list[dict[str, Any]]:
    """A row for each environment that is there, or should be: first those with faults."""
    by_name: dict[str, list[OpenFault]] = {}
    for opened in faults:
        if is_environment_name(opened.fault.environment):
            by_name.setdefault(opened.fault.environment, []).append(opened)
    rows = [
        {
            **_row(
                *(name, name in existing, definitions.get(name), by_name.get(name, [])),
                *(changed.get(name), shown.get(name)),
            ),
            "held": held[name].tell() if name in held else None,
        }
        for name in sorted({*existing, *by_name})
    ]
    return sorted(rows, key=lambda row: (row["state"] == WELL, row["environment"]))


def _row(
    name: str,
    is_there: bool,
    definition: Definition | None,
    faults: Sequence[OpenFault],
    changed: EnvironmentChange | None,
    shown: float | None,
) -> dict[str, Any]:
    times = [time for time in (changed and changed.time, shown) if time is not None]
    return {
        "environment": name,
        "state": (FAULTY if faults else WELL) if is_there else MISSING,
        "faults": sorted({opened.fault.kind for opened in faults}),
        "faulty_since": min((opened.since for opened in faults), default=None),
        "default": definition and definition.default and str(definition.default),
        "snapshot": None if definition is None else definition.default is None,
        "overrides": None if definition is None else len(definition.overrides),
        "last_change": when(max(times, default=None)),
        "definition_changed": changed
        and {"time": when(changed.time), "author": changed.author, "commit": changed.commit},
    }


def look(sources: Sources, arguments: Mapping[str, str]) -> Page:
    """All environments. Raises RefusedError, DirectoryError."""
    instance = sources.instance()
    existing = instance.environments()
    with sources.past() as past:
        changed, shown = _last_changes(sources, past, existing)
        held = holds.load_all(instance.layout).there
        rows = plan_rows(existing, sources.definitions(), instance.faults, changed, shown, held)
        found = slice_of(rows, number(arguments, "page"))
        return Page(
            "environments.html",
            {
                **sources.head(past),
                "environments": found.rows,
                "not_well": sum(row["state"] != WELL for row in rows),
                **found.encode(),
            },
        )


def _last_changes(
    sources: Sources, past: Past, existing: Sequence[str]
) -> tuple[Mapping[str, EnvironmentChange], Mapping[str, float]]:
    def make() -> tuple[Mapping[str, EnvironmentChange], Mapping[str, float]]:
        return (
            past.ask(summaries.last_changes) or {},
            past.ask(lambda reader: summaries.last_shown(reader, existing)) or {},
        )

    found: tuple[Mapping[str, EnvironmentChange], Mapping[str, float]] = sources.kept(
        "last changes", make, (sources.recorded, tuple(existing))
    )
    return found


# One


def look_at_one(sources: Sources, name: str, arguments: Mapping[str, str]) -> Page:
    """An environment; or with ``compare`` how another one differs from it. Raises RefusedError, DirectoryError."""
    other = arguments.get("compare", "").strip()
    if other:
        return _compare(sources, name, other)
    document = _document(sources, name)
    with sources.past() as past:
        found = deployments.grouped(sources, past, Filter((name,)), _MOST_ENTRIES, _MOST_ENTRIES)
        return Page("environment.html", {**document, "history": found.groups})


def _document(sources: Sources, name: str) -> dict[str, Any]:
    """What jens-show tells of an environment, without paths of this host. Raises RefusedError, DirectoryError."""
    if not is_environment_name(name):
        raise RefusedError(404, f"'{one_line(name)}' is no name of an environment.")
    instance = sources.instance()
    try:
        found = show_environment.look(instance, name)
    except DirectoryError as error:
        if error.key != "environment" or not error.problem.startswith("does not exist"):
            raise
        raise RefusedError(404, f"Environment {name} {sources.redaction.text(error.problem)}.") from error
    text = sources.redaction.text
    document = {**sources.head(), **found.encode(sources.config)}
    document["held"] = document.pop("hold")
    document["history_problem"] = text(found.problem) or None
    document["faults"] = [sources.fault(each) for each in _of_its_own(found.faults)]
    for part in document["repositories"]:
        for told in (part["dangling"], part["not_fetched"]):
            if told:
                told.update({key: text(told[key]) for key in ("why", "text") if key in told})
        part["problem"] = part["problem"] and text(part["problem"])
    document["repositories"].sort(key=_urgency)
    return document


def _of_its_own(faults: Sequence[OpenFault]) -> list[OpenFault]:
    """Faults but for those that repositories of the environment have a line of their own for."""
    return [each for each in faults if each.fault.kind != DANGLING_LINK or not each.fault.repository]


def _urgency(part: Mapping[str, Any]) -> tuple[int, str]:
    """What somebody should look at comes first, then what the environment has of its own."""
    if part["dangling"] or part["problem"] or part["not_fetched"]:
        return 0, part["repository"]
    return {"waiting": 1, "override": 2}.get(part["why"], 3), part["repository"]


# Two


def plan_difference(here: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The repositories whose refs or commits differ, sorted; None where an environment does not have one."""
    ours, theirs = ({part["repository"]: part for part in parts} for parts in (here, there))
    return [
        {"repository": name, "here": ours.get(name), "there": theirs.get(name)}
        for name in sorted({*ours, *theirs})
        if _shown(ours.get(name)) != _shown(theirs.get(name))
    ]


def _shown(part: Mapping[str, Any] | None) -> str | None:
    """What files a repository shows in an environment. Links that dangle show the same, whatever they are named."""
    return None if part is None else part["commit"] or f"no {part['ref']}"


def _compare(sources: Sources, name: str, other: str) -> Page:
    here, there = _document(sources, name), _document(sources, other)
    differences = plan_difference(here["repositories"], there["repositories"])
    return Page(
        "compare.html",
        {
            **sources.head(),
            "environment": name,
            "compared_with": other,
            "same": len({part["repository"] for each in (here, there) for part in each["repositories"]})
            - len(differences),
            "differences": differences,
        },
    )
