"""jens-gc packs without the run lock: no push waits for it, no packing lasts for ever, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jens.commands import reset
from jens.git import lock
from jens.git.worktrees import record_path, recorded_commits
from jens.tools import gc as tools_gc
from tests import TREE
from tests.conftest import Site, assert_complaint, definition, git
from tests.faults.test_remotes import processes_with
from tests.stories.test_gc import assert_silent, bare, collect, has, prune

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"

#: A Git that never ends when it is to pack one mirror. It leaves what a Git that packs has there meanwhile.
HANGING = """#!/bin/sh
case "$*" in {patterns})
    {trap}
    echo 1 localhost > {mirror}/gc.pid
    : > {mirror}/objects/pack/tmp_pack_1
    : > {top}/packing
    while :; do sleep 60; done
esac
exec {git} "$@"
"""


#: jens-gc that tries the run lock more often.
EAGER = """
import sys
from jens.commands import gc
from jens.git import packing
from jens.tools import gc as tools_gc
tools_gc.PAUSE, tools_gc.ATTEMPTS, tools_gc.PAUSES = 0.05, 600, (0, 0)
packing.GRAPH_SECONDS = 3
sys.exit(gc.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_gc, "LONGEST_REST", 0.0)
    monkeypatch.setattr(tools_gc, "PAUSES", (0.0, 0.0))


def hang(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    repo: str = MYAPP,
    trap: str = ":",
    verbs: tuple[str, ...] = ("gc",),
) -> None:
    """Put a Git in front of the real one that never packs a mirror; ``trap`` is a command of its shell."""
    programs = site.root / "programs"
    programs.mkdir()
    real = shutil.which("git")
    patterns = "|".join(f'*--git-dir=*/{repo}" {verb} "*' for verb in verbs)
    text = HANGING.format(patterns=patterns, top=site.root, mirror=bare(site, repo), git=real, trap=trap)
    (programs / "git").write_text(text)
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def dropping(site: Site, commit: str) -> str:
    """A command of a shell that makes its end drop a commit of the module, which is in a file of its own."""
    path = bare(site) / "objects" / commit[:2] / commit[2:]
    assert path.exists()
    return f"trap 'rm -f {path}; trap - TERM; kill -TERM $$' TERM"


@contextmanager
def collecting(site: Site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run jens-gc in a process of its own, and kill it and its Gits at the end."""
    mark = f"JENS_TEST_RUN={os.urandom(8).hex()}"
    command = [sys.executable, "-c", EAGER, "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE), **dict([mark.split("=")])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            for pid, _ in processes_with(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def packing(site: Site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``collecting``, once its Git hangs."""
    with collecting(site, *(arguments or ("-a",))) as process:
        wait_for(site.root / "packing")
        yield process


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} is not there"
        time.sleep(0.02)
    path.unlink()


def lines_of(site: Site) -> list[str]:
    """The lines of jens-gc's log, without time and process."""
    return [line.split("] ", 1)[1] for line in (site.root / "log" / "jens-gc.log").read_text().splitlines()]


def packed(lines: list[str]) -> set[str]:
    return {line.split()[5].rstrip(":") for line in lines if line.startswith("INFO Packed the mirror")}


def assert_sound(site: Site) -> None:
    """Each mirror has all its objects, and nothing that a Git has left."""
    for repo in site.urls:
        git("fsck", "--no-dangling", directory=bare(site, repo))
        assert not lock.has_left_overs(bare(site, repo))
        assert list(bare(site, repo).glob("objects/pack/tmp_*")) == []


@pytest.fixture
def built(site: Site) -> Site:
    assert site.update("--strict").code == 0
    return site


# Nobody waits


@pytest.mark.parametrize("mode", ["ONDEMAND", "POLL"])
def test_a_push_is_visible_at_once_while_its_mirror_is_packed_for_ever(
    built: Site, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    hang(built, monkeypatch)
    built.settings["main.mode"] = mode
    with packing(built) as collector:
        built.remotes[MYAPP].push({INIT: "# new\n"})
        built.hint(MYAPP)
        begin = time.monotonic()
        outcome = built.update("--strict")
        assert time.monotonic() - begin < 40  # a run that waits for the pack gives up after 60
        assert outcome.code == 0, outcome.log
        assert built.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
        assert any("which packs" in line and str(bare(built, MYAPP)) in line for line in outcome.lines("INFO Ending"))
        assert built.hinted() == ([] if mode == "ONDEMAND" else [MYAPP])
        stdout, stderr = collector.communicate(timeout=60)
    assert (collector.returncode, stdout, stderr) == (0, "", "")
    lines = lines_of(built)
    assert packed(lines) == set(built.urls), "it goes on with the next, and comes back"
    assert [line for line in lines if line.startswith(f"INFO The mirror of {MYAPP} is packed later")] != []
    assert_sound(built)
    monkeypatch.undo()
    assert_silent(collect(built, "-b"))
    assert_silent(built.update("--strict"))


def test_a_mirror_that_somebody_needs_each_time_is_told_of_once(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hang(built, monkeypatch, verbs=("gc", "repack"))
    with packing(built) as collector:
        for number in range(3):
            if number:
                wait_for(built.root / "packing")
            built.remotes[MYAPP].push({INIT: f"# {number}\n"})
            assert built.update("--strict").code == 0
        stdout, stderr = collector.communicate(timeout=60)
    assert (collector.returncode, stdout, stderr) == (0, "", "")
    lines = lines_of(built)
    [warning] = [line for line in lines if "not packed" in line]
    assert warning == f"WARNING The mirror of {MYAPP} is not packed this time: somebody needed it each time"
    assert packed(lines) == set(built.urls) - {MYAPP}
    assert_sound(built)


def test_where_somebody_pushes_all_the_time_what_is_new_is_packed(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Week after week a push ends the packing. The mirror does not grow file by file for all that."""
    hang(built, monkeypatch)
    mirror = bare(built, MYAPP) / "objects"
    for week in range(3):
        for number in range(4):
            built.remotes[MYAPP].push({INIT: f"# {week} {number}\n"})
            assert built.update("--strict").code == 0
        with packing(built) as collector:
            built.remotes[MYAPP].push({INIT: f"# {week}\n"})
            assert built.update("--strict").code == 0
            collector.communicate(timeout=60)
        assert collector.returncode == 0
        assert_sound(built)
        assert [path for path in mirror.glob("??/*") if path.is_file()] == []
        assert len(list(mirror.glob("pack/*.pack"))) < 4
    assert built.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# 2\n"


def test_a_git_that_ignores_the_polite_signal_is_killed_with_its_group(
    built: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang(built, monkeypatch, trap="trap '' TERM HUP")
    with packing(built) as collector:
        built.remotes[MYAPP].push({INIT: "# new\n"})
        outcome = built.update("--strict")
        assert outcome.code == 0
        assert built.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
        collector.communicate(timeout=60)
    assert packed(lines_of(built)) == set(built.urls) - {MYAPP}
    assert_sound(built)


@pytest.mark.parametrize("mode", ["ONDEMAND", "POLL"])
def test_a_run_that_does_not_need_the_mirror_lets_it_be_packed(
    built: Site, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    hang(built, monkeypatch)
    built.settings["main.mode"] = mode
    with packing(built) as collector:
        for number in range(2):
            built.remotes[DUMMY].push({INIT: f"# {number}\n"})
            built.hint(DUMMY)
            outcome = built.update("--strict")
            assert (outcome.code, outcome.has("Ending Git")) == (0, False)
            assert built.read("production/modules/dummy/manifests/init.pp") == f"# {number}\n"
        assert collector.poll() is None
        assert (bare(built, MYAPP) / "gc.pid").exists(), "nobody took it for a left-over"


def test_another_jens_gc_ends_the_packing(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hang(built, monkeypatch)
    with packing(built, "-b") as collector:
        monkeypatch.undo()
        outcome = collect(built, "-b")
        assert_silent(outcome)
        assert packed(outcome.lines()) == set(built.urls)
        collector.communicate(timeout=60)
    assert collector.returncode == 0
    assert_sound(built)


def test_a_mirror_that_is_removed_meanwhile_leaves_no_git_behind(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hang(built, monkeypatch, repo=DUMMY)
    with packing(built) as collector:
        url = built.urls.pop(DUMMY)
        built.publish()
        assert built.update("--strict").code == 0
        assert not bare(built).exists()
        collector.communicate(timeout=60)
    assert not bare(built).exists()
    monkeypatch.undo()
    built.urls[DUMMY] = url
    built.publish()
    assert built.update("--strict").code == 0
    assert_sound(built)


def test_a_reset_ends_the_packing(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hang(built, monkeypatch)
    with packing(built) as collector:
        assert reset.main(["--yes", "-c", str(built.config)]) == 0
        collector.communicate(timeout=60)
        assert [path for path in (built.root / "bare").glob("*/*") if not path.name.startswith(".")] == []
    assert built.update("--strict").code == 0
    assert_sound(built)


def test_a_commit_that_comes_to_be_needed_is_found_after_the_end_of_the_packing_only(
    built: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git drops it at the last instant, as it had decided before; the remote still has it."""
    remote = built.remotes[DUMMY]
    old = remote.push({"code/old": "old\n"})
    built.settings["main.retention"] = "0"
    assert built.update("--strict").code == 0
    remote.push({INIT: "# other\n"}, rewrite=True)
    for _ in range(2):
        assert built.update("--strict").code == 0
    assert old not in recorded_commits(bare(built))
    assert has(built, old)
    hang(built, monkeypatch, repo=DUMMY, trap=dropping(built, old))
    with packing(built) as collector:
        built.define("snap", definition(None, {DUMMY: f"commit/{old}"}))
        outcome = built.update("--strict")
        assert outcome.code == 0, outcome.log
        assert not outcome.has("made anew"), outcome.log
        assert built.read("snap/modules/dummy/old") == "old\n"
        collector.communicate(timeout=60)
    prune(built)
    assert has(built, old)
    assert_sound(built)


def test_another_jens_gc_protects_commits_after_the_end_of_the_packing_only(
    built: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = built.remotes[DUMMY]
    commit = remote.push({"code/snap": "as it was\n"})
    built.define("snap", definition(None, {DUMMY: f"commit/{commit}"}))
    assert built.update("--strict").code == 0
    remote.push({INIT: "# other\n"}, rewrite=True)
    assert built.update("--strict").code == 0
    hang(built, monkeypatch, repo=DUMMY, trap=dropping(built, commit))
    with packing(built, "-b") as collector:
        shutil.rmtree(record_path(bare(built), commit))
        monkeypatch.undo()
        assert_silent(collect(built, "-b"))
        assert commit not in recorded_commits(bare(built)), "no record says that the mirror has it"
        collector.communicate(timeout=60)
    assert built.read("snap/modules/dummy/snap") == "as it was\n"


# Nothing lasts for ever


@pytest.mark.parametrize("trap", [":", "trap '' TERM"])
def test_exit_10_a_pack_that_does_not_end_is_ended(built: Site, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    hang(built, monkeypatch, trap=trap)
    built.settings["git.gctimeout"] = "1"
    outcome = collect(built, "-a")
    assert_complaint(outcome, 10, MYAPP, "gctimeout", "1 seconds")
    [error] = outcome.lines("ERROR")
    assert MYAPP in error
    assert packed(outcome.lines()) == set(built.urls) - {MYAPP}
    assert processes_with(f"--git-dir={bare(built, MYAPP)}") == []
    assert_sound(built)
    assert (built.update("--strict").code, collect(built, "-l").code) == (0, 0)


def test_commits_with_dates_that_make_git_pack_for_ever_hold_nobody_up(built: Site) -> None:
    remote = built.remotes[DUMMY]
    tree, tip = git("rev-parse", "master^{tree}", directory=remote.path), ""
    for date in ("99999999999999999999999", "1500000001", "1500000002"):
        parent = f"parent {tip}\n" if tip else ""
        text = f"tree {tree}\n{parent}author A <a@b> {date} +0000\ncommitter A <a@b> {date} +0000\n\nx\n"
        arguments = ("hash-object", "--literally", "-t", "commit", "-w", "--stdin")
        tip = git(*arguments, directory=remote.path, stdin=text.encode())
    git("update-ref", "refs/heads/master", tip, directory=remote.path)
    assert built.update("--strict").code == 0
    with collecting(built, "-a") as collector:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (built.root / "log/jens-gc.log").exists():
            time.sleep(0.02)
        codes: list[int] = []
        while collector.poll() is None and time.monotonic() < end:
            built.remotes[MYAPP].push({INIT: f"# {len(codes)}\n"})
            codes.append(built.update("--strict").code)
            time.sleep(0.2)
        stdout, stderr = collector.communicate(timeout=60)
    assert codes.count(0) > 3, "the run lock was free most of the time"
    assert (collector.returncode, stdout, stderr) == (0, "", "")
    lines = lines_of(built)
    assert packed(lines) == set(built.urls)
    graph = bare(built) / "objects/info/commit-graph"
    warned = [line for line in lines if "does not finish the commit-graph" in line]
    assert (graph.exists(), len(warned)) in {(True, 0), (False, 1)}  # there may be a Git that can do it
    assert_silent(collect(built, "-b"))
    assert graph.exists() or not [line for line in lines_of(built)[len(lines) :] if "commit-graph" in line]
    assert (bare(built, MYAPP) / "objects/info/commit-graph").exists()
    remote.push({INIT: "# new\n"})
    assert built.update("--strict").code == 0
    assert built.read("production/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("pattern", ["pack/pack-*.rev", "info/commit-graph", "pack/pack-*.bitmap"])
def test_what_git_derives_from_objects_is_made_anew_when_it_is_damaged(built: Site, pattern: str) -> None:
    """Git packs no repository any more of which it cannot read such a file."""
    mirror = bare(built)
    git("-c", "pack.writeReverseIndex=true", "repack", "-q", "-a", "-d", "-b", directory=mirror)
    git("commit-graph", "write", "--reachable", directory=mirror)
    [path] = (mirror / "objects").glob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
    outcome = collect(built, "-a")
    assert_silent(outcome)
    assert packed(outcome.lines()) == set(built.urls)
    [warning] = outcome.lines("WARNING")
    assert warning == f"WARNING Removed '{path}', which is damaged, Git makes it anew"
    assert not collect(built, "-a").lines("WARNING")
    assert_sound(built)
