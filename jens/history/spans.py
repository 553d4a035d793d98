"""Decides when a commit was visible in environments: which commits branches led to, and which refs were held when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jens.history.model import pinned_commit
from jens.history.queries import Holding, Move

#: Why a commit is no longer visible in an environment.
REWRITTEN = "rewritten"
ROLLED_BACK = "rolled back"
REPLACED = "replaced"
BRANCH_GONE = "branch gone"
MOVED_ON = "moved to another ref"
LEFT = "left"


class Span(NamedTuple):
    """A time in which an environment showed a commit, or one that contains it; ``until`` None: it still does.

    Times are in seconds since the epoch. ``ref`` is the name in the history of the ref that led to it in the end, and
    ``shown`` the commit that it showed then. ``end`` is one of the reasons above, ``by`` the commit or the name of the
    ref that came next, None for none.
    """

    environment: str
    ref: str
    shown: str
    since: float
    until: float | None = None
    end: str | None = None
    by: str | None = None


class _Run(NamedTuple):
    """Moves of a ref, one after the other, that all lead to commits which count; ``after`` is the next one."""

    moves: Sequence[Move]
    after: Move | None


class _Piece(NamedTuple):
    """A span between deployments, of one run and one holding; ``last`` is None while it lasts."""

    span: Span
    first: int
    last: int | None


def plan_spans(moves: Iterable[Move], holdings: Iterable[Holding], containing: Collection[str]) -> list[Span]:
    """The spans of a repository's commit, which ``containing`` has with all that contain it; by environment and time.

    Moves and holdings are those of the repository, the oldest first.
    """
    by_ref: dict[str, list[Move]] = {}
    for move in moves:
        by_ref.setdefault(move.ref, []).append(move)
    runs = {ref: [*_runs(found, containing)] for ref, found in by_ref.items()}
    by_environment: dict[str, list[Holding]] = {}
    for holding in holdings:
        by_environment.setdefault(holding.environment, []).append(holding)
    return [
        span
        for environment in sorted(by_environment)
        for span in _joined(_pieces(by_environment[environment], runs, containing))
    ]


def _runs(moves: Iterable[Move], containing: Collection[str]) -> Iterator[_Run]:
    """The runs of a ref. A busy branch moves ten thousand times a year, and most environments hold it."""
    found: list[Move] = []
    for move in moves:
        if move.now in containing:
            found.append(move)
        elif found:
            yield _Run(found, move)
            found = []
    if found:
        yield _Run(found, None)


def _pieces(
    holdings: Sequence[Holding], runs: Mapping[str, Sequence[_Run]], containing: Collection[str]
) -> Iterator[_Piece]:
    for number, held in enumerate(holdings):
        following = holdings[number + 1] if number + 1 < len(holdings) else None
        next_ref = following.ref if following is not None and following.since == held.until else None
        pin = pinned_commit(held.ref)
        pinned = [_Run([Move(held.ref, pin, held.since, held.since_time)], None)] if pin in containing else []
        for run in pinned if pin is not None else runs.get(held.ref, ()):
            if _is_within(held, run):
                yield _piece(held, run, next_ref)


def _is_within(held: Holding, run: _Run) -> bool:
    is_over = run.after is not None and run.after.deployment <= held.since
    return not is_over and (held.until is None or run.moves[0].deployment < held.until)


def _piece(held: Holding, run: _Run, next_ref: str | None) -> _Piece:
    begin, after = run.moves[0], run.after
    first, since = max(begin.deployment, held.since), max(begin.time, held.since_time)
    last = next(move for move in reversed(run.moves) if held.until is None or move.deployment < held.until)
    span = Span(held.environment, held.ref, str(last.now), since)
    if after is not None and (held.until is None or after.deployment < held.until):
        return _Piece(span._replace(until=after.time, end=_reason(after), by=after.now), first, after.deployment)
    if held.until is not None:
        end = MOVED_ON if next_ref is not None else LEFT
        return _Piece(span._replace(until=held.until_time, end=end, by=next_ref), first, held.until)
    return _Piece(span, first, None)


def _reason(after: Move) -> str:
    if after.now is None:
        return BRANCH_GONE
    if after.lost:
        return REWRITTEN if after.commits else ROLLED_BACK
    return REPLACED


def _joined(pieces: Iterable[_Piece]) -> Iterator[Span]:
    """Spans without the changes from one commit that contains it to another."""
    before: _Piece | None = None
    for piece in pieces:
        if before is None or before.last != piece.first:
            if before is not None:
                yield before.span
            before = piece
        else:
            before = piece._replace(span=piece.span._replace(since=before.span.since))
    if before is not None:
        yield before.span
