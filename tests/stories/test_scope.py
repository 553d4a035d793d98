"""Runs with a narrow scope, since only pushes can have happened: they do what a run that looks at everything does."""

from __future__ import annotations

import errno
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from jens.git import wrapper as git_wrapper
from jens.metadata import clones
from jens.system import clock, removal
from jens.update import baseline, fingerprints, scope
from tests import TREE
from tests.conftest import Outcome, Site, definition, faults_of, git, let_pass

DUMMY, MYAPP, OTHER = "modules/dummy", "hostgroups/myapp", "modules/other"
INIT = "code/manifests/init.pp"
MADE = ("clone", "environments", "cache")


@pytest.fixture
def settled(site: Site) -> Site:
    """A site that is up to date, with overrides, a snapshot, and a default branch that not every repository has.

    Its log tells how much a run has looked at, also when there was nothing to do.
    """
    site.settings["main.debuglevel"] = "DEBUG"
    site.add(OTHER, branches=("qa", "feature/x"))
    site.remotes[DUMMY].branch("qa")
    site.publish()
    site.define("qa", definition("qa"))
    site.define("team", definition("master", {OTHER: "feature/x"}))
    pinned = site.remotes[DUMMY].commit()
    site.define("snap", definition(None, {DUMMY: f"commit/{pinned[:9]}", OTHER: "qa"}))
    assert strictly(site).code == 0
    return site


def had_a_narrow_scope(outcome: Outcome) -> bool:
    was_narrow = outcome.has("Only repositories that were pushed to are looked at")
    return was_narrow and not outcome.has("so the run looks at every repository")


def strictly(site: Site, *arguments: str) -> Outcome:
    """A run in which nothing failed, where a repository has no branch qa."""
    outcome = site.update(*arguments)
    assert faults_of(site.root) <= {"dangling link"}
    return outcome


def on_demand(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    assert strictly(site).code == 0


def state(site: Site) -> dict[str, str]:
    """What a run may have changed: everything published, files of state, branches and records of mirrors."""
    listing = site.listing(*MADE)
    forgettable = ("cache/last-run.json", "cache/unreferenced.json")
    found = {path: what for path, what in listing.items() if path not in forgettable}
    for repo in site.remotes:
        found[f"refs of {repo}"] = git("for-each-ref", directory=site.root / "bare" / repo)
        found[f"records of {repo}"] = " ".join(sorted(os.listdir(site.root / "bare" / repo / "worktrees")))
    return found


def assert_nothing_is_left_to_do(site: Site) -> None:
    """A run that looks at everything finds nothing to do."""
    before = state(site)
    (site.root / "cache" / "baseline.json").unlink(missing_ok=True)
    outcome = strictly(site, "--poll")
    assert (outcome.code, outcome.lines("ERROR"), had_a_narrow_scope(outcome)) == (0, [], False)
    assert state(site) == before


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_run_with_nothing_to_do_logs_the_same_whatever_its_scope(settled: Site, mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(settled)

    def lines(outcome: Outcome) -> list[str]:
        said = [re.sub(r"[\d.]+ ms", "N ms", line) for line in outcome.lines()]
        return [
            line for line in said if "inventory" not in line and "Only repositories that were pushed to" not in line
        ]

    narrow = strictly(settled)
    (settled.root / "cache" / "baseline.json").unlink()
    full = strictly(settled)
    assert (had_a_narrow_scope(narrow), had_a_narrow_scope(full)) == (True, False)
    assert lines(narrow) == lines(full)


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_pushes_are_followed_with_a_narrow_scope(settled: Site, mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(settled)
    for text in ("# one\n", "# two\n"):
        settled.remotes[DUMMY].push({INIT: text})
        settled.remotes[OTHER].push({INIT: text}, "feature/x")
        settled.hint(DUMMY, OTHER)
        outcome = strictly(settled)
        assert (outcome.code, had_a_narrow_scope(outcome)) == (0, True)
        assert settled.read("production/modules/dummy/manifests/init.pp") == text
        assert settled.read("team/modules/other/manifests/init.pp") == text
        assert settled.read("snap/modules/dummy/manifests/init.pp") == "class dummy {}\n"
        assert settled.hinted() == ([] if mode == "ONDEMAND" else settled.hinted())
    assert_nothing_is_left_to_do(settled)


def test_whatever_is_pushed_each_scope_gives_the_same_result(settled: Site) -> None:
    """Random changes. A run follows each of them, and then a run that looks at everything."""
    chance = random.Random(7)
    settled.settings["main.retention"] = "0"
    assert strictly(settled).code == 0
    narrow = 0
    for number in range(25):
        _anything(settled, chance, number)
        outcome = settled.update()
        narrow += had_a_narrow_scope(outcome)
        assert_nothing_is_left_to_do(settled)
    assert narrow > 5


def _anything(site: Site, chance: random.Random, number: int) -> None:
    for repo in chance.sample([DUMMY, MYAPP, OTHER], chance.choice((1, 1, 2))):
        remote, what = site.remotes[repo], chance.random()
        if what < 0.5:
            remote.push({INIT: f"# {number}\n"}, chance.choice(("master", "qa")), onto="master")
        elif what < 0.6:
            remote.push({INIT: f"# {number}\n", "data/x": "x\n"}, "feature/x", rewrite=True)
        elif what < 0.7:
            remote.branch("unused")
        elif what < 0.8 and "qa" in git("branch", "--list", directory=remote.path).split():
            remote.delete("qa")
        elif what < 0.9:
            site.define("team", definition("master", {repo: chance.choice(("master", "feature/x"))}))
        else:
            site.remotes["common/hieradata"].push({f"data/{number}.yaml": "---\n"})


def lose_a_link(site: Site) -> None:
    (site.root / "environments" / "team" / "modules" / "dummy").unlink()


def bend_a_link(site: Site) -> None:
    link = site.root / "environments" / "production" / "modules" / "dummy"
    link.unlink()
    link.symlink_to("/nowhere")


def bend_a_branch(site: Site) -> None:
    link = site.path(OTHER, "qa")
    link.unlink()
    link.symlink_to("nowhere")


def lose_a_checkout(site: Site) -> None:
    shutil.rmtree(site.path(OTHER, f".{site.expanded(OTHER)['master']}"))


def lose_a_mirror(site: Site) -> None:
    shutil.rmtree(site.root / "bare" / OTHER)


def lose_the_inventory(site: Site) -> None:
    (site.root / "cache" / "inventory.json").unlink()


def leave_something_half_made(site: Site) -> None:
    (site.root / "environments" / ".new-0123456789ab").mkdir()


def touch_the_metadata(site: Site) -> None:
    git("update-ref", "refs/heads/master", "HEAD^", directory=site.root / "metadata" / "environments")


def change_the_configuration(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"


def push_a_definition(site: Site) -> None:
    site.define("another")


def push_a_library(site: Site) -> None:
    site.add("modules/late")
    site.publish()


def garble_the_baseline(site: Site) -> None:
    (site.root / "cache" / "baseline.json").write_text('{"version": 1, "content": {"repositories": {"../..": 1}}}')


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
@pytest.mark.parametrize(
    "change",
    [
        lose_a_link,
        bend_a_link,
        bend_a_branch,
        lose_a_checkout,
        lose_a_mirror,
        lose_the_inventory,
        leave_something_half_made,
        touch_the_metadata,
        change_the_configuration,
        push_a_definition,
        push_a_library,
        garble_the_baseline,
    ],
)
def test_whatever_else_happens_the_run_looks_at_everything(
    settled: Site, change: Callable[[Site], None], mode: str
) -> None:
    if mode == "ONDEMAND":
        on_demand(settled)
    assert had_a_narrow_scope(strictly(settled))
    change(settled)
    outcome = strictly(settled)
    assert (outcome.code, had_a_narrow_scope(outcome)) == (0, False)
    assert {name: settled.dangling(name) for name in ("production", "team")} == {"production": [], "team": []}
    assert not (settled.root / "environments" / ".new-0123456789ab").exists()
    clone = settled.root / "metadata" / "environments"
    assert git("rev-parse", "HEAD", directory=clone) == settled.definitions.commit()
    assert_nothing_is_left_to_do(settled)
    assert had_a_narrow_scope(strictly(settled))


@pytest.mark.parametrize(("seconds", "expected"), [(0, True), (590, True), (610, False), (-10, False)])
def test_a_run_looks_at_everything_every_ten_minutes(
    settled: Site, seconds: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_pass(monkeypatch, seconds)
    assert had_a_narrow_scope(settled.update()) == expected


def test_a_run_looks_at_everything_after_the_system_has_started(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "boot_id", lambda: "another")
    assert not had_a_narrow_scope(settled.update())


def test_a_run_with_allow_purge_looks_at_everything(settled: Site) -> None:
    assert not had_a_narrow_scope(settled.update("--allow-purge"))


def truncate_the_packs(bare: Path) -> None:
    for pack in (bare / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o644)
        os.truncate(pack, 40)


def bend_the_head(bare: Path) -> None:
    (bare / "HEAD").write_text("nonsense\n")


def bend_a_pushed_branch(bare: Path) -> None:
    (bare / "refs" / "heads" / "feature" / "x").write_text(f"{'0' * 39}1\n")


def lose_a_pushed_branch(bare: Path) -> None:
    (bare / "refs" / "heads" / "feature" / "x").unlink()


def lose_a_pushed_commit(bare: Path) -> None:
    commit = (bare / "refs" / "heads" / "feature" / "x").read_text().strip()
    (bare / "objects" / commit[:2] / commit[2:]).unlink()


@pytest.mark.parametrize(
    "damage",
    [truncate_the_packs, bend_the_head, bend_a_pushed_branch, lose_a_pushed_branch, lose_a_pushed_commit],
)
def test_damage_inside_a_mirror_is_repaired_when_all_remotes_are_asked(
    settled: Site, damage: Callable[[Path], None]
) -> None:
    remote, bare = settled.remotes[OTHER], settled.root / "bare" / OTHER
    remote.push({INIT: "# pushed\n"}, "feature/x")
    for _ in range(2):
        assert had_a_narrow_scope(strictly(settled))
    damage(bare)
    outcome = strictly(settled)
    # A branch whose file is lost falls back to its packed commit, as if somebody had pushed since then.
    assert outcome.lines("WARNING") or damage is lose_a_pushed_branch, outcome.log
    assert git("rev-parse", "feature/x", directory=bare) == remote.commit("feature/x")
    assert git("fsck", "--strict", directory=bare) == ""
    assert_nothing_is_left_to_do(settled)


def put_into_the_baseline(site: Site, keys: tuple[str | int, ...], value: object) -> None:
    path = site.root / "cache" / "baseline.json"
    document = json.loads(path.read_text())
    place = document["content"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("mirrors", DUMMY, 2), "a\0b"),
        (("mirrors", DUMMY, 2), "\ud800"),
        (("mirrors", DUMMY, 1), float("inf")),
        (("mirrors", DUMMY, 0), "\ud800"),
        (("mirrors", DUMMY), ["", 1]),
        (("mirrors", OTHER), {}),
        (("due",), 10**400),
        (("environments",), None),
        (("pinned",), ["modules"]),
        (("pinned",), 5),
        (("environments",), [1, "a\0b", {}]),
        (("repositories", OTHER), ["url"]),
        (("repositories", OTHER), ["url", ["~~"], [".x", 5]]),
        (("repositories", OTHER), 5),
    ],
)
def test_a_baseline_that_jens_cannot_have_saved_is_ignored(
    settled: Site, keys: tuple[str | int, ...], value: object
) -> None:
    assert had_a_narrow_scope(strictly(settled))
    put_into_the_baseline(settled, keys, value)
    settled.remotes[OTHER].push({INIT: "# pushed\n"}, "feature/x")
    outcome = strictly(settled)
    assert (outcome.code, outcome.stderr) == (0, ""), outcome.log
    assert settled.read("team/modules/other/manifests/init.pp") == "# pushed\n"
    assert_nothing_is_left_to_do(settled)


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_damage_to_what_only_a_snapshot_keeps_is_seen(settled: Site, mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(settled)
    del settled.urls[OTHER]
    settled.publish()
    settled.retire("team")
    assert settled.update().code == 0
    assert had_a_narrow_scope(settled.update())
    commit = settled.expanded(OTHER)["qa"]
    files = settled.listing("clone")
    (settled.path(OTHER) / f".{commit}").rename(settled.root / "moved")
    assert not settled.exists("snap/modules/other/manifests/init.pp")
    outcome = settled.update()
    assert (outcome.code, had_a_narrow_scope(outcome)) == (0, False)
    assert settled.listing("clone") == files
    assert had_a_narrow_scope(settled.update())


def lose_a_mirrors_branch(site: Site) -> None:
    git("update-ref", "-d", "refs/heads/qa", directory=site.root / "bare" / OTHER)


@pytest.mark.parametrize("moment", ["record.save_baseline", "baseline._write"])
@pytest.mark.parametrize("change", [lose_a_link, bend_a_link, bend_a_branch, lose_a_checkout, lose_a_mirrors_branch])
@pytest.mark.parametrize("is_all_new", [True, False])
def test_what_somebody_changes_while_the_baseline_is_made_is_seen(
    settled: Site, change: Callable[[Site], None], moment: str, is_all_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has looked already, and perhaps changed the same directories itself."""
    (settled.root / "cache" / "baseline.json").unlink()
    settled.remotes[OTHER].push({INIT: "# pushed\n"})
    if is_all_new:
        settled.define("team", definition("master", {OTHER: "qa"}))
        settled.define("production", definition("master", {OTHER: "qa"}))
    module, name = moment.split(".")
    before = importlib.import_module(f"jens.update.{module}")
    real = getattr(before, name)
    calls: list[tuple[Any, ...]] = []

    def change_then_go_on(*arguments: Any) -> object:
        if not calls:
            change(settled)
        calls.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(before, name, change_then_go_on)
        assert strictly(settled).code == 0
    assert calls
    assert strictly(settled).code == 0
    assert {name: settled.dangling(name) for name in ("production", "team")} == {"production": [], "team": []}
    assert_nothing_is_left_to_do(settled)


def test_a_branch_link_that_somebody_bends_after_a_push_is_seen(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run with a narrow scope, which renews the baseline."""
    settled.remotes[OTHER].push({INIT: "# pushed\n"}, "qa")
    renew = baseline.renew

    def bend_then_renew(*arguments: Any, **named: Any) -> object:
        bend_a_branch(settled)
        return renew(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(baseline, "renew", bend_then_renew)
        assert had_a_narrow_scope(strictly(settled))
    assert not had_a_narrow_scope(strictly(settled))
    assert_nothing_is_left_to_do(settled)


def test_a_branch_that_somebody_moves_while_the_baseline_is_saved_is_seen(
    settled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, bare = settled.remotes[OTHER], settled.root / "bare" / OTHER
    old = remote.commit("feature/x")
    remote.push({INIT: "# pushed\n"}, "feature/x")
    names_in_mirror = fingerprints.names_in_mirror

    def move(*arguments: Any) -> list[str]:
        git("update-ref", "refs/heads/feature/x", old, directory=bare)
        return names_in_mirror(*arguments)

    with monkeypatch.context() as moving:
        moving.setattr(fingerprints, "names_in_mirror", move)
        assert had_a_narrow_scope(strictly(settled))
    assert strictly(settled).code == 0
    assert git("rev-parse", "feature/x", directory=bare) == remote.commit("feature/x")


@pytest.mark.parametrize("name", ["\u65e5\u672c", "a\u2028b", "a\x85b"])
def test_a_new_branch_of_any_name_widens_the_scope_once(settled: Site, name: str) -> None:
    settled.remotes[OTHER].push({INIT: "# pushed\n"}, name, onto="master")
    for _ in range(2):
        assert strictly(settled).code == 0
    outcome = strictly(settled)
    assert (outcome.code, had_a_narrow_scope(outcome)) == (0, True)
    before = (settled.root / "cache" / "baseline.json").stat().st_ino
    assert had_a_narrow_scope(strictly(settled))
    assert (settled.root / "cache" / "baseline.json").stat().st_ino == before, "no baseline is saved anew"
    # Whoever runs it by hand may have another locale.
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(TREE)}
    inodes = []
    for _ in range(3):
        done = subprocess.run(
            [*command, str(settled.config)], env={**os.environ, **plain}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        inodes.append((settled.root / "cache" / "baseline.json").stat().st_ino)
    assert inodes[1] == inodes[2], "nor is one saved anew in that locale"


def test_a_remote_may_sort_its_branches_in_another_order(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = git_wrapper.listing

    def backwards(heads: Mapping[str, str]) -> bytes:
        return b"".join(reversed(listing(heads).splitlines(keepends=True)))

    monkeypatch.setattr(git_wrapper, "listing", backwards)
    settled.remotes[OTHER].push({INIT: "# pushed\n"}, "feature/x")
    for _ in range(2):
        assert strictly(settled).code == 0
    before = (settled.root / "cache" / "baseline.json").stat().st_ino
    assert had_a_narrow_scope(strictly(settled))
    assert (settled.root / "cache" / "baseline.json").stat().st_ino == before, "nothing is followed"


def test_the_baseline_does_not_grow_with_packed_branches(settled: Site) -> None:
    remote, path = settled.remotes[OTHER], settled.root / "cache" / "baseline.json"
    before = path.stat().st_size
    lines = "".join(f"create refs/heads/feature/{number} {remote.commit()}\n" for number in range(300))
    command = ["git", f"--git-dir={remote.path}", "update-ref", "--stdin"]
    subprocess.run(command, input=lines, text=True, check=True)
    assert strictly(settled).code == 0
    git("pack-refs", "--all", directory=settled.root / "bare" / OTHER)
    assert strictly(settled).code == 0
    assert had_a_narrow_scope(strictly(settled))
    assert path.stat().st_size - before < 1000


def go_away(site: Site) -> None:
    site.remotes[DUMMY].go_away()


def lose_a_mandatory_branch(site: Site) -> None:
    site.remotes[DUMMY].delete("master")


@pytest.mark.parametrize("failure", [go_away, lose_a_mandatory_branch])
def test_a_failure_is_logged_once_in_each_run_and_its_hint_stays(
    settled: Site, failure: Callable[[Site], None]
) -> None:
    on_demand(settled)
    failure(settled)
    settled.hint(DUMMY)
    for _ in range(3):
        outcome = settled.update("--strict")
        assert (outcome.code, len(outcome.lines("ERROR"))) == (60, 1), outcome.log
        assert failure is lose_a_mandatory_branch or settled.hinted() == [DUMMY]
        assert settled.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"


def test_a_branch_that_is_gone_widens_the_scope(settled: Site) -> None:
    settled.remotes[OTHER].delete("feature/x")
    outcome = settled.update()
    assert not had_a_narrow_scope(outcome)
    assert settled.dangling("team") == ["hieradata/module_names/other", "modules/other"]
    settled.remotes[OTHER].branch("feature/x")
    assert strictly(settled).code == 0
    assert settled.dangling("team") == []


def test_a_hint_for_a_repository_that_the_library_does_not_have_is_a_warning(settled: Site) -> None:
    on_demand(settled)
    settled.hint("modules/unknown")
    outcome = strictly(settled)
    assert outcome.has("Hints for repositories that the library does not have: ['modules/unknown']")
    assert settled.hinted() == []


def test_a_remote_is_asked_once_though_the_scope_widens(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = settled.root / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$*" >>{settled.root}/asked\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    settled.remotes["common/site"].push({"code/new.pp": "# new\n"})
    (settled.root / "asked").unlink()
    assert not had_a_narrow_scope(strictly(settled))
    asked = (settled.root / "asked").read_text().splitlines()
    urls = [line.rpartition(" ")[2] for line in asked if line.startswith("ls-remote --heads ")]
    assert sorted(urls) == sorted(settled.urls.values())


@pytest.fixture
def expired(settled: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """A commit of MYAPP whose checkout is unneeded, and whose retention is over."""
    settled.settings["main.retention"] = "100"
    assert strictly(settled).code == 0
    old = settled.expanded(MYAPP)["master"]
    settled.remotes[MYAPP].push({INIT: "# new\n"})
    assert had_a_narrow_scope(strictly(settled))
    assert had_a_narrow_scope(strictly(settled))
    assert old in settled.checkouts(MYAPP)
    let_pass(monkeypatch, 101)
    return old


@pytest.mark.parametrize("hinted", [(), (DUMMY,), (DUMMY, MYAPP)])
def test_an_expired_checkout_goes_in_a_run_with_a_narrow_scope(
    settled: Site, expired: str, hinted: tuple[str, ...]
) -> None:
    """Where somebody pushes each minute, some checkout expires in each run."""
    for repo in hinted:
        settled.remotes[repo].push({INIT: "# newer\n"})
    assert had_a_narrow_scope(strictly(settled))
    assert expired not in settled.checkouts(MYAPP)
    assert not (settled.root / "bare" / MYAPP / "worktrees" / expired).exists()
    for repo in hinted:
        assert settled.expanded(repo)["master"] == settled.remotes[repo].commit()
    assert had_a_narrow_scope(strictly(settled)), "the baseline is renewed"
    assert_nothing_is_left_to_do(settled)


@pytest.mark.parametrize(
    "function",
    [
        "system.files.discard",
        "repositories.retention.save",
        "repositories.retention.next_expiry",
        "update.baseline.renew",
    ],
)
def test_the_next_run_finishes_a_removal_of_checkouts_that_was_killed(
    settled: Site, expired: str, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(f"jens.{function}", Mock(side_effect=KeyboardInterrupt))
        assert settled.update("--strict").code == 130
    assert not had_a_narrow_scope(strictly(settled))
    assert expired not in settled.checkouts(MYAPP)
    assert had_a_narrow_scope(strictly(settled))
    assert_nothing_is_left_to_do(settled)


@pytest.mark.parametrize("what", ["files", "record"])
def test_what_cannot_be_removed_yet_is_removed_as_soon_as_it_can(
    settled: Site, expired: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A file that somebody on another node has open stays on NFS, under another name."""
    record, remove = settled.root / "bare" / MYAPP / "worktrees" / expired, removal.remove_directory

    def unless_it_is_busy(name: str, parent: int) -> OSError | None:
        is_record = os.path.samefile(f"/proc/self/fd/{parent}", record.parent)
        return remove(name, parent) if is_record == (what == "files") else OSError(errno.EBUSY, "busy", name)

    with monkeypatch.context() as patches:
        patches.setattr(removal, "remove_directory", unless_it_is_busy)
        assert not had_a_narrow_scope(strictly(settled))
    assert expired not in settled.checkouts(MYAPP)
    assert len(list(settled.path(MYAPP).glob(".trash-*"))) == (what == "files")
    assert strictly(settled).code == 0
    assert list(settled.path(MYAPP).glob(".trash-*")) == []
    assert not record.exists()
    assert_nothing_is_left_to_do(settled)


@pytest.mark.parametrize("name", ["HEAD", "config"])
def test_damage_to_a_mirror_is_found_though_a_checkout_expires(settled: Site, expired: str, name: str) -> None:
    assert expired in settled.checkouts(MYAPP)
    (settled.root / "bare" / MYAPP / name).write_bytes(b"\0" * 24)
    outcome = strictly(settled)
    assert any("was made anew" in line for line in outcome.lines("WARNING")), outcome.log
    assert expired not in settled.checkouts(MYAPP)
    assert_nothing_is_left_to_do(settled)


def test_a_link_that_disappears_while_a_checkout_is_removed_is_repaired(
    settled: Site, expired: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, remove = settled.path(MYAPP, "master"), removal.remove_directory

    def while_somebody_tidies_up(name: str, parent: int) -> OSError | None:
        link.unlink(missing_ok=True)
        return remove(name, parent)

    with monkeypatch.context() as patches:
        patches.setattr(removal, "remove_directory", while_somebody_tidies_up)
        settled.update()
    assert settled.update().code == 0
    assert os.readlink(link) == f".{settled.remotes[MYAPP].commit()}"
    assert expired not in settled.checkouts(MYAPP)


def test_the_directory_of_a_repository_that_is_gone_goes_with_its_last_checkout(
    settled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled.settings["main.retention"] = "100"
    settled.define("team", definition("master"))
    settled.define("snap", definition(None, {DUMMY: f"commit/{settled.remotes[DUMMY].commit()}"}))
    del settled.urls[OTHER], settled.remotes[OTHER]
    settled.publish()
    assert strictly(settled).code == 0
    assert had_a_narrow_scope(strictly(settled))
    assert settled.checkouts(OTHER)
    let_pass(monkeypatch, 101)
    assert strictly(settled).code == 0
    assert not settled.path(OTHER).exists()
    assert_nothing_is_left_to_do(settled)


def test_a_branch_and_then_its_definition_are_seen_together(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remotes are asked before the run knows that metadata have changed. Then it must not use their first replies."""
    settled.define("another", definition("master"))
    refresh = clones.refresh

    def after_a_team_has_pushed(*arguments: Any, **more: Any) -> clones.Revisions:
        time.sleep(0.2)  # all remotes have replied
        settled.remotes[MYAPP].push({INIT: "# idea\n"}, "idea", onto="master")
        settled.define("team", definition("master", {MYAPP: "idea"}))
        return refresh(*arguments, **more)

    monkeypatch.setattr(clones, "refresh", after_a_team_has_pushed)
    assert strictly(settled).code == 0
    assert settled.read("team/hostgroups/hg_myapp/manifests/init.pp") == "# idea\n"


def test_a_long_reply_that_is_read_late_is_no_timeout(settled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = settled.remotes[OTHER]
    refs = (f"{remote.commit()} refs/heads/team/{number:05}\n" for number in range(3000))
    (remote.path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + "".join(refs))
    assert strictly(settled).code == 0
    settled.settings["git.timeout"] = "5"
    assert strictly(settled).code == 0
    are_unchanged = clones.are_unchanged

    def slowly(*arguments: Any) -> bool:
        time.sleep(5.2)
        return are_unchanged(*arguments)

    monkeypatch.setattr(clones, "are_unchanged", slowly)
    assert had_a_narrow_scope(strictly(settled))


def test_a_commit_that_a_mirror_has_lost_is_noticed_by_the_next_poll(settled: Site) -> None:
    commit = settled.remotes[DUMMY].push({"code/new.pp": "# new\n"})
    assert had_a_narrow_scope(strictly(settled))
    (settled.root / "bare" / DUMMY / "objects" / commit[:2] / commit[2:]).unlink()
    outcome = strictly(settled)
    assert outcome.has(f"The mirror of {DUMMY} is damaged (it has lost {commit}), it was made anew")


@pytest.mark.parametrize("damage", ["lost", "of no use"])
def test_an_inventory_that_goes_during_a_run_has_everything_looked_at(
    settled: Site, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    commit = settled.remotes[DUMMY].push({INIT: "# pushed\n"})
    find, inventory = scope.find, settled.root / "cache" / "inventory.json"

    def and_damage(*arguments: Any) -> scope.Scope:
        found = find(*arguments)
        inventory.unlink()
        if damage == "of no use":
            inventory.write_text("{}")
        return found

    monkeypatch.setattr(scope, "find", and_damage)
    outcome = strictly(settled)
    assert (outcome.code, had_a_narrow_scope(outcome)) == (0, False)
    assert settled.expanded(DUMMY)["master"] == commit
