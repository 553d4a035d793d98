"""Runs that go the short way, because nothing but pushes can have happened: what they do is what the long way does."""

from __future__ import annotations

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
from jens.update import baseline, fingerprints
from tests import TREE
from tests.conftest import Outcome, Site, clock, definition, git

DUMMY, MYAPP, OTHER = "modules/dummy", "hostgroups/myapp", "modules/other"
INIT = "code/manifests/init.pp"
MADE = ("clone", "environments", "cache")


@pytest.fixture
def sealed(site: Site) -> Site:
    """A site that is up to date, with overrides, a snapshot, and a default branch that not every repository has."""
    site.add(OTHER, branches=("qa", "feature/x"))
    site.remotes[DUMMY].branch("qa")
    site.publish()
    site.define("qa", definition("qa"))
    site.define("team", definition("master", {OTHER: "feature/x"}))
    pinned = site.remotes[DUMMY].commit()
    site.define("snap", definition(None, {DUMMY: f"commit/{pinned[:9]}", OTHER: "qa"}))
    assert site.update("--strict").code == 0
    return site


def went_the_short_way(outcome: Outcome) -> bool:
    began = outcome.has("Only repositories that were pushed to are looked at")
    return began and not outcome.has("so every repository is looked at")


def on_demand(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update("--strict").code == 0


def state(site: Site) -> dict[str, str]:
    """What a run may have changed: all that is published, all that is remembered, all branches of mirrors."""
    listing = site.listing(*MADE)
    forgettable = ("cache/last-run.json", "cache/unreferenced.json")
    found = {path: what for path, what in listing.items() if path not in forgettable}
    for repo in site.remotes:
        found[f"refs of {repo}"] = git("for-each-ref", directory=site.root / "bare" / repo)
        found[f"records of {repo}"] = " ".join(sorted(os.listdir(site.root / "bare" / repo / "worktrees")))
    return found


def assert_like_the_long_way(site: Site) -> None:
    """A run that looks at everything finds nothing to do."""
    before = state(site)
    (site.root / "cache" / "baseline.json").unlink(missing_ok=True)
    outcome = site.update("--poll", "--strict")
    assert (outcome.code, outcome.lines("ERROR"), went_the_short_way(outcome)) == (0, [], False)
    assert state(site) == before


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_run_with_nothing_to_do_says_the_same_whichever_way_it_goes(sealed: Site, mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(sealed)

    def lines(outcome: Outcome) -> list[str]:
        said = [re.sub(r"[\d.]+ ms", "N ms", line) for line in outcome.lines()]
        return [
            line for line in said if "inventory" not in line and "Only repositories that were pushed to" not in line
        ]

    short = sealed.update("--strict")
    (sealed.root / "cache" / "baseline.json").unlink()
    long = sealed.update("--strict")
    assert (went_the_short_way(short), went_the_short_way(long)) == (True, False)
    assert lines(short) == lines(long)


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_pushes_are_followed_the_short_way(sealed: Site, mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(sealed)
    for text in ("# one\n", "# two\n"):
        sealed.remotes[DUMMY].push({INIT: text})
        sealed.remotes[OTHER].push({INIT: text}, "feature/x")
        sealed.hint(DUMMY, OTHER)
        outcome = sealed.update("--strict")
        assert (outcome.code, went_the_short_way(outcome)) == (0, True)
        assert sealed.read("production/modules/dummy/manifests/init.pp") == text
        assert sealed.read("team/modules/other/manifests/init.pp") == text
        assert sealed.read("snap/modules/dummy/manifests/init.pp") == "class dummy {}\n"
        assert sealed.hinted() == ([] if mode == "ONDEMAND" else sealed.hinted())
    assert_like_the_long_way(sealed)


def test_whatever_is_pushed_both_ways_come_to_the_same(sealed: Site) -> None:
    """Days on which anything may happen, each followed by one run, and by one that looks at everything."""
    chance = random.Random(7)
    sealed.settings["main.retention"] = "0"
    assert sealed.update("--strict").code == 0
    short = 0
    for number in range(25):
        _anything(sealed, chance, number)
        outcome = sealed.update()
        short += went_the_short_way(outcome)
        assert_like_the_long_way(sealed)
    assert short > 5


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
    (site.root / "metadata" / "environments" / "team.yaml").write_text("default: [half-written\n")


def change_the_configuration(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"


def push_a_definition(site: Site) -> None:
    site.define("another")


def push_a_library(site: Site) -> None:
    site.add("modules/late")
    site.publish()


def garble_the_seal(site: Site) -> None:
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
        garble_the_seal,
    ],
)
def test_whatever_else_happens_everything_is_looked_at(sealed: Site, change: Callable[[Site], None], mode: str) -> None:
    if mode == "ONDEMAND":
        on_demand(sealed)
    assert went_the_short_way(sealed.update("--strict"))
    change(sealed)
    outcome = sealed.update("--strict")
    assert (outcome.code, went_the_short_way(outcome)) == (0, False)
    assert {name: sealed.dangling(name) for name in ("production", "team")} == {"production": [], "team": []}
    assert not (sealed.root / "environments" / ".new-0123456789ab").exists()
    assert "half-written" not in (sealed.root / "metadata" / "environments" / "team.yaml").read_text()
    assert_like_the_long_way(sealed)
    assert went_the_short_way(sealed.update("--strict"))


@pytest.mark.parametrize(("seconds", "expected"), [(0, True), (590, True), (610, False), (-10, False)])
def test_everything_is_looked_at_every_ten_minutes(
    sealed: Site, seconds: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(baseline, "time", clock(now + seconds))
    assert went_the_short_way(sealed.update()) == expected


def test_everything_is_looked_at_after_the_system_has_started(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_boot", lambda: "another")
    assert not went_the_short_way(sealed.update())


def test_a_removal_that_is_allowed_is_not_left_out(sealed: Site) -> None:
    assert not went_the_short_way(sealed.update("--allow-purge"))


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
def test_damage_that_only_a_look_into_a_mirror_tells_is_mended_when_all_are_asked(
    sealed: Site, damage: Callable[[Path], None]
) -> None:
    remote, bare = sealed.remotes[OTHER], sealed.root / "bare" / OTHER
    remote.push({INIT: "# pushed\n"}, "feature/x")
    for _ in range(2):
        assert went_the_short_way(sealed.update("--strict"))
    damage(bare)
    outcome = sealed.update("--strict")
    # A branch whose file is lost has the commit that it had when it was packed, as if it had been pushed to since.
    assert outcome.lines("WARNING") or damage is lose_a_pushed_branch, outcome.log
    assert git("rev-parse", "feature/x", directory=bare) == remote.commit("feature/x")
    assert git("fsck", "--strict", directory=bare) == ""
    assert_like_the_long_way(sealed)


def put_into_the_seal(site: Site, way: tuple[str | int, ...], value: object) -> None:
    path = site.root / "cache" / "baseline.json"
    document = json.loads(path.read_text())
    place = document["content"]
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("mirrors", DUMMY, 2), "a\0b"),
        (("mirrors", DUMMY, 2), "\ud800"),
        (("mirrors", DUMMY, 1), float("inf")),
        (("mirrors", DUMMY, 0), "\ud800"),
        (("mirrors", DUMMY), ["", 1]),
        (("mirrors", OTHER), {}),
        (("due",), 10**400),
        (("environments",), None),
        (("environments",), [1, "a\0b", {}]),
        (("repositories", OTHER), ["url"]),
        (("repositories", OTHER), ["url", ["~~"], [".x", 5]]),
        (("repositories", OTHER), 5),
    ],
)
def test_a_seal_that_nobody_can_have_put_is_none(sealed: Site, way: tuple[str | int, ...], value: object) -> None:
    assert went_the_short_way(sealed.update("--strict"))
    put_into_the_seal(sealed, way, value)
    sealed.remotes[OTHER].push({INIT: "# pushed\n"}, "feature/x")
    outcome = sealed.update("--strict")
    assert (outcome.code, outcome.stderr) == (0, ""), outcome.log
    assert sealed.read("team/modules/other/manifests/init.pp") == "# pushed\n"
    assert_like_the_long_way(sealed)


def test_a_branch_that_somebody_moves_while_its_mirror_is_sealed_is_seen(
    sealed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, bare = sealed.remotes[OTHER], sealed.root / "bare" / OTHER
    old = remote.commit("feature/x")
    remote.push({INIT: "# pushed\n"}, "feature/x")
    names_in_mirror = fingerprints.names_in_mirror

    def move(*arguments: Any) -> list[str]:
        git("update-ref", "refs/heads/feature/x", old, directory=bare)
        return names_in_mirror(*arguments)

    with monkeypatch.context() as moving:
        moving.setattr(fingerprints, "names_in_mirror", move)
        assert went_the_short_way(sealed.update("--strict"))
    assert sealed.update("--strict").code == 0
    assert git("rev-parse", "feature/x", directory=bare) == remote.commit("feature/x")


@pytest.mark.parametrize("name", ["\u65e5\u672c", "a\u2028b", "a\x85b"])
def test_a_branch_of_any_name_ends_the_short_way_once(sealed: Site, name: str) -> None:
    sealed.remotes[OTHER].push({INIT: "# pushed\n"}, name, onto="master")
    for _ in range(2):
        assert sealed.update("--strict").code == 0
    outcome = sealed.update("--strict")
    assert (outcome.code, went_the_short_way(outcome)) == (0, True)
    before = (sealed.root / "cache" / "baseline.json").stat().st_ino
    assert went_the_short_way(sealed.update("--strict"))
    assert (sealed.root / "cache" / "baseline.json").stat().st_ino == before, "nothing is sealed anew"
    # Whoever runs it by hand may have another locale.
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "--strict", "-c"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(TREE)}
    seals = []
    for _ in range(3):
        done = subprocess.run(
            [*command, str(sealed.config)], env={**os.environ, **plain}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        seals.append((sealed.root / "cache" / "baseline.json").stat().st_ino)
    assert seals[1] == seals[2], "nothing is sealed anew in that locale either"


def test_a_remote_may_sort_its_branches_by_rules_of_its_own(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = git_wrapper.listing

    def backwards(heads: Mapping[str, str]) -> bytes:
        return b"".join(reversed(listing(heads).splitlines(keepends=True)))

    monkeypatch.setattr(git_wrapper, "listing", backwards)
    sealed.remotes[OTHER].push({INIT: "# pushed\n"}, "feature/x")
    for _ in range(2):
        assert sealed.update("--strict").code == 0
    before = (sealed.root / "cache" / "baseline.json").stat().st_ino
    assert went_the_short_way(sealed.update("--strict"))
    assert (sealed.root / "cache" / "baseline.json").stat().st_ino == before, "nothing is followed"


def test_a_seal_does_not_grow_with_the_branches_of_mirrors_that_are_packed(sealed: Site) -> None:
    remote, path = sealed.remotes[OTHER], sealed.root / "cache" / "baseline.json"
    before = path.stat().st_size
    lines = "".join(f"create refs/heads/feature/{number} {remote.commit()}\n" for number in range(300))
    command = ["git", f"--git-dir={remote.path}", "update-ref", "--stdin"]
    subprocess.run(command, input=lines, text=True, check=True)
    assert sealed.update("--strict").code == 0
    git("pack-refs", "--all", directory=sealed.root / "bare" / OTHER)
    assert sealed.update("--strict").code == 0
    assert went_the_short_way(sealed.update("--strict"))
    assert path.stat().st_size - before < 1000


def go_away(site: Site) -> None:
    site.remotes[DUMMY].go_away()


def lose_a_mandatory_branch(site: Site) -> None:
    site.remotes[DUMMY].delete("master")


@pytest.mark.parametrize("fault", [go_away, lose_a_mandatory_branch])
def test_what_goes_wrong_is_said_once_in_each_run_and_a_hint_stays(sealed: Site, fault: Callable[[Site], None]) -> None:
    on_demand(sealed)
    fault(sealed)
    sealed.hint(DUMMY)
    for _ in range(3):
        outcome = sealed.update("--strict")
        assert (outcome.code, len(outcome.lines("ERROR"))) == (60, 1), outcome.log
        assert fault is lose_a_mandatory_branch or sealed.hinted() == [DUMMY]
        assert sealed.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"


def test_a_branch_that_is_gone_ends_the_short_way(sealed: Site) -> None:
    sealed.remotes[OTHER].delete("feature/x")
    outcome = sealed.update()
    assert not went_the_short_way(outcome)
    assert sealed.dangling("team") == ["hieradata/module_names/other", "modules/other"]
    sealed.remotes[OTHER].branch("feature/x")
    assert sealed.update("--strict").code == 0
    assert sealed.dangling("team") == []


def test_a_hint_for_a_repository_that_the_library_does_not_have_is_told(sealed: Site) -> None:
    on_demand(sealed)
    sealed.hint("modules/stranger")
    outcome = sealed.update("--strict")
    assert outcome.has("Hints for repositories that the library does not have: ['modules/stranger']")
    assert sealed.hinted() == []


def test_a_remote_is_asked_once_though_the_short_way_ends(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = sealed.root / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$*" >>{sealed.root}/asked\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    sealed.remotes["common/site"].push({"code/new.pp": "# new\n"})
    (sealed.root / "asked").unlink()
    assert not went_the_short_way(sealed.update("--strict"))
    asked = (sealed.root / "asked").read_text().splitlines()
    urls = [line.rpartition(" ")[2] for line in asked if line.startswith("ls-remote --heads ")]
    assert sorted(urls) == sorted(sealed.urls.values())


@pytest.fixture
def expired(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """A commit of MYAPP whose checkout nobody needs any more, and whose time is over."""
    sealed.settings["main.retention"] = "100"
    assert sealed.update("--strict").code == 0
    old = sealed.expanded(MYAPP)["master"]
    sealed.remotes[MYAPP].push({INIT: "# new\n"})
    assert went_the_short_way(sealed.update("--strict"))
    assert went_the_short_way(sealed.update("--strict"))
    assert old in sealed.checkouts(MYAPP)
    now = time.time()
    for module in ("jens.update.baseline", "jens.update.scope", "jens.repositories.retention"):
        monkeypatch.setattr(f"{module}.time", clock(now + 101))
    return old


@pytest.mark.parametrize("hinted", [(), (DUMMY,), (DUMMY, MYAPP)])
def test_a_replaced_checkout_goes_when_its_time_is_over_and_no_run_looks_at_everything_for_that(
    sealed: Site, expired: str, hinted: tuple[str, ...]
) -> None:
    """Where somebody pushes each minute, the time of some checkout is over in each run."""
    for repo in hinted:
        sealed.remotes[repo].push({INIT: "# newer\n"})
    assert went_the_short_way(sealed.update("--strict"))
    assert expired not in sealed.checkouts(MYAPP)
    assert not (sealed.root / "bare" / MYAPP / "worktrees" / expired).exists()
    for repo in hinted:
        assert sealed.expanded(repo)["master"] == sealed.remotes[repo].commit()
    assert went_the_short_way(sealed.update("--strict")), "what is left is sealed"
    assert_like_the_long_way(sealed)


@pytest.mark.parametrize(
    "step",
    [
        "system.files.discard",
        "repositories.retention.save",
        "repositories.retention.next_expiry",
        "update.baseline.renew",
    ],
)
def test_a_run_that_is_killed_while_it_removes_checkouts_is_made_up_for(
    sealed: Site, expired: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(f"jens.{step}", Mock(side_effect=KeyboardInterrupt))
        assert sealed.update("--strict").code == 130
    assert not went_the_short_way(sealed.update("--strict"))
    assert expired not in sealed.checkouts(MYAPP)
    assert went_the_short_way(sealed.update("--strict"))
    assert_like_the_long_way(sealed)


@pytest.mark.parametrize("what", ["files", "record"])
def test_what_cannot_be_removed_yet_is_removed_as_soon_as_it_can(
    sealed: Site, expired: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A file that somebody on another node has open stays on NFS, under another name."""
    record, rmtree = sealed.root / "bare" / MYAPP / "worktrees" / expired, shutil.rmtree

    def unless_it_is_busy(path: Path, **more: Any) -> None:
        if (path == record) == (what == "files"):
            rmtree(path, **more)

    with monkeypatch.context() as patches:
        patches.setattr("shutil.rmtree", unless_it_is_busy)
        assert not went_the_short_way(sealed.update("--strict"))
    assert expired not in sealed.checkouts(MYAPP)
    assert len(list(sealed.path(MYAPP).glob(".trash-*"))) == (what == "files")
    assert sealed.update("--strict").code == 0
    assert list(sealed.path(MYAPP).glob(".trash-*")) == []
    assert not record.exists()
    assert_like_the_long_way(sealed)


@pytest.mark.parametrize("name", ["HEAD", "config"])
def test_damage_to_a_mirror_is_found_though_a_checkouts_time_is_over(sealed: Site, expired: str, name: str) -> None:
    assert expired in sealed.checkouts(MYAPP)
    (sealed.root / "bare" / MYAPP / name).write_bytes(b"\0" * 24)
    outcome = sealed.update("--strict")
    assert any("was made anew" in line for line in outcome.lines("WARNING")), outcome.log
    assert expired not in sealed.checkouts(MYAPP)
    assert_like_the_long_way(sealed)


def test_a_link_that_goes_while_a_checkout_is_removed_is_put_right(
    sealed: Site, expired: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, rmtree = sealed.path(MYAPP, "master"), shutil.rmtree

    def while_somebody_tidies_up(path: Path, **more: Any) -> None:
        rmtree(path, **more)
        link.unlink(missing_ok=True)

    with monkeypatch.context() as patches:
        patches.setattr("shutil.rmtree", while_somebody_tidies_up)
        sealed.update()
    assert sealed.update().code == 0
    assert os.readlink(link) == f".{sealed.remotes[MYAPP].commit()}"
    assert expired not in sealed.checkouts(MYAPP)


def test_the_last_checkout_of_a_repository_that_is_gone_takes_its_directory_along(
    sealed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed.settings["main.retention"] = "100"
    sealed.define("team", definition("master"))
    sealed.define("snap", definition(None, {DUMMY: f"commit/{sealed.remotes[DUMMY].commit()}"}))
    del sealed.urls[OTHER], sealed.remotes[OTHER]
    sealed.publish()
    assert sealed.update("--strict").code == 0
    assert went_the_short_way(sealed.update("--strict"))
    assert sealed.checkouts(OTHER)
    now = time.time()
    for module in ("jens.update.baseline", "jens.update.scope", "jens.repositories.retention"):
        monkeypatch.setattr(f"{module}.time", clock(now + 101))
    assert sealed.update("--strict").code == 0
    assert not sealed.path(OTHER).exists()
    assert_like_the_long_way(sealed)


def test_a_branch_and_then_its_definition_are_seen_together(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remotes are asked before the run knows that metadata have changed: what they said before is of no use then."""
    sealed.define("stranger", definition("master"))
    refresh = clones.refresh

    def after_a_team_has_pushed(*arguments: Any, **more: Any) -> clones.Revisions:
        time.sleep(0.2)  # all remotes have answered
        sealed.remotes[MYAPP].push({INIT: "# idea\n"}, "idea", onto="master")
        sealed.define("team", definition("master", {MYAPP: "idea"}))
        return refresh(*arguments, **more)

    monkeypatch.setattr(clones, "refresh", after_a_team_has_pushed)
    assert sealed.update("--strict").code == 0
    assert sealed.read("team/hostgroups/hg_myapp/manifests/init.pp") == "# idea\n"


def test_a_long_answer_that_nobody_could_listen_to_is_not_late(sealed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed.settings["git.timeout"] = "3"
    remote = sealed.remotes[OTHER]
    refs = (f"{remote.commit()} refs/heads/team/{number:05}\n" for number in range(3000))
    (remote.path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + "".join(refs))
    assert sealed.update("--strict").code == 0
    are_unchanged = clones.are_unchanged

    def in_no_hurry(*arguments: Any) -> bool:
        time.sleep(3.2)
        return are_unchanged(*arguments)

    monkeypatch.setattr(clones, "are_unchanged", in_no_hurry)
    assert went_the_short_way(sealed.update("--strict"))


def test_a_commit_that_a_mirror_has_lost_is_missed_in_the_next_poll(sealed: Site) -> None:
    commit = sealed.remotes[DUMMY].push({"code/new.pp": "# new\n"})
    assert went_the_short_way(sealed.update("--strict"))
    (sealed.root / "bare" / DUMMY / "objects" / commit[:2] / commit[2:]).unlink()
    outcome = sealed.update("--strict")
    assert outcome.has(f"The mirror of {DUMMY} is damaged (it has lost {commit}), it was made anew")
