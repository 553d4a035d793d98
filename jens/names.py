"""Checks of names and refs, made where they enter: only checked ones become a path or an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jens.model import PARTITIONS, Branch, Commit, Prefixes, Ref, RepoId, Tag
from jens.text import one_line

#: Most bytes in a file's name. An environment is one entry on disk, and so is a branch with its slashes.
LONGEST = 255

_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # links add a prefix, and a file name ends at 255
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_]{1,255}")
_PATH = re.compile(rf"\.|{_REPOSITORY.pattern}(/{_REPOSITORY.pattern})*")
_COMMIT_ID = re.compile(r"[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9a-f]{4,40}")
#: Keys that begin like this are their writers' own, such as those that hold what others merge.
_PRIVATE = (".", "_", "x-")
#: How much a misspelt name has in common with the right one, from 0 to 1: two letters of seven may be exchanged.
_ALIKE = 0.8
#: What stands between the words of a key.
_WORDS = re.compile(r"[_.-]")
_BRANCH_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def is_repository_name(name: str) -> bool:
    """Whether a repository may have this name."""
    return _REPOSITORY.fullmatch(name) is not None


def is_directory_path(path: str) -> bool:
    """Whether a repository may have code or data in this directory: a relative path, or ``.`` for itself."""
    return _PATH.fullmatch(path) is not None and len(path) <= LONGEST


def parse_repository(text: str) -> RepoId:
    """The repository that ``partition/name`` stands for, the ``str`` of a RepoId. Raises ValueError."""
    partition, _, name = text.partition("/")
    if partition not in PARTITIONS or not is_repository_name(name):
        raise ValueError(f"{text!r} is no repository")
    return RepoId(partition, name)


def is_environment_name(name: str) -> bool:
    """Whether an environment may have this name; Puppet accepts the same ones."""
    return _ENVIRONMENT.fullmatch(name) is not None


def is_commit_id(text: str) -> bool:
    """Whether this is the full id of a commit: 40 hexadecimal digits in lower case."""
    return _COMMIT_ID.fullmatch(text) is not None


def is_branch_name(name: str) -> bool:
    """Whether ``git check-ref-format --branch`` accepts a name, told without starting Git.

    Source: git-check-ref-format(1). Shorthands such as ``@{-1}`` are not expanded but refused.
    """
    if not name or name == "HEAD" or name[0] in "-/" or name[-1] in "/." or _BRANCH_FORBIDDEN.search(name):
        return False
    return not any(part.startswith(".") or part.endswith(".lock") for part in name.split("/"))


def resembled(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one resembles, '' for none. Upper and lower case are the same.

    A known name with one more word (``overrides_old``) is no slip of the keyboard.
    """
    import difflib  # noqa: PLC0415 - few runs need it

    meant = next(iter(difflib.get_close_matches(name.casefold(), known, 1, _ALIKE)), "")
    is_apart = name.startswith(_PRIVATE) or (len(name) > len(meant) and meant in _WORDS.split(name.casefold()))
    return "" if is_apart else meant


def parse_ref(text: str, prefixes: Prefixes) -> Ref:
    """Turn a declared ref into a Branch, a Tag or a Commit. Raises ValueError, which says what was expected."""
    if (digits := _after(prefixes.commit, text)) is not None:
        if not _COMMIT.fullmatch(digits.lower()):
            raise ValueError(
                f"{text!r} is no commit: 4 to 40 hexadecimal digits are expected after {prefixes.commit!r}"
            )
        return Commit(digits.lower())
    if (name := _after(prefixes.tag, text)) is not None:
        _check(name, f"{text!r} is no tag: a name that Git accepts is expected after {prefixes.tag!r}", LONGEST - 1)
        return Tag(name)
    _check(text, f"{text!r} is no branch name that Git accepts", LONGEST)
    return Branch(text)


def _after(prefix: str, text: str) -> str | None:
    """What is after a prefix, in upper or lower case; None when the text begins otherwise."""
    return text[len(prefix) :] if text[: len(prefix)].lower() == prefix.lower() else None


def _check(name: str, problem: str, longest: int) -> None:
    """Raise ValueError for a name that Git does not accept, or that has no room on disk."""
    if not is_branch_name(name):
        raise ValueError(problem)
    if len(name.encode("utf-8", "surrogateescape")) > longest:
        raise ValueError(f"{name[:20]!r}... is longer than the name of a file can be, {longest} bytes")


def describe_ref(ref: Ref) -> str:
    """A ref in words, for a message."""
    if isinstance(ref, Commit):
        return f"commit {ref.digits}"
    return f"{'tag' if isinstance(ref, Tag) else 'branch'} '{one_line(ref.name)}'"
