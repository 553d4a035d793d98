"""What cannot be looked at now is not damaged: it stays as it is, it is an ERROR, and the next run looks again."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jens.commands import gc
from jens.git import damage, derived
from tests import TREE
from tests.conftest import Outcome, Site, definition
from tests.faults.test_damage import bare

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
PUBLISHED = ("clone", "environments")
BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


def update_with(site: Site, files: int, *arguments: str) -> Outcome:
    """Run jens-update as a process that may open no more than so many files, whatever it does."""
    log = site.root / "log" / "jens-update.log"
    begin = log.stat().st_size if log.exists() else 0
    command = f'ulimit -n {files} && exec "$@"'
    program = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    done = subprocess.run(
        ["sh", "-c", command, "sh", *program], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr, log.read_bytes()[begin:].decode() if log.exists() else "")


def mirrors(site: Site) -> dict[str, int]:
    """Which directory each mirror is."""
    return {str(path): path.stat().st_ino for path in site.root.glob("bare/*/*")}


@pytest.fixture
def large(site: Site) -> Site:
    """A site with more modules than a process with few open files can work on at once."""
    for number in range(24):
        site.add(f"modules/m{number}")
    site.publish()
    assert site.update("--strict").code == 0
    for number in range(24):
        site.remotes[f"modules/m{number}"].push({INIT: "# new\n"})
    return site


@pytest.mark.parametrize("jobs", ["0", "256"])
def test_with_few_open_files_fewer_repositories_are_worked_on_and_healthy_mirrors_stay(large: Site, jobs: str) -> None:
    large.settings["git.jobs"] = jobs
    before = mirrors(large)
    outcome = update_with(large, 75, "--strict")
    assert (outcome.code, outcome.stderr) == (0, ""), outcome.log
    level, wanted = ("INFO", 8) if jobs == "0" else ("WARNING", 256)
    text = (
        f"{level} Only 2 repositories are worked on at once, not {wanted}: this process may open no more than 75 files"
    )
    assert [line for line in outcome.lines() if "worked on at once" in line] == [text]
    assert mirrors(large) == before
    assert large.read("production/modules/m23/manifests/init.pp") == "# new\n"


def test_with_too_few_open_files_for_anything_everything_stays_as_it_is(large: Site) -> None:
    before, published = mirrors(large), large.listing(*PUBLISHED)
    for files in (8, 14, 18, 22):
        outcome = update_with(large, files)
        assert "made anew" not in outcome.log
        assert not outcome.has("Deleting")
        assert mirrors(large) == before, files
        if outcome.code != 0 or outcome.lines("ERROR"):
            assert set(large.listing(*PUBLISHED)) >= set(published)
    assert large.update("--strict").code == 0
    assert mirrors(large) == before


@contextmanager
def unreadable(top: Path, number: int) -> Iterator[None]:
    """Let nothing below a directory, or no file with this path, be opened or listed."""

    def refusing(operation: Any) -> Any:
        def refuse_or_do(path: Any = ".", *arguments: Any, **more: Any) -> Any:
            if isinstance(path, (str, Path)) and f"{path}/".startswith(f"{top}/"):
                raise OSError(number, os.strerror(number), str(path))
            return operation(path, *arguments, **more)

        return refuse_or_do

    with pytest.MonkeyPatch.context() as patched:
        for name in ("open", "scandir", "listdir"):
            patched.setattr(os, name, refusing(getattr(os, name)))
        yield


def push_everywhere(site: Site, text: str) -> None:
    for repo in (DUMMY, MYAPP):
        site.remotes[repo].push({INIT: text})


PLACES = ("HEAD", "config", "packed-refs", "refs/heads", "objects/pack", "jens.lock", "worktrees")


@pytest.mark.parametrize(("place", "number"), [*zip(PLACES, itertools.cycle(BUSY)), ("objects/pack", errno.EMFILE)])
def test_a_mirror_that_cannot_be_read_now_is_left_alone(site: Site, place: str, number: int) -> None:
    assert site.update("--strict").code == 0
    before, old = mirrors(site), site.expanded(DUMMY)
    push_everywhere(site, "# new\n")
    with unreadable(bare(site) / place, number):
        outcome = site.update()
    assert outcome.code == 0, outcome.log
    errors = outcome.lines("ERROR")
    assert "made anew" not in outcome.log
    assert errors, outcome.log
    assert all("dummy" in error and os.strerror(number) in error for error in errors), errors
    assert site.expanded(DUMMY) == old
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
    assert mirrors(site) == before
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert mirrors(site) == before


@pytest.mark.parametrize(
    "name", ["cache/inventory.json", "cache/unreferenced.json", "cache/refusals.json", "cache/environments/production"]
)
def test_a_file_of_state_that_cannot_be_read_now_is_not_lost(site: Site, name: str) -> None:
    assert site.update("--strict").code == 0
    site.define("production", "default: [ill-formed\n")  # what it was built from is known from the cache only
    push_everywhere(site, "# new\n")
    path, before = site.root / name, site.listing(*PUBLISHED)
    if not path.exists():
        path.write_text('{"version": 1, "content": {}}')
    content = path.read_bytes()
    with unreadable(path, errno.EMFILE):
        outcome = site.update()
    assert outcome.code in (30, 40), outcome.log
    assert str(path) in outcome.stderr
    assert not outcome.has("Inventory on disk not found or corrupt")
    assert path.read_bytes() == content
    assert site.listing(*PUBLISHED).keys() >= before.keys()
    assert site.update().code == 0


def test_faults_that_cannot_be_read_now_are_kept(site: Site) -> None:
    site.define("team", definition(overrides={DUMMY: "nowhere"}))
    site.update()
    path = site.root / "cache" / "last-run.json"
    before = path.read_bytes()
    with unreadable(path, errno.EIO):
        outcome = site.update()
    assert outcome.code == 40
    assert path.read_bytes() == before
    assert site.update().code == 0


@pytest.mark.parametrize("place", ["", "modules", "environment.conf"])
def test_an_environment_that_cannot_be_read_now_keeps_what_it_uses(site: Site, place: str) -> None:
    """Its definition moves on, and nothing that its links may lead to goes."""
    site.settings |= {"main.retention": "0", "main.directory_environments": "True"}
    site.remotes[DUMMY].push({INIT: "# feature\n"}, "feature", onto="master")
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.define("other")
    assert site.update("--strict").code == 0
    site.define("team")
    site.retire("other")
    push_everywhere(site, "# new\n")
    with unreadable(site.root / "environments" / "team" / place, errno.EIO):
        outcome = site.update()
    assert outcome.code == 0, outcome.log
    [error] = outcome.lines("ERROR")
    assert "team" in error
    assert site.dangling("team") == []
    assert site.read("team/modules/dummy/manifests/init.pp") == "# feature\n"
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert site.update("--strict").code == 0
    assert site.read("team/modules/dummy/manifests/init.pp") == "# new\n"


#: How a fsck ends without a verdict; the last one has one.
ENDS = {
    "killed": "kill -KILL $$",
    "out of memory": "echo 'fatal: Out of memory, malloc failed (tried to allocate 16 bytes)' >&2; exit 128",
    "too many open files": "echo 'error: unable to open x.pack: Too many open files' >&2; echo missing; exit 2",
    "bad sector": "echo 'error: x.pack: Input/output error' >&2; exit 4",
    "its child was killed": "echo 'error: commit-graph died of signal 9' >&2; exit 16",
    "damaged": "echo 'missing blob' >&2; exit 2",
}
GIT = """#!/bin/sh
case " $* " in
*" fsck "*) {fsck} ;;
*" {verb} "*) case "$*" in *{mirror}*) echo 'fatal: it is broken' >&2; exit 128 ;; esac ;;
esac
exec {git} "$@"
"""


@contextmanager
def a_git_that_fails(site: Site, verb: str, how: str) -> Iterator[None]:
    """Have one verb of Git fail in the mirror of a module, and the fsck end like this."""
    script = site.root / "programs" / "git"
    script.parent.mkdir(exist_ok=True)
    script.write_text(GIT.format(fsck=ENDS[how], verb=verb, mirror="modules/dummy", git=shutil.which("git")))
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        yield


@pytest.mark.parametrize("verb", ["fetch", "read-tree"])
@pytest.mark.parametrize("how", ENDS)
def test_a_mirror_is_made_anew_only_after_a_verdict_of_fsck(site: Site, how: str, verb: str) -> None:
    assert site.update("--strict").code == 0
    before, old = mirrors(site), site.expanded(DUMMY)
    push_everywhere(site, "# new\n")
    with a_git_that_fails(site, verb, how):
        for _ in range(1 if how == "damaged" else 2):
            outcome = site.update()
            assert outcome.code == 0
            assert (mirrors(site) == before) == (how != "damaged"), outcome.log
            if how != "damaged":
                assert not outcome.has("made anew")
                assert [line for line in outcome.lines("ERROR") if "nobody can tell now" in line.lower()], outcome.log
                assert site.expanded(DUMMY) == old
            assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("how", ENDS)
def test_a_gc_marks_a_mirror_as_damaged_only_after_a_verdict(site: Site, how: str) -> None:
    assert site.update("--strict").code == 0
    with a_git_that_fails(site, "gc", how):
        assert gc.main(["-c", str(site.config), "--bare"]) == 10
    assert (bare(site) / "jens.damaged").exists() == (how == "damaged")


def test_a_derived_file_that_cannot_be_read_now_stays(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert site.update("--strict").code == 0
    graph = bare(site) / "objects" / "info" / "commit-graph"
    graph.write_bytes(b"CGPH")
    with unreadable(graph, errno.EIO), pytest.raises(OSError, match="Input/output"):
        derived.remove_damaged(bare(site))
    assert graph.exists()
    with caplog.at_level(logging.WARNING):
        assert derived.remove_damaged(bare(site)) == [graph]


def test_what_cannot_be_read_now_is_no_damage(site: Site) -> None:
    assert site.update("--strict").code == 0
    for place in ("HEAD", "config", "objects/pack"):
        for number in BUSY:
            with unreadable(bare(site) / place, number), pytest.raises(OSError, match=os.strerror(number)):
                damage.examine(bare(site))
    assert damage.examine(bare(site))[0] is None
