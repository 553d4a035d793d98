"""Repositories: all of them, and one with its refs, who uses them, its history, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jens.errors import DirectoryError
from jens.history import summaries
from jens.history.model import ref_of_name
from jens.history.queries import Filter
from jens.history.summaries import LastMove
from jens.model import Branch, Commit, Inventory, OpenFault, RepoId, Tag
from jens.names import parse_repository
from jens.status import deployments
from jens.status.environments import FAULTY, MISSING, WELL
from jens.status.page import Page, RefusedError, number, slice_of
from jens.status.sources import Sources
from jens.text import one_line
from jens.tools import history, show, show_repository
from jens.tools.show import Past, when

#: So many entries of its history are on the page of a repository; so many branches that nobody uses.
_MOST_ENTRIES, _MOST_UNUSED = 10, 100


# All


def plan_rows(
    inventory: Inventory,
    faults: Sequence[OpenFault],
    moves: Mapping[str, LastMove],
    users: Mapping[str, int] | None,
    waiting: Collection[RepoId],
    written: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row for each repository that is there, or should be: first those with faults.

    ``written`` are refs of last moves as definitions write them. ``users`` None: nobody knows.
    """
    by_name: dict[RepoId, list[OpenFault]] = {}
    for opened in faults:
        repo = show.repository(opened.fault.repository)
        if repo is not None and not opened.fault.environment:
            by_name.setdefault(repo, []).append(opened)
    rows = []
    for repo in sorted({*inventory, *by_name}):
        refs, told, move = inventory.get(repo), by_name.get(repo, []), moves.get(str(repo))
        rows.append(
            {
                "repository": str(repo),
                "state": MISSING if refs is None else FAULTY if told else WELL,
                "faults": sorted({opened.fault.kind for opened in told}),
                "faulty_since": min((opened.since for opened in told), default=None),
                "branches": None if refs is None else sum(isinstance(ref, Branch) for ref in refs),
                "tags": None if refs is None else sum(isinstance(ref, Tag) for ref in refs),
                "commits": None if refs is None else sum(isinstance(ref, Commit) for ref in refs),
                "environments": None if users is None else users.get(str(repo), 0),
                "left_to_transfer": repo in waiting,
                "last_change": move
                and {
                    "time": when(move.time),
                    "deployment": move.deployment,
                    "ref": written.get(move.ref, move.ref),
                    "commit": move.now,
                    "author": move.author,
                    "subject": move.subject,
                },
            }
        )
    return sorted(rows, key=lambda row: (row["state"] == WELL, row["repository"]))


def look(sources: Sources, arguments: Mapping[str, str]) -> Page:
    """All repositories. Raises RefusedError, DirectoryError."""
    instance = sources.instance()
    known = sources.known()
    with sources.past() as past:
        moves, users = _last_moves(sources, past)
        written = {move.ref: history.declared(ref_of_name(move.ref), sources.config) for move in moves.values()}
        rows = plan_rows(known.inventory, instance.faults, moves, users, instance.left_to_transfer, written)
        found = slice_of(rows, number(arguments, "page"))
        return Page(
            "repositories.html",
            {
                **sources.head(past),
                "repositories": found.rows,
                "not_well": sum(row["state"] != WELL for row in rows),
                **found.encode(),
            },
        )


def _last_moves(sources: Sources, past: Past) -> tuple[Mapping[str, LastMove], Mapping[str, int] | None]:
    def make() -> tuple[Mapping[str, LastMove], Mapping[str, int] | None]:
        return past.ask(summaries.last_moves) or {}, past.ask(summaries.users)

    found: tuple[Mapping[str, LastMove], Mapping[str, int] | None] = sources.kept("last moves", make, sources.recorded)
    return found


# One


def look_at_one(sources: Sources, name: str) -> Page:
    """A repository, named ``modules/dummy``. Raises RefusedError, DirectoryError."""
    try:
        repo = parse_repository(name)
    except ValueError:
        raise RefusedError(404, f"'{one_line(name)}' is no name of a repository.") from None
    try:
        found = show_repository.look(sources.instance(), repo)
    except DirectoryError as error:
        if error.key != "repository":
            raise
        raise RefusedError(404, f"There is no repository {name}: {error.problem}.") from error
    document = {**sources.head(), **found.encode(sources.config)}
    document["url"] = sources.redaction.url(found.url)
    document["faults"] = [sources.fault(each) for each in found.faults]
    if document["not_fetched"]:
        document["not_fetched"]["text"] = sources.redaction.text(document["not_fetched"]["text"])
    document["unused_branches_in_all"] = len(found.unused)
    document["unused_branches"] = [*found.unused[:_MOST_UNUSED]]
    with sources.past() as past:
        groups = deployments.grouped(sources, past, Filter(repository=str(repo)), _MOST_ENTRIES, _MOST_ENTRIES)
        return Page("repository.html", {**document, "history": groups.groups, "history_problem": sources.problem(past)})
