"""Looks at what Puppet sees: branch links, and the refs that environments hold. What has not changed is not read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Callable, NamedTuple

from jens import deferred
from jens.history.model import EnvironmentSeen, Fingerprints, Link, RepositorySeen, Visible, conf_number, name_of_ref
from jens.layout import Layout, entry_ref, is_checkout_name, version_of
from jens.links import ENVIRONMENT_CONF, ENVIRONMENT_DIRECTORIES, HIERA_YAML, LinkReader, links_of
from jens.model import HIERADATA, HOSTGROUPS, MODULES, Commit, Definition, RepoId, Usages
from jens.names import parse_repository
from jens.statefile import StateError
from jens.system import files

#: Directories of an environment in which a link of its own shows what the environment holds.
_TELLING = ("", "modules", "hostgroups", "hieradata")
#: Directories with links to data: these tell something only where there is no link to the code.
_DATA = {"hieradata/module_names": MODULES, "hieradata/hostgroups": HOSTGROUPS, "hieradata/fqdns": HOSTGROUPS}


class Said(NamedTuple):
    """The definitions of environments that have versions, and what the library says of repositories.

    A version does not say which branches it follows.
    """

    definitions: Mapping[str, Definition] = MappingProxyType({})
    usages: Usages = MappingProxyType({})


def look(layout: Layout, known: Fingerprints, said: Callable[[], Said] = Said) -> Visible:
    """Whatever is not as the history knows it. Raises OSError."""
    there = set(layout.repositories_in(layout.clonedir)) | {*map(parse_repository, known.repositories)}
    seen = look_at(layout, known, there)
    environments = _Environments(layout, said)
    changed = {}
    names = layout.environments()
    for name in sorted(names):
        found = environments.look(name, known.environments.get(name))
        if found is not None:
            changed[name] = found
    gone = {*known.environments} - {*names}
    since = _changed(layout.environmentsdir) if gone else 0.0
    held = files.status_of(layout.holds)
    return seen._replace(
        environments=changed,
        gone_environments=dict.fromkeys(gone, since),
        holds_changed=0.0 if held is None else held.st_mtime,
    )


def look_at(layout: Layout, known: Fingerprints, repos: Iterable[RepoId]) -> Visible:
    """Those of some repositories that are not as the history knows them. Raises OSError."""
    seen, gone = {}, {}
    for repo in sorted(repos):
        path = layout.clone(repo)
        try:
            fingerprint = _fingerprint([path])
            if fingerprint != known.repositories.get(str(repo)):
                seen[str(repo)] = RepositorySeen(fingerprint, dict(_links(path)), _changed(path))
        except FileNotFoundError:
            if str(repo) in known.repositories:
                gone[str(repo)] = _changed(path.parent)
    return Visible(seen, gone_repositories=gone, versions=_versions(layout))


def _versions(layout: Layout) -> dict[str, int]:
    """The numbers of the current versions, by environment. Raises OSError."""
    if not os.path.lexists(layout.versions):
        return {}
    found = {name: deferred.versions.current(layout, name) for name in deferred.versions.versions_in(layout)}
    return {
        name: each[1] for name, each in ((name, version_of(version or "")) for name, version in found.items()) if each
    }


def _changed(path: Path | str) -> float:
    """When the entries of a directory last changed. Raises OSError."""
    return os.lstat(path).st_mtime


def _fingerprint(paths: Iterable[Path | str]) -> int:
    """A number that is another one when the entries of directories have changed. Raises OSError."""
    return hash(tuple(number for path in paths for number in _numbers(os.lstat(path))))


def _numbers(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_ctime_ns


def _links(clone: Path) -> Iterator[tuple[str, Link]]:
    """The links of branches and tags that lead to a checkout, by the names of their refs."""
    with os.scandir(clone) as entries:
        found = [entry for entry in entries if entry.is_symlink() and not entry.name.startswith(".")]
    for entry in found:
        ref, target = entry_ref(entry.name), os.readlink(entry.path)
        if ref is not None and is_checkout_name(target) and os.path.lexists(clone / target):
            yield name_of_ref(ref), Link(target[1:], entry.stat(follow_symlinks=False).st_mtime)


class _Part(NamedTuple):
    """What a link stands for: an entry of a repository ('' for none of any), with the name of its ref.

    ``is_usual``: every environment has such a link that holds the repository. ``text`` tells where it leads, besides
    the entry.
    """

    repository: str
    entry: str
    ref: str | None
    is_usual: bool
    text: str

    def told(self, entries: Mapping[str, str]) -> str:
        """What the refs of an environment do not tell of a link: the entry only if other links have another one."""
        entry = "" if entries.get(self.repository, self.entry) == self.entry else self.entry
        return f"{self.text} {self.repository} {entry}"


class _Environments:
    """Looks at environments. Each text of a link is parsed once for all."""

    def __init__(self, layout: Layout, said: Callable[[], Said]) -> None:
        self._layout = layout
        self._ask = said
        self._reader = LinkReader(layout)
        self._there: dict[str, bool] = {}
        self._parts: dict[tuple[str, str], _Part] = {}
        self._counts: dict[str, int] = {}
        self._held = deferred.hold.names(layout) if os.path.lexists(layout.holds) else []

    @cached_property
    def _said(self) -> Said:
        return self._ask()

    def look(self, name: str, known: int | None) -> EnvironmentSeen | None:
        """An environment; None when it is as ``known``, or when Jens has not made it."""
        place = self._layout.place(name)
        top = self._layout.environmentsdir / place
        paths = [*(f"{top}/{directory}" for directory in ENVIRONMENT_DIRECTORIES), f"{top}/{ENVIRONMENT_CONF}"]
        states = [status for status in map(files.status_of, paths) if status is not None]
        held = [*filter(None, [files.status_of(self._hold(name))])] if name in self._held else []
        fingerprint = hash(tuple(number for status in (*states, *held) for number in _numbers(status)))
        if not states or fingerprint == known:
            return None
        holds, unusual = self._holds(name, place, top)
        if not holds and known is None and not os.path.lexists(self._layout.definitions / name):
            return None
        told = "\n".join(unusual).encode("utf-8", "surrogateescape")
        written = deferred.wanted.without_version(files.read_if_there(top / ENVIRONMENT_CONF) or b"")
        conf = zlib.crc32(written + told)
        if any(ref.startswith("?") for ref in holds.values()):
            fingerprint = 0  # nothing in the environment changes when the files are there
        number = conf_number(conf, self._held_since(name) if held else None)
        return EnvironmentSeen(fingerprint, number, holds, max(status.st_mtime for status in states))

    def _hold(self, name: str) -> Path:
        return deferred.hold.path_of(self._layout, name)

    def _held_since(self, name: str) -> float:
        """When the hold of an environment began, 0 when it is damaged."""
        try:
            found = deferred.hold.load(self._layout, name)
        except StateError:
            found = None
        return found.since if found else 0.0

    def _holds(self, name: str, place: str, top: Path) -> tuple[dict[str, str], list[str]]:
        """The names of the refs that an environment holds, by repository, and what that does not tell of its links.

        The link to the code counts. Not told are links to items of the common Hiera data, and whatever somebody has
        bent or removed. The links of a version lead to commits; what it holds are the branches that it follows.
        """
        holds, entries, unusual = self._read(place, top)
        if place != name:
            definition, usages = self._said.definitions.get(name), self._said.usages
            refs = deferred.versions.followed(self._layout, definition, _by_repository(entries), usages)
            holds.update((str(repo), name_of_ref(ref)) for repo, ref in refs.items() if not isinstance(ref, Commit))
        return holds, sorted(part.told(entries) for part in unusual)

    def _read(self, place: str, top: Path) -> tuple[dict[str, str], dict[str, str], list[_Part]]:
        """The names of refs, and the entries of links, by repository; and the links that those do not tell."""
        holds: dict[str, str] = {}
        entries: dict[str, str] = {}
        unusual: list[_Part] = []
        whole: set[str] = set()
        usual = 0
        for directory in (*_TELLING, *_DATA):
            partition = _DATA.get(directory)
            for entry in _entries(f"{top}/{directory}" if directory else str(top)):
                link = f"{directory}/{entry.name}" if directory else entry.name
                part = self._part(place, link, os.readlink(entry.path))
                if part.ref and not (partition and f"{partition}/{entry.name}" in holds):
                    holds.setdefault(part.repository, part.ref)
                if part.ref:
                    entries.setdefault(part.repository, part.entry)
                if part.is_usual:
                    whole.add(part.repository)
                if part.is_usual and entries.get(part.repository) == part.entry:
                    usual += 1
                else:
                    unusual.append(part)
        if missing := sum(map(self._count, whole)) - usual:
            unusual.append(_Part("", "", None, False, f"{missing} links missing"))
        return holds, entries, unusual

    def _part(self, place: str, link: str, text: str) -> _Part:
        """What a link stands for. Where it leads does not depend on the environment that it is in."""
        if (link, text) not in self._parts:
            target = self._reader.target(place, link, text)
            if target is None:
                self._parts[link, text] = _Part("", "", None, False, f"{link} {text}")
            else:
                repo, entry, below = target
                is_usual = repo != HIERADATA and links_of(self._layout, repo).get(link) == below
                self._parts[link, text] = _Part(str(repo), entry, self._ref(repo, entry), is_usual, f"{link} {below}")
        return self._parts[link, text]

    def _count(self, repository: str) -> int:
        """The number of links that every environment has that holds a repository."""
        if repository not in self._counts:
            self._counts[repository] = len(links_of(self._layout, parse_repository(repository)))
        return self._counts[repository]

    def _ref(self, repo: RepoId, entry: str) -> str | None:
        ref = entry_ref(entry)
        if not isinstance(ref, Commit):
            return ref and name_of_ref(ref)
        path = f"{self._layout.clone(repo)}/{entry}"
        if path not in self._there:
            self._there[path] = ref.is_full and os.path.lexists(path)
        return name_of_ref(ref, is_there=self._there[path])


def _by_repository(entries: Mapping[str, str]) -> dict[RepoId, str]:
    return {parse_repository(repository): entry for repository, entry in entries.items()}


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """The links in a directory, none when it is missing. One to code comes before one to hiera.yaml."""
    try:
        with os.scandir(directory) as entries:
            return sorted(filter(os.DirEntry.is_symlink, entries), key=lambda entry: entry.name == HIERA_YAML)
    except OSError as error:
        if not files.is_verdict(error):
            raise
        return []
