"""Collects what an instance holds. Only reads, and takes no lock, so an update may be at work meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jens.config import Config
from jens.environments import dangling, tree
from jens.environments import hold as holds
from jens.environments.hold import Hold
from jens.environments.previous import remembered_definition
from jens.errors import DirectoryError, GitError
from jens.git import wrapper
from jens.git.workers import workers
from jens.layout import Layout, entry_ref
from jens.links import LinkReader, Target
from jens.messaging.queue import Queue
from jens.metadata import clones
from jens.metadata import reader as metadata_reader
from jens.model import (
    PARTITIONS,
    PLAIN,
    Branch,
    Declared,
    Definition,
    Directories,
    IllFormed,
    Inventory,
    Prefixes,
    Ref,
    RepoId,
    Usages,
    declared,
    ref_order,
)
from jens.names import is_environment_name
from jens.repositories import inventory
from jens.statefile import StateError
from jens.system import files

#: How often to try to read an environment that changes meanwhile.
_ATTEMPTS = 5


# Repositories


@dataclass(frozen=True)
class Known:
    """The inventory; ``generated`` when it was made from the disk, as its file could not be used."""

    inventory: Inventory
    generated: bool = False


def known(layout: Layout) -> Known:
    """The inventory as the last run left it. Raises DirectoryError."""
    try:
        return Known(inventory.load(layout))
    except OSError as error:
        raise DirectoryError("cachedir", layout.cachedir, f"cannot be read: {error.strerror}") from error
    except StateError:
        return Known(_generate(layout), generated=True)


def _generate(layout: Layout) -> Inventory:
    for key, top in (("baredir", layout.baredir), ("clonedir", layout.clonedir)):
        for partition in layout.partitions(top):
            _list(key, partition)
    return inventory.generate(layout)


def _list(key: str, path: Path) -> list[str]:
    """The sorted names in a directory, none when it does not exist. Raises DirectoryError for the ``key``."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DirectoryError(key, path, f"cannot be read: {error.strerror}") from error


def literal(found: Inventory, prefixes: Prefixes) -> dict[str, dict[str, list[str]]]:
    """The inventory without commits: sorted refs as definitions write them, by partition and name."""
    content: dict[str, dict[str, list[str]]] = {partition: {} for partition in PARTITIONS}
    for repo, refs in found.items():
        content[repo.partition][repo.name] = sorted(declared(ref, prefixes) for ref in refs)
    return content


def sizes(layout: Layout, found: Inventory, mandatory: Iterable[str]) -> dict[RepoId, int | None]:
    """The size in bytes of the first mandatory branch's checkout; None when there is none, or it cannot be read.

    Of a repository that has no mandatory branch, that of its first ref.
    """
    branches = [Branch(name) for name in mandatory]
    commits = {
        repo: next((refs[ref] for ref in (*branches[:1], *_instead(refs, branches)) if ref in refs), None)
        for repo, refs in found.items()
    }
    return {repo: size_of(layout.checkout(repo, commit)) if commit else None for repo, commit in commits.items()}


def _instead(refs: Mapping[Ref, str], mandatory: Sequence[Ref]) -> list[Ref]:
    """The refs of a repository that has none of the mandatory branches, in order."""
    return [] if any(branch in refs for branch in mandatory) else sorted(refs, key=ref_order)


def size_of(checkout: Path) -> int | None:
    """The bytes in the files of a checkout, without ``.git``; None when not all of it can be read."""
    total, pending = 0, [str(checkout)]
    try:
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name == ".git":  # no commit can contain it
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        return None
    return total


def commit_times(layout: Layout, found: Inventory, jobs: int) -> dict[RepoId, Mapping[str, int]]:
    """The times of the expanded commits, in seconds since the epoch, without commits that the mirrors lack."""
    with workers(jobs) as pool:
        futures = {repo: pool.submit(_times, layout.bare(repo), {*refs.values()}) for repo, refs in found.items()}
        return {repo: future.result() for repo, future in futures.items()}


def _times(bare: Path, commits: Iterable[str]) -> Mapping[str, int]:
    try:
        return wrapper.commit_times(bare, commits)
    except GitError:
        return {}


# Environments


class Link(NamedTuple):
    """A link of an environment."""

    environment: str
    path: str
    text: str


class DanglingLink(NamedTuple):
    """A dangling link; repository and ref are None when Jens does not make such a link."""

    link: Link
    repository: RepoId | None
    ref: Ref | None
    address: str


@dataclass(frozen=True)
class Environments:
    """Names of remembered, declared and existing environments, and their ill-formed definitions and dangling links.

    ``held`` has the holds, also those that are over and wait for a run. ``damaged`` says what is wrong with holds that
    cannot be read.
    """

    cached: tuple[str, ...]
    declared: tuple[str, ...]
    synchronized: tuple[str, ...]
    ill_formed: tuple[IllFormed, ...]
    dangling: tuple[DanglingLink, ...]
    held: tuple[Hold, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


def environments(config: Config, layout: Layout) -> Environments:
    """Collect remembered, declared and existing environments. Raises MetadataError, DirectoryError."""
    declared = metadata_reader.read_definitions(config, clones.environments_commit(config))
    existing = _existing(layout)
    usages = metadata_reader.known_library(config).usages
    found = _dangling_links(layout, (link for name in existing for link in _links(layout, name)), usages)
    # Look again: an update may have changed things between the look at a link and the look at its target.
    found = _dangling_links(layout, (link for link, _target in found if _text(layout, link) == link.text), usages)
    addresses = {
        name: _address(layout, name, declared.get(name), config.main.prefixes)
        for name in {link.environment for link, _target in found}
    }
    held = holds.load_all(layout)
    return Environments(
        cached=tuple(filter(is_environment_name, _list("cachedir", layout.definitions))),
        declared=tuple(sorted(declared)),
        synchronized=tuple(existing),
        ill_formed=tuple(definition for definition in declared.values() if isinstance(definition, IllFormed)),
        dangling=tuple(
            DanglingLink(link, target and target.repo, target and entry_ref(target.entry), addresses[link.environment])
            for link, target in sorted(found)
        ),
        held=held.listed,
        damaged=held.damaged,
    )


def _existing(layout: Layout) -> list[str]:
    try:
        return sorted(layout.environments())
    except OSError as error:
        raise DirectoryError("environmentsdir", layout.environmentsdir, f"cannot be read: {error.strerror}") from error


def _links(layout: Layout, name: str) -> Iterator[Link]:
    """The links of an environment, none when it is gone or cannot be read."""
    for _ in range(_ATTEMPTS):
        try:
            found = tree.read(layout.tree(name))
        except FileNotFoundError:
            continue  # a directory went between listing and reading
        except OSError:
            return
        yield from (Link(name, path, text) for path, text in found.links.items())
        return


def _text(layout: Layout, link: Link) -> str | None:
    try:
        return os.readlink(layout.tree(link.environment) / link.path)
    except OSError:
        return None


def _dangling_links(layout: Layout, links: Iterable[Link], usages: Usages) -> list[tuple[Link, Target | None]]:
    """The links that dangle and should not, with their target (None when it is outside clonedir).

    Looks at each target once: a site has a hundred thousand links, but only a few thousand targets.
    """
    reader = LinkReader(layout)
    gone: dict[Target, bool] = {}
    found = []
    places: dict[str, str] = {}
    for link in links:
        if link.environment not in places:
            places[link.environment] = layout.place(link.environment)
        target = reader.target(places[link.environment], link.path, link.text)
        if target is not None and target not in gone:
            gone[target] = _is_dangling(layout, target, usages.get(target.repo, PLAIN).directories)
        if gone[target] if target is not None else files.is_missing(layout.tree(link.environment) / link.path):
            found.append((link, target))
    return found


def _is_dangling(layout: Layout, target: Target, directories: Directories) -> bool:
    checkout = layout.clone(target.repo) / target.entry
    return dangling.leads_nowhere(layout, target, None if files.is_missing(checkout) else checkout, directories)


def _address(layout: Layout, name: str, declared: Declared | None, prefixes: Prefixes) -> str:
    """Whom to notify about an environment, by its remembered or else its declared definition; '' when unknown."""
    for definition in (remembered_definition(layout, name, prefixes), declared):
        if isinstance(definition, Definition):
            return ", ".join(definition.notifications)
    return ""


# The queue


def messages(config: Config) -> int:
    """How many hints wait; 0 when there is no queue in mode POLL. Raises DirectoryError, QueueError."""
    path = config.messaging.queuedir
    if not os.path.lexists(path):
        if config.main.mode == "POLL":
            return 0
        raise DirectoryError("queuedir", path, "does not exist")
    return len(Queue(path).names())
