"""Dangling links: found, saved, and logged when they come and go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from jens import statefile
from jens.events import Event, tell
from jens.layout import Layout
from jens.links import Target, leads_out, links_of
from jens.model import HIERADATA, Definition, Directories, Expansion, Ref, RepoId
from jens.names import describe_ref
from jens.statefile import DANGLING, StateError
from jens.system import files
from jens.text import one_line

log = logging.getLogger(__name__)

#: So many repositories are named for each environment.
_MOST = 20


def leads_nowhere(layout: Layout, target: Target, checkout: Path | None, directories: Directories) -> bool:
    """Whether a link dangles. ``checkout`` is where its ref is expanded (None: nowhere).

    ``directories``: where the repository has code and data, as far as that is known. The common Hiera data must
    have each linked item, and who brings a hierarchy must have that. Other repositories may lack code or data: if they
    lack code, that is another fault.
    """
    if checkout is None:
        return True
    if target.repo != HIERADATA and target.below in links_of(layout, target.repo, directories).values():
        return False
    if leads_out(checkout, target.below):  # that is another fault, and nothing there is ours to look at
        return False
    return files.is_missing(checkout / target.below, follow=False)


class Dangling(NamedTuple):
    """An environment, a repository, and what the repository lacks: a ref, or an item of the common Hiera data."""

    environment: str
    repository: str
    lacks: str


def find(layout: Layout, definitions: Collection[Definition], expansion: Expansion) -> set[Dangling]:
    """The dangling links of the environments of these definitions."""
    found = find_missing(definitions, expansion)
    items: dict[tuple[Ref, Directories], list[str]] = {}
    for definition in definitions:
        ref, directories = expansion.ref_of(definition, HIERADATA), expansion.directories_of(definition, HIERADATA)
        if ref is not None and ref in expansion.inventory.get(HIERADATA, ()):
            if (ref, directories) not in items:
                checkout = layout.ref(HIERADATA, ref, expansion.inventory[HIERADATA][ref])
                items[ref, directories] = _missing_items(layout, checkout, directories)
            found |= {absent_item(definition.name, ref, item) for item in items[ref, directories]}
    return found


def absent_item(environment: str, ref: Ref, item: str) -> Dangling:
    """A link to what the common Hiera data do not have at ``ref``."""
    return Dangling(environment, str(HIERADATA), f"'{item}' in {describe_ref(ref)}")


def find_missing(definitions: Iterable[Definition], expansion: Expansion) -> set[Dangling]:
    """The refs that environments link to and that do not exist; of very many, only how many more there are.

    A default that no repository has makes each link of an environment dangle.
    """
    found = set()
    lacking = _Lacking(expansion)
    for definition in definitions:
        lacks = [(str(repo), describe_ref(ref)) for repo, ref in sorted(lacking.of(definition).items())]
        more = len(lacks) - _MOST
        found |= {Dangling(definition.name, repo, what) for repo, what in lacks[:_MOST]}
        found |= {Dangling(definition.name, f"{more} more repositories", "such ref")} if more > 0 else set()
    return found


class _Lacking:
    """Tells which refs of environments are missing. Those of repositories that are not overridden are shared."""

    def __init__(self, expansion: Expansion) -> None:
        self._expansion = expansion
        self._repos = {repo for repo, _ref in expansion.missing}
        self._usual: dict[tuple[Ref, ...], dict[RepoId, Ref]] = {}

    def of(self, definition: Definition) -> dict[RepoId, Ref]:
        """The missing refs of an environment, by repository."""
        special, usual, defaults = {*definition.special}, definition.usual, definition.defaults
        if usual is not None and defaults not in self._usual:
            self._usual[defaults] = self._among(usual, self._repos)
        shared = {repo: ref for repo, ref in self._usual.get(defaults, {}).items() if repo not in special}
        return {**shared, **self._among(definition, special & self._repos)}

    def _among(self, definition: Definition, repos: Iterable[RepoId]) -> dict[RepoId, Ref]:
        refs = {repo: self._expansion.ref_of(definition, repo) for repo in repos}
        return {repo: ref for repo, ref in refs.items() if ref is not None and (repo, ref) in self._expansion.missing}


def _missing_items(layout: Layout, checkout: Path, directories: Directories) -> list[str]:
    linked = links_of(layout, HIERADATA, directories).values()
    return [
        item for item in linked if leads_nowhere(layout, Target(HIERADATA, checkout.name, item), checkout, directories)
    ]


def load(layout: Layout) -> set[Dangling]:
    """Load what dangled after the last run; nothing when that is lost."""
    try:
        return {Dangling(*map(str, entry)) for entry in statefile.load(layout, DANGLING)}
    except (StateError, TypeError):
        return set()


def refresh(layout: Layout, definitions: Collection[Definition], expansion: Expansion) -> list[str]:
    """Log which dangling links came and went since the last run, with the address to notify. Returns what failed."""
    before, found = load(layout), find(layout, definitions, expansion)
    unasked = {(str(repo), describe_ref(ref)) for repo, ref in expansion.undetermined}
    now = found | {entry for entry in before if (entry.repository, entry.lacks) in unasked}
    addresses = {definition.name: one_line(definition.address) for definition in definitions}
    for (environment, lacks), repositories in _grouped(now - before):
        address = addresses.get(environment, "")
        log.warning(
            "Environment '%s' (%s): dangling links, there is no %s in %s", environment, address, lacks, repositories
        )
    for (environment, lacks), repositories in _grouped(before - now):
        log.info("Environment '%s': no more dangling links to %s in %s", environment, lacks, repositories)
    try:
        statefile.save(layout, DANGLING, sorted(now))
    except OSError as error:
        return tell(log, [Event(logging.ERROR, f"Unable to remember which links dangle: {error}")])
    return []


def _grouped(entries: Iterable[Dangling]) -> list[tuple[tuple[str, str], list[str]]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(entries):
        groups.setdefault((entry.environment, entry.lacks), []).append(entry.repository)
    return sorted(groups.items())
