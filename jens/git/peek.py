"""Looks into commits that are not laid out, also into those that only a remote has."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from jens.errors import GitError
from jens.git.process import GitOptions, run

#: Files up to this size (bytes) are fetched, if the server can leave out others. No file that is read here is larger.
_MOST = 1 << 16


def fetch_tips(bare: Path, url: str, commits: Iterable[str], options: GitOptions) -> None:
    """Fetch commits, which branches of a remote are at, without history into a new bare. Raises GitError."""
    run(["init", "--quiet", "--bare", "--template=", str(bare)])
    arguments = ["fetch", "--quiet", "--depth=1", f"--filter=blob:limit={_MOST}", "--no-tags", "--no-write-fetch-head"]
    run([*arguments, "--", url, *commits], git_dir=bare, remote=options, limit=options.timeout)


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


def _small(bare: Path, blob: str) -> bytes:
    """The content of a small file, b'' for a large one, and for one that the server has left out."""
    with contextlib.suppress(GitError):
        if int(run(["cat-file", "-s", blob], git_dir=bare, shared=True)) <= _MOST:
            return run(["cat-file", "blob", blob], git_dir=bare, shared=True)
    return b""
