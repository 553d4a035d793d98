"""Questions to many remotes at once through shells: which replies come, and which processes are left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jens.errors import GitError, GitLimitError, GitTimeoutError
from jens.git import process
from jens.git import shells as git_shells
from jens.git.process import GitOptions
from jens.git.shells import Command, Result, Shells
from tests.conftest import Site, git


@contextmanager
def asking(*commands: Command, most: int = 2, timeout: int = 10) -> Iterator[Shells]:
    waiting = iter([*commands, None])
    with Shells(GitOptions(timeout=timeout), most, lambda: next(waiting, None)) as shells:
        yield shells


def all_replies(shells: Shells) -> dict[Command, Result]:
    found: dict[Command, Result] = {}
    while replies := shells.replies():
        found.update(replies)
    return found


def ask(*commands: Command, most: int = 2, timeout: int = 10) -> dict[Command, Result]:
    with asking(*commands, most=most, timeout=timeout) as shells:
        return all_replies(shells)


def children() -> set[str]:
    """The processes that this one has started and not yet waited for."""
    found: set[str] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):
            found.update(Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


@pytest.fixture(autouse=True)
def _all_have_ended() -> Iterator[None]:
    """Check that a test leaves no process behind."""
    before = children()
    yield
    assert children() <= before


#: Jens asks Git once in a process whether the user has set this. A test may be the first one in its process.
NO_SSH_COMMAND = 'case "$*" in *core.sshCommand) exit 1;; esac'


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a git that tests write, in a directory that is first on PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    return path / "git"


def write(program: Path, script: str) -> None:
    program.write_text(f'#!/bin/sh\nwhile [ "$1" = -c ]; do shift 2; done\n{NO_SSH_COMMAND}\n{script}\n')
    program.chmod(0o755)


@pytest.mark.parametrize("most", [1, 3, 50])
def test_each_question_gets_the_reply_of_its_remote(site: Site, most: int) -> None:
    for number in range(12):
        site.add(f"modules/m{number}", {"code/x": f"{number}\n"})
    commands: dict[Command, str] = {
        ("ls-remote", "--heads", "--", remote.url): remote.commit() for remote in site.remotes.values()
    }
    found = ask(*commands, most=most)
    assert found == {command: f"{commit}\trefs/heads/master\n".encode() for command, commit in commands.items()}


def numbered(count: int) -> list[Command]:
    return [("ls-remote", f"{number}") for number in range(count)]


def test_quick_remotes_are_asked_by_two_shells(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_shells, "_SLOW", 5)  # for a busy machine
    write(program, ":")
    with asking(*numbered(40), most=8) as shells:
        before = children()
        assert len(all_replies(shells)) == 40
        assert len(children() - before) == 2


def test_slow_remotes_are_asked_by_many_shells(program: Path) -> None:
    write(program, "sleep 0.3")
    with asking(*numbered(24), most=8) as shells:
        before = children()
        assert len(all_replies(shells)) == 24
        assert len(children() - before) == 8


def test_many_questions_start_many_shells_at_once(program: Path) -> None:
    write(program, "sleep 0.1")
    with asking(*numbered(32), most=8) as shells:
        before = children()
        shells.feed(32)
        assert len(children() - before) == 8
        assert len(all_replies(shells)) == 32


def test_a_failure_is_that_of_one_remote_and_says_why(site: Site) -> None:
    gone: Command = ("ls-remote", "--heads", "--", f"file://{site.root}/gone.git")
    here: Command = ("ls-remote", "--heads", "--", site.remotes["modules/dummy"].url)
    found = ask(gone, here, (*gone[:3], f"{gone[3]}2"), most=1)
    error = found[gone]
    assert isinstance(error, GitError)
    assert (error.verb, error.status) == ("ls-remote", 128)
    assert "does not appear to be a git repository" in error.problem
    assert isinstance(found[here], bytes)


ODD = ["a  b", " a ", "a\\b", "$(touch pwned)", "'; touch pwned; '", "`a`", "*", "-n", "%s\\n", "\udcff"]


@pytest.mark.parametrize("odd", ODD)
def test_arguments_arrive_as_they_are(program: Path, odd: str) -> None:
    write(program, "printf '%s|' \"$@\"")
    command: Command = ("ls-remote", "--", odd, odd)
    expected = "".join(f"{argument}|" for argument in command).encode("utf-8", "surrogateescape")
    assert ask(command) == {command: expected}


@pytest.mark.parametrize(
    "output", [b"", b"no end of a line", b"x" * 300_000, b"0123456789abcdef0123456789abcdef 0\n"], ids=len
)
def test_output_arrives_as_it_is_and_stops_nothing(program: Path, tmp_path: Path, output: bytes) -> None:
    (tmp_path / "output").write_bytes(output)
    write(program, f"cat {tmp_path}/output")
    found = ask(("a",), ("b",), ("c",), most=1)
    assert found.keys() == {("a",), ("b",), ("c",)}
    assert all(said == output for said in found.values())


def test_no_remote_can_know_the_word_that_ends_a_reply(program: Path) -> None:
    write(program, 'tr "\\0" "\\n" </proc/$PPID/cmdline; tr "\\0" "\\n" </proc/$PPID/environ; env; cat')
    with asking(("a",)) as shells:
        shells.feed()
        [shell] = shells._shells
        assert isinstance(shell, git_shells._Shell)
        [said] = all_replies(shells).values()
    assert isinstance(said, bytes)
    assert b"read -r word" in said
    assert shell._word.encode() not in said


def test_git_reads_nothing_of_the_next_question(program: Path) -> None:
    write(program, 'echo "$1"; cat')
    assert ask(("a",), ("b",), most=1) == {("a",): b"a\n", ("b",): b"b\n"}


def test_go_on_asks_the_next_questions_and_no_long_reply_is_late(program: Path) -> None:
    write(program, 'if [ "$1" = long ]; then head -c 500000 /dev/zero; else echo "$1"; fi')
    with asking(("long",), ("a",), ("b",), ("c",), timeout=1) as shells:
        shells.feed()
        for _ in range(5):
            time.sleep(0.25)
            shells.go_on()
        begin = time.monotonic()
        found = all_replies(shells)
    assert found == {("long",): bytes(500000), ("a",): b"a\n", ("b",): b"b\n", ("c",): b"c\n"}
    assert time.monotonic() - begin < 30


def test_a_remote_without_a_reply_in_time_is_ended_and_the_others_go_on(program: Path, tmp_path: Path) -> None:
    helper = f'(trap "" TERM; echo $$ >>{tmp_path}/pids; exec sleep 60) &'
    write(
        program, f'case $1 in slow*) {helper} trap "" TERM; echo $$ >>{tmp_path}/pids; sleep 60;; *) echo "$1";; esac'
    )
    begin = time.monotonic()
    found = ask(("slow1",), ("a",), ("b",), ("slow2",), ("c",), timeout=2)
    assert time.monotonic() - begin < 50
    assert {command: said for command, said in found.items() if isinstance(said, bytes)} == {
        ("a",): b"a\n",
        ("b",): b"b\n",
        ("c",): b"c\n",
    }
    for slow in ("slow1", "slow2"):
        error = found[slow,]
        assert isinstance(error, GitTimeoutError)
        assert error.problem == "no answer within 2 seconds"
    for pid in (tmp_path / "pids").read_text().split():
        assert is_gone(int(pid))


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_helper_that_keeps_the_pipes_holds_up_nobody(program: Path) -> None:
    write(program, 'echo "$1"; sleep 60 & exit 0')
    begin = time.monotonic()
    assert ask(("a",), ("b",), most=1) == {("a",): b"a\n", ("b",): b"b\n"}
    assert time.monotonic() - begin < 50


def test_endless_complaints_take_no_memory_and_lose_no_reply(program: Path) -> None:
    write(program, 'case $1 in a) yes complaint | head -c 20000000 >&2; exit 1;; *) echo "$1";; esac')
    found = ask(("a",), ("b",), most=1)
    error = found["a",]
    assert isinstance(error, GitError)
    assert error.problem.startswith("complaint; complaint")
    assert len(error.problem) < 200
    assert found["b",] == b"b\n"


def test_complaints_are_those_of_the_remote_that_failed(program: Path) -> None:
    write(program, 'echo "of $1" >&2; [ "$1" != b ]')
    found = ask(("a",), ("b",), ("c",), most=1)
    error = found["b",]
    assert isinstance(error, GitError)
    assert error.problem == "of b"
    assert (found["a",], found["c",]) == (b"", b"")


def test_a_shell_that_somebody_kills_is_replaced(program: Path) -> None:
    write(program, 'case $1 in kill) kill -9 $PPID; sleep 0.1;; *) echo "$1";; esac')
    found = ask(("kill",), ("a",), ("kill",), ("b",), most=1)
    error = found["kill",]
    assert isinstance(error, GitError)
    assert not isinstance(error, GitTimeoutError)
    assert (found["a",], found["b",]) == (b"a\n", b"b\n")


def test_without_a_shell_each_question_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ask(("a",), ("b",))
    problems = [said.problem for said in found.values() if isinstance(said, GitError)]
    assert problems == ["could not be started: No such file or directory"] * 2


def test_without_git_each_question_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ask(("a",), ("b",))
    assert all(isinstance(said, GitError) and "git: not found" in said.problem for said in found.values())


def test_leaving_ends_what_is_under_way(program: Path, tmp_path: Path) -> None:
    write(program, f"echo $$ >>{tmp_path}/pids; exec sleep 60")
    begin = time.monotonic()
    with asking(("a",), ("b",), ("c",)) as shells:
        shells.feed()
        while len((tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else ()) < 2:
            time.sleep(0.01)
    assert time.monotonic() - begin < 25
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_all_git_processes_can_be_ended_from_elsewhere(program: Path, tmp_path: Path) -> None:
    write(program, f"echo $$ >>{tmp_path}/pids; exec sleep 60")
    timer = threading.Timer(0.5, process.stop_all)
    timer.start()
    try:
        found = ask(("a",), ("b",))
    finally:
        timer.join()
    assert all(isinstance(said, GitError) for said in found.values())


def test_what_the_user_has_configured_to_carry_the_traffic_counts(site: Site) -> None:
    git("config", "--global", f"url.file://{site.root}/remotes/.insteadOf", "site:", directory=site.root)
    [said] = ask(("ls-remote", "--heads", "--", "site:modules/dummy.git")).values()
    assert said == f"{site.remotes['modules/dummy'].commit()}\trefs/heads/master\n".encode()


def test_signals_reach_this_program_while_it_waits(program: Path) -> None:
    write(program, "exec sleep 60")

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(("a",), timeout=30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 25


def test_a_signal_while_a_question_is_put_leaves_nothing_at_work(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(program, f"trap '' TERM; echo $$ >>{tmp_path}/pids; exec sleep 60")
    real = os.write

    def interrupted(descriptor: int, content: bytes) -> int:
        real(descriptor, content)
        if content.endswith(b"a\n\n"):
            while not (tmp_path / "pids").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt
        return len(content)

    monkeypatch.setattr(os, "write", interrupted)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), asking(("a",)) as shells:
        shells.feed()
    assert time.monotonic() - begin < 25
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_an_idle_shell_that_somebody_kills_loses_no_reply(program: Path) -> None:
    write(program, 'echo "$1"')
    waiting: list[Command] = [("a",)]
    with Shells(GitOptions(timeout=10), 1, lambda: waiting.pop() if waiting else None) as shells:
        assert all_replies(shells) == {("a",): b"a\n"}
        [shell] = shells._shells
        assert isinstance(shell, git_shells._Shell)
        os.kill(shell._process.pid, signal.SIGKILL)
        shell._process.wait()
        waiting += [("c",), ("b",)]
        assert all_replies(shells) == {("b",): b"b\n", ("c",): b"c\n"}


def test_shells_that_die_at_once_are_a_failure_of_each_question(program: Path) -> None:
    program.with_name("sh").write_text("#!/bin/true\n")
    program.with_name("sh").chmod(0o755)
    for _ in range(5):
        found = ask(("a",), ("b",), ("c",))
        assert found.keys() == {("a",), ("b",), ("c",)}
        assert all(isinstance(said, GitError) for said in found.values())


def test_when_no_other_process_can_be_started_one_shell_asks_all(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(program, 'echo "$1"')
    start = subprocess.Popen
    started: list[object] = []

    def one(*arguments: Any, **more: Any) -> Any:
        if started:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(arguments)
        return start(*arguments, **more)

    process.remote_environment(GitOptions())  # which asks Git, once
    monkeypatch.setattr(subprocess, "Popen", one)
    assert ask(("a",), ("b",), ("c",), most=3) == {(name,): f"{name}\n".encode() for name in "abc"}


def test_functions_and_options_of_the_callers_shell_change_nothing(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = shutil.which("bash") or shutil.which("sh")
    assert shell
    (program.parent / "sh").symlink_to(shell)
    write(program, 'echo "$1"')
    for name in ("git", "printf", "read", "set", "command"):
        monkeypatch.setenv(f"BASH_FUNC_{name}%%", "() { echo hijacked; }")
    monkeypatch.setenv("SHELLOPTS", "errexit:xtrace")
    assert ask(("a",), ("b",), most=1) == {("a",): b"a\n", ("b",): b"b\n"}


def test_questions_that_are_forgotten_are_ended(program: Path, tmp_path: Path) -> None:
    write(program, f'case $1 in slow) echo $$ >>{tmp_path}/pids; exec sleep 60;; *) echo "$1";; esac')
    waiting: list[Command] = [("slow",)]
    with Shells(GitOptions(timeout=10), 1, lambda: waiting.pop() if waiting else None) as shells:
        shells.feed()
        while not (tmp_path / "pids").exists():
            time.sleep(0.01)
        shells.stop()
        assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())
        waiting.append(("a",))
        assert all_replies(shells) == {("a",): b"a\n"}


def test_a_remote_that_lists_branches_without_end_is_ended_and_the_others_go_on(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_shells, "LONGEST_REPLY", 1 << 20)
    others = [("ls-remote", f"remote{number}") for number in range(6)]
    endless = [("ls-remote", "endless"), ("ls-remote", "--", "endless")]
    write(program, 'case "$*" in *endless) exec cat /dev/zero ;; *) sleep 0.1; echo "$2" ;; esac')
    found = ask(endless[0], *others[:3], endless[1], *others[3:])
    assert {command: found[command] for command in others} == {
        command: f"{command[1]}\n".encode() for command in others
    }
    for command in endless:
        error = found[command]
        assert isinstance(error, GitLimitError)
        assert error.problem == "the remote lists more than 1 MiB of branches"


def test_commands_that_only_wait_let_others_begin(program: Path, tmp_path: Path) -> None:
    write(program, f'case $1 in wait*) echo "$1" >>{tmp_path}/begun; exec sleep 60;; *) echo "$1";; esac')
    commands = iter([("wait1",), ("wait2",), ("wait3",), ("wait4",), ("a",), ("b",), None])
    left = {"wait1": 60.0}

    def look(command: Command, _is_first: bool) -> tuple[float, bool]:
        return left.get(command[0], 60.0), command[0].startswith("wait")

    with Shells(GitOptions(timeout=50), 1, lambda: next(commands, None), look, spare=4) as shells:
        found: dict[Command, Result] = {}
        while len(found) < 2:
            found.update(shells.replies())
        assert found == {("a",): b"a\n", ("b",): b"b\n"}
        left["wait2"] = 0.0
        [(command, error)] = shells.replies()
    assert command == ("wait2",)
    assert isinstance(error, GitTimeoutError)
    assert error.problem == "no answer in the time that was left"


def test_no_more_commands_wait_than_may_be_spared(program: Path) -> None:
    write(program, "sleep 1")
    before, commands = children(), iter(numbered(4))
    look = lambda _command, _is_first: (60.0, True)  # noqa: E731
    with Shells(GitOptions(timeout=50), 1, lambda: next(commands, None), look, spare=1) as shells:
        for _ in range(2):
            assert shells.replies()
        assert len(children() - before) == 2


def test_commands_that_the_supply_held_back_begin_without_a_reply(program: Path) -> None:
    write(program, 'case $1 in wait) exec sleep 60;; *) echo "$1";; esac')
    begin = time.monotonic()
    commands = [("a",), ("wait",)]

    def supply() -> Command | None:
        if commands == [("a",)] and time.monotonic() < begin + 0.5:
            return None
        return commands.pop() if commands else None

    with Shells(GitOptions(timeout=30), 2, supply) as shells:
        assert shells.replies() == [(("a",), b"a\n")]
