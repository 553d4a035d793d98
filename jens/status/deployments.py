"""What became visible when: the history with its filters, and all that one deployment changed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jens.history import queries, summaries
from jens.history.queries import Deployment, Entry, Filter
from jens.history.store import Reader
from jens.names import is_environment_name, parse_repository
from jens.status.page import Page, RefusedError, moment, number
from jens.status.sources import Sources
from jens.text import one_line
from jens.tools.history import utc
from jens.tools.show import Past

#: So many deployments, so many entries in all, and so many entries of each deployment are on a page of the history.
_MOST_DEPLOYMENTS, _MOST_ENTRIES, _MOST_OF_EACH = 40, 100, 10
#: So many entries are on a page of one deployment.
_ENTRIES = 100
#: The arguments of the history.
ARGUMENTS = ("environment", "repository", "author", "since", "until", "before")


class Groups(NamedTuple):
    """Deployments with their entries as JSON types; ``older`` is the number before which older ones are, if any."""

    groups: list[dict[str, Any]]
    older: int | None


def grouped(sources: Sources, past: Past, wanted: Filter, most: int, most_of_each: int) -> Groups:
    """The newest deployments with what is asked for, and the first entries of each."""
    by_number, older = past.ask(lambda reader: _newest(reader, wanted, most, most_of_each)) or ({}, None)
    numbers = [*by_number]
    sizes = past.ask(lambda reader: summaries.sizes(reader, numbers)) or {}
    facts = past.ask(lambda reader: [queries.deployment(reader, each) for each in numbers]) or []
    groups = [
        {**_encode(each, sizes), "entries": [sources.entry(entry) for entry in by_number[each.number]]}
        for each in facts
        if each is not None
    ]
    return Groups(groups, older)


def _newest(reader: Reader, wanted: Filter, most: int, most_of_each: int) -> tuple[dict[int, list[Entry]], int | None]:
    """The first entries of the newest deployments, and the number before which older ones are, None for none."""
    found: dict[int, list[Entry]] = {}
    entries, size = 0, min(_MOST_ENTRIES, 2 * most)
    while len(found) < most and entries < _MOST_ENTRIES:
        page = [*itertools.islice(queries.entries(reader, wanted, size), size)]
        found.update(plan_groups(page, most - len(found), most_of_each))
        entries = sum(map(len, found.values()))
        if not page or (len(page) < size and page[-1].deployment in found):
            return found, None
        wanted = wanted._replace(before=[*found][-1])  # the rest of a large deployment is on its own page
    return found, [*found][-1]


def plan_groups(entries: Sequence[Entry], most: int, most_of_each: int) -> dict[int, list[Entry]]:
    """The first entries of each deployment, the newest first, of so many deployments at most."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.deployment not in found and len(found) == most:
            break
        of_this = found.setdefault(entry.deployment, [])
        if len(of_this) < most_of_each:
            of_this.append(entry)
    return found


def _encode(made: Deployment, sizes: Mapping[int, summaries.Size]) -> dict[str, Any]:
    size = sizes.get(made.number, summaries.Size())
    return {
        "number": made.number,
        "time": utc(made.visible),
        "host": made.host,
        "seconds": made.seconds,
        "status": made.status,
        "mode": made.mode,
        "changes": size.changes,
        "environment_changes": size.environments,
    }


def parse_filter(arguments: Mapping[str, str]) -> Filter:
    """What of the history is asked for. Raises RefusedError."""
    environment, repository = arguments.get("environment", "").strip(), arguments.get("repository", "").strip()
    if environment and not is_environment_name(environment):
        raise RefusedError(400, f"'{one_line(environment)}' is no name of an environment")
    try:
        of = str(parse_repository(repository)) if repository else None
    except ValueError:
        raise RefusedError(400, f"expected a repository such as modules/dummy, not '{one_line(repository)}'") from None
    return Filter(
        (environment,) if environment else (),
        of,
        moment(arguments, "since"),
        moment(arguments, "until"),
        arguments.get("author", "").strip() or None,
        number(arguments, "before"),
    )


def look(sources: Sources, arguments: Mapping[str, str]) -> Page:
    """The history, or what of it is asked for."""
    wanted = parse_filter(arguments)
    with sources.past() as past:
        found = grouped(sources, past, wanted, _MOST_DEPLOYMENTS, _MOST_OF_EACH)
        unknown = past.ask(lambda reader: queries.unknown(reader, wanted)) or []
        document = {
            **sources.head(past),
            "filter": {name: arguments.get(name) or None for name in ARGUMENTS},
            "unknown": unknown,
            "deployments": found.groups,
            "older": found.older,
        }
        return Page("history.html", document, 503 if past.problem else 200)


def look_at_one(sources: Sources, asked: str, arguments: Mapping[str, str]) -> Page:
    """A deployment with all that it changed. Raises RefusedError."""
    wanted, page = number({"deployment": asked}, "deployment"), max(1, number(arguments, "page") or 1)
    with sources.past() as past:
        made = past.ask(lambda reader: queries.deployment(reader, wanted or 0))
        if past.problem:
            return Page("deployment.html", {**sources.head(past), "deployment": None, "entries": []}, 503)
        if made is None:
            raise RefusedError(404, f"The history has no deployment {wanted}.")
        only = Filter(deployment=made.number)
        start = (page - 1) * _ENTRIES
        entries: list[Entry] = (
            past.ask(
                lambda reader: [*itertools.islice(queries.entries(reader, only, _ENTRIES), start, start + _ENTRIES + 1)]
            )
            or []
        )
        sizes = past.ask(lambda reader: summaries.sizes(reader, [made.number])) or {}
        return Page(
            "deployment.html",
            {
                **sources.head(past),
                "deployment": _encode(made, sizes),
                "entries": [sources.entry(entry) for entry in entries[:_ENTRIES]],
                "page": page,
                "more": len(entries) > _ENTRIES,
            },
        )
