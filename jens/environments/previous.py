"""What earlier runs left of environments: remembered definitions, and what links on disk tell where memory fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from jens.environments import tree
from jens.environments.model import EnvironmentsPlan, Previous
from jens.environments.tree import Found
from jens.layout import Layout, entry_ref
from jens.links import LinkReader
from jens.metadata.definition import read_definition
from jens.model import (
    SITE,
    Commit,
    Declared,
    Definition,
    Inventory,
    RepoId,
)
from jens.names import is_environment_name
from jens.system.files import read_file

log = logging.getLogger(__name__)


def look(layout: Layout, declared: Mapping[str, Declared], hashprefix: str) -> Previous:
    """Look at the cache and at the disk. Raises OSError."""
    remembered: dict[str, Definition | None] = {}
    for name in filter(is_environment_name, os.listdir(layout.definitions)):
        remembered[name] = remembered_definition(layout, name, hashprefix, declared.get(name))
    existing = layout.environments()
    inferred = {}
    for name in existing:
        if remembered.get(name) is None:
            try:
                definition = infer(layout, name, tree.read(layout.environment(name)))
            except OSError as error:
                log.warning("Environment '%s' cannot be looked at: %s", name, error)
                continue
            if name in remembered or SITE in definition.overrides:  # otherwise it is a stranger's
                inferred[name] = definition
    return Previous(remembered, existing, inferred)


def remembered_definition(
    layout: Layout, name: str, hashprefix: str, declared: Declared | None = None
) -> Definition | None:
    """What an environment was last built from; None when that is lost. A ``declared`` one is not parsed again."""
    try:
        source = read_file(layout.definitions / name)
    except OSError:
        return None
    if isinstance(declared, Definition) and declared.source == source:
        return declared
    definition = read_definition(f"{name}.yaml", source, hashprefix)
    return definition if isinstance(definition, Definition) else None


def infer(layout: Layout, name: str, found: Found) -> Definition:
    """The definition, as a snapshot, that the links of an environment amount to."""
    overrides = {}
    reader = LinkReader(layout)
    for link, text in found.links.items():
        target = reader.target(name, link, text)
        ref = entry_ref(target.entry) if target else None
        if target and ref:
            overrides[target.repo] = ref
    return Definition(name, None, overrides, parser=tree.parser_of(found.conf))


def in_use(layout: Layout, name: str, previous: Previous) -> list[Definition]:
    """What an environment may be using: what it was last built from, and what its links say, should it be a mixture."""
    before = previous.definition(name)
    found = [before] if before is not None else []
    try:
        return [*found, infer(layout, name, tree.read(layout.environment(name)))]
    except OSError:
        return found


def resolved_before(layout: Layout, definitions: Iterable[Definition], known: Inventory) -> Inventory:
    """The inventory, with what links on disk tell of abbreviated commits that it has lost."""
    found = {repo: dict(refs) for repo, refs in known.items()}
    for definition in definitions:
        lost = [
            (repo, ref)
            for repo, ref in definition.overrides.items()
            if isinstance(ref, Commit) and not ref.is_full and repo in found and ref not in found[repo]
        ]
        for use in in_use(layout, definition.name, Previous({}, (), {})) if lost else ():
            for repo, ref in lost:
                linked = use.overrides.get(repo)
                if isinstance(linked, Commit) and linked.is_full and linked.digits.startswith(ref.digits):
                    found[repo][ref] = linked.digits
    return found


def former_definitions(layout: Layout, plan: EnvironmentsPlan, previous: Previous) -> list[Definition]:
    """What changed environments are built from until they have changed."""
    return [former for definition in plan.changed for former in in_use(layout, definition.name, previous)]


def uses(layout: Layout, names: Iterable[str], repo: RepoId) -> bool:
    """Whether a link of one of these environments leads to a repository; nobody knows of one that cannot be read."""
    for name in names:
        try:
            if repo in infer(layout, name, tree.read(layout.environment(name))).overrides:
                return True
        except OSError:
            return True
    return False
