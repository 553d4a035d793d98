"""The content of a message: the repositories that changed, as a pickle of plain values."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from datetime import datetime

from jens.messaging import plainpickle
from jens.model import PARTITIONS, RepoId
from jens.names import is_repository_name


def timestamp() -> str:
    """The time for a message: now, local time, ISO 8601 with microseconds."""
    return datetime.now().isoformat(timespec="microseconds")


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
