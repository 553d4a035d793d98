"""What commits say of themselves, and how many lie between two of them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from jens.git import lookup
from jens.git.history import read_loose
from jens.git.process import run
from jens.text import one_line

#: So much of a commit is looked at, in bytes: who pushes decides how long its message is.
_MOST = 1 << 16
#: So many characters of an author or a subject are kept.
_LONGEST = 200
#: Commits of a push that are followed without Git.
_NEAR = 20
_OBJECT = re.compile(rb"commit \d{1,20}\0")
_PARENT = re.compile(rb"^parent ([0-9a-f]{40})$", re.MULTILINE)
_AUTHOR = re.compile(rb"^author ([^\n]*?) ?<[^\n]*$", re.MULTILINE)
_COMMITTED = re.compile(rb"^committer [^\n]*> (\d{1,12}) [-+]\d{4}$", re.MULTILINE)
_ENCODING = re.compile(rb"^encoding ([\w.:+-]{1,40})$", re.MULTILINE)
#: The end of the year 9999, in seconds since the epoch; later dates are none.
_LAST_DATE = 253402300799


class Described(NamedTuple):
    """A commit: its author's name and its subject, one line each, the committer's date, and the parents' ids.

    The date is in seconds since the epoch, None when it is none.
    """

    author: str
    subject: str
    date: int | None
    parents: tuple[str, ...]


def describe(bare: Path, commit: str) -> Described:
    """What a commit (40 digits) says of itself. Raises GitError."""
    found = describe_without_git(bare, commit)
    return found or parse(run(["cat-file", "commit", commit], git_dir=bare, shared=True)[:_MOST])


def describe_without_git(bare: Path, commit: str) -> Described | None:
    """What a commit (40 digits) says of itself; None when it is not there, or only Git can read it."""
    content = _read_loose(bare, commit) or lookup.read_packed(bare, commit, _MOST)
    return parse(content) if content else None


def parse(content: bytes) -> Described:
    """What the content of a commit says: git-commit-tree(1)."""
    head, _, message = content.partition(b"\n\n")
    encoding = _ENCODING.search(head)
    author, committed = _AUTHOR.search(head), _COMMITTED.search(head)
    subject = b" ".join(line.strip() for line in message.strip().partition(b"\n\n")[0].split(b"\n"))
    date = int(committed[1]) if committed else None
    return Described(
        _text(author[1] if author else b"", encoding),
        _text(subject, encoding),
        date if date is not None and date <= _LAST_DATE else None,
        tuple(parent.decode("ascii") for parent in _PARENT.findall(head)),
    )


def _text(content: bytes, encoding: re.Match[bytes] | None) -> str:
    try:
        text = content.decode(encoding[1].decode("ascii") if encoding else "utf-8", "replace")
    except (LookupError, ValueError):
        text = content.decode("utf-8", "replace")
    return one_line(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def count_between(bare: Path, before: str, now: str) -> tuple[int, int]:
    """How many commits ``now`` has that ``before`` has not, and the other way round. Raises GitError.

    Usual pushes are a few commits in a row, and a fetch leaves them in files of their own: those need no Git.
    """
    at = now
    for number in range(_NEAR):
        if at == before:
            return number, 0
        content = _read_loose(bare, at)
        parents = parse(content).parents if content else ()
        if len(parents) != 1:
            break
        [at] = parents
    output = run(["rev-list", "--count", "--left-right", f"{before}...{now}", "--"], git_dir=bare, shared=True)
    lost, commits = map(int, output.split())
    return commits, lost


def _read_loose(bare: Path, commit: str) -> bytes:
    """The content of a commit in a file of its own; b'' when it is packed, or cannot be read."""
    content = read_loose(bare, commit, _MOST, _MOST)
    found = _OBJECT.match(content)
    return content[found.end() :] if found else b""


class LastChange(NamedTuple):
    """The last commit of a branch that changed a file, and its author's name."""

    commit: str
    author: str


#: So many commits are looked through for the last one that changed a file: what changed now was changed lately.
_MOST_COMMITS = 200
#: Seconds that this may take.
_LONGEST_LOOK = 10


def last_changes(git_dir: Path, commit: str, names: Collection[str]) -> dict[str, LastChange]:
    """The last commit that changed each of some files, of those that were changed lately. Raises GitError."""
    arguments = ["log", "-z", f"--max-count={_MOST_COMMITS}", "--no-renames", "--no-show-signature", "--name-only"]
    arguments += ["--format=%x00%x00%H %an", commit, "--"]
    output = run(arguments, git_dir=git_dir, shared=True, limit=_LONGEST_LOOK)
    found: dict[str, LastChange] = {}
    for text in output.split(b"\0\0"):
        made, *changed = text.strip(b"\0\n").split(b"\0")
        digits, _, author = made.partition(b" ")
        change = LastChange(digits.decode("ascii", "replace"), _text(author, None))
        for name in (entry.strip(b"\n").decode("utf-8", "surrogateescape") for entry in changed):
            if name in names:
                found.setdefault(name, change)
    return found
