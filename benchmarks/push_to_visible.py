"""Measure how long a push takes to be visible, at a site of realistic size, with mode ONDEMAND and told at once.

Each push is a real ``git push`` to a repository with a hook, which calls the producer with curl. The producer adds a
hint and asks for a run; what jens-update.path does under systemd, a loop does here: it starts jens-update. Exits 1 when
a push never became visible.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.producer_load import listening
from benchmarks.site import Site
from benchmarks.site_scale import ENVIRONMENT, PYTHON, TREE

_HOOK = """#!/bin/sh
exec curl -sS -o /dev/null -H 'Content-Type: application/json' --data-binary @"$GIT_DIR/payload" \\
    http://127.0.0.1:{port}/gitlab >/dev/null
"""
#: Modules that are pushed to in turn.
_PUSHED = 20
#: Seconds between two looks whether something is there.
_LOOK = 0.002
#: Seconds after which a push counts as lost.
_LOST = 60.0


@dataclass
class Push:
    """A push, begun at a time: seconds until ``git push`` ended, and until Puppet saw it (None: never)."""

    begun: float
    pushed: float
    visible: float | None


@dataclass
class Run:
    """A run, begun at a time: the seconds that it took."""

    begun: float
    took: float


class _Starter(threading.Thread):
    """Starts a run whenever one is asked for, as jens-update.path does, and keeps all of them."""

    def __init__(self, command: Sequence[str], wake: Path) -> None:
        super().__init__()
        self._command, self._wake, self._is_over = command, wake, threading.Event()
        self.runs: list[Run] = []

    def run(self) -> None:
        """Wait and start, until ``end``."""
        while not self._is_over.wait(_LOOK):
            with suppress(FileNotFoundError):
                self._wake.rmdir()
                begin = time.monotonic()
                subprocess.run(self._command, check=False, env=ENVIRONMENT)
                self.runs.append(Run(begin, time.monotonic() - begin))

    def end(self) -> None:
        """End the thread after the run that is under way."""
        self._is_over.set()
        self.join()


def _clone(site: Site, name: str, port: int) -> Path:
    """A team's clone of a repository, whose remote gets a hook."""
    remote = site.repositories[name].path
    (remote / "payload").write_text(f'{{"object_kind": "push", "project": {{"git_http_url": "{site.url(name)}"}}}}')
    (remote / "hooks").mkdir(exist_ok=True)
    hook = remote / "hooks" / "post-receive"
    hook.write_text(_HOOK.format(port=port))
    hook.chmod(0o755)
    clone = site.root / "teams" / name
    _git("clone", "--quiet", str(remote), str(clone), directory=site.root)
    return clone


def _git(*arguments: str, directory: Path) -> None:
    command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *arguments]
    subprocess.run(command, cwd=directory, check=True)


def _push(site: Site, clone: Path, number: int, found: list[Push]) -> None:
    (clone / "code" / "pushed.pp").write_text(f"# {number}\n")
    _git("add", ".", directory=clone)
    _git("commit", "--quiet", "--message", str(number), directory=clone)
    seen = site.root / "environments" / "production" / "modules" / clone.name / "pushed.pp"
    begin = time.monotonic()
    _git("push", "--quiet", directory=clone)
    pushed = time.monotonic() - begin
    while time.monotonic() - begin < _LOST:
        with suppress(OSError):
            if seen.read_text() == f"# {number}\n":
                found.append(Push(begin, pushed, time.monotonic() - begin))
                return
        time.sleep(_LOOK)
    found.append(Push(begin, pushed, None))


def _measure(
    site: Site, port: int, command: Sequence[str], count: int, interval: float
) -> tuple[list[Push], list[Run]]:
    names = [name for name in site.repositories if name.startswith("modules/")][:_PUSHED]
    clones = [_clone(site, name, port) for name in names]
    starter = _Starter(command, site.root / "spool" / "wake")
    starter.start()
    found: list[Push] = []
    threads = []
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin + number * interval - time.monotonic()))
        threads.append(threading.Thread(target=_push, args=(site, clones[number % len(clones)], number, found)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    starter.end()
    return found, starter.runs


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the reference site (default: 1)")
    parser.add_argument("--pushes", type=int, default=60, help="how many (default: 60)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two pushes (default: 1)")
    arguments = parser.parse_args(argv)
    if not shutil.which("curl"):
        raise SystemExit("curl is not installed; the hook needs it")
    with tempfile.TemporaryDirectory() as scratch:
        site = Site(Path(scratch), arguments.scale)
        config = str(site.config(mode="ONDEMAND"))
        update = [*PYTHON, str(TREE / "bin" / "jens-update"), "-c", config, "--wait", "600"]
        subprocess.run(update, check=True, env=ENVIRONMENT)
        runner = str(TREE / "bin" / "jens-gitlab-producer-runner")
        with listening(runner, "-c", config, "-p", "0") as port:
            pushes, runs = _measure(site, port, update, arguments.pushes, arguments.interval)
    seen = sorted(push.visible for push in pushes if push.visible is not None)
    print(f"{len(site.repositories)} repositories, {len(pushes)} pushes, one every {arguments.interval:g} s\n")
    print(f"{'':24}{'median':>10}{'95 %':>10}{'worst':>10}")
    waits, works = zip(*(_parts(push, runs) for push in pushes if push.visible is not None))
    for name, values in (
        ("git push with its hook", [push.pushed for push in pushes]),
        ("wait for its run", waits),
        ("its run until visible", works),
        ("visible", seen),
        ("a run", [run.took for run in runs]),
    ):
        print(f"{name:24}{statistics.median(values):10.2f}{_cut(values):10.2f}{max(values):10.2f}")
    print(f"\n{len(pushes) - len(seen)} lost, {len(runs)} runs")
    return 0 if len(seen) == len(pushes) else 1


def _parts(push: Push, runs: Sequence[Run]) -> tuple[float, float]:
    """The seconds from the end of a push to the begin of the run that showed it, and from there until it did."""
    shown = push.begun + (push.visible or 0.0)
    run = max((run.begun for run in runs if run.begun <= shown), default=shown)
    return max(0.0, run - push.begun - push.pushed), shown - run


def _cut(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


if __name__ == "__main__":
    sys.exit(main())
