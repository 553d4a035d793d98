"""Shells that start Git, one command after the other: for hundreds of questions to remotes.

Starting a process costs this program several times what it costs a shell: this program has much in memory, and only
one of its threads works at a time.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, Optional

from jens.errors import GitError, GitLimitError, GitTimeoutError
from jens.git import environment
from jens.git import process as git_process
from jens.git.process import GitOptions
from jens.git.speaker import Aside, Command, Result, Speaker, Times, Unclear, take
from jens.system import processes

__all__ = ["Command", "Result"]

#: Gives the next command, if there is one.
Supply = Callable[[], Optional[Command]]
#: Variables for a command, besides those of all.
Variables = Callable[[Command], "Mapping[str, str]"]
#: Given a command under way, and whether it is looked at for the first time: the seconds that it may still take, and
#: whether it only waits.
Look = Callable[[Command, bool], "tuple[float, bool]"]

#: The script reads one argument a line; an empty line ends the command. A line that begins with a tab has a variable,
#: with users and passwords of URLs: they must not be arguments. After Git's output it prints a word that no
#: remote can know, and Git's status. The settings of other Git processes are left out: none matters to a question, and
#: each takes time.
_SCRIPT = """
IFS= read -r word
set --
while IFS= read -r argument; do
    case $argument in
    "")
        command git "$@" </dev/null
        command printf '%s %d\\n' "$word" "$?"
        set --
        ;;
    "\t"*)
        export "${argument#?}"
        ;;
    *)
        set -- "$@" "$argument"
        ;;
    esac
done
"""
_MARK = re.compile(rb"(?P<word>[0-9a-f]{32}) (?P<status>\d{1,3})\n\Z")
_LONGEST_MARK = 40
_OF_SHELLS = ("BASH", "ENV", "IFS", "POSIXLY_CORRECT", "PS4", "SHELLOPTS")
#: One shell for this many waiting commands; seconds of waiting after which the number of shells doubles; the number of
#: shells at first.
_WORTH, _SLOW, _FIRST = 4, 0.02, 2
#: Seconds that a shell may take to end.
_PATIENCE = 2.0
#: Seconds between two looks how long commands may still take.
_LOOK = 0.1
#: Bytes of a remote's reply: hundreds of thousands of branches. Such lists of several remotes are in memory at once.
LONGEST_REPLY = 1 << 25


class Shells:
    """A number of shells that run one command at a time each. Leaving the context ends the commands under way.

    There are at most ``most`` shells, and fewer while few commands wait or the waits are short. There are up to
    ``spare`` more while ``look`` says of that many commands that they only wait. What ``aside`` makes runs some of
    the commands. What does not come to a good end there, a shell runs again, in the time that is left. ``variables``
    must name the same ones for each command that needs any.
    """

    def __init__(
        self,
        options: GitOptions,
        most: int,
        supply: Supply,
        look: Look | None = None,
        spare: int = 0,
        aside: Aside | None = None,
        variables: Variables | None = None,
    ) -> None:
        self._options = options
        self._variables = variables or (lambda _command: {})
        self._most = most
        self._look = look or (lambda _command, _is_first: (math.inf, False))
        self._next_look = 0.0
        self._spare, self._waiting = spare, 0
        self._enough = min(most, _FIRST)
        self._patient_until = math.inf
        self._supply = supply
        self._aside = aside
        self._passed_on: dict[Command, Times] = {}
        self._shells: list[Speaker] = []
        self._held: list[Command] = []
        self._ended: list[tuple[Command, Result]] = []
        self._pipes = selectors.DefaultSelector()

    def __enter__(self) -> Shells:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for shell in self._shells:  # only when an exception ended ``stop``: kill the rest at once
                shell.kill()
            self._pipes.close()

    def stop(self) -> None:
        """End the commands under way; their results are lost."""
        self._held.clear()
        self._passed_on.clear()
        self._waiting = 0
        for shell in self._shells:
            shell.dismiss()  # all of them, before the first is waited for
        for shell in list(self._shells):
            self._drop(shell)
        self._ended.clear()

    def feed(self, waiting: int = 0) -> None:
        """Start commands from the supply in free and new shells; ``waiting`` is how many commands are known to wait."""
        self._enough = max(self._enough, min(self._most, waiting // _WORTH))
        while True:
            free = [shell for shell in self._shells if not shell.command]
            at_work = len(self._shells) - len(free) - self._waiting
            if at_work >= (self._most if free else self._enough):
                return
            command = self._held.pop() if self._held else self._supply()
            if command is None or not self._begin(command, free):
                return

    def _begin(self, command: Command, free: Sequence[Speaker]) -> bool:
        """Start a command, in one that is free if possible. Returns False when it has to wait for others."""
        times = self._passed_on.get(command)
        is_aside = times is None and self._aside is not None and self._aside.takes(command)
        shell = next((each for each in free if each.serves(command, is_aside=is_aside)), None)
        try:
            speaker = shell or self._another(command, is_aside=is_aside)
            speaker.begin(command)
        except OSError as error:
            return self._hold(command, shell, error, is_aside=is_aside)
        if times is not None:
            speaker.go_on_with(self._passed_on.pop(command))
        return True

    def _hold(self, command: Command, shell: Speaker | None, error: OSError, *, is_aside: bool) -> bool:
        """Keep a command that could not be started. Returns False when it has to wait for others."""
        if shell or is_aside:  # somebody has killed the shell, or only shells run commands from now on
            if shell:
                self._drop(shell)
            self._held.append(command)
        elif any(other.command for other in self._shells):
            self._held.append(command)  # for the first shell that is free again
            return False
        else:
            problem = f"could not be started: {error.strerror}"
            self._ended.append((command, GitError(verb_of(command), problem)))
        return True

    def replies(self) -> list[tuple[Command, Result]]:
        """Wait until commands end. Returns them with their results; none when no command is under way."""
        self.feed()
        while not self._ended and any(shell.command for shell in self._shells):
            self._wait()
        ended, self._ended = self._ended, []
        return ended

    def _another(self, command: Command, *, is_aside: bool) -> Speaker:
        shell = self._aside.another(command) if is_aside and self._aside else _Shell(self._options, self._variables)
        self._shells.append(shell)
        for pipe in shell.pipes:
            self._pipes.register(pipe, selectors.EVENT_READ, shell)
        return shell

    def go_on(self) -> None:
        """Receive what was printed, and start the next commands in free shells, without waiting."""
        if any(shell.command for shell in self._shells):
            self._wait(0.0)
        self.feed()

    def _wait(self, longest: float = math.inf) -> None:
        """Wait until a shell prints something or exceeds its time limit, but at most ``longest`` seconds."""
        now = time.monotonic()
        if longest:  # ``go_on`` starts no time limit: its next call may be late
            self._look_at_all(now)
        left = min(longest, _LOOK, min(shell.deadline for shell in self._shells) - time.monotonic())
        if self._enough < self._most:
            self._patient_until = min(self._patient_until, time.monotonic() + _SLOW)
            left = min(left, self._patient_until - time.monotonic())
        for key, _ in self._pipes.select(max(0.0, left)):
            command = key.data.command
            result = key.data.receive()
            if command and isinstance(result, Unclear):
                self._pass_on(key.data, command)
            elif command and result is not None:
                self._ended.append((command, result))
        self._pass_on_late()
        if self._passed_on:
            self.feed()
        self._give_up([shell for shell in self._shells if shell.deadline <= time.monotonic()])
        for shell in [shell for shell in self._shells if shell.has_ended]:
            self._drop(shell)
        if time.monotonic() >= self._patient_until:
            self._enough, self._patient_until = min(self._most, 2 * self._enough), math.inf
            self.feed()

    def _pass_on(self, speaker: Speaker, command: Command) -> None:
        """Have a shell run a command, in the time that is left."""
        self._passed_on[command] = speaker.times
        self._held.append(command)

    def _pass_on_late(self) -> None:
        """Have shells run the commands that take long aside."""
        now = time.monotonic()
        for speaker in [each for each in self._shells if each.command and each.passes_on <= now < each.deadline]:
            self._pass_on(speaker, speaker.command)
            self._drop(speaker)

    def _look_at_all(self, now: float) -> None:
        """Find out how long the commands under way may still take, and which of them only wait."""
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        self._waiting = 0
        for shell in self._shells:
            if shell.command:
                is_first = shell.set_deadline(now)
                left, only_waits = self._look(shell.command, is_first)
                shell.deadline = min(shell.deadline, now + left)
                self._waiting += only_waits
        self._waiting = min(self._waiting, self._spare)
        self.feed()  # commands that had to wait for others may begin now

    def _give_up(self, shells: Sequence[Speaker]) -> None:
        """End commands that took too long, and their shells. All of them share the time that they get for that."""
        until = time.monotonic() + _PATIENCE
        for shell in shells:
            shell.ask_to_end()
        for shell in shells:
            within = f"no answer within {self._options.timeout:g} seconds"
            problem = within if shell.is_too_late(time.monotonic()) else git_process.NO_TIME_LEFT
            self._ended.append((shell.command, GitTimeoutError(verb_of(shell.command), problem)))
            shell.wait(until)
            self._drop(shell)

    def _drop(self, shell: Speaker) -> None:
        self._shells.remove(shell)
        for pipe in shell.pipes:
            self._pipes.unregister(pipe)
        shell.close()


class _Shell(Speaker):
    """One shell in a session of its own."""

    def __init__(self, options: GitOptions, of_command: Variables) -> None:
        super().__init__(options.timeout or math.inf)
        self._of_command = of_command
        self._word = os.urandom(16).hex()
        self._output, self._complaints = bytearray(), bytearray()
        variables = {**_inherited(), **git_process.remote_environment(options)}
        self._process = git_process.start(["sh", "-c", _SCRIPT], subprocess.PIPE, variables)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(git_process.watched(self._process))
        git_process.bound_memory(self._process.pid)
        self._input, self._printed, self._complained = self._pipes_of(self._process)
        self._introduction: Command = (self._word,)

    @staticmethod
    def _pipes_of(process: subprocess.Popen[bytes]) -> tuple[int, int, int]:
        first, second, third = (pipe.fileno() for pipe in (process.stdin, process.stdout, process.stderr) if pipe)
        for descriptor in (second, third):
            os.set_blocking(descriptor, False)
        return first, second, third

    @property
    def pipes(self) -> tuple[int, int]:
        """The descriptors that ``receive`` reads."""
        return self._printed, self._complained

    def serves(self, command: Command, *, is_aside: bool) -> bool:
        """Whether it can run a command: each that Git runs."""
        del command
        return not is_aside

    def _write(self, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        while text:
            text = text[os.write(self._input, text) :]

    def begin(self, command: Command) -> None:
        """Start a command. Raises OSError when the shell has ended."""
        take(self._complained, self._complaints)  # a helper that the last command left may have complained
        self._output.clear()
        self._complaints.clear()
        self._is_timed = False
        self.command = command  # set before the first write: a signal may come at any time
        (_, *words), secrets = git_process.concealed(("git", *command))
        variables = [f"\t{name}={value}" for name, value in {**secrets, **self._of_command(command)}.items()]
        try:
            self._write((*self._introduction, *variables, *words, ""))
            self._introduction = ()
        except OSError:
            self.command = ()
            raise

    def receive(self) -> Result | None:
        """Read what was printed. Returns the result of the command when it has ended, None before."""
        self.has_ended |= not take(self._printed, self._output)
        take(self._complained, self._complaints)
        git_process.bound(self._complaints)
        match = _MARK.search(self._output, max(0, len(self._output) - _LONGEST_MARK))
        if len(self._output) > LONGEST_REPLY:
            return self._refuse()
        if match and match["word"].decode() == self._word:
            return self._result(int(match["status"]), bytes(self._output[: match.start()]))
        return self._result(-1, b"") if self.has_ended else None

    def _refuse(self) -> Result:
        """End the shell: its command prints more than any honest remote."""
        self.kill()
        self.has_ended = True
        self._output.clear()
        command, self.command, self.deadline = self.command, (), math.inf
        return GitLimitError(verb_of(command), f"the remote lists more than {LONGEST_REPLY >> 20} MiB of branches")

    def _result(self, status: int, output: bytes) -> Result:
        command, self.command, self.deadline = self.command, (), math.inf
        if status == 0:
            return output
        return git_process.failure(verb_of(command), bytes(self._complaints), status, command)

    def dismiss(self) -> None:
        """Close the input of the shell: no more commands will come."""
        if self._process.stdin:
            self._process.stdin.close()

    def close(self) -> None:
        """End the shell and its command."""
        with self._stack:
            self.dismiss()
            if not self.command:
                processes.has_ended(self._process, _PATIENCE)
            if self._process.returncode is None:
                processes.end(self._process)

    def ask_to_end(self) -> None:
        """Tell the shell and its command to end, without waiting."""
        processes.signal_group(self._process.pid, signal.SIGTERM)  # lets Git remove its lock files

    def wait(self, until: float) -> None:
        """Wait until the shell has ended, but no longer than that, then kill it and its command."""
        processes.has_ended(self._process, max(0.0, until - time.monotonic()))
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill the shell and its command, without waiting."""
        processes.signal_group(self._process.pid, signal.SIGKILL)


def _inherited() -> dict[str, str]:
    """The environment without variables that change what a shell does: functions, options, start-up files."""
    inherited = environment.inherited_environment()
    return {name: value for name, value in inherited.items() if not name.startswith(_OF_SHELLS)}


def verb_of(command: Command) -> str:
    """The verb of a Git command, such as ls-remote; '' when it has none."""
    return next((argument for argument in command if not argument.startswith("-")), "")
