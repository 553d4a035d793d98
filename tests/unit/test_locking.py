"""One run at a time, tested with other processes that hold the lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.config import Config, load_config
from jens.errors import LockFailedError, LockHeldError
from jens.locking import run_lock
from tests import TREE

_HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lockdir(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.mkdir()
    return path


@pytest.fixture
def config(lockdir: Path) -> Config:
    return _configure(lockdir)


def _configure(lockdir: Path, kind: str = "FILE") -> Config:
    file = lockdir.parent / "main.conf"
    file.write_text(f"[lock]\nname = jens-7\ntype = {kind}\n[filelock]\nlockdir = {lockdir}\n")
    return load_config(file)


@contextlib.contextmanager
def _held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def _is_held(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_lock_is_flock_on_lockdir_and_name_and_ends_with_the_block(config: Config, lockdir: Path) -> None:
    with run_lock(config):
        assert _is_held(lockdir / "jens-7")
    assert not _is_held(lockdir / "jens-7")


def test_the_lock_ends_when_the_run_fails(config: Config, lockdir: Path) -> None:
    with pytest.raises(ValueError, match="boom"), run_lock(config):
        raise ValueError("boom")
    assert not _is_held(lockdir / "jens-7")


def test_obtaining_and_releasing_are_logged(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with run_lock(config):
        pass
    assert caplog.messages == ["Obtaining lock 'jens-7' (attempt: 1)...", "Releasing lock 'jens-7'..."]


def test_a_lock_held_by_another_process_is_refused_at_once(config: Config, lockdir: Path) -> None:
    begin = time.monotonic()
    with _held_elsewhere(lockdir / "jens-7"):
        with pytest.raises(LockHeldError, match="held by another process"), run_lock(config):
            pytest.fail("the lock was obtained twice")
        assert _is_held(lockdir / "jens-7")
    assert time.monotonic() - begin < 50


def test_a_killed_holder_leaves_nothing_that_must_be_cleared(config: Config, lockdir: Path) -> None:
    with _held_elsewhere(lockdir / "jens-7") as holder:
        holder.kill()
        holder.wait()
        with run_lock(config):
            assert _is_held(lockdir / "jens-7")


def test_two_threads_of_control_in_one_process_exclude_each_other(config: Config) -> None:
    with run_lock(config), pytest.raises(LockHeldError), run_lock(config):
        pytest.fail("the lock was obtained twice")


def test_a_held_lock_is_tried_as_often_as_told(
    config: Config, lockdir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    caplog.set_level("INFO")
    with _held_elsewhere(lockdir / "jens-7"), pytest.raises(LockHeldError), run_lock(config, attempts=3, pause=7):
        pytest.fail("the lock was obtained twice")
    assert pauses == [7, 7]
    assert caplog.messages == [f"Obtaining lock 'jens-7' (attempt: {attempt})..." for attempt in (1, 2, 3)]


def test_a_run_waits_so_long_for_another_one(config: Config, lockdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with _held_elsewhere(lockdir / "jens-7") as holder:
        with pytest.raises(LockHeldError), run_lock(config, wait=7):
            pytest.fail("the lock was obtained twice")
        assert len(pauses) == 6

        def end_of_the_other_run(_seconds: float) -> None:
            holder.kill()
            holder.wait()

        monkeypatch.setattr(time, "sleep", end_of_the_other_run)
        with run_lock(config, wait=7):
            assert _is_held(lockdir / "jens-7")


def test_a_lock_that_is_released_meanwhile_is_obtained(
    config: Config, lockdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _held_elsewhere(lockdir / "jens-7") as holder:

        def end_of_the_other_run(_seconds: float) -> None:
            holder.kill()
            holder.wait()

        monkeypatch.setattr(time, "sleep", end_of_the_other_run)
        with run_lock(config, attempts=2):
            assert _is_held(lockdir / "jens-7")


@pytest.mark.parametrize("act", ["removed", "replaced"])
def test_a_lock_file_that_goes_while_it_is_locked_protects_nothing(
    config: Config, lockdir: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    flock = fcntl.flock
    calls = []

    def meanwhile(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (lockdir / "jens-7").unlink()
            if act == "replaced":
                (lockdir / "jens-7").write_text("")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with run_lock(config):
        monkeypatch.undo()
        assert _is_held(lockdir / "jens-7")
    assert len(calls) == 2


def test_children_do_not_inherit_the_lock(config: Config, lockdir: Path) -> None:
    with run_lock(config):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert not _is_held(lockdir / "jens-7")
    finally:
        child.kill()
        child.wait()


_CHILD = """
import os, pathlib, signal, sys, time
from jens.config import load_config
from jens.locking import run_lock
with run_lock(load_config(pathlib.Path(sys.argv[1]))):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    time.sleep(60)
"""


@contextlib.contextmanager
def _held_by_an_orphan(config: Path, seconds: float) -> Iterator[None]:
    """Let a killed run leave a child that still holds the lock, like a child between fork and exec."""
    command = [sys.executable, "-c", _CHILD, str(config), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_a_child_that_a_killed_run_left_behind_does_not_hold_the_lock(config: Config, lockdir: Path) -> None:
    with _held_by_an_orphan(lockdir.parent / "main.conf", 0.2), run_lock(config):
        assert _is_held(lockdir / "jens-7")


def test_an_orphan_that_keeps_the_lock_is_waited_for_only_shortly(
    config: Config, lockdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with _held_by_an_orphan(lockdir.parent / "main.conf", 60):
        begin = time.monotonic()
        with pytest.raises(LockHeldError), run_lock(config):
            pytest.fail("the lock was obtained twice")
    assert time.monotonic() - begin < 50
    assert caplog.messages == ["Obtaining lock 'jens-7' (attempt: 1)..."]


@pytest.mark.parametrize("record", ["", "what is this?\n", "0 0 a b\n", "1 1 pid:[1] other-boot\n", "9" * 400])
def test_a_holder_that_is_not_certainly_dead_is_not_waited_for(
    config: Config, lockdir: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    (lockdir / "jens-7").write_text(record)
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("it waited"))
    with _held_elsewhere(lockdir / "jens-7"), pytest.raises(LockHeldError), run_lock(config):
        pytest.fail("the lock was obtained twice")


@pytest.mark.parametrize("kind", ["missing", "a file", "a link as lock file", "a directory as lock file"])
def test_a_lock_that_cannot_be_tried_is_another_failure(lockdir: Path, kind: str) -> None:
    config = _configure(lockdir)
    if kind == "a link as lock file":
        (lockdir / "jens-7").symlink_to(lockdir / "elsewhere")
    elif kind == "a directory as lock file":
        (lockdir / "jens-7").mkdir()
    else:
        lockdir.rmdir()
        if kind == "a file":
            lockdir.write_text("x")
    with pytest.raises(LockFailedError) as caught, run_lock(config):
        pytest.fail("the lock was obtained")
    assert str(caught.value).startswith(f"Lock '{lockdir / 'jens-7'}' could not be tried: ")
    assert str(caught.value).endswith(" (lockdir in [filelock])")
    assert not (lockdir.parent / "elsewhere").exists()


def test_another_error_of_flock_does_not_mean_held(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(LockFailedError, match="No locks available"), run_lock(config):
        pytest.fail("the lock was obtained")


def test_a_lock_file_that_root_made_can_be_locked(config: Config, lockdir: Path) -> None:
    (lockdir / "jens-7").write_text("")
    (lockdir / "jens-7").chmod(0o444)
    with run_lock(config):
        assert _is_held(lockdir / "jens-7")


def test_disabled_there_is_no_lock(lockdir: Path) -> None:
    config = _configure(lockdir, "DISABLED")
    with run_lock(config), run_lock(config):
        assert os.listdir(lockdir) == []
