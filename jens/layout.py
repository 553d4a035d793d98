"""Where everything is: the only module that builds the paths of an instance. No Git, no YAML."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jens.config import Config
from jens.model import COMMON, PARTITIONS, TAG_MARK, Branch, Commit, Moving, Ref, RepoId, Tag
from jens.names import is_branch_name, is_environment_name, is_repository_name

_CHECKOUT = re.compile(r"\.[0-9a-f]{40}")
_COMMIT_ENTRY = re.compile(r"\.[0-9a-f]{4,40}")
#: The directory of versions, below environmentsdir. For Puppet it is no environment, as its name has a dot.
VERSIONS = ".versions"


def moving_entry(ref: Moving) -> str:
    """The entry of a branch or a tag below clonedir: ``~`` stands for ``/``, and a tag's begins with it.

    Git forbids that character in names, and no name begins with a slash.
    """
    return ref.key.replace("/", "~")


def commit_entry(digits: str) -> str:
    """The entry of a commit below clonedir."""
    return f".{digits}"


def ref_entry(ref: Ref, commit: str | None) -> str:
    """The entry that an environment's links name; a commit that was never resolved keeps its digits."""
    return commit_entry(commit or ref.digits) if isinstance(ref, Commit) else moving_entry(ref)


def entry_ref(entry: str) -> Ref | None:
    """The ref that an entry stands for; None when Jens makes no such entry."""
    if _COMMIT_ENTRY.fullmatch(entry):
        return Commit(entry[1:])
    is_tag = entry.startswith(TAG_MARK)
    name = entry[is_tag:].replace("~", "/")
    if not is_branch_name(name):
        return None
    return Tag(name) if is_tag else Branch(name)


def version_name(environment: str, number: int) -> str:
    """The name of a version of an environment."""
    return f"{environment}_{number}"


def version_of(name: str) -> tuple[str, int] | None:
    """The environment and the number of a version, by its name; None when it is no such name."""
    environment, _, number = name.rpartition("_")
    is_one = number.isascii() and number.isdecimal() and number[0] != "0" and is_environment_name(environment)
    return (environment, int(number)) if is_one else None


def is_checkout_name(entry: str) -> bool:
    """Whether an entry has the name of a checkout: a dot and 40 digits."""
    return _CHECKOUT.fullmatch(entry) is not None


class Layout(NamedTuple):
    """The configured directories, and the paths of everything in them.

    Environments get the hiera.yaml of the repository ``environment_hiera``, where it has one.
    """

    baredir: Path
    clonedir: Path
    cachedir: Path
    environmentsdir: Path
    common_hieradata_items: tuple[str, ...]
    environment_hiera: RepoId | None = None

    @classmethod
    def of(cls, config: Config) -> Layout:
        """The layout that a configuration asks for."""
        main = config.main
        hiera = RepoId(COMMON, main.environment_hiera) if main.environment_hiera else None
        directories = main.baredir, main.clonedir, main.cachedir, main.environmentsdir
        return cls(*directories, main.common_hieradata_items, hiera)

    @classmethod
    def at(cls, root: Path) -> Layout:
        """The layout of an instance with all directories below ``root``, as on a shared volume; without Hiera items."""
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
        """The path at which Puppet reads an expanded ref."""
        return self.clone(repo) / ref_entry(ref, commit)

    def environment(self, name: str) -> Path:
        """The directory that Puppet reads as the environment of this name."""
        return self.environmentsdir / name

    @property
    def versions(self) -> Path:
        """The directory of the versions of environments, which the first one makes."""
        return self.environmentsdir / VERSIONS

    def place(self, name: str) -> str:
        """Where an environment's directories are, below environmentsdir: in its current version, if it has versions.

        The link of a versioned environment has a text for the Puppet servers, so only its last part counts here.
        """
        try:
            version = os.path.basename(os.readlink(f"{self.environmentsdir}/{name}"))
        except OSError:
            return name
        is_ours = (version_of(version) or ("",))[0] == name and os.path.isdir(f"{self.versions}/{version}")
        return f"{VERSIONS}/{version}" if is_ours else name

    def tree(self, name: str) -> Path:
        """The directory that has an environment's directories and links."""
        return self.environmentsdir / self.place(name)

    @property
    def definitions(self) -> Path:
        """The directory of the remembered definitions."""
        return self.cachedir / "environments"

    @property
    def holds(self) -> Path:
        """The directory of the holds, which the first one makes."""
        return self.cachedir / "holds"

    @property
    def transfers(self) -> Path:
        """The directory of what runs have left to jens-transfer."""
        return self.cachedir / "transfers"

    def transfer_lock(self, repo: RepoId) -> Path:
        """The lock of who transfers a repository, which may have no mirror yet."""
        return self.baredir / repo.partition / f".{repo.name}.lock"

    @property
    def deliver(self) -> Path:
        """What asks for jens-deliver."""
        return self.cachedir / "deliver"

    @property
    def delivery_lock(self) -> Path:
        """The lock of the jens-deliver that is at work."""
        return self.cachedir / "deliver.lock"

    def environment_entries(self) -> list[os.DirEntry[str]]:
        """Everything that Puppet takes for an environment: directories and links. Raises OSError."""
        with os.scandir(self.environmentsdir) as entries:
            return [
                entry
                for entry in entries
                if is_environment_name(entry.name) and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))
            ]

    def environments(self) -> list[str]:
        """The environments that are directories, made by Jens or not, or that have versions. Raises OSError."""
        return [
            entry.name
            for entry in self.environment_entries()
            if not entry.is_symlink() or self.place(entry.name) != entry.name
        ]

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
