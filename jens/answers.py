"""What remotes said when they were last asked: which of the refs that were needed then they do not have.

A repository whose remote did not answer has no entry, so on demand it is asked again; without the file all are.
"""

from __future__ import annotations

from collections.abc import Mapping

from jens.layout import Layout, entry_ref, ref_entry
from jens.model import PARTITIONS, Ref, RepoId
from jens.names import is_repository_name
from jens.state import StateError, read_state, write_state

VERSION = 1

#: The refs that each remote lacks, of those that were needed.
Answers = Mapping[RepoId, "frozenset[Ref]"]


def recall(layout: Layout) -> Answers:
    """What was remembered; nothing when that is lost."""
    try:
        content = read_state(layout.answers, VERSION)
        return {_parse_key(key): frozenset(map(_parse_entry, entries)) for key, entries in content.items()}
    except (StateError, AttributeError, TypeError, ValueError):
        return {}


def _parse_key(key: str) -> RepoId:
    partition, name = key.split("/")
    if partition not in PARTITIONS or not is_repository_name(name):
        raise ValueError(f"unexpected {key!r}")
    return RepoId(partition, name)


def _parse_entry(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def remember(layout: Layout, answers: Answers) -> None:
    """Raises OSError."""
    content = {str(repo): sorted(ref_entry(ref, None) for ref in refs) for repo, refs in answers.items()}
    write_state(layout.answers, VERSION, content)
