"""Decides which links an environment should have, and what that changes in the one on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jens.layout import Layout, ref_entry
from jens.links import ENVIRONMENT_CONF, Target, WaysOut, link_prefix, links_of, parse_target
from jens.model import PARSERS, Definition, Expansion, Ref, RepoId

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


def conf(parser: str | None) -> bytes:
    """The content of environment.conf."""
    lines = [*_CONF, *([f"parser = {parser}"] if parser else [])]
    return "".join(f"{line}\n" for line in lines).encode()


_OUR_CONFS = (conf(None), *map(conf, PARSERS))


def parser_of(content: bytes | None) -> str | None:
    """The parser that an environment.conf made by Jens names, None if there is none."""
    return next((parser for parser in PARSERS if content == conf(parser)), None)


class Planner:
    """Plans the trees of environments from expanded refs. A tree has no link whose target leads out of its checkout.

    It looks at the disk for the prefix of links, and for the targets. Environments share the links of a repository's
    ref, so these are put together and checked once for all.
    """

    def __init__(self, layout: Layout, expansion: Expansion, *, with_conf: bool) -> None:
        self._layout = layout
        self._expansion = expansion
        self._with_conf = with_conf
        self._ways_out = WaysOut(layout)
        self._links: dict[tuple[RepoId, Ref], dict[str, str]] = {}
        self._refused: dict[tuple[RepoId, Ref], dict[str, Target]] = {}
        prefixes = {depth: link_prefix(layout, depth) for depth in range(3)}
        self._parts: dict[RepoId, list[tuple[str, str, str]]] = {
            repo: [
                (link, f"{prefixes[link.count('/')]}/{repo}/", below) for link, below in links_of(layout, repo).items()
            ]
            for repo in sorted(expansion.inventory)
        }

    def entry(self, repo: RepoId, ref: Ref) -> str:
        """The entry of a repository that links to a ref lead through."""
        return ref_entry(ref, self._expansion.inventory[repo].get(ref))

    def tree(self, definition: Definition) -> Tree:
        """The tree of a definition's environment."""
        links: dict[str, str] = {}
        for repo in self._parts:
            ref = self._expansion.ref_of(definition, repo)
            if ref is not None:
                if (repo, ref) not in self._links:
                    self._links[repo, ref] = self._links_to(repo, ref)
                links.update(self._links[repo, ref])
        return Tree(links, conf(definition.parser) if self._with_conf else None)

    def _links_to(self, repo: RepoId, ref: Ref) -> dict[str, str]:
        links, entry = {}, self.entry(repo, ref)
        for link, before, below in self._parts[repo]:
            target = Target(repo, entry, below)
            if self._ways_out.has(target):
                self._refused.setdefault((repo, ref), {})[link] = target
            else:
                links[link] = f"{before}{entry}/{below}"
        return links

    def refused(self, definition: Definition, found: Found) -> dict[str, Target]:
        """The links that the environment must not have, as their targets lead out. Call this after ``tree``.

        Among them are those that it has, and that would otherwise stay as they are because they wait.
        """
        refused: dict[str, Target] = {}
        for (repo, ref), targets in self._refused.items():
            if self._expansion.ref_of(definition, repo) == ref:
                refused.update(targets)
        for link in self.waiting(definition):
            if link in found.links:
                target = parse_target(self._layout, definition.name, link, found.links[link])
                if target is not None and self._ways_out.has(target):
                    refused[link] = target
        return refused

    def waiting(self, definition: Definition) -> dict[str, tuple[RepoId, Ref]]:
        """The links that must wait, because the ref that they should lead to is undetermined."""
        return {
            link: (repo, ref)
            for repo, ref in self._expansion.undetermined
            if self._expansion.ref_of(definition, repo) == ref
            for link, _before, _below in self._parts.get(repo, ())
        }


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
