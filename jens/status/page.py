"""What a page is: a document for programs, and the template that shows the same to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jens.text import one_line, parse_moment

#: A longer argument of an address is refused, in characters.
LONGEST_ARGUMENT = 300
#: So many rows are on one page of a list.
ROWS = 500


class Page(NamedTuple):
    """The document of a page as JSON types, the template for people, and the HTTP status."""

    template: str
    document: dict[str, Any]
    status: int = 200


class RefusedError(Exception):
    """A page that cannot be shown: the HTTP status, and why, in one line."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


def number(arguments: Mapping[str, str], name: str) -> int | None:
    """A whole number among the arguments, None when it is not there. Raises RefusedError."""
    text = arguments.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise RefusedError(400, f"expected a number for {name}, not '{one_line(text)}'")
    return int(text)


def moment(arguments: Mapping[str, str], name: str) -> float | None:
    """A time among the arguments, in seconds since the epoch; None when it is not there. Raises RefusedError."""
    text = arguments.get(name, "")
    try:
        return parse_moment(text) if text else None
    except ValueError as error:
        raise RefusedError(400, f"{name}: {error}") from None


class Slice(NamedTuple):
    """The rows of a list that are on a page; pages are counted from 1."""

    rows: list[Any]
    page: int
    pages: int
    total: int

    def encode(self) -> dict[str, int]:
        """Where the page is in the list, as JSON types."""
        return {"page": self.page, "pages": self.pages, "total": self.total}


def slice_of(rows: list[Any], wanted: int | None, most: int = ROWS) -> Slice:
    """A page of a list; the last one when there are not so many."""
    pages = max(1, -(-len(rows) // most))
    page = min(max(wanted or 1, 1), pages)
    return Slice(rows[(page - 1) * most : page * most], page, pages, len(rows))
