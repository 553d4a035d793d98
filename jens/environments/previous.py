"""Reads what earlier runs left: remembered definitions, or what links on disk tell when those are lost."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping

from jens import deferred
from jens.config import Config
from jens.environments import tree
from jens.environments.model import EnvironmentsPlan, Previous
from jens.environments.wanted import Found, parser_of
from jens.errors import MetadataError
from jens.layout import Layout, entry_ref
from jens.links import LinkReader, all_links_of, directories_shown
from jens.metadata import clones, reader
from jens.metadata.parsed import Parsed
from jens.metadata.yamlnodes import LARGEST, LARGEST_SUM, YamlError
from jens.model import (
    SITE,
    Commit,
    Declared,
    Definition,
    Inventory,
    Prefixes,
    RepoId,
)
from jens.names import is_environment_name
from jens.statefile import StateError
from jens.system.files import is_there, is_verdict, read_if_there

log = logging.getLogger(__name__)


def look(
    layout: Layout, declared: Mapping[str, Declared], prefixes: Prefixes, parsed: Parsed | None = None
) -> Previous:
    """Read remembered definitions and look at environments on disk. What ``parsed`` knows is not parsed again.

    What is larger in all than definitions may be counts as lost. Raises OSError.
    """
    remembered: dict[str, Definition | None] = {}
    reader = parsed or Parsed(prefixes)
    left = LARGEST_SUM
    for name in sorted(filter(is_environment_name, os.listdir(layout.definitions))):
        found = remembered_definition(layout, name, prefixes, declared.get(name), reader)
        if found is not None and found is not declared.get(name):
            left -= len(found.source)
        remembered[name] = found if left >= 0 or found is declared.get(name) else None
    existing = layout.environments()
    inferred = {}
    for name in existing:
        if remembered.get(name) is None:
            try:
                definition = infer_from_disk(layout, name)
            except OSError as error:
                if not isinstance(declared.get(name), Definition):  # otherwise the run makes it, or tells
                    if not is_verdict(error):
                        raise
                    log.warning("Environment '%s' cannot be looked at: %s", name, error)
                continue
            if name in remembered or SITE in definition.overrides:  # otherwise Jens did not make it
                inferred[name] = definition
    previous = Previous(remembered, existing, inferred)
    return _with_holds(layout, declared, previous) if os.path.lexists(layout.holds) else previous


def _with_holds(layout: Layout, declared: Mapping[str, Declared], previous: Previous) -> Previous:
    """What earlier runs left, with the holds. An environment whose hold is damaged stays as its links are.

    Raises OSError.
    """
    if not os.path.isdir(layout.holds):
        log.error("'%s' is no directory, so no environment is held", layout.holds)
    holds = deferred.hold.load_all(layout)
    held = {}
    for name, hold in holds.there.items():
        wanted = declared.get(name)
        held[name] = hold.definition(wanted if isinstance(wanted, Definition) else previous.definition(name))
    for name in holds.damaged:
        if name in previous.existing:
            held[name] = infer_from_disk(layout, name)._replace(is_held=True)
    return previous._replace(held=held, holds=holds)


def remembered_definition(
    layout: Layout, name: str, prefixes: Prefixes, declared: Declared | None = None, parsed: Parsed | None = None
) -> Definition | None:
    """The definition of the last build; None when it is lost. ``declared`` is not parsed again if it is the same.

    Raises OSError when nobody can look now.
    """
    source = read_if_there(layout.definitions / name, LARGEST)
    if source is None:
        return None
    if isinstance(declared, Definition) and declared.source == source:
        return declared
    try:
        return (parsed or Parsed(prefixes)).parse(name, source)
    except YamlError:
        return None


def as_they_are(config: Config, layout: Layout, names: Iterable[str]) -> tuple[Definition, ...]:
    """The definitions that environments are built from, when nothing has changed since the last run. Raises OSError."""
    parsed = Parsed.load(layout, config.main.prefixes)
    # While it was held, an environment may have got another definition.
    declared = _declared(config, parsed) if os.path.lexists(layout.holds) else {}
    return tuple(_as_it_is(config, layout, name, parsed, declared.get(name)) for name in names)


def _declared(config: Config, parsed: Parsed) -> Mapping[str, Declared]:
    try:
        return reader.read_definitions(config, clones.environments_commit(config), parsed)
    except MetadataError as error:
        log.debug("%s", error)
        return {}


def _as_it_is(config: Config, layout: Layout, name: str, parsed: Parsed, declared: Declared | None) -> Definition:
    before = remembered_definition(layout, name, config.main.prefixes, declared, parsed)
    try:
        hold = deferred.hold.load(layout, name) if os.path.lexists(layout.holds) else None
    except StateError:
        before = hold = None
    if hold is not None:  # it may be over: the run that sees that changes the environment first
        return hold.definition(declared if isinstance(declared, Definition) else before)
    return infer_from_disk(layout, name) if before is None else before


def infer_from_disk(layout: Layout, name: str) -> Definition:
    """Infer a definition, as a snapshot, from the links of an environment on disk. Raises OSError."""
    place = layout.place(name)
    return infer(layout, name, tree.read(layout.environmentsdir / place), place)


def infer(layout: Layout, name: str, found: Found, place: str = "") -> Definition:
    """Infer a definition, as a snapshot, from the links of an environment, which may be at another ``place``."""
    overrides = {}
    targets: dict[RepoId, dict[str, str]] = {}
    reader = LinkReader(layout)
    for link, text in found.links.items():
        target = reader.target(place or name, link, text)
        ref = entry_ref(target.entry) if target else None
        if target and ref:
            overrides[target.repo] = ref
            targets.setdefault(target.repo, {})[link] = target.below
    directories = {repo: directories_shown(repo, links) for repo, links in targets.items()}
    return Definition(name, None, overrides, parser=parser_of(found.conf), directories=directories)


def in_use(layout: Layout, name: str, previous: Previous) -> list[Definition]:
    """The definitions that an environment may use: the last one, and one from its links, which may be a mixture.

    Raises OSError when nobody can look now.
    """
    before = previous.definition(name)
    found = [before] if before is not None else []
    try:
        return [*found, infer_from_disk(layout, name)]
    except OSError as error:
        if not is_verdict(error):
            raise
        return found


def resolved_before(layout: Layout, definitions: Iterable[Definition], known: Inventory) -> Inventory:
    """The inventory, completed with abbreviated commits that it has lost, as links on disk tell them."""
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
    """The definitions that changed environments use until they have changed, as far as that can be told now."""
    found: list[Definition] = []
    for definition in plan.changed:
        with contextlib.suppress(OSError):  # such an environment cannot be changed either, and then nothing is retired
            found += in_use(layout, definition.name, previous)
    return found


def uses(layout: Layout, names: Iterable[str], repo: RepoId) -> bool:
    """Whether one of these environments has a link to a repository. True as well when one cannot be read."""
    for name in names:
        try:
            if repo in infer_from_disk(layout, name).overrides:
                return True
        except OSError:
            return True
    return False


def shows(layout: Layout, name: str, repo: RepoId) -> bool:
    """Whether an environment has a link of a repository, wherever it leads. True as well when nobody can look now."""
    try:
        top = layout.tree(name)
        return any(is_there(top / link) for link in all_links_of(layout, repo))
    except OSError:
        return True
