"""SIGTERM ends a tool at once, whatever it waits for.

A quiet machine does it in a fraction of the two seconds that the documentation promises. A busy one gets as much more
time as it takes to start the tool once. What is waited for here would take a minute or more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import TREE
from tests.conftest import Site

INIT = "code/manifests/init.pp"
#: Seconds after which nobody waits any more.
SOON = 60.0
#: Seconds that the documentation promises; and how often the start of a tool fits into what else a machine may take: it
#: takes 0.2 seconds on a quiet one.
PROMISED, STARTS = 2.0, 8

#: Workers that never end, and that nobody can interrupt.
BUSY = """
import sys, threading, time
from jens.commands import update
from jens.repositories import prepare
def for_ever(*_):
    open(sys.argv.pop(1) if len(sys.argv) > 3 else "/dev/null", "w").close()
    while True:
        time.sleep(1)
prepare.prepare = for_ever
sys.argv[0] = "jens-update"
sys.exit(update.main(sys.argv[-2:]))
"""


@contextmanager
def held(*locks: Path) -> Iterator[None]:
    """Hold these locks; nobody can tell who does."""
    with ExitStack() as stack:
        for path in locks:
            descriptor = stack.enter_context(open(os.open(path, os.O_RDWR | os.O_CREAT), "r+b"))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def opens(process: subprocess.Popen[str], path: Path) -> bool:
    """Whether a process has a file open."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) == str(path):
                return True
        except FileNotFoundError:
            continue
    return False


def start_of_a_tool() -> float:
    """Seconds that this machine takes now to start a tool and end it."""
    begin = time.monotonic()
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "--help"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TREE)}, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def end_after(command: list[str], condition: Callable[[subprocess.Popen[str]], bool], number: int) -> str:
    """Start a tool, and send it a signal once the condition holds. It must end soon; returns what it complained of."""
    before = start_of_a_tool()
    with subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(lambda: condition(process))
            time.sleep(0.1)
            process.send_signal(number)
            begin = time.monotonic()
            _, complaints = process.communicate(timeout=SOON)
            seconds = time.monotonic() - begin
        finally:
            process.kill()
    assert process.returncode == 130, complaints
    assert seconds < PROMISED + STARTS * max(before, start_of_a_tool())
    return complaints


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_waits_for_the_locks_of_ten_mirrors_ends_at_once(site: Site, number: int) -> None:
    repos = [f"modules/m{count}" for count in range(10)]
    for repo in repos:
        site.add(repo)
    site.publish()
    site.settings["git.jobs"] = "10"
    assert site.update("--strict").code == 0
    for repo in repos:
        site.remotes[repo].push({INIT: "# new\n"})
    locks = [site.root / "bare" / repo / "jens.lock" for repo in repos]
    command = [str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    with held(*locks):
        complaints = end_after(command, lambda run: all(opens(run, path) for path in locks), number)
    assert complaints == "jens-update: Interrupted\n"
    assert site.update("--strict").code == 0
    assert site.read("production/modules/m9/manifests/init.pp") == "# new\n"


def test_a_run_that_waits_for_the_locks_of_the_metadata_ends_at_once(site: Site) -> None:
    assert site.update("--strict").code == 0
    site.define("another")
    locks = [site.root / "metadata" / name / ".git" / "jens.lock" for name in ("environments", "repository")]
    command = [str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    with held(*locks):
        complaints = end_after(command, lambda run: any(opens(run, path) for path in locks), signal.SIGTERM)
    assert complaints == "jens-update: Interrupted\n"
    assert site.update("--strict").code == 0
    assert "another" in site.environments()


def test_a_gc_that_waits_for_the_run_lock_ends_at_once(site: Site) -> None:
    assert site.update("--strict").code == 0
    log = site.root / "log" / "jens-gc.log"
    command = [str(TREE / "bin" / "jens-gc"), "-c", str(site.config), "--all"]
    with held(site.root / "lock" / "jens"):
        said = end_after(command, lambda _: log.exists() and "attempt: 1" in log.read_text(), signal.SIGTERM)
    assert said == "jens-gc: Interrupted\n"


def test_a_gc_that_waits_for_the_lock_of_a_mirror_ends_at_once(site: Site) -> None:
    assert site.update("--strict").code == 0
    lock = site.root / "bare" / "modules" / "dummy" / "jens.lock"
    command = [str(TREE / "bin" / "jens-gc"), "-c", str(site.config), "--bare"]
    with held(lock):
        complaints = end_after(command, lambda run: opens(run, lock), signal.SIGTERM)
    assert complaints == "jens-gc: Interrupted\n"


def test_a_run_whose_workers_are_busy_with_something_else_than_git_ends_at_once(site: Site) -> None:
    reached = site.root / "reached"
    command = ["-c", BUSY, str(reached), "-c", str(site.config)]
    complaints = end_after(command, lambda _: reached.exists(), signal.SIGTERM)
    assert complaints == "jens-update: Interrupted\n"
    assert site.update("--strict").code == 0


#: A Git that nothing but SIGKILL ends.
STUBBORN = """#!/bin/sh
case " $* " in
*" {verb} "*) trap '' TERM; : > '{reached}'; while :; do sleep 0.1; done ;;
esac
exec {git} "$@"
"""


@pytest.mark.parametrize("verb", ["fetch", "ls-remote", "read-tree", "cat-file"])
def test_a_run_whose_git_does_not_listen_ends_at_once(site: Site, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.update("--strict").code == 0
    site.remotes["modules/dummy"].push({INIT: "# new\n"})
    site.define("another")
    script, reached = site.root / "programs" / "git", site.root / "reached"
    script.parent.mkdir()
    script.write_text(STUBBORN.format(verb=verb, reached=reached, git=shutil.which("git")))
    script.chmod(0o755)
    command = [str(TREE / "bin" / "jens-update"), "-c", str(site.config), "--poll"]
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        complaints = end_after(command, lambda _: reached.exists(), signal.SIGTERM)
    assert complaints == "jens-update: Interrupted\n"
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
