"""Counts what a commit would be on disk, before it is laid out: a push of a kilobyte may unpack to any size.

A tree may name others many times, and these others again. Each is read once, and counted as often as it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from typing import Callable, NamedTuple, Protocol

from jens.errors import BudgetError
from jens.git.trees import Named
from jens.repositories.model import Budget

#: Directories below one another.
MOST_LEVELS = 500


class Source(Protocol):
    """Reads trees, like ``jens.git.trees.Trees``."""

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, Iterator[Named]]]:
        """The ids of trees, and what their parts name."""

    def sizes(self, names: Sequence[str]) -> Iterator[int]:
        """The sizes of files, in bytes."""


class Weight(NamedTuple):
    """What a tree is on disk; ``levels`` are its directories below one another."""

    files: int = 0
    bytes: int = 0
    directories: int = 0
    levels: int = 0


class Scales:
    """Weighs the commits of one repository; what they have in common is read once."""

    def __init__(self, opened: Callable[[], AbstractContextManager[Source]], budget: Budget) -> None:
        self._opened = opened
        self._stack = ExitStack()
        self._source: Source | None = None
        self._budget = budget
        self._weights: dict[str, Weight] = {}

    def __enter__(self) -> Scales:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._source = None
        self._stack.close()

    def check(self, commit: str) -> None:
        """Raise BudgetError for a commit that must not be laid out. Raises GitError, OSError when it cannot be read."""
        self._source = self._source or self._stack.enter_context(self._opened())
        try:
            root, read = self._read(self._source, f"{commit}^{{tree}}")
            self._weigh(root, read, self._sizes(self._source, read))
        except BaseException:
            self._close()  # in the midst of an answer
            raise
        refuse(self._weights[root], self._budget)

    def _read(self, source: Source, tree: str) -> tuple[str, dict[str, Named]]:
        """Read a tree and all below it, level by level; the id comes first. Stops as soon as it is too much."""
        read: dict[str, Named] = {}
        level, sum_ = [tree], Weight()
        while level:
            below: dict[str, None] = {}
            for name, parts in source.contents(level):
                read[name] = self._list(parts, sum_)
                sum_ = _more(sum_, read[name])
                below.update(dict.fromkeys(read[name].trees))
            sum_ = sum_._replace(levels=sum_.levels + (1 if below else 0))
            refuse(sum_, self._budget)
            level = [name for name in below if name not in read and name not in self._weights]
        return next(iter(read)), read

    def _list(self, parts: Iterable[Named], before: Weight) -> Named:
        """What a tree names itself. Stops as soon as it is too much, with what was ``before``."""
        files: list[str] = []
        trees: list[str] = []
        own = Named(files, trees, 0)
        for part in parts:
            files += part.files
            trees += part.trees
            own = own._replace(submodules=own.submodules + part.submodules)
            refuse(_more(before, own), self._budget)
        return own

    @staticmethod
    def _sizes(source: Source, read: dict[str, Named]) -> dict[str, int]:
        """The bytes of the files of each tree."""
        sizes = source.sizes([name for own in read.values() for name in own.files])
        return {name: sum(islice(sizes, len(own.files))) for name, own in read.items()}

    def _weigh(self, root: str, read: dict[str, Named], sizes: dict[str, int]) -> None:
        """Add up what was read, without recursion: a tree may have any depth."""
        waiting = [root]
        while waiting:
            name = waiting[-1]
            if name in self._weights:
                waiting.pop()
            elif left := [tree for tree in dict.fromkeys(read[name].trees) if tree not in self._weights]:
                waiting += left
            else:
                self._weights[waiting.pop()] = _sum(read[name], sizes[name], self._weights)


def _more(before: Weight, own: Named) -> Weight:
    directories = before.directories + len(own.trees) + own.submodules
    return before._replace(files=before.files + len(own.files), directories=directories)


def _sum(own: Named, size: int, weights: dict[str, Weight]) -> Weight:
    below = [weights[name] for name in own.trees]
    return Weight(
        len(own.files) + sum(weight.files for weight in below),
        size + sum(weight.bytes for weight in below),
        len(own.trees) + own.submodules + sum(weight.directories for weight in below),
        max((weight.levels + 1 for weight in below), default=0),
    )


def most_directories(budget: Budget) -> int:
    """How many directories a commit may have. Few files may be wanted, with directories around them."""
    return max(budget.files, Budget().files)


def refuse(weight: Weight, budget: Budget) -> None:
    """Raise BudgetError for what is too much."""
    if weight.files > budget.files:
        raise BudgetError(f"it has more than {budget.files} files ([main] maxfiles)")
    if weight.directories > most_directories(budget):
        raise BudgetError(f"it has more than {most_directories(budget)} directories ([main] maxfiles)")
    if weight.bytes > budget.bytes:
        raise BudgetError(f"its files have more than {budget.bytes} bytes ([main] maxbytes)")
    if weight.levels > MOST_LEVELS:
        raise BudgetError(f"it has more than {MOST_LEVELS} levels of directories")
