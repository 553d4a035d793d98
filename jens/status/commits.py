"""Commits, and the search for these and for names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jens.errors import DirectoryError
from jens.history import queries
from jens.model import RepoId
from jens.names import parse_repository
from jens.status.page import Page, RefusedError
from jens.status.sources import Sources
from jens.text import one_line
from jens.tools import show, show_commit

#: What may be the beginning of a commit's id.
_ID = re.compile(r"[0-9a-f]{7,40}")
_WHOLE = 40
#: So many names, and so many commits, are found at most.
_MOST_NAMES, _MOST_COMMITS = 50, 20


def plan_names(names: Iterable[str], asked: str, most: int = _MOST_NAMES) -> list[str]:
    """The names that have this text in them, in any case: first those that are it, or begin with it."""
    wanted = asked.casefold()
    found = [(name.casefold().rpartition("/")[2], name) for name in names if wanted in name.casefold()]
    return [name for _, name in sorted(found, key=lambda pair: _nearness(pair, wanted))][:most]


def _nearness(pair: tuple[str, str], wanted: str) -> tuple[int, str]:
    last, name = pair
    return (0 if wanted in (last, name.casefold()) else 1 if last.startswith(wanted) else 2), name


def search(sources: Sources, arguments: Mapping[str, str]) -> Page:
    """What the text of a search may mean: environments, repositories, commits. Raises DirectoryError."""
    asked = arguments.get("q", "").strip()
    with sources.past() as past:
        commits = _commits(sources, past, asked.lower()) if _ID.fullmatch(asked.lower()) else []
        return Page(
            "search.html",
            {
                **sources.head(past),
                "asked": asked,
                "environments": plan_names(sources.instance().environments(), asked) if asked else [],
                "repositories": plan_names(map(str, sources.known().inventory), asked) if asked else [],
                "commits": commits,
                "is_commit": _ID.fullmatch(asked.lower()) is not None,
            },
        )


def _commits(sources: Sources, past: show.Past, digits: str) -> list[dict[str, Any]]:
    """Commits that are laid out now, or that the history has seen: no mirror is looked through for this."""
    known = {
        (repo, commit)
        for repo, refs in sources.known().inventory.items()
        for commit in refs.values()
        if commit.startswith(digits)
    }
    for name, commit in past.ask(lambda reader: queries.ids_like(reader, digits)) or ():
        repo = show.repository(name)
        known |= {(repo, commit)} if repo else set()
    found = sorted(known)[:_MOST_COMMITS]
    said = sources.described(found)
    return [
        {
            "commit": commit,
            "repository": str(repo),
            "author": said[repo, commit].author if (repo, commit) in said else None,
            "subject": said[repo, commit].subject if (repo, commit) in said else None,
        }
        for repo, commit in found
    ]


def _only_repository(sources: Sources, digits: str) -> RepoId | None:
    """The only repository that a whole id can be of, if that is known: then no other mirror is looked through."""
    if len(digits) < _WHOLE:
        return None
    with sources.past() as past:
        repos = {each["repository"] for each in _commits(sources, past, digits)}
    return parse_repository(repos.pop()) if len(repos) == 1 else None


def look(sources: Sources, asked: str) -> Page:
    """The commits that begin with these digits: where each is, was, and is not. Raises RefusedError, DirectoryError."""
    digits = asked.lower()
    if not _ID.fullmatch(digits):
        raise RefusedError(404, f"'{one_line(asked)}' is no commit: 7 to 40 hexadecimal digits are expected.")
    try:
        answer = show_commit.look(sources.instance(), digits, _only_repository(sources, digits))
    except DirectoryError as error:
        if error.key != "repository":
            raise
        raise RefusedError(404, f"There is no commit {digits}.") from error
    document = {**sources.head(), **answer.encode(sources.config)}
    text = sources.redaction.text
    document["history_problem"] = text(answer.problem) or None
    for found, encoded in zip(answer.commits, document["commits"]):
        encoded["faults"] = [sources.fault(each) for each in found.faults]
    for each in (*document["commits"], *document["suspects"]):
        if each["not_fetched"]:
            each["not_fetched"]["text"] = text(each["not_fetched"]["text"])
    is_known = any(found.state != show_commit.NOT_IN_MIRROR for found in answer.commits) or answer.metadata
    return Page("commit.html", document, 200 if is_known else 404)
