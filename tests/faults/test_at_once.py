"""Several tools at once: one works, the others say so and end; tools that only read need not wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jens.commands import gc, snapshot, stats
from jens.tools import gc as tools_gc
from tests import TREE
from tests.conftest import Site, assert_complaint, definition
from tests.faults.test_purgelimit import assert_as_if_made_afresh, assert_whole
from tests.reader import reading
from tests.warm import warm

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"

#: A replacement for ssh that waits until the gate opens; it is called with options, a host and a command.
_SLOW = """#!/bin/sh
touch {here}/begun
tries=0
while [ ! -e {here}/go ] && [ $tries -lt 3000 ]; do sleep 0.02; tries=$((tries + 1)); done
while [ $# -gt 1 ]; do shift; done
eval "exec $1"
"""


class Gate:
    """A remote that makes every run wait until somebody opens the gate."""

    def __init__(self, site: Site, here: Path) -> None:
        self._here = here
        here.mkdir()
        program = here / "ssh"
        program.write_text(_SLOW.format(here=here))
        program.chmod(0o755)
        site.add("modules/slow")
        site.urls["modules/slow"] = f"ssh://git.example.org{site.remotes['modules/slow'].path}"
        site.publish()
        site.settings["git.ssh_cmd_path"] = str(program)
        self.open()

    def open(self) -> None:
        (self._here / "go").touch()

    def close(self) -> None:
        (self._here / "go").unlink()
        (self._here / "begun").unlink(missing_ok=True)

    def wait_for_a_run(self) -> None:
        """Wait until a run waits at the gate, and so holds the lock."""
        wait_until((self._here / "begun").exists)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Processes:
    """Runs tools as processes, which end with the test."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.running: list[subprocess.Popen[str]] = []

    def start(self, tool: str, *arguments: str) -> subprocess.Popen[str]:
        return self.call(str(TREE / "bin" / tool), "-c", str(self._site.config), *arguments)

    def patched(self, patch: str, tool: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a tool after a line of Python."""
        code = f"import sys\n{patch}\nfrom jens.commands.{tool} import main\nsys.exit(main())"
        return self.call("-c", code, "-c", str(self._site.config), *arguments)

    def call(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TREE)},
        )
        self.running.append(process)
        return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


@pytest.fixture
def gate(site: Site, tmp_path: Path) -> Gate:
    gate = Gate(site, tmp_path / "gate")
    assert site.update("--strict").code == 0
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.remotes[DUMMY].push({INIT: "# feature\n"}, "feature", onto="master")
    site.remotes["modules/slow"].push({INIT: "# new\n"})
    gate.close()
    return gate


@pytest.fixture
def processes(site: Site) -> Iterator[Processes]:
    found = Processes(site)
    yield found
    for process in found.running:
        process.kill()
        process.communicate()


# One works


def test_one_of_ten_runs_at_once_works_and_the_others_end_in_silence(
    site: Site, gate: Gate, processes: Processes
) -> None:
    log = site.root / "log" / "jens-update.log"
    begin = log.stat().st_size
    runs = [processes.start("jens-update", "--strict", *(["--poll"] if n % 2 else [])) for n in range(10)]
    wait_until(lambda: sum(run.poll() is not None for run in runs) >= 9)
    assert [ended(run) for run in runs if run.poll() is not None] == [(50, "", "")] * 9
    gate.wait_for_a_run()
    assert site.environments() == ["production"]
    gate.open()
    assert sorted(ended(run) for run in runs if run.returncode is None) == [(0, "", "")]
    lines = log.read_bytes()[begin:].decode().splitlines()
    assert sum("Refreshing metadata" in line for line in lines) == 1
    told = [line for line in lines if "holds the lock" in line or "is held" in line]
    assert len(told) == 9, lines
    assert all(" INFO " in line for line in lines)
    assert site.read("team/modules/dummy/manifests/init.pp") == "# feature\n"
    assert site.read("team/modules/slow/manifests/init.pp") == "# new\n"
    site.settings["main.retention"] = "0"
    site.update()
    assert_as_if_made_afresh(site)


def test_while_a_run_works_a_reset_ends_jens_gc_waits_and_readers_read(
    site: Site, gate: Gate, processes: Processes
) -> None:
    before = site.listing("environments")
    run = processes.start("jens-update", "--strict")
    gate.wait_for_a_run()
    code, out, error = ended(processes.start("jens-reset", "--yes"))
    assert (code, out, error.count("\n")) == (50, "", 1)
    code, out, error = ended(processes.start("jens-update", "--dry-run"))
    assert (code, out, error) == (50, "", "")
    impatient = "import jens.tools.gc as gc; gc.ATTEMPTS = 2; gc.PAUSE = 0.01"
    code, out, error = ended(processes.patched(impatient, "gc", "--all"))
    assert (code, out, error.count("\n")) == (50, "", 1)
    patient = processes.patched("import jens.tools.gc as gc; gc.ATTEMPTS = 1000; gc.PAUSE = 0.05", "gc", "--all")
    wait_until(lambda: "(attempt: 3)" in (site.root / "log" / "jens-gc.log").read_text())
    config = ["-c", str(site.config)]
    assert stats.main([*config, "--all"]) == 0
    assert "There are 1 synchronized environments" in site.capture.readouterr().out
    assert snapshot.main([*config, "production"]) == 0
    assert site.remotes[DUMMY].commit() in site.capture.readouterr().out
    assert site.listing("environments") == before
    gate.open()
    assert ended(run) == (0, "", "")
    assert ended(patient) == (0, "", "")
    assert site.read("team/modules/slow/manifests/init.pp") == "# new\n"
    assert_whole(site)


def test_while_a_reset_works_no_run_begins_and_after_it_one_makes_all_anew(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    assert site.update("--strict").code == 0
    go, begun = tmp_path / "go", tmp_path / "begun"
    slow = (
        "import os, time, jens.tools.reset as reset; plan = reset.plan\n"
        f"def wait(config):\n open({str(begun)!r}, 'w').close()\n"
        f" while not os.path.exists({str(go)!r}): time.sleep(0.01)\n return plan(config)\n"
        "reset.plan = wait"
    )
    reset = processes.patched(slow, "reset", "--yes")
    wait_until(begun.exists)
    before = site.listing("bare", "clone", "environments", "cache")
    assert site.update().code == 50
    assert site.listing("bare", "clone", "environments", "cache") == before
    go.touch()
    code, out, _error = ended(reset)
    assert (code, out.splitlines()[-1]) == (0, "Done -- Jens is sad now")
    assert site.environments() == []
    assert site.update("--strict").code == 0
    assert_as_if_made_afresh(site)


def test_runs_in_a_tight_loop_and_jens_gc_among_them_show_readers_no_torn_tree(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools_gc, "ATTEMPTS", 1000)
    monkeypatch.setattr(tools_gc, "PAUSE", 0.02)
    dummy, myapp = site.remotes[DUMMY], site.remotes["hostgroups/myapp"]

    def push(number: int) -> None:
        files = dict.fromkeys(("code/one", "code/two", "data/hostgroup/x", "data/fqdns/x"), f"push{number}\n")
        for remote in (dummy, myapp):
            remote.push(files, rewrite=number % 2 == 0)

    push(1)
    assert site.update("--strict").code == 0
    config = str(site.config)
    codes = []
    with ExitStack() as stack, reading(site.root / "environments", tmp_path) as met:
        tools = [stack.enter_context(warm(tmp_path / f"output {number}")) for number in range(3)]
        for number in range(2, 7):
            push(number)
            runs = [tool.start("update", "-c", config, "--strict") for tool in tools]
            codes += [run.wait() for run in runs]
        again = tools[0].start("update", "-c", config, "--strict")
        assert gc.main(["-c", config, "--all"]) == 0
        codes.append(again.wait())
    assert set(codes) <= {0, 50}
    assert codes.count(0) >= 5
    assert met[:-1] == []
    assert int(met[-1]) > 5
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/two") == "push6\n"


# The lock file


def test_a_removed_lock_file_does_harm_only_until_the_next_run(site: Site, gate: Gate, processes: Processes) -> None:
    run = processes.start("jens-update")
    gate.wait_for_a_run()
    (site.root / "lock" / "jens").unlink()
    other = processes.start("jens-update")
    wait_until((site.root / "lock" / "jens").exists)
    assert_whole(site)
    gate.open()
    assert ended(run)[0] in (0, 30, 40)
    assert ended(other)[0] in (0, 30, 40)
    site.settings["main.retention"] = "0"
    assert site.update("--strict").code == 0
    assert site.update("--strict").code == 0
    assert_as_if_made_afresh(site)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_lockdir_on_a_read_only_file_system_is_enough_if_it_has_the_lock_file(
    site: Site, tmp_path: Path, is_there: bool
) -> None:
    lockdir = tmp_path / "read only"
    lockdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(lockdir)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        if is_there:
            (lockdir / "jens").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(lockdir)], check=True)
        site.settings["filelock.lockdir"] = str(lockdir)
        outcome = site.update()
    finally:
        subprocess.run(["umount", str(lockdir)], check=True)
    if is_there:
        assert (outcome.code, site.environments()) == (0, ["production"])
    else:
        assert_complaint(outcome, 51, str(lockdir), "Read-only file system")
        assert site.environments() == []


def test_a_fifo_in_the_place_of_the_lock_file_holds_nobody_up(site: Site, processes: Processes) -> None:
    os.mkfifo(site.root / "lock" / "jens")
    assert ended(processes.start("jens-update", "--strict")) == (0, "", "")
