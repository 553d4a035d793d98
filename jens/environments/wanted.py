"""Decides which links an environment should have, and what that changes in the one on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jens.layout import Layout, commit_entry, entry_ref, ref_entry
from jens.links import ENVIRONMENT_CONF, HIERA_YAML, Target, WaysOut, all_links_of, link_prefix, parse_target, path_of
from jens.model import PARSERS, Definition, Directories, Expansion, Moving, Ref, RepoId
from jens.system import files

#: The layout decides modulepath and manifest. Puppet reads them relative to the environment.
_CONF = ("modulepath = modules:hostgroups", "manifest = site/site.pp")


@dataclass(frozen=True)
class Tree:
    """What an environment should be: links with their texts, and the content of environment.conf (None: no file).

    ``conf_lines`` are configured for each environment.conf.
    """

    links: Mapping[str, str]
    conf: bytes | None = None
    conf_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What an environment is on disk.

    ``missing``: directories of the layout that do not exist. ``blocked``: those with something else in their place.
    ``litter``: what an interrupted run left. ``strange``: everything else that is no link. ``modes``: what has another
    mode than Jens gave it. Only ``inspect`` looks for that, and for directories of others that are of no use, which it
    adds to ``blocked``.
    """

    links: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    litter: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    conf: bytes | None = None
    modes: tuple[str, ...] = ()


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


#: What Puppet runs to learn the version of its code. It cannot go missing: a failing one fails every catalog.
_CONFIG_VERSION = "config_version = "
_TELLS_VERSION = f"{_CONFIG_VERSION}/bin/echo "
_OF_VERSION = re.compile(rf"{_TELLS_VERSION}\w+_[0-9]+\n".encode())
_PARSER = "parser = "


def conf(parser: str | None, version: str = "", more: Sequence[str] = ()) -> bytes:
    """The content of environment.conf, with ``more`` lines. With a version, it tells that to Puppet, and nothing else.

    No key is there twice: Puppet takes the first one, and says nothing.
    """
    lines = [*_CONF, *([f"{_PARSER}{parser}"] if parser else [])]
    lines += [line for line in more if not (version and line.startswith(_CONFIG_VERSION))]
    lines += [f"{_TELLS_VERSION}{version}"] if version else []
    return "".join(f"{line}\n" for line in lines).encode()


def without_version(content: bytes) -> bytes:
    """The content of an environment.conf, without the line that tells the version."""
    return b"".join(line for line in content.splitlines(keepends=True) if not _OF_VERSION.fullmatch(line))


def parser_of(content: bytes | None) -> str | None:
    """The parser that an environment.conf made by Jens names, None if there is none."""
    return next((parser for parser in PARSERS if (content or b"").startswith(conf(parser))), None)


def _is_ours(content: bytes | None, more: Sequence[str]) -> bool:
    """Whether an environment.conf is as Jens makes it: another one is somebody else's."""
    return content in [conf(parser, more=lines) for parser in (None, *PARSERS) for lines in ((), more)]


class _Part(NamedTuple):
    """What an environment has of a repository: a ref of it, and the directories with code and data."""

    repo: RepoId
    ref: Ref
    directories: Directories


class _Usual(NamedTuple):
    """Links that environments share, in all and by repository."""

    links: Mapping[str, str]
    by_repository: Mapping[RepoId, Mapping[str, str]]


class Planner:
    """Plans the trees of environments from expanded refs. A tree has no link whose target leads out of its checkout.

    It looks at the disk for the prefix of links, and for the targets. Environments share the links of a repository's
    ref, so these are put together and checked once for all. The links of ``versions`` lead to commits, and never
    through the link of a branch. Each environment.conf has the ``conf_lines``. Of refs whose files are not on disk yet,
    ``has_hiera`` tells whether they have a hiera.yaml.
    """

    def __init__(
        self,
        layout: Layout,
        expansion: Expansion,
        *,
        with_conf: bool,
        versions: bool = False,
        conf_lines: tuple[str, ...] = (),
        has_hiera: Mapping[Ref, bool] | None = None,
    ) -> None:
        self._layout = layout
        self._expansion = expansion
        self._with_conf = with_conf
        self._versions = versions
        self._conf_lines = conf_lines
        self._has_hiera = has_hiera or {}
        self._ways_out = WaysOut(layout)
        self._links: dict[_Part, dict[str, str]] = {}
        self._usual: dict[tuple[Moving, ...], _Usual] = {}
        self._refused: dict[_Part, dict[str, Target]] = {}
        self._prefixes = {depth: link_prefix(layout, depth + versions) for depth in range(3)}
        self._repos = sorted(expansion.inventory)

    def entry(self, repo: RepoId, ref: Ref) -> str:
        """The entry of a repository that links to a ref lead through."""
        commit = self._expansion.inventory[repo].get(ref)
        return commit_entry(commit) if self._versions and commit is not None else ref_entry(ref, commit)

    def tree(self, definition: Definition, version: str = "") -> Tree:
        """The tree of a definition's environment; with the name of a version, environment.conf tells that."""
        usual = self._usual_links(definition)
        links = dict(usual.links)
        for repo in definition.special:
            for link in usual.by_repository.get(repo, ()):
                links.pop(link, None)
            links.update(self._links_of_repository(definition, repo))
        content = conf(definition.parser, version, self._conf_lines) if self._with_conf else None
        return Tree(links, content, self._conf_lines)

    def _usual_links(self, definition: Definition) -> _Usual:
        """The links that environments with the same defaults have to repositories that they do not override."""
        usual, defaults = definition.usual, definition.defaults
        if defaults not in self._usual:
            repos = self._repos if usual is not None else []
            by_repository = {repo: self._links_of_repository(usual or definition, repo) for repo in repos}
            links = {link: text for each in by_repository.values() for link, text in each.items()}
            self._usual[defaults] = _Usual(links, by_repository)
        return self._usual[defaults]

    def _links_of_repository(self, definition: Definition, repo: RepoId) -> Mapping[str, str]:
        part = self._part(definition, repo) if repo in self._expansion.inventory else None
        if part is None:
            return {}
        if part not in self._links:
            self._links[part] = self._links_to(part)
        return self._links[part]

    def _part(self, definition: Definition, repo: RepoId) -> _Part | None:
        """What an environment has of a repository, None when it does not hold the repository."""
        ref = self._expansion.ref_of(definition, repo)
        return None if ref is None else _Part(repo, ref, self._expansion.directories_of(definition, repo))

    def _links_to(self, part: _Part) -> dict[str, str]:
        repo, ref, directories = part
        links, entry = {}, self.entry(repo, ref)
        for link, below in all_links_of(self._layout, repo, directories).items():
            target = Target(repo, entry, below)
            if link == HIERA_YAML and not self._leads_to_hiera(ref, target):
                continue
            if self._ways_out.has(target):
                self._refused.setdefault(part, {})[link] = target
            else:
                links[link] = f"{self._prefixes[link.count('/')]}/{path_of(target)}"
        return links

    def _leads_to_hiera(self, ref: Ref, target: Target) -> bool:
        """Whether there is a hiera.yaml, or a way out in its place. Raises OSError when nobody can look now.

        Where a ref is gone, the link dangles like all others.
        """
        if ref in self._has_hiera:
            return self._has_hiera[ref]
        if ref not in self._expansion.inventory[target.repo]:
            return (target.repo, ref) not in self._expansion.undetermined
        return self._ways_out.has(target) or files.leads_to_file(f"{self._layout.clonedir}/{path_of(target)}")

    def refused(self, definition: Definition, found: Found, place: str) -> dict[str, Target]:
        """The links that the environment must not have, as their targets lead out. Call this after ``tree``.

        ``place`` is where it is, below environmentsdir. Among them are those that it has, and that would otherwise stay
        as they are because they wait.
        """
        refused: dict[str, Target] = {}
        for part, targets in self._refused.items():
            if self._part(definition, part.repo) == part:
                refused.update(targets)
        for link in self.waiting(definition):
            if link in found.links:
                target = parse_target(self._layout, place, link, found.links[link])
                if target is not None and self._ways_out.has(target):
                    refused[link] = target
        return refused

    def waiting(self, definition: Definition) -> dict[str, RepoId]:
        """The links that must wait, because the ref that they should lead to is undetermined.

        Among them are all that the environment may have to such a repository, wherever its code and data are.
        """
        return {
            link: repo
            for repo, ref in self._expansion.undetermined
            if repo in self._expansion.inventory and self._expansion.ref_of(definition, repo) == ref
            for link in all_links_of(self._layout, repo)
        }


def keep_waiting(wanted: Tree, found: Found, waiting: Mapping[str, RepoId]) -> Tree:
    """The tree, in which all links to a repository that wait are as they are, if it has any of them now."""
    shown = {repo for link, repo in waiting.items() if link in found.links}
    if not shown:
        return wanted
    others = {link: text for link, text in wanted.links.items() if waiting.get(link) not in shown}
    return replace(wanted, links={**others, **{link: found.links[link] for link in waiting if link in found.links}})


def differing(one: Tree, other: Tree) -> list[str]:
    """The links that only one of two trees has, or that lead elsewhere in the other."""
    links = {*one.links, *other.links}
    return sorted(link for link in links if one.links.get(link) != other.links.get(link))


def refs_moved(layout: Layout, place: str, found: Found, changes: Changes) -> dict[RepoId, tuple[Ref, Ref]]:
    """The refs before and after of repositories whose links change. ``place`` is that of the environment."""
    moved = {}
    for link, text in changes.put.items():
        entries = [parse_target(layout, place, link, each) for each in (found.links.get(link, ""), text)]
        before, after = (entry_ref(target.entry) if target else None for target in entries)
        if before and after and before != after and entries[0] and entries[1] and entries[0].repo == entries[1].repo:
            moved[entries[0].repo] = before, after
    return moved


def plan_changes(wanted: Tree, found: Found) -> Changes:
    """Compare what should be with what is there."""
    put = {link: text for link, text in wanted.links.items() if found.links.get(link) != text}
    remove = {*found.litter, *(link for link in found.links if link not in wanted.links)}
    if wanted.conf is None and _is_ours(found.conf, wanted.conf_lines):
        remove.add(ENVIRONMENT_CONF)
    content = wanted.conf if wanted.conf != found.conf else None
    return Changes(found.missing, put, content, tuple(sorted(remove)))
