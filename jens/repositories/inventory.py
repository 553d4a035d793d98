"""The inventory: which refs of which repositories are expanded, and at which commit."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jens import statefile
from jens.layout import Layout, entry_ref, is_checkout_name
from jens.model import PARTITIONS, Branch, Commit, Inventory, Ref, RepoId, Tag
from jens.names import is_branch_name, is_commit_id, is_repository_name
from jens.statefile import INVENTORY, StateError

log = logging.getLogger(__name__)

_DIGITS = re.compile(r"[0-9a-f]{4,40}")

#: The errors that a file of another shape raises.
_UNEXPECTED = (KeyError, TypeError, AttributeError, ValueError)


def load(layout: Layout) -> Inventory:
    """The inventory that was last saved. Raises StateError."""
    return decode(statefile.load(layout, INVENTORY))


def load_or_generate(layout: Layout) -> Inventory:
    """The inventory that was last saved; when that cannot be used, one generated from the disk."""
    log.info("Fetching repositories inventory...")
    try:
        return load(layout)
    except StateError as error:
        log.debug("%s", error)
        log.warning("Inventory on disk not found or corrupt, generating...")
        return generate(layout)


def save(layout: Layout, inventory: Inventory) -> None:
    """Save the whole inventory. Raises OSError."""
    statefile.save(layout, INVENTORY, encode(inventory))


def load_some(layout: Layout, repos: Iterable[RepoId]) -> Inventory:
    """The saved inventory of a few repositories, without those of which it cannot be used."""
    log.info("Fetching repositories inventory...")
    found: dict[RepoId, Mapping[Ref, str]] = {}
    try:
        content = statefile.load(layout, INVENTORY)
        for repo in repos:
            found[repo] = _decode_refs(content[repo.partition][repo.name])
    except (StateError, *_UNEXPECTED) as error:
        log.debug("%s", error)
    return found


def save_some(layout: Layout, inventory: Inventory) -> None:
    """Save what has changed of a few repositories that ``load_some`` loaded. Raises OSError, StateError."""
    content = statefile.load(layout, INVENTORY)
    for partition, refs in encode(inventory).items():
        content[partition].update(refs)
    statefile.save(layout, INVENTORY, content)


def generate(layout: Layout) -> Inventory:
    """Make an inventory from mirrors and checkouts on disk: every repository with a mirror, every expanded ref."""
    log.info("Generating inventory of bares and clones...")
    found: dict[RepoId, dict[Ref, str]] = {repo: {} for repo in layout.repositories_in(layout.baredir)}
    for repo in layout.repositories_in(layout.clonedir):
        try:
            refs = _expanded(layout, repo)
        except OSError as error:
            log.warning("Unable to look at '%s': %s", layout.clone(repo), error)
            continue
        if refs or repo in found:
            found[repo] = refs
    return found


def _expanded(layout: Layout, repo: RepoId) -> dict[Ref, str]:
    refs: dict[Ref, str] = {}
    checkouts: list[str] = []
    for entry in os.scandir(layout.clone(repo)):
        if entry.is_symlink():
            target, ref = os.readlink(entry.path), entry_ref(entry.name)
            if ref is not None and is_checkout_name(target) and layout.checkout(repo, target[1:]).is_dir():
                refs[ref] = target[1:]
        elif is_checkout_name(entry.name):
            checkouts.append(entry.name[1:])
    followed = set(refs.values())
    refs.update({Commit(commit): commit for commit in checkouts if commit not in followed})
    return refs


def encode(inventory: Inventory) -> dict[str, Any]:
    """The content of the file: partition, name, then branches, tags and commits, each with the commit's full id."""
    content: dict[str, dict[str, Any]] = {partition: {} for partition in PARTITIONS}
    for repo, refs in inventory.items():
        content[repo.partition][repo.name] = {
            "branches": {ref.name: commit for ref, commit in refs.items() if isinstance(ref, Branch)},
            "tags": {ref.name: commit for ref, commit in refs.items() if isinstance(ref, Tag)},
            "commits": {ref.digits: commit for ref, commit in refs.items() if isinstance(ref, Commit)},
        }
    return content


def decode(content: Any) -> Inventory:
    """Reverse ``encode``. Raises StateError for content that it cannot have made."""
    try:
        return {
            RepoId(partition, _expect(name, is_repository_name(name))): _decode_refs(refs)
            for partition in PARTITIONS
            for name, refs in content[partition].items()
        }
    except _UNEXPECTED as error:
        raise StateError(f"not an inventory: {error}") from error


def _decode_refs(refs: Any) -> dict[Ref, str]:
    found: dict[Ref, str] = {}
    for name, commit in refs["branches"].items():
        found[Branch(_expect(name, is_branch_name(name)))] = _expect(commit, is_commit_id(commit))
    for name, commit in refs.get("tags", {}).items():
        found[Tag(_expect(name, is_branch_name(name)))] = _expect(commit, is_commit_id(commit))
    for digits, commit in refs["commits"].items():
        found[Commit(_expect(digits, _DIGITS.fullmatch(digits)))] = _expect(commit, is_commit_id(commit))
    return found


def _expect(value: str, condition: object) -> str:
    if not condition:
        raise ValueError(f"unexpected {value!r}")
    return value
