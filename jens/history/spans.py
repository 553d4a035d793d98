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


class _Piece(NamedTuple):
    """A span of one commit, between deployments; ``last`` is None while it lasts."""

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
    by_environment: dict[str, list[Holding]] = {}
    for holding in holdings:
        by_environment.setdefault(holding.environment, []).append(holding)
    return [
        span
        for environment in sorted(by_environment)
        for span in _joined(_pieces(by_environment[environment], by_ref, containing))
    ]


def _pieces(
    holdings: Sequence[Holding], moves: Mapping[str, Sequence[Move]], containing: Collection[str]
) -> Iterator[_Piece]:
    for number, held in enumerate(holdings):
        following = holdings[number + 1] if number + 1 < len(holdings) else None
        next_ref = following.ref if following is not None and following.since == held.until else None
        pin = pinned_commit(held.ref)
        pinned = [Move(held.ref, pin, held.since, held.since_time)]
        shown = pinned if pin is not None else [*moves.get(held.ref, ())]
        for move, after in zip(shown, [*shown[1:], None]):
            if move.now in containing and _is_within(held, move, after):
                yield _piece(held, move, after, next_ref)


def _is_within(held: Holding, move: Move, after: Move | None) -> bool:
    is_over = after is not None and after.deployment <= held.since
    return not is_over and (held.until is None or move.deployment < held.until)


def _piece(held: Holding, move: Move, after: Move | None, next_ref: str | None) -> _Piece:
    first, since = max(move.deployment, held.since), max(move.time, held.since_time)
    span = Span(held.environment, held.ref, str(move.now), since)
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
