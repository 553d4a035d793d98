"""A thread that asks web servers, one question at a time, and can be given up at any time."""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import socket
import time
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Condition, Lock, Thread
from typing import Protocol

from jens.git.distance import Distance
from jens.git.speaker import UNCLEAR, Command, Result, Speaker, Unclear

#: How URLs of web servers begin.
WEB = ("https://", "http://")
#: Seconds after which Git asks instead, and the part of the time limit that this is at most.
_LATE, _PART = 2.0, 0.25
#: Seconds between two looks whether a lock is free, and seconds that a credential helper may take to end.
_LOOK, _PATIENCE = 0.05, 2.0


class Turns:
    """So many questions at once to a server: few, or ``many`` while it is far away and does not refuse them."""

    def __init__(self, few: int, many: int) -> None:
        self._few, self._many = few, many
        self._taken = 0
        self._changed = Condition()
        self._is_too_much = False
        self.distance = Distance()

    @property
    def are_many(self) -> bool:
        """Whether the server gets more than few."""
        return self._many > self._few and self.distance.is_far and not self._is_too_much

    @property
    def most(self) -> int:
        """How many there are."""
        return self._many if self.are_many else self._few

    def refuse(self) -> None:
        """Give few from now on, for the server does not want many."""
        self._is_too_much = True

    def acquire(self, *, timeout: float) -> bool:
        """Take one; False when there is none within so many seconds."""
        with self._changed:
            is_free = self._changed.wait_for(lambda: self._taken < self.most, timeout)
            self._taken += is_free
            return is_free

    def release(self) -> None:
        """Give one back."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()


class Asking(Protocol):
    """What a slot asks for its replies."""

    def ask(self, command: Command, slot: Slot) -> bytes | None:
        """What Git would print; None when Git has to be asked."""


class GivenUpError(OSError):
    """Nobody waits for this reply any more."""


class Slot(Speaker):
    """One question at a time; ``timeout`` in seconds, 0 for no limit. Raises OSError, RuntimeError without a thread."""

    def __init__(self, asking: Asking, timeout: float) -> None:
        super().__init__(timeout or math.inf)
        self._asking = asking
        self._patience = min(_LATE, self._limit * _PART)
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._reply: bytes | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._lock = Lock()
        self._turns: Turns | None = None
        self.is_dismissed = False
        self._is_given_up = self._is_paused = self._is_logging_in = False
        self._wakes, self._wake = os.pipe()
        self._thread = Thread(target=self._work, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._wakes)
            os.close(self._wake)
            raise

    # The thread

    def _work(self) -> None:
        while (command := self._commands.get()) is not None:
            try:
                self._reply = self._asking.ask(command, self)
            finally:
                self._tell()

    def _tell(self) -> None:
        """Wake the one who waits, if there still is one."""
        with self._lock:
            self._connection = None
            if not self._is_given_up:
                os.write(self._wake, b".")

    def use(self, connection: http.client.HTTPConnection) -> None:
        """Note which connection to end when nobody waits any more. Raises GivenUpError when that is so already."""
        with self._lock:
            self._connection = connection
            if self._is_given_up:
                raise GivenUpError

    def leave(self) -> bool:
        """Note that a connection is idle now. Returns False when it was ended."""
        with self._lock:
            self._connection = None
            return not self._is_given_up

    def left(self) -> float:
        """The seconds that a conversation may still take: any number, or none."""
        return 0.0 if self._is_given_up else math.inf

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """Do something that takes none of the server's time."""
        self._is_paused, self.passes_on = True, math.inf
        try:
            yield
        finally:
            self._is_paused, self.passes_on = False, time.monotonic() + self._patience

    def _wait_for(self, lock: Lock | Turns) -> None:
        while not lock.acquire(timeout=_LOOK):
            if self._is_given_up:
                raise GivenUpError

    @contextlib.contextmanager
    def logging_in(self, lock: Lock) -> Iterator[None]:
        """Hold a lock, in which credential helpers get more time than servers. Raises GivenUpError."""
        with self._paused():
            self._wait_for(lock)
            self._is_logging_in = True
            try:
                yield
            finally:
                self._is_logging_in = False
                lock.release()

    @contextlib.contextmanager
    def turn(self, turns: Turns) -> Iterator[None]:
        """Wait for a turn with a server, and take it. Who is given up gives it back at once. Raises GivenUpError."""
        with self._paused():
            self._wait_for(turns)
        with self._lock:
            self._turns = turns
        try:
            yield
        finally:
            with self._lock:
                self._give_turn_back()

    def _give_turn_back(self) -> None:
        if self._turns is not None:
            self._turns.release()
            self._turns = None

    # The others

    @property
    def pipes(self) -> tuple[int, ...]:
        """The descriptor that ``receive`` reads."""
        return (self._wakes,)

    def serves(self, command: Command, *, is_aside: bool) -> bool:
        """Whether it can run a command: questions to web servers."""
        return is_aside and command[-1].startswith(WEB)

    def begin(self, command: Command) -> None:
        """Start a command."""
        self._is_timed, self._reply = False, None
        self.command = command
        self._commands.put(command)

    def set_deadline(self, now: float) -> bool:
        """Start the time limit of the command, False when it runs. Git asks when it takes long."""
        is_first = super().set_deadline(now)
        if is_first and not self._is_paused:
            self.passes_on = now + self._patience
        return is_first

    def receive(self) -> Result | Unclear | None:
        """The result of the command, which has ended."""
        os.read(self._wakes, 1)
        self.command, self.deadline, self.passes_on = (), math.inf, math.inf
        return UNCLEAR if self._reply is None else self._reply

    def dismiss(self) -> None:
        """Tell that no more commands will come, and that nobody wants to know what is under way."""
        self.is_dismissed = True
        self._commands.put(None)

    def close(self) -> None:
        """Give up what is under way. Only a credential helper is waited for: it is a process."""
        self._commands.put(None)
        self.kill()
        if self._is_logging_in:
            self._thread.join(_PATIENCE)
        with self._lock:
            os.close(self._wakes)
            os.close(self._wake)

    def ask_to_end(self) -> None:
        """Give up what is under way."""
        self.kill()

    def wait(self, until: float) -> None:
        """Wait for nothing: nobody needs the thread."""

    def kill(self) -> None:
        """Give up what is under way."""
        with self._lock:
            self._is_given_up = True
            self._give_turn_back()
            if self._connection is not None and self._connection.sock is not None:
                with contextlib.suppress(OSError):
                    self._connection.sock.shutdown(socket.SHUT_RDWR)
