"""Compares what Puppet sees in two instances.

It reads only environments and checkouts, whose names tell their commits. It needs no configuration, no mirrors and no
Git.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Union

from jens.environments.wanted import without_version
from jens.errors import DirectoryError
from jens.layout import Layout, entry_ref
from jens.links import ENVIRONMENT_CONF, RESOURCE_TYPES, LinkReader, Target
from jens.model import Branch, RepoId
from jens.names import describe_ref
from jens.repositories import disk
from jens.repositories.disk import Expanded
from jens.system.files import STAGING, TRASH, is_gone, read_pieces

REF = "ref"
ENVIRONMENT = "environment"

_MISSING = "missing"
_DIRECTORY = "directory"


class CheckoutLink(NamedTuple):
    """A link into the checkouts of the instance; ``shows`` tells whether its target exists."""

    target: Target
    expanded: Expanded
    shows: bool

    def __str__(self) -> str:
        where = f"{self.target.repo}/{self.target.entry}/{self.target.below}"
        if self.expanded.commit is None:
            return f"{where} ({_state(self.expanded)})"
        return f"{where} ({self.expanded.commit}{'' if self.shows else ', dangling'})"


#: What an environment has at a path: a link into the checkouts, or a description of anything else.
Item = Union[CheckoutLink, str]
Items = Mapping[str, Item]


@dataclass(frozen=True)
class Difference:
    """One difference: what it is about, its state in A and in B, and in which environments it is.

    ``kind`` is REF when a ref has different checkouts, and ENVIRONMENT when one side is no environment. Otherwise it is
    what the environment has at the path ``subject``: ``link`` (at least on one side), ``directory``, ``file`` or
    ``other``.
    """

    kind: str
    subject: str
    a: str
    b: str
    environments: tuple[str, ...]

    def encode(self) -> dict[str, Any]:
        """The same facts as JSON types."""
        return {
            "a": self.a,
            "b": self.b,
            "environments": list(self.environments),
            "kind": self.kind,
            "subject": self.subject,
        }


class Instance:
    """One of the two instances, only read. Looks each ref up once, so that it is the same in every environment."""

    def __init__(self, root: Path) -> None:
        """Raises DirectoryError when ``root`` is not the root of an instance."""
        self._layout = Layout.at(root)
        self._links = LinkReader(self._layout)
        self._expanded: dict[tuple[RepoId, str], Expanded] = {}
        self._followed: dict[Target, CheckoutLink] = {}
        for path in (self._layout.clonedir, self._layout.environmentsdir):
            if not os.path.isdir(path):
                problem = "is not a directory" if os.path.lexists(path) else "does not exist"
                raise DirectoryError(path.name, path, problem)

    def environments(self) -> list[str]:
        """The names of all that Puppet takes for an environment. Raises OSError."""
        return [entry.name for entry in self._layout.environment_entries()]

    def read(self, name: str) -> dict[str, Item]:
        """The content of an environment by path; the path '' is the environment itself. Raises OSError."""
        place = self._layout.place(name)
        top = os.fspath(self._layout.environmentsdir / place)
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
                    self._read_entries(place, f"{directory}/" if directory else "", entries, found, waiting)
            except OSError as error:  # an update may be at work in the instance
                if not is_gone(error):
                    raise
        return found

    def _read_entries(
        self,
        place: str,
        prefix: str,
        entries: Iterable[os.DirEntry[str]],
        found: dict[str, Item],
        waiting: list[str],
    ) -> None:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_symlink():
                if not entry.name.startswith((STAGING, TRASH)):
                    self._read_link(place, path, entry.path, found)
            elif entry.name.startswith((STAGING, TRASH)) or path == RESOURCE_TYPES:  # each instance makes its own
                continue
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                _read_other(path, entry, found)

    def _read_link(self, place: str, link: str, path: str, found: dict[str, Item]) -> None:
        try:
            text = os.readlink(path)
        except OSError as error:
            if not is_gone(error):
                raise
            return
        target = self._links.target(place, link, text)
        found[link] = self._follow(target) if target else f"link to '{text}'"

    def _follow(self, target: Target) -> CheckoutLink:
        link = self._followed.get(target)
        if link is None:
            key = target.repo, target.entry
            if key not in self._expanded:
                self._expanded[key] = disk.look_up(self._layout, *key)
            expanded = self._expanded[key]
            shows = expanded.place is not None
            if shows and expanded.commit is not None:  # without a commit, a link may lead anywhere
                shows = _has(f"{self._layout.clone(target.repo)}/{expanded.place}", target.below)
            link = self._followed[target] = CheckoutLink(target, expanded, shows)
        return link


def _read_other(path: str, entry: os.DirEntry[str], found: dict[str, Item]) -> None:
    if not entry.is_file(follow_symlinks=False):
        found[path] = "other"
        return
    try:
        digest = hashlib.sha256()
        for piece in read_pieces(entry.path):
            digest.update(without_version(piece) if path == ENVIRONMENT_CONF else piece)
    except OSError as error:
        if not is_gone(error):
            raise
        return
    found[path] = f"file with SHA-256 {digest.hexdigest()}"


def _has(checkout: str, below: str) -> bool:
    """Whether a checkout has a path. A link in it counts as present, and is not followed: the commit fixes it."""
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
    """The differences of two instances, in all environments or in the named ones.

    Raises DirectoryError when a root lacks a directory, when something cannot be read, or when neither instance has a
    named environment.
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
    """The differences of all environments, each once: first of refs, then of environments, then the rest."""
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
    """The differences in one environment: kind, subject, state in A, state in B."""
    differing = {path for path in {*a, *b} if not _same(a.get(path), b.get(path))}
    for path in sorted(differing):
        if path and path.rpartition("/")[0] in differing:
            continue  # its directory is not in both; that difference is enough
        here, there = a.get(path), b.get(path)
        if isinstance(here, CheckoutLink) and isinstance(there, CheckoutLink) and _is_of_ref(here, there):
            ref = entry_ref(here.target.entry)
            name = ref.name if isinstance(ref, Branch) else describe_ref(ref) if ref else here.target.entry
            yield REF, f"{here.target.repo} {name}", _state(here.expanded), _state(there.expanded)
        else:
            yield _kind(path, here, there), path, str(here or _MISSING), str(there or _MISSING)


def _same(a: Item | None, b: Item | None) -> bool:
    """Whether Puppet sees the same path in the same commit of the same repository, by whatever ref."""
    if not isinstance(a, CheckoutLink) or not isinstance(b, CheckoutLink):
        return a == b
    if _is_unknown(a.expanded) or _is_unknown(b.expanded):
        return False
    if a.expanded.commit is None or b.expanded.commit is None:
        return a.target == b.target and a.expanded == b.expanded  # only the refs can be compared
    return (a.target.repo, a.target.below, a.expanded.commit, a.shows) == (
        b.target.repo,
        b.target.below,
        b.expanded.commit,
        b.shows,
    )


def _is_unknown(expanded: Expanded) -> bool:
    return expanded.commit is None and expanded.place is not None


def _is_of_ref(a: CheckoutLink, b: CheckoutLink) -> bool:
    """Whether two links differ because their common ref has another state on each side."""
    same_ref = (a.target.repo, a.target.entry) == (b.target.repo, b.target.entry)
    return same_ref and (_state(a.expanded) != _state(b.expanded) or _is_unknown(a.expanded))


def _state(expanded: Expanded) -> str:
    if expanded.commit is None:
        return _MISSING if expanded.place is None else "unknown"
    return expanded.commit if expanded.place is not None else f"{expanded.commit} (no checkout)"


def _kind(path: str, a: Item | None, b: Item | None) -> str:
    if not path:
        return ENVIRONMENT
    kinds = [
        "link" if isinstance(item, CheckoutLink) else item.partition(" ")[0] for item in (a, b) if item is not None
    ]
    return "link" if "link" in kinds else kinds[0]
