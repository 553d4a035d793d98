"""Git processes that outlive a killed run: the next run waits for them, and ends them, but no others, if they hang."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import lock
from jens.system import processes
from tests import TREE
from tests.conftest import Site, git
from tests.faults.test_remotes import processes_with

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"

#: The fourth conversation is the fetch of the run that is killed. It never ends: ssh closes the descriptors that it
#: inherited, and its shell ignores one signal.
SSH = """#!/bin/sh
for last; do :; done
if mkdir {top}/first 2>/dev/null || mkdir {top}/second 2>/dev/null || mkdir {top}/third 2>/dev/null ||
    ! mkdir {top}/fourth 2>/dev/null; then
    exec sh -c "$last"
fi
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
trap '' {ignored}
while :; do sleep 60; done
"""


@contextmanager
def _ended_after(mark: str) -> Iterator[None]:
    try:
        yield
    finally:
        for pid, _ in processes_with(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _wait_until(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.parametrize("ignored", ["HUP", "TERM"])
def test_a_git_that_hangs_for_ever_after_its_run_was_killed_is_ended(
    site: Site, ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = site.root / "ssh"
    script.write_text(SSH.format(top=site.root, ignored=ignored))
    script.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(script)
    remote = site.remotes[DUMMY]
    site.urls[DUMMY] = f"ssh://git@gitlab.example.org{remote.path}"
    site.publish()
    assert site.update("--strict").code == 0
    remote.push({INIT: "# new\n"})
    mark = f"JENS_TEST_RUN={uuid.uuid4()}"
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    environment = {**os.environ, "PYTHONPATH": str(TREE), **dict([mark.split("=")])}
    with _ended_after(mark):
        with subprocess.Popen(command, env=environment) as process:
            _wait_until(site.root / "fourth")
            process.kill()
        assert processes_with(mark), "Git and its ssh live on"
        monkeypatch.setattr(lock, "_MERCY", 0.5)
        begin = time.monotonic()
        outcome = site.update("--strict")
        seconds = time.monotonic() - begin
        assert outcome.code == 0
        assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
        bare = site.root / "bare" / DUMMY
        assert [
            line for line in outcome.lines("WARNING") if "which a killed run had left" in line and str(bare) in line
        ]
        assert 0.5 < seconds < 30
        _wait_until_all_is_over(mark)


def _wait_until_all_is_over(mark: str) -> None:
    end = time.monotonic() + 10
    while processes_with(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_with(mark) == []


# Processes that certainly belong to a dead run, and others

#: Takes the lock as a run does, and starts a child that inherits it, as Git does.
_RUN = """
import os, pathlib, subprocess, sys
sys.path.insert(0, sys.argv[1])
from jens.git.lock import repository_lock
with repository_lock(pathlib.Path(sys.argv[2]), sys.argv[5]) as descriptor:
    os.setuid(int(sys.argv[4]))
    child = subprocess.Popen(["sleep", "90"], pass_fds=(descriptor,), start_new_session=sys.argv[3] == "new")
    print(child.pid, flush=True)
    child.wait() if sys.argv[5] else sys.stdin.read()
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's directory; waits for its lock are short."""
    monkeypatch.setattr(lock, "_MERCY", 0.05)
    monkeypatch.setattr(lock, "_GRACE", 0.1)
    monkeypatch.setattr(lock, "_PATIENCE", 0.5)
    path = tmp_path / "bare"
    path.mkdir()
    return path


@contextmanager
def _left_at_work(
    bare: Path, *, killed: bool, session: str = "new", user: int = -1, purpose: str = ""
) -> Iterator[int]:
    """Start a child that holds the lock, of a run that is dead or alive; yield the child's process id."""
    owner = str(user if user >= 0 else os.getuid())
    command = [sys.executable, "-c", _RUN, str(TREE), str(bare), session, owner, purpose]
    with ExitStack() as stack:
        starter = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True)
        )
        stack.callback(starter.kill)
        assert starter.stdout
        child = int(starter.stdout.readline())
        stack.callback(_kill, child)
        if killed:
            starter.kill()
            starter.wait()
        yield child


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    process = processes.look(pid)
    return process is not None and process.state != "Z"


def _assert_waited_for(bare: Path, pid: int) -> None:
    """Check that taking the lock fails with a GitError after a wait, and that no process is ended."""
    with pytest.raises(GitError, match="another Git process is still at work in"), lock.repository_lock(bare):
        pytest.fail("the lock was obtained twice")
    assert _is_alive(pid)


def test_an_orphan_is_ended(bare: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _left_at_work(bare, killed=True) as child:
        with lock.repository_lock(bare):
            assert not _is_alive(child)
        assert [(record.levelno, str(child) in record.message) for record in caplog.records] == [
            (logging.WARNING, True)
        ]


def test_what_a_living_run_has_at_work_is_waited_for(bare: Path) -> None:
    """With locks of type DISABLED there may be two runs."""
    with _left_at_work(bare, killed=False) as child:
        _assert_waited_for(bare, child)


def test_a_mirror_that_another_run_is_at_work_in_stays_as_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.update("--strict").code == 0
    monkeypatch.setattr(lock, "_PATIENCE", 0.5)
    bare = site.root / "bare" / DUMMY
    for remote in site.remotes.values():
        remote.push({INIT: "# new\n"})
    with _left_at_work(bare, killed=False):
        before = bare.stat().st_ino
        outcome = site.update()
        assert bare.stat().st_ino == before, "it was not made anew under the other's feet"
    [error] = outcome.lines("ERROR")
    assert f"another Git process is still at work in '{bare}'" in error
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


def test_a_process_that_git_leaves_running_does_not_hold_its_lock(site: Site, tmp_path: Path) -> None:
    """A credential helper may start a cache of passwords, or a wrapper of ssh an agent; these live for hours."""
    pids = tmp_path / "pids"
    wrapper = tmp_path / "ssh"
    agent = f"sleep 300 </dev/null >/dev/null 2>&1 &\necho $! >>{pids}\n"
    wrapper.write_text(f'#!/bin/sh\n{agent}for command; do :; done\nexec sh -c "$command"\n')
    wrapper.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(wrapper)
    url = f"ssh://git.example.org{site.definitions.path}"
    git("remote", "set-url", "origin", url, directory=site.root / "metadata" / "environments")
    try:
        for number in (1, 2):
            site.define(f"team{number}")
            outcome = site.update("--strict")
            assert (outcome.code, outcome.has("Ending Git")) == (0, False)
        living = [int(line) for line in pids.read_text().split() if _is_alive(int(line))]
        assert living, "nobody ended it"
    finally:
        for pid in map(int, pids.read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_process_that_only_waits_for_the_lock_of_a_dead_run_is_not_ended(bare: Path) -> None:
    waiting = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", waiting, str(bare / "jens.lock")]
    with (
        _left_at_work(bare, killed=True) as child,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as other,
    ):
        assert other.stdout
        other.stdout.readline()
        with lock.repository_lock(bare):
            assert not _is_alive(child)
        assert _is_alive(other.pid)
        other.kill()


def test_a_process_without_its_own_session_is_not_ended(bare: Path) -> None:
    """It may be in the process group of the shell or the service that started the run."""
    with _left_at_work(bare, killed=True, session="same") as child:
        _assert_waited_for(bare, child)


@pytest.mark.parametrize("record", ["", "garbage", "another process that is dead", "another start of the system"])
def test_without_a_trustworthy_record_of_who_took_the_lock_nobody_is_ended(bare: Path, record: str) -> None:
    """A run that may not write to the lock file leaves the record of an earlier run there."""
    with _left_at_work(bare, killed=True) as child:
        path = bare / "jens.lock"
        pid, start, namespace, boot = path.read_text().split()
        records = {
            "another process that is dead": f"{_dead()} {start} {namespace} {boot}\n",
            "another start of the system": f"{pid} {start} {namespace} {uuid.uuid4()}\n",
        }
        path.write_text(records.get(record, record))
        _assert_waited_for(bare, child)


def _dead() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_record_is_of_a_dead_process_if_another_process_has_its_id_now(bare: Path) -> None:
    with open(bare / "jens.lock", "w+") as file:
        processes.sign(file.fileno())
        signer = processes.signer(file.fileno())
        assert signer is not None
        assert not signer.is_gone()
        pid, start, world = file.read().split(" ", 2)
        assert pid == str(os.getpid())
        os.pwrite(file.fileno(), f"{pid} {int(start) - 1} {world}".encode(), 0)
        os.ftruncate(file.fileno(), len(f"{pid} {int(start) - 1} {world}"))
        signer = processes.signer(file.fileno())
        assert signer is not None
        assert signer.is_gone()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_another_users_process_is_waited_for(bare: Path) -> None:
    with _left_at_work(bare, killed=True, user=65534) as child:
        _assert_waited_for(bare, child)


def test_where_proc_shows_nothing_nobody_is_ended(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _left_at_work(bare, killed=True) as child:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "_PROC", tmp_path)
            with pytest.raises(GitError, match="still at work"), lock.repository_lock(bare):
                pytest.fail("the lock was obtained twice")
        assert _is_alive(child)


def test_the_lock_of_a_repository_may_be_a_file_of_another_user(bare: Path) -> None:
    """Then no record says which process holds it, but the lock works."""
    path = bare / "jens.lock"
    path.touch()
    path.chmod(0o444)
    with lock.repository_lock(bare), open(path) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# A Git that packs


@pytest.mark.parametrize("killed", [True, False], ids=["of a dead run", "of a living run"])
def test_a_git_that_packs_is_ended_at_once(
    bare: Path, killed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(lock, "_MERCY", 60)
    monkeypatch.setattr(lock, "_PATIENCE", 30)
    with _left_at_work(bare, killed=killed, purpose=lock.PACKING) as child:
        assert lock.end_packing(bare)
        assert not _is_alive(child)
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert f"(process group {child}), which packs '{bare}'" in record.message
    assert not lock.end_packing(bare), "it is over"


@pytest.mark.parametrize(
    "which", ["a living process that did not take it", "the same process before", "a dead process"]
)
def test_who_signed_as_packing_but_did_not_take_the_lock_has_nobody_ended(bare: Path, which: str) -> None:
    """A run that may not write to the lock file leaves the record of an earlier jens-gc there."""
    with _left_at_work(bare, killed=False) as child:
        path = bare / "jens.lock"
        pid, start, *world = path.read_text().split()
        mine = processes.look(os.getpid())
        assert mine is not None
        records = {
            "a living process that did not take it": (os.getpid(), mine.start),
            "the same process before": (int(pid), int(start) + 10**6),
            "a dead process": (_dead(), start),
        }
        path.write_text(" ".join([*map(str, records[which]), *world, lock.PACKING]) + "\n")
        _assert_waited_for(bare, child)


def test_a_packing_without_its_own_session_is_not_ended(bare: Path) -> None:
    with _left_at_work(bare, killed=False, session="same", purpose=lock.PACKING) as child:
        _assert_waited_for(bare, child)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_another_users_packing_is_waited_for(bare: Path) -> None:
    with _left_at_work(bare, killed=False, user=65534, purpose=lock.PACKING) as child:
        _assert_waited_for(bare, child)


@pytest.mark.parametrize(
    ("purpose", "killed", "expected"),
    [(lock.PACKING, False, False), (lock.PACKING, True, True), ("", False, True), ("", True, True)],
)
def test_lock_files_of_a_packing_are_left_over_only_when_its_run_is_dead(
    bare: Path, purpose: str, killed: bool, expected: bool
) -> None:
    with _left_at_work(bare, killed=killed, purpose=purpose):
        assert not lock.has_left_overs(bare)
        (bare / "gc.pid").touch()
        assert lock.has_left_overs(bare) == expected
