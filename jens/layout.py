"""Where everything is: the only module that spells a path. No Git, no YAML."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jens.config import Config
from jens.errors import WayOutError
from jens.model import COMMON, HIERADATA, HOSTGROUPS, MODULES, PARTITIONS, SITE, Branch, Commit, Ref, RepoId
from jens.names import is_branch_name, is_repository_name

_CHECKOUT = re.compile(r"\.[0-9a-f]{40}")
_COMMIT_ENTRY = re.compile(r"\.[0-9a-f]{4,40}")

#: Links of an environment for each repository of a partition: where, and below the checkout what.
_LINKS = {
    MODULES: (("modules/{}", "code"), ("hieradata/module_names/{}", "data")),
    HOSTGROUPS: (
        ("hostgroups/hg_{}", "code"),
        ("hieradata/hostgroups/{}", "data/hostgroup"),
        ("hieradata/fqdns/{}", "data/fqdns"),
    ),
}

#: Directories of an environment, parents first; they exist even when empty. "" is the environment itself.
ENVIRONMENT_DIRECTORIES = (
    "",
    "modules",
    "hostgroups",
    "hieradata",
    "hieradata/module_names",
    "hieradata/hostgroups",
    "hieradata/fqdns",
)

ENVIRONMENT_CONF = "environment.conf"


#: So many links in turn are followed on the way to a file; with more it is not found: path_resolution(7).
_MOST_LINKS = 40


class Target(NamedTuple):
    """What a link of an environment points to: an entry of a repository's checkouts, and a path below it."""

    repo: RepoId
    entry: str
    below: str


def branch_entry(branch: Branch) -> str:
    """The entry of a branch below clonedir: ``~`` stands for ``/``, which Git forbids in names."""
    return branch.name.replace("/", "~")


def commit_entry(digits: str) -> str:
    """The entry of a commit below clonedir."""
    return f".{digits}"


def ref_entry(ref: Ref, commit: str | None) -> str:
    """The entry that an environment's links name; a commit that was never resolved keeps its digits."""
    return branch_entry(ref) if isinstance(ref, Branch) else commit_entry(commit or ref.digits)


def entry_ref(entry: str) -> Ref | None:
    """The ref that an entry stands for, or None when it is none of ours."""
    if _COMMIT_ENTRY.fullmatch(entry):
        return Commit(entry[1:])
    name = entry.replace("~", "/")
    return Branch(name) if is_branch_name(name) else None


def is_checkout_name(entry: str) -> bool:
    """Whether an entry is named as a checkout is."""
    return _CHECKOUT.fullmatch(entry) is not None


class StateFile(NamedTuple):
    """A file of state in cachedir, JSON with a format version: who writes it, and what its loss costs.

    When one that ``is_fingerprinted`` changes, the next run looks at everything.
    """

    name: str
    version: int
    writer: str
    loss: str
    is_fingerprinted: bool = False


INVENTORY = StateFile("inventory.json", 1, "repositories.inventory", "it is generated from mirrors and checkouts", True)
UNREFERENCED = StateFile(
    "unreferenced.json", 1, "repositories.retention", "unused checkouts stay for another retention", True
)
ABSENT_REFS = StateFile("absent-refs.json", 1, "repositories.absent_refs", "the next run asks every remote", True)
REFUSALS = StateFile("refusals.json", 1, "purgeguard", "the purge guard forgets what it refused", True)
DANGLING = StateFile("dangling.json", 1, "environments.dangling", "dangling links are logged once more")
BASELINE = StateFile("baseline.json", 8, "update.baseline", "the next run looks at everything")
LAST_RUN = StateFile("last-run.json", 1, "lastrun", "nobody knows how the last run went")

#: Every file of state. A new one gets a row here, and in docs/operation.md.
STATE_FILES = (INVENTORY, UNREFERENCED, ABSENT_REFS, REFUSALS, DANGLING, BASELINE, LAST_RUN)


class Layout(NamedTuple):
    """The configured directories and all that lies in them."""

    baredir: Path
    clonedir: Path
    cachedir: Path
    environmentsdir: Path
    common_hieradata_items: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> Layout:
        """The layout that a configuration asks for."""
        main = config.main
        return cls(main.baredir, main.clonedir, main.cachedir, main.environmentsdir, main.common_hieradata_items)

    @classmethod
    def at(cls, root: Path) -> Layout:
        """The layout of an instance whose directories lie in one, as on a shared volume; no Hiera items are known."""
        return cls(root / "bare", root / "clone", root / "cache", root / "environments", ())

    def bare(self, repo: RepoId) -> Path:
        """The mirror of a repository."""
        return self.baredir / repo.partition / repo.name

    def clone(self, repo: RepoId) -> Path:
        """The directory of a repository's checkouts."""
        return self.clonedir / repo.partition / repo.name

    def checkout(self, repo: RepoId, commit: str) -> Path:
        """The files of a commit (40 digits)."""
        return self.clone(repo) / commit_entry(commit)

    def ref(self, repo: RepoId, ref: Ref, commit: str | None = None) -> Path:
        """Where an expanded ref is read."""
        return self.clone(repo) / ref_entry(ref, commit)

    def environment(self, name: str) -> Path:
        """What Puppet reads as the environment of this name."""
        return self.environmentsdir / name

    @property
    def definitions(self) -> Path:
        """The remembered definitions."""
        return self.cachedir / "environments"

    def state(self, file: StateFile) -> Path:
        """The path of a file of state."""
        return self.cachedir / file.name

    @property
    def pickled_inventory(self) -> Path:
        """What Jens 1.x kept as its inventory; never read."""
        return self.cachedir / "repositories"

    def partitions(self, top: Path) -> list[Path]:
        """The partitions' directories below baredir or clonedir."""
        return [top / partition for partition in PARTITIONS]

    def repositories_in(self, top: Path) -> list[RepoId]:
        """The repositories that have a directory below baredir or clonedir. Raises OSError."""
        return [
            RepoId(partition, entry.name)
            for partition in PARTITIONS
            if os.path.lexists(top / partition)  # the first run makes it
            for entry in os.scandir(top / partition)
            if is_repository_name(entry.name) and entry.is_dir(follow_symlinks=False)
        ]

    def links(self, repo: RepoId) -> dict[str, str]:
        """The links of an environment that holds a repository: path in the environment, path below the checkout."""
        if repo == SITE:
            return {"site": "code"}
        if repo == HIERADATA:
            return {f"hieradata/{item}": f"data/{item}" for item in self.common_hieradata_items}
        return {link.format(repo.name): below for link, below in _LINKS.get(repo.partition, ())}

    def refuse_ways_out(self, repo: RepoId, checkout: Path) -> None:
        """See that what environments link to is in the checkout, and not elsewhere by way of symbolic links in it.

        Raises WayOutError: Puppet would read there what is not of the repository.
        """
        ways = [below for below in sorted({*self.links(repo).values()}) if _leads_out(checkout, below)]
        if ways:
            raise WayOutError(ways)

    def link_prefix(self, depth: int) -> str:
        """The way from a link that is ``depth`` directories below its environment to clonedir.

        Computed from where the directories really are: a link is followed from there.
        """
        return "../" * (depth + 1) + os.path.relpath(
            os.path.realpath(self.clonedir), os.path.realpath(self.environmentsdir)
        )

    def link_target(self, link: str, target: Target) -> str:
        """The text of a link of an environment."""
        return f"{self.link_prefix(link.count('/'))}/{target.repo}/{target.entry}/{target.below}"

    def parse_target(self, environment: str, link: str, text: str) -> Target | None:
        """What a link points to, whatever way it is written; None when it leads elsewhere than clonedir."""
        here = os.path.join(os.path.realpath(self.environmentsdir), environment, os.path.dirname(link))
        path = os.path.normpath(os.path.join(here, text))
        for top in (os.path.realpath(self.clonedir), str(self.clonedir)):
            if path.startswith(top + os.sep):
                return _target(path[len(top) + 1 :])
        return None


def _target(below: str) -> Target | None:
    """What a normal path below clonedir leads to."""
    parts = below.split(os.sep, 3)
    if len(parts) == 4 and parts[0] in (MODULES, HOSTGROUPS, COMMON):
        return Target(RepoId(parts[0], parts[1]), parts[2], parts[3])
    return None


def _leads_out(top: Path, path: str) -> bool:
    """Whether a path below a directory leaves it, by way of links that are read, but not followed out of it."""
    here: list[str] = []
    ahead = path.split("/")
    links = 0
    while ahead:
        name, *ahead = ahead
        if name == ".." and not here:
            return True
        if name == "..":
            here.pop()
        elif name not in ("", "."):
            text = _link_text(top.joinpath(*here, name))
            if text is None:
                here.append(name)
            else:
                links += 1
                if text.startswith("/"):
                    return True
                ahead = [*text.split("/"), *ahead] if links <= _MOST_LINKS else []
    return False


def _link_text(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:  # no link, or nothing at all
        return None


class LinkReader:
    """``Layout.parse_target`` for very many links: the texts that Jens writes are only split, and each of them once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._prefixes: dict[int, str] = {}
        self._targets: dict[str, Target | None] = {}

    def target(self, environment: str, link: str, text: str) -> Target | None:
        """What a link points to; None when it leads elsewhere than clonedir."""
        depth = link.count("/")
        prefix = self._prefixes.get(depth)
        if prefix is None:
            prefix = self._prefixes[depth] = self._layout.link_prefix(depth) + "/"
        below = text[len(prefix) :] if text.startswith(prefix) else ""
        if below in self._targets:
            return self._targets[below]
        if below[:1] in "./" or os.path.normpath(below) != below:
            return self._layout.parse_target(environment, link, text)
        target = self._targets[below] = _target(below)
        return target
