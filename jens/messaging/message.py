"""The content of a message: the repositories that changed, as a pickle of plain values.

A second field, which is JSON, says where the branches of a push are now. Older readers do not look at it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from jens.messaging import plainpickle
from jens.model import PARTITIONS, RepoId
from jens.names import is_branch_name, is_commit_id, is_repository_name, parse_repository

#: A message with more moves of branches has none.
MOST_MOVES = 100


class Move(NamedTuple):
    """What a push did to a branch: the commits before and after it, '' for none."""

    branch: str
    before: str
    after: str


#: Seconds before it was added that a message may speak of: jens-update renews hints with the time that they had.
_LONGEST_AGO = 7 * 86_400


def timestamp(seconds: float | None = None) -> str:
    """The time for a message, now or in seconds since the epoch: local time, ISO 8601 with microseconds."""
    moment = datetime.now() if seconds is None else datetime.fromtimestamp(seconds)
    return moment.isoformat(timespec="microseconds")


def parse_time(data: bytes, added: float) -> float:
    """The time that a message tells, or when it was ``added``: anybody may write anything there.

    Both are in seconds since the epoch.
    """
    try:
        told = datetime.fromisoformat(data.decode("ascii").strip()).timestamp()
    except (OverflowError, OSError, ValueError):
        return added
    return told if -1 <= added - told <= _LONGEST_AGO else added  # clocks are not that exact


def encode(repos: Iterable[RepoId]) -> bytes:
    """The data of a message: a pickle that Python 2 can read, too."""
    content: dict[str, list[str]] = {}
    for repo in sorted(repos):
        content.setdefault(repo.partition, []).append(repo.name)
    return pickle.dumps(content, protocol=2)


def decode(data: bytes) -> tuple[set[RepoId], list[str]]:
    """The repositories that a message names, and what is ill-formed in it. Raises ValueError when all of it is."""
    content = plainpickle.loads(data)
    if not isinstance(content, dict):
        raise ValueError("expected a mapping of partitions to lists of names")
    repos: set[RepoId] = set()
    unknown = [partition for partition in content if partition not in PARTITIONS]
    problems = [f"unknown partitions ({len(unknown)}), such as {str(unknown[0])[:40]!a}"] if unknown else []
    for partition, value in content.items():
        if partition not in PARTITIONS:
            continue
        if not isinstance(value, list):
            problems.append(f"{partition} is expected to be a list of names")
        else:
            good = {name for name in value if isinstance(name, str) and is_repository_name(name)}
            repos |= {RepoId(partition, name) for name in good}
            bad = sum(1 for name in value if not isinstance(name, str) or name not in good)
            problems += [f"{partition} has bad names ({bad})"] if bad else []
    return repos, problems


def encode_moves(moves: Mapping[RepoId, Sequence[Move]]) -> bytes:
    """The field ``after`` of a message."""
    content = {str(repo): [list(move) for move in moves[repo]] for repo in sorted(moves)}
    return json.dumps(content).encode("ascii")


def decode_moves(data: bytes) -> dict[RepoId, list[Move]]:
    """The moves of branches that a message tells of, by repository. Raises ValueError when anything is ill-formed."""
    try:
        content = json.loads(data)
        moves = {parse_repository(repo): [Move(*map(str, move)) for move in found] for repo, found in content.items()}
    except (AttributeError, RecursionError, TypeError) as error:
        raise ValueError("expected moves of branches by repository") from error
    each = [move for found in moves.values() for move in found]
    if len(each) > MOST_MOVES or not all(map(is_move, each)):
        raise ValueError("expected names of branches and commits")
    return moves


def is_move(move: Move) -> bool:
    """Whether these are the name of a branch and full ids of commits; '' is none."""
    return is_branch_name(move.branch) and all(not commit or is_commit_id(commit) for commit in move[1:])
