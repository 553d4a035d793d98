"""Refs that remotes lack: which of the refs that were needed they did not have when they last replied.

A remote that did not reply has no entry, so a run on demand asks it again. Without the file it asks all of them.
Commits that a remote did not have are asked for again when it has changed, or a definition that names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from jens import statefile
from jens.git.wrapper import listing
from jens.layout import Layout, entry_ref, ref_entry
from jens.model import Definition, Ref, RepoId
from jens.names import parse_repository
from jens.statefile import ABSENT_REFS, StateError


@dataclass(frozen=True)
class AbsentRefs:
    """The needed refs that each remote lacks, and the definitions (name to digest) that they were asked for.

    ``states`` has what each remote was like when it lacked commits.
    """

    lacking: Mapping[RepoId, frozenset[Ref]] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[RepoId, str] = field(default_factory=dict)

    def fresh(self, definitions: Iterable[Definition]) -> list[Definition]:
        """The definitions that are new or changed since remotes were last asked."""
        return [each for each in definitions if self.definitions.get(each.name) != _digest(each)]


def state_of(url: str, heads: Mapping[str, str]) -> str:
    """A digest of a remote: its URL and its branches (name to commit)."""
    return hashlib.sha256(url.encode("utf-8", "surrogateescape") + b"\n" + listing(heads)).hexdigest()


def digests(definitions: Iterable[Definition]) -> dict[str, str]:
    """The SHA-256 digest of each definition's source, by name."""
    return {definition.name: _digest(definition) for definition in definitions}


def _digest(definition: Definition) -> str:
    return hashlib.sha256(definition.source).hexdigest()


def load(layout: Layout) -> AbsentRefs:
    """Load what was saved last; nothing when that is lost or damaged."""
    try:
        content = statefile.load(layout, ABSENT_REFS)
        lacking = {
            parse_repository(key): frozenset(map(_parse_entry, entries)) for key, entries in content["lacking"].items()
        }
        states = {parse_repository(key): str(state) for key, state in content.get("states", {}).items()}
        definitions = {str(name): str(digest) for name, digest in content["definitions"].items()}
        return AbsentRefs(lacking, definitions, states)
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return AbsentRefs()


def _parse_entry(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def save(layout: Layout, absent: AbsentRefs) -> None:
    """Save what remotes lack. Raises OSError."""
    lacking = {str(repo): sorted(ref_entry(ref, None) for ref in refs) for repo, refs in absent.lacking.items()}
    content: dict[str, object] = {"lacking": lacking, "definitions": dict(absent.definitions)}
    if absent.states:
        content["states"] = {str(repo): state for repo, state in absent.states.items()}
    statefile.save(layout, ABSENT_REFS, content)


def withdraw(layout: Layout, repos: Collection[RepoId]) -> None:
    """Remove the entries of some repositories, so that no run relies on them if this one is killed. Raises OSError.

    All entries go if they cannot be saved without these.
    """
    before = load(layout)
    if not before.lacking.keys().isdisjoint(repos):
        lacking = {repo: refs for repo, refs in before.lacking.items() if repo not in repos}
        try:
            save(layout, AbsentRefs(lacking, before.definitions, before.states))
        except OSError:
            if not statefile.drop(layout, ABSENT_REFS):
                raise
