"""Reads, makes and changes one environment on disk: directories and relative links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jens.layout import Layout, commit_entry, ref_entry
from jens.links import ENVIRONMENT_CONF, ENVIRONMENT_DIRECTORIES, link_prefix, link_text, links_of, parse_target
from jens.model import PARSERS, Definition, Expansion, Ref, RepoId
from jens.system import files

#: The layout decides modulepath and manifest. Puppet reads them relative to the environment.
_CONF = ("modulepath = modules:hostgroups", "manifest = site/site.pp")


@dataclass(frozen=True)
class Tree:
    """What an environment should be: links with their texts, and the content of environment.conf (None: no file)."""

    links: Mapping[str, str]
    conf: bytes | None = None


@dataclass(frozen=True)
class Found:
    """What an environment is on disk.

    ``missing``: directories of the layout that do not exist. ``blocked``: those with something else in their place.
    ``litter``: what an interrupted run left. ``strange``: everything else that is no link.
    """

    links: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    litter: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    conf: bytes | None = None


@dataclass(frozen=True)
class Changes:
    """The changes to an environment, in the order in which they are made."""

    make: tuple[str, ...]
    put: Mapping[str, str]
    conf: bytes | None
    remove: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of changes."""
        return len(self.make) + len(self.put) + len(self.remove) + (self.conf is not None)


def conf(parser: str | None) -> bytes:
    """The content of environment.conf."""
    lines = [*_CONF, *([f"parser = {parser}"] if parser else [])]
    return "".join(f"{line}\n" for line in lines).encode()


_OUR_CONFS = (conf(None), *map(conf, PARSERS))


class Planner:
    """Plans the trees of environments from expanded refs. It looks at the disk only for the prefix of links.

    Link texts differ only in the entry of the ref, so the rest is put together once for all environments.
    """

    def __init__(self, layout: Layout, expansion: Expansion, *, with_conf: bool) -> None:
        self._expansion = expansion
        self._with_conf = with_conf
        prefixes = {depth: link_prefix(layout, depth) for depth in range(3)}
        self._parts: dict[RepoId, list[tuple[str, str, str]]] = {
            repo: [
                (link, f"{prefixes[link.count('/')]}/{repo}/", f"/{below}")
                for link, below in links_of(layout, repo).items()
            ]
            for repo in sorted(expansion.inventory)
        }

    def entry(self, repo: RepoId, ref: Ref) -> str:
        """The entry of a repository that links to a ref lead through."""
        return ref_entry(ref, self._expansion.inventory[repo].get(ref))

    def tree(self, definition: Definition) -> Tree:
        """The tree of a definition's environment."""
        links: dict[str, str] = {}
        for repo, parts in self._parts.items():
            ref = definition.ref_of(repo)
            if ref is not None:
                entry = self.entry(repo, ref)
                for link, before, after in parts:
                    links[link] = before + entry + after
        return Tree(links, conf(definition.parser) if self._with_conf else None)

    def waiting(self, definition: Definition) -> dict[str, tuple[RepoId, Ref]]:
        """The links that must wait, because the ref that they should lead to is undetermined."""
        return {
            link: (repo, ref)
            for repo, ref in self._expansion.undetermined
            if definition.ref_of(repo) == ref
            for link, _before, _after in self._parts.get(repo, ())
        }


def read(path: Path) -> Found:
    """Read what is on disk of an environment. Raises OSError."""
    links: dict[str, str] = {}
    missing: list[str] = []
    blocked: list[str] = []
    litter: list[str] = []
    strange: list[str] = []
    for directory in ENVIRONMENT_DIRECTORIES:
        where = os.path.join(path, directory) if directory else str(path)
        if os.path.islink(where) or not os.path.isdir(where):
            (blocked if os.path.lexists(where) else missing).append(directory)
            continue
        with os.scandir(where) as entries:
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if entry.name.startswith((files.STAGING, files.TRASH)):
                    litter.append(name)
                elif entry.is_symlink():
                    links[name] = os.readlink(entry.path)
                elif name not in ENVIRONMENT_DIRECTORIES and name != ENVIRONMENT_CONF:
                    strange.append(name)
    for not_a_link in (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF):
        links.pop(not_a_link, None)
    content = _read_conf(path / ENVIRONMENT_CONF)
    return Found(links, tuple(missing), tuple(blocked), tuple(litter), tuple(strange), content)


def _read_conf(path: Path) -> bytes | None:
    try:
        return files.read_file(path)
    except OSError:
        return None


def keep_waiting(wanted: Tree, found: Found, waiting: Iterable[str]) -> Tree:
    """The tree, in which links that wait and exist stay as they are."""
    held = {link: found.links[link] for link in waiting if link in found.links}
    return replace(wanted, links={**wanted.links, **held}) if held else wanted


def plan_changes(wanted: Tree, found: Found) -> Changes:
    """Compare what should be with what is there."""
    put = {link: text for link, text in wanted.links.items() if found.links.get(link) != text}
    remove = {*found.litter, *(link for link in found.links if link not in wanted.links)}
    if wanted.conf is None and found.conf in _OUR_CONFS:
        remove.add(ENVIRONMENT_CONF)
    content = wanted.conf if wanted.conf != found.conf else None
    return Changes(found.missing, put, content, tuple(sorted(remove)))


def create(path: Path, tree: Tree) -> None:
    """Make an environment aside, so that it appears complete in one rename. Raises OSError."""
    staging = files.staging_name(path.parent)
    try:
        with files.naming(path):
            for directory in ENVIRONMENT_DIRECTORIES:
                os.mkdir(staging / directory, 0o755)
            for link, text in tree.links.items():
                os.symlink(text, f"{staging}/{link}")
            if tree.conf is not None:
                (staging / ENVIRONMENT_CONF).write_bytes(tree.conf)
        files.replace_tree(staging, path)
    finally:
        files.remove_tree(staging)


def change(path: Path, changes: Changes) -> list[OSError]:
    """Change an environment, each link in one rename. Nothing is missing in between.

    Returns the errors. A change that fails does not stop the others.
    """
    problems = []
    for operation, *arguments in _operations(path, changes):
        try:
            operation(*arguments)
        except OSError as error:
            problems.append(error)
    return problems


def _operations(path: Path, changes: Changes) -> Iterator[tuple[Any, ...]]:
    yield from ((files.make_directory, path / directory) for directory in changes.make)
    yield from ((put_link, path / link, text) for link, text in changes.put.items())
    if changes.conf is not None:
        yield (_put_conf, path / ENVIRONMENT_CONF, changes.conf)
    yield from ((_remove, path / name) for name in changes.remove)


def _put_conf(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        files.discard(path)
    files.write_file(path, content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        files.remove_tree(path)
    else:
        os.unlink(path)


def put_link(path: Path, text: str) -> None:
    """Put a link of an environment in place. It replaces a directory, which need not be kept. Raises OSError."""
    trash = files.put_link(path, text)
    if trash is not None:
        files.remove_tree(trash)


def parser_of(content: bytes | None) -> str | None:
    """The parser that an environment.conf made by Jens names, None if there is none."""
    return next((parser for parser in PARSERS if content == conf(parser)), None)


def links_through(layout: Layout, name: str, found: Found, entries: Mapping[tuple[RepoId, str], str]) -> dict[str, str]:
    """The links that lead through one of these entries, with texts that lead to its commit's checkout instead."""
    detour = {}
    for link, text in found.links.items():
        target = parse_target(layout, name, link, text)
        if target is not None and (target.repo, target.entry) in entries:
            commit = entries[target.repo, target.entry]
            detour[link] = link_text(layout, link, target._replace(entry=commit_entry(commit)))
    return detour
