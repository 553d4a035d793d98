"""What remotes said when they were last asked: which of the refs that were needed then they do not have.

A repository whose remote did not answer has no entry, so on demand it is asked again; without the file all are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from jens import statefile
from jens.layout import ABSENT_REFS, Layout, entry_ref, ref_entry
from jens.model import Definition, Ref, RepoId
from jens.names import parse_repository
from jens.statefile import StateError


@dataclass(frozen=True)
class AbsentRefs:
    """The refs that each remote lacks, of those that were needed; and definitions (name to digest) asked for."""

    lacking: Mapping[RepoId, frozenset[Ref]] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)

    def fresh(self, definitions: Iterable[Definition]) -> list[Definition]:
        """Those of which no remote has been asked yet, as they are now."""
        return [each for each in definitions if self.definitions.get(each.name) != _digest(each)]


def digests(definitions: Iterable[Definition]) -> dict[str, str]:
    """The definitions by name, each in a few characters."""
    return {definition.name: _digest(definition) for definition in definitions}


def _digest(definition: Definition) -> str:
    return hashlib.sha256(definition.source).hexdigest()


def load(layout: Layout) -> AbsentRefs:
    """What was remembered; nothing when that is lost."""
    try:
        content = statefile.load(layout, ABSENT_REFS)
        lacking = {
            parse_repository(key): frozenset(map(_parse_entry, entries)) for key, entries in content["lacking"].items()
        }
        return AbsentRefs(lacking, {str(name): str(digest) for name, digest in content["definitions"].items()})
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return AbsentRefs()


def _parse_entry(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def save(layout: Layout, answers: AbsentRefs) -> None:
    """Raises OSError."""
    lacking = {str(repo): sorted(ref_entry(ref, None) for ref in refs) for repo, refs in answers.lacking.items()}
    statefile.save(layout, ABSENT_REFS, {"lacking": lacking, "definitions": dict(answers.definitions)})


def withdraw(layout: Layout, repos: Collection[RepoId]) -> None:
    """Forget what some remotes have said, lest a run that is killed now leave it to be relied on. Raises OSError."""
    before = load(layout)
    if not before.lacking.keys().isdisjoint(repos):
        lacking = {repo: refs for repo, refs in before.lacking.items() if repo not in repos}
        save(layout, AbsentRefs(lacking, before.definitions))
