"""What Puppet would see differently in two instances, told from their environments and checkouts alone.

No configuration, no mirrors and no Git are needed: the names of checkouts tell their commits.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Union

from jens.environments.dangling import describe
from jens.errors import DirectoryError
from jens.layout import Layout, entry_ref
from jens.links import LinkReader, Target
from jens.model import Branch, RepoId
from jens.repositories import disk
from jens.repositories.disk import Expanded
from jens.system.files import STAGING, TRASH, is_gone, read_file

REF = "ref"
ENVIRONMENT = "environment"

_MISSING = "missing"
_DIRECTORY = "directory"


class Leads(NamedTuple):
    """A link into the instance's own checkouts; ``shows`` tells whether there is what it leads to below them."""

    target: Target
    expanded: Expanded
    shows: bool

    def __str__(self) -> str:
        where = f"{self.target.repo}/{self.target.entry}/{self.target.below}"
        if self.expanded.commit is None:
            return f"{where} ({_state(self.expanded)})"
        return f"{where} ({self.expanded.commit}{'' if self.shows else ', dangling'})"


#: What is found at a path of an environment; everything but links into the checkouts is told in words.
Item = Union[Leads, str]
Items = Mapping[str, Item]


@dataclass(frozen=True)
class Difference:
    """What differs, how it is in A and in B, and in which environments.

    ``kind`` is REF for a ref whose checkouts differ, ENVIRONMENT for one that is not an environment in both, else
    what stands at the path ``subject`` of an environment: ``link`` (in one of them at least), ``directory``, ``file``
    or ``other``.
    """

    kind: str
    subject: str
    a: str
    b: str
    environments: tuple[str, ...]

    def encode(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "a": self.a,
            "b": self.b,
            "environments": list(self.environments),
            "kind": self.kind,
            "subject": self.subject,
        }


class Instance:
    """One side, read only; what a ref is expanded to is looked up once, so it is the same in every environment."""

    def __init__(self, root: Path) -> None:
        """Raises DirectoryError when this is no root of an instance."""
        self._layout = Layout.at(root)
        self._links = LinkReader(self._layout)
        self._expanded: dict[tuple[RepoId, str], Expanded] = {}
        self._leads: dict[Target, Leads] = {}
        for path in (self._layout.clonedir, self._layout.environmentsdir):
            if not os.path.isdir(path):
                problem = "is not a directory" if os.path.lexists(path) else "does not exist"
                raise DirectoryError(path.name, path, problem)

    def environments(self) -> list[str]:
        """Everything that Puppet takes for an environment. Raises OSError."""
        return [entry.name for entry in self._layout.environment_entries()]

    def read(self, name: str) -> dict[str, Item]:
        """All that is in an environment, by its path; '' is the environment itself. Raises OSError."""
        top = os.fspath(self._layout.environment(name))
        try:
            if stat.S_ISLNK(os.lstat(top).st_mode):
                return {"": f"link to '{os.readlink(top)}'"}
        except OSError as error:
            if is_gone(error):
                return {}
            raise
        found: dict[str, Item] = {}
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            try:
                with os.scandir(f"{top}/{directory}") as entries:
                    found[directory] = _DIRECTORY
                    self._read_entries(name, f"{directory}/" if directory else "", entries, found, waiting)
            except OSError as error:  # an instance may be at work meanwhile
                if not is_gone(error):
                    raise
        return found

    def _read_entries(
        self,
        environment: str,
        prefix: str,
        entries: Iterable[os.DirEntry[str]],
        found: dict[str, Item],
        waiting: list[str],
    ) -> None:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_symlink():
                if not entry.name.startswith((STAGING, TRASH)):
                    self._read_link(environment, path, entry.path, found)
            elif entry.name.startswith((STAGING, TRASH)):
                continue
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                _read_other(path, entry, found)

    def _read_link(self, environment: str, link: str, path: str, found: dict[str, Item]) -> None:
        try:
            text = os.readlink(path)
        except OSError as error:
            if not is_gone(error):
                raise
            return
        target = self._links.target(environment, link, text)
        found[link] = self._follow(target) if target else f"link to '{text}'"

    def _follow(self, target: Target) -> Leads:
        leads = self._leads.get(target)
        if leads is None:
            key = target.repo, target.entry
            if key not in self._expanded:
                self._expanded[key] = disk.look_up(self._layout, *key)
            expanded = self._expanded[key]
            shows = expanded.place is not None
            if shows and expanded.commit is not None:  # else a link may lead anywhere
                shows = _has(f"{self._layout.clone(target.repo)}/{expanded.place}", target.below)
            leads = self._leads[target] = Leads(target, expanded, shows)
        return leads


def _read_other(path: str, entry: os.DirEntry[str], found: dict[str, Item]) -> None:
    if not entry.is_file(follow_symlinks=False):
        found[path] = "other"
        return
    try:
        content = read_file(Path(entry.path))
    except OSError as error:
        if not is_gone(error):
            raise
        return
    found[path] = f"file with SHA-256 {hashlib.sha256(content).hexdigest()}"


def _has(checkout: str, below: str) -> bool:
    """Whether a checkout has a path; links in it are not followed, they are as the commit has them."""
    path = checkout
    for part in below.split("/"):
        path = f"{path}/{part}"
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            if is_gone(error):
                return False
            raise
        if stat.S_ISLNK(mode):
            return True
    return True


def compare(a: Path, b: Path, names: Collection[str] = ()) -> list[Difference]:
    """How two instances differ, in all environments or in the named ones.

    Raises DirectoryError when a root lacks a directory, when something in it cannot be read, or when a named
    environment is in neither.
    """
    left, right = Instance(a), Instance(b)
    try:
        known = {*left.environments(), *right.environments()}
        for name in names:
            if name not in known:
                raise DirectoryError("environment", Path(name), "is in neither instance")
        return _collect((name, left.read(name), right.read(name)) for name in sorted(set(names) or known))
    except OSError as error:
        raise DirectoryError("instance", Path(error.filename or a), f"cannot be read: {error.strerror}") from error


def _collect(pairs: Iterable[tuple[str, Items, Items]]) -> list[Difference]:
    """Differences of all environments: each told once, those of refs first, then environments, then the rest."""
    found: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for name, a, b in pairs:
        for kind, subject, in_a, in_b in differences(a, b):
            found.setdefault((kind, subject or name, in_a, in_b), {})[name] = None
    told = [Difference(*key, tuple(environments)) for key, environments in found.items()]
    order = {REF: 0, ENVIRONMENT: 1}
    rest = len(order)
    return sorted(
        told, key=lambda one: (order.get(one.kind, rest), one.environments if one.kind != REF else (), one.subject)
    )


def differences(a: Items, b: Items) -> Iterator[tuple[str, str, str, str]]:
    """Kind and subject of what differs in one environment, and how it is in A and in B."""
    differing = {path for path in {*a, *b} if not _same(a.get(path), b.get(path))}
    for path in sorted(differing):
        if path and path.rpartition("/")[0] in differing:
            continue  # what is in a directory that is not in both has been told with it
        here, there = a.get(path), b.get(path)
        if isinstance(here, Leads) and isinstance(there, Leads) and _is_of_ref(here, there):
            ref = entry_ref(here.target.entry)
            name = ref.name if isinstance(ref, Branch) else describe(ref) if ref else here.target.entry
            yield REF, f"{here.target.repo} {name}", _state(here.expanded), _state(there.expanded)
        else:
            yield _kind(path, here, there), path, str(here or _MISSING), str(there or _MISSING)


def _same(a: Item | None, b: Item | None) -> bool:
    """Whether Puppet sees the same: the same path in the same commit of the same repository, whatever names it."""
    if not isinstance(a, Leads) or not isinstance(b, Leads):
        return a == b
    if _is_unknown(a.expanded) or _is_unknown(b.expanded):
        return False
    if a.expanded.commit is None or b.expanded.commit is None:
        return a.target == b.target and a.expanded == b.expanded  # the ref is all that there is to compare
    return (a.target.repo, a.target.below, a.expanded.commit, a.shows) == (
        b.target.repo,
        b.target.below,
        b.expanded.commit,
        b.shows,
    )


def _is_unknown(expanded: Expanded) -> bool:
    return expanded.commit is None and expanded.place is not None


def _is_of_ref(a: Leads, b: Leads) -> bool:
    """Whether links differ because one ref is not expanded to the same in both."""
    same_ref = (a.target.repo, a.target.entry) == (b.target.repo, b.target.entry)
    return same_ref and (_state(a.expanded) != _state(b.expanded) or _is_unknown(a.expanded))


def _state(expanded: Expanded) -> str:
    if expanded.commit is None:
        return _MISSING if expanded.place is None else "unknown"
    return expanded.commit if expanded.place is not None else f"{expanded.commit} (no checkout)"


def _kind(path: str, a: Item | None, b: Item | None) -> str:
    if not path:
        return ENVIRONMENT
    kinds = ["link" if isinstance(item, Leads) else item.partition(" ")[0] for item in (a, b) if item is not None]
    return "link" if "link" in kinds else kinds[0]
