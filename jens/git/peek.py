"""Looks into commits that are not laid out, also into those that only a remote has."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from jens.errors import GitError, GitUnreachedError
from jens.git.process import GitOptions, run
from jens.git.trees import Trees
from jens.system.files import remove_tree

#: Files up to this size (bytes) are fetched, if the server can leave out others. No file that is read here is larger.
_MOST = 1 << 16
#: So many trees of a commit are looked at, and so many .gitattributes files.
_MOST_TREES, _MOST_ATTRIBUTES = 100_000, 100


class Special(NamedTuple):
    """What a commit has anywhere: the contents of its .gitattributes files, and whether there are submodules."""

    attributes: tuple[bytes, ...] = ()
    has_submodules: bool = False


def fetch_tips(bare: Path, url: str, commits: Iterable[str], options: GitOptions) -> None:
    """Fetch commits, which branches of a remote are at, without history into a new bare. Raises GitError.

    From a server that cannot leave out history, such as one that only serves files, all branches and tags are fetched.
    """
    _make(bare)
    fetch, little = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"], f"--filter=blob:limit={_MOST}"
    try:
        run([*fetch, "--depth=1", little, "--", url, *commits], git_dir=bare, remote=options, limit=options.timeout)
    except GitError as error:
        if error.is_cut_short or isinstance(error, GitUnreachedError):
            raise
        remove_tree(bare)  # Git believes now that the remote has whatever the repository lacks
        _make(bare)
        everything = [*fetch, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        run(everything, git_dir=bare, remote=options, limit=options.clonetimeout)


def _make(bare: Path) -> None:
    run(["init", "--quiet", "--bare", "--template=", str(bare)])


def read(bare: Path, commit: str, paths: Collection[str]) -> dict[str, bytes]:
    """What a commit has at these paths: the content of small files, b'' for all else that is there. Raises GitError."""
    listing = run(["ls-tree", "-z", commit, "--", *paths], git_dir=bare, shared=True)
    found = {}
    for line in filter(None, listing.split(b"\0")):
        fields, _, path = line.partition(b"\t")
        _mode, kind, name = fields.split()
        content = _small(bare, name.decode("ascii")) if kind == b"blob" else b""
        found[path.decode("utf-8", "surrogateescape")] = content
    return found


def special(bare: Path, commit: str) -> Special:
    """Look through all trees of a commit, each once. Raises GitError, OSError."""
    seen: set[str] = set()
    blobs: dict[str, None] = {}
    has_submodules = False
    with Trees(bare) as trees:
        level = [f"{commit}^{{tree}}"]
        while level:
            below: dict[str, None] = {}
            for name, parts in trees.contents(level):
                seen.add(name)
                for part in parts:
                    blobs.update(dict.fromkeys(part.attributes))
                    below.update(dict.fromkeys(part.trees))
                    has_submodules = has_submodules or part.submodules > 0
            level = [name for name in below if name not in seen][: _MOST_TREES - len(seen)]
    return Special(tuple(_small(bare, blob) for blob in [*blobs][:_MOST_ATTRIBUTES]), has_submodules)


def _small(bare: Path, blob: str) -> bytes:
    """The content of a small file, b'' for a large one, and for one that the server has left out."""
    with contextlib.suppress(GitError):
        if int(run(["cat-file", "-s", blob], git_dir=bare, shared=True)) <= _MOST:
            return run(["cat-file", "blob", blob], git_dir=bare, shared=True)
    return b""
