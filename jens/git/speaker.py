"""What speaks to one remote at a time for ``jens.git.shells``, and how long it may take."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from typing import NamedTuple, Union

from jens.errors import GitError

#: A command of Git and its arguments, none of which is empty or contains a newline.
Command = tuple[str, ...]
#: What Git printed, or why it failed.
Result = Union[bytes, GitError]

#: Bytes to read from a pipe at once, and how often in a row: somebody may write without end.
_SOME, _MOST_AT_ONCE = 1 << 16, 16
#: Seconds by which the end of a server's time may come before that of a command which began with it.
_NEARLY = 0.5


class Unclear:
    """No result: Git has to run the command."""


#: What ``receive`` returns when Git has to run the command instead.
UNCLEAR = Unclear()


class Times(NamedTuple):
    """Whether the time limit of a command has begun, and when it ends."""

    is_timed: bool
    deadline: float


class Speaker(ABC):
    """Runs one command at a time; ``command`` is the one under way, () for none.

    ``limit``: seconds for a command. ``passes_on`` is when somebody else is to run the command instead.
    """

    def __init__(self, limit: float) -> None:
        self.command: Command = ()
        self.has_ended = False
        self._limit = limit
        self._is_timed = False
        self.deadline = self._own_deadline = math.inf
        self.passes_on = math.inf

    def set_deadline(self, now: float) -> bool:
        """Start the time limit of the command, False when it runs. A long reply stays in Git until it is read."""
        if self._is_timed:
            return False
        self._is_timed = True
        self.deadline = self._own_deadline = now + self._limit
        return True

    def is_too_late(self, now: float) -> bool:
        """Whether the command has used up its own time limit."""
        return now >= self._own_deadline - _NEARLY

    @property
    def times(self) -> Times:
        """Since when the last command counts, for the one who goes on with it."""
        return Times(self._is_timed, self._own_deadline)

    def go_on_with(self, times: Times) -> None:
        """Give the command just begun the rest of the time that another one had for it."""
        self._is_timed = times.is_timed
        self.deadline = self._own_deadline = times.deadline

    @property
    @abstractmethod
    def pipes(self) -> tuple[int, ...]:
        """The descriptors that ``receive`` reads."""

    @abstractmethod
    def serves(self, command: Command, *, is_aside: bool) -> bool:
        """Whether it can run a command; ``is_aside``: one that is to be run without Git."""

    @abstractmethod
    def begin(self, command: Command) -> None:
        """Start a command. Raises OSError when nobody is there any more."""

    @abstractmethod
    def receive(self) -> Result | Unclear | None:
        """Read what there is. Returns the result of the command when it has ended, None before."""

    @abstractmethod
    def dismiss(self) -> None:
        """Tell that no more commands will come."""

    @abstractmethod
    def close(self) -> None:
        """End what is under way."""

    @abstractmethod
    def ask_to_end(self) -> None:
        """Ask for the end of what is under way, without waiting."""

    @abstractmethod
    def wait(self, until: float) -> None:
        """Wait for that end, but no longer; then bring it about."""

    @abstractmethod
    def kill(self) -> None:
        """End what is under way, without waiting."""


class Aside(ABC):
    """Makes speakers that run some commands without a Git of their own."""

    @abstractmethod
    def takes(self, command: Command) -> bool:
        """Whether a command is one of those."""

    @abstractmethod
    def another(self, command: Command) -> Speaker:
        """One more speaker, for such a command. Raises OSError, and takes none like it from then on."""


def take(pipe: int, content: bytearray) -> bool:
    """Add what is in a pipe to ``content``, without waiting; False when the pipe is closed."""
    for _ in range(_MOST_AT_ONCE):
        try:
            some = os.read(pipe, _SOME)
        except BlockingIOError:
            return True
        if not some:
            return False
        content += some
        if len(some) < _SOME:  # that was all, for now
            return True
    return True
