"""jens-gc removes what nothing needs, and nothing that may still be needed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jens.commands import gc
from jens.config import load_config
from jens.git import worktrees
from jens.layout import Layout
from jens.locking import run_lock
from jens.model import Commit, Inventory, Library, RepoId
from jens.repositories import inventory, retention
from jens.statefile import INVENTORY, UNREFERENCED, state_path
from jens.tools import gc as tools_gc
from jens.tools.gc import Evidence, may_be_left_over, needed_commits, records_to_drop
from tests import TREE
from tests.conftest import (
    HIERADATA,
    HOSTGROUP,
    MODULE,
    SITE_CODE,
    Outcome,
    Site,
    assert_complaint,
    definition,
    git,
    take_over,
)
from tests.reader import look, reading
from tests.stories.test_atomicity import _site_of_jens_1
from tests.stories.test_reset import as_nobody
from tests.values import DUMMY, MASTER, MYAPP, A, B, C, D
from tests.warm import warm

BOTH = {"code/one": "0\n", "code/two": "0\n"}


def collect(site: Site, *arguments: str) -> Outcome:
    """Run jens-gc."""
    log = site.root / "log" / "jens-gc.log"
    begin = log.stat().st_size if log.exists() else 0
    site.capture.readouterr()
    code = gc.main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, log.read_text()[begin:] if log.exists() else "")


def assert_silent(outcome: Outcome) -> None:
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", ""), outcome.log


def bare(site: Site, repo: str = "modules/dummy") -> Path:
    return site.root / "bare" / repo


def has(site: Site, commit: str) -> bool:
    """Whether the mirror has all objects of a commit."""
    done = subprocess.run(["git", "rev-list", "--objects", commit], cwd=bare(site), capture_output=True, check=False)
    return done.returncode == 0


def prune(site: Site) -> None:
    """Run git gc in the module's mirror, as an administrator may do by hand."""
    git("gc", "--quiet", "--prune=now", directory=bare(site))


def layout_of(site: Site) -> Layout:
    return Layout.of(load_config(site.config))


def age(site: Site, *commits: str, seconds: float = 4000) -> None:
    """Record that nothing has needed these checkouts of the module for so many seconds."""
    layout = layout_of(site)
    since = {(DUMMY, commit): time.time() - seconds for commit in commits}
    retention.save(layout, {**retention.load(layout), **since})


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_gc, "LONGEST_REST", 0.0)


@pytest.fixture
def built(site: Site) -> Site:
    assert site.update("--strict").code == 0
    return site


@pytest.fixture
def pinned(site: Site) -> str:
    """A snapshot's commit that is on no branch any more, and that the remote has lost."""
    remote = site.remotes["modules/dummy"]
    commit = remote.push({"code/snap": "as it was\n"})
    site.define("snap", definition(None, {"modules/dummy": f"commit/{commit}"}))
    assert site.update("--strict").code == 0
    remote.push({**BOTH, "code/snap": "as it is\n"}, rewrite=True)
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    assert site.update("--strict").code == 0
    return commit


# Commits of snapshots


def _nothing(_record: Path, _checkout: Path) -> None:
    pass


def _lose_record(record: Path, _checkout: Path) -> None:
    shutil.rmtree(record)


def _empty_head(record: Path, _checkout: Path) -> None:
    (record / "HEAD").write_bytes(b"")


def _wrong_head(record: Path, _checkout: Path) -> None:
    (record / "HEAD").write_text(git("rev-parse", "refs/heads/master", directory=record.parent.parent) + "\n")


def _unlock(record: Path, _checkout: Path) -> None:
    (record / "locked").unlink()


def _empty_way_back(record: Path, _checkout: Path) -> None:
    (record / "gitdir").write_bytes(b"")


def _lose_pointer(_record: Path, checkout: Path) -> None:
    (checkout / ".git").unlink()


def _lose_checkout(_record: Path, checkout: Path) -> None:
    shutil.rmtree(checkout)


def _lose_both(record: Path, checkout: Path) -> None:
    shutil.rmtree(record)
    shutil.rmtree(checkout)


def _lose_checkout_and_head(record: Path, checkout: Path) -> None:
    _empty_head(record, checkout)
    shutil.rmtree(checkout)


DAMAGES = (
    _nothing,
    _lose_record,
    _empty_head,
    _wrong_head,
    _unlock,
    _empty_way_back,
    _lose_pointer,
    _lose_checkout,
    _lose_both,
    _lose_checkout_and_head,
)


def test_snapshots_that_were_pushed_away_survive_whatever_was_lost_of_them(site: Site) -> None:
    remote = site.remotes["modules/dummy"]
    commits = {damage.__name__[1:]: remote.push({"code/snap": damage.__name__}, rewrite=True) for damage in DAMAGES}
    for name, commit in commits.items():
        site.define(name, definition(None, {"modules/dummy": f"commit/{commit}"}))
    remote.push({**BOTH, "code/snap": "as it is\n"}, rewrite=True)
    assert site.update("--strict").code == 0
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    for damage, commit in zip(DAMAGES, commits.values()):
        damage(worktrees.record_path(bare(site), commit), site.path("modules/dummy", f".{commit}"))
    assert_silent(collect(site, "--all"))
    prune(site)
    assert [name for name, commit in commits.items() if not has(site, commit)] == []
    for commit in commits.values():
        shutil.rmtree(site.path("modules/dummy", f".{commit}"), ignore_errors=True)
    assert site.update("--strict").code == 0
    for name, commit in commits.items():
        checkout = site.path("modules/dummy", f".{commit}")
        assert site.read(f"{name}/modules/dummy/snap") == f"_{name}"
        assert git("rev-parse", "HEAD", directory=checkout) == commit
        assert git("status", "--porcelain", directory=checkout) == ""


def test_while_nobody_knows_whether_a_checkout_is_complete_its_mirror_is_left_alone(site: Site, pinned: str) -> None:
    checkout = site.path("modules/dummy", f".{pinned}")
    shutil.rmtree(worktrees.record_path(bare(site), pinned))
    (checkout / ".git").unlink()
    before = site.listing("bare/modules/dummy")
    outcome = collect(site, "-a")
    assert_silent(outcome)
    assert any(pinned in line for line in outcome.lines("WARNING"))
    assert {name for name in site.listing("bare/modules/dummy") if "objects/" in name} == {
        name for name in before if "objects/" in name
    }
    assert site.update("--strict").code == 0
    assert site.read("snap/modules/dummy/snap") == "as it was\n"
    assert_silent(collect(site, "-a"))
    prune(site)
    assert has(site, pinned)


def test_records_of_an_unmounted_clonedir_stay(site: Site, pinned: str) -> None:
    records = set(os.listdir(bare(site) / "worktrees"))
    site.settings["main.retention"] = "0"
    (site.root / "clone").rename(site.root / "elsewhere")
    (site.root / "clone").mkdir()
    assert collect(site, "-a").code == 0
    prune(site)
    shutil.rmtree(site.root / "clone")
    (site.root / "elsewhere").rename(site.root / "clone")
    assert set(os.listdir(bare(site) / "worktrees")) == records
    assert has(site, pinned)
    assert site.update("--strict").code == 0
    assert git("status", "--porcelain", directory=site.path("modules/dummy", f".{pinned}")) == ""


def test_an_installation_of_jens_1_loses_nothing_before_it_is_taken_over(site: Site) -> None:
    commit = _site_of_jens_1(site)
    site.remotes["modules/dummy"].push({"code/one": "2\n", "code/two": "2\n"}, rewrite=True)
    git("fetch", "-q", "--prune", "origin", directory=bare(site))
    git("gc", "--quiet", "--prune=now", directory=site.remotes["modules/dummy"].path)
    assert look(site.root / "environments") == []
    assert collect(site, "-a").code == 0
    prune(site)
    assert look(site.root / "environments") == []
    assert has(site, commit)
    assert site.update("--strict").code == 0
    assert site.read("snap/modules/dummy/one") == "0\n"


def test_abbreviated_commits_of_jens_1_keep_their_mirror_as_it_is_until_they_are_taken_over(site: Site) -> None:
    commit = _site_of_jens_1(site)
    clone = site.root / "clone" / "modules" / "dummy"
    (clone / f".{commit}").rename(clone / f".{commit[:10]}")
    site.define("snap", f"notifications: ann@example.org\noverrides:\n  modules: {{dummy: commit/{commit[:10]}}}\n")
    before = site.listing("bare/modules/dummy")
    outcome = collect(site, "-b")
    assert outcome.code == 0
    assert any("modules/dummy" in line and "Jens 1.x" in line for line in outcome.lines("WARNING"))
    assert site.listing("bare/modules/dummy") == before
    assert site.update("--strict").code == 0
    assert not collect(site, "-b").lines("WARNING")


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "cut short"])
def test_the_index_of_a_checkout_that_a_power_failure_spoilt_is_made_anew(site: Site, damage: str) -> None:
    site.update()
    [index] = bare(site).glob("worktrees/*/index")
    content = index.read_bytes()
    index.write_bytes({"emptied": b"", "zeroed": bytes(len(content)), "cut short": content[:-9]}[damage])
    if damage != "cut short":
        (site.root / "cache" / "baseline.json").unlink()  # no baseline holds after the system has started
        assert site.update("--strict").code == 0
        assert git("status", "--porcelain", directory=site.path("modules/dummy", "master")) == ""
    assert_silent(collect(site, "-a"))
    assert git("status", "--porcelain", directory=site.path("modules/dummy", "master")) == ""


def test_a_mirror_that_has_lost_an_object_is_made_anew_by_the_next_update(site: Site) -> None:
    site.remotes["modules/dummy"].push({"code/one": "new\n"})
    site.update()
    git("unpack-objects", "-q", directory=bare(site), stdin=_without_packs(bare(site)))
    old = git("rev-parse", "master~1:code/manifests/init.pp", directory=bare(site))
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# later\n"})
    site.update()
    (bare(site) / "objects" / old[:2] / old[2:]).unlink()
    assert_complaint(collect(site, "-b"), 10, "modules/dummy", "damaged")
    outcome = site.update()
    assert any("modules/dummy" in line and "made anew" in line for line in outcome.lines("WARNING"))
    assert_silent(collect(site, "-b"))


def _without_packs(path: Path) -> bytes:
    """Take a repository's packs away, and return what was in them."""
    content = b""
    for pack in path.glob("objects/pack/*.pack"):
        content = pack.read_bytes()
    for file in path.glob("objects/pack/*"):
        file.unlink()
    return content


def test_killed_at_any_instant_it_breaks_nothing(site: Site, pinned: str) -> None:
    config = str(site.config)
    chance = random.Random()
    site.settings["main.retention"] = "0"
    with warm(site.root / "output") as tools:
        begin = time.monotonic()
        assert tools.run("gc", "-a", "-c", config) == 0
        usual = time.monotonic() - begin
        for number in range(10):
            site.remotes["modules/dummy"].push({"code/one": f"{number}\n"}, rewrite=True)
            run = tools.start("gc", "-a", "-c", config)
            time.sleep(chance.uniform(0, usual))
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            assert has(site, pinned)
        assert tools.run("update", "--strict", "-c", config) == 0
        assert tools.run("gc", "-a", "-c", config) == 0
    prune(site)
    assert site.read("snap/modules/dummy/snap") == "as it was\n"
    assert site.read("production/modules/dummy/one") == "9\n"
    assert has(site, pinned)


# Checkouts, records and repositories that nothing needs


REPO_OF_A: Inventory = {DUMMY: {MASTER: A, Commit("b"): B}}


@pytest.mark.parametrize(
    ("inventory", "used", "expected"),
    [
        pytest.param(REPO_OF_A, {}, {A, B}, id="expanded ones"),
        pytest.param({}, {DUMMY: {C}}, {C}, id="used ones"),
        pytest.param(REPO_OF_A, {DUMMY: {C}, MYAPP: {D}}, {A, B, C}, id="both, of this repository"),
        pytest.param(None, None, set(), id="nobody knows of any"),
    ],
)
def test_needed_commits(
    inventory: Inventory | None, used: Mapping[RepoId, Set[str]] | None, expected: Set[str]
) -> None:
    assert needed_commits(Evidence(inventory, used), DUMMY) == expected


@pytest.mark.parametrize(
    ("inventory", "used", "expected"),
    [
        pytest.param({}, {}, True, id="neither expanded nor used"),
        pytest.param({MYAPP: {}}, {MYAPP: set()}, True, id="another"),
        pytest.param({DUMMY: {}}, {}, False, id="known, though nothing of it is expanded"),
        pytest.param({}, {DUMMY: set()}, False, id="used by its branches"),
        pytest.param(None, {}, False, id="the inventory is lost"),
        pytest.param({}, None, False, id="environments could not be looked at"),
    ],
)
def test_a_repository_counts_as_left_over_only_on_good_evidence(
    inventory: Inventory | None, used: Mapping[RepoId, Set[str]] | None, expected: bool
) -> None:
    assert may_be_left_over(Evidence(inventory, used), DUMMY) == expected


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        pytest.param(Library({}), False, id="without it"),
        pytest.param(Library({DUMMY: "/d"}), True, id="with it"),
        pytest.param(Library({}, {DUMMY: "bad URL"}), True, id="with an entry that cannot be used"),
        pytest.param(None, True, id="unusable"),
    ],
)
def test_what_the_library_may_have_is_wanted(library: Library | None, expected: bool) -> None:
    assert tools_gc.is_wanted(DUMMY, library) == expected


@pytest.mark.parametrize(
    ("existing", "needed", "expected"),
    [({A}, {B}, [C]), (set(), {A, B, C}, []), ({A, B, C}, set(), []), (set(), set(), [A, B, C]), ({D}, {D}, [A, B, C])],
)
def test_records_go_when_neither_checkout_nor_need_is_there(
    existing: Collection[str], needed: Collection[str], expected: list[str]
) -> None:
    assert records_to_drop([C, B, A], existing, needed) == expected


def _push(site: Site, *texts: str) -> list[str]:
    """Push commits to the module's master, with a run after each; return them."""
    commits = []
    for text in texts:
        commits.append(site.remotes["modules/dummy"].push({"code/text": f"{text}\n"}))
        assert site.update("--strict").code == 0
    return commits


def test_expired_checkouts_that_nothing_needs_go(site: Site) -> None:
    old, used, linked, young, now = _push(site, *"01234")
    age(site, old, used, linked)
    other = {(RepoId("modules", "elsewhere"), A): 5.0}
    retention.save(layout_of(site), {**retention.load(layout_of(site)), **other})
    by_hand = site.root / "environments" / "production" / "hieradata" / "by_hand"
    by_hand.symlink_to(f"../../../clone/modules/dummy/.{used}/code")
    site.path("modules/dummy", "by~hand").symlink_to(f".{linked}")
    before = site.listing("environments", "clone")
    outcome = collect(site, "--clones")
    assert_silent(outcome)
    gone = {name for name in before if name not in site.listing("environments", "clone")}
    assert site.checkouts("modules/dummy") == {used, linked, young, now, *site.checkouts("modules/dummy")}
    assert old not in site.checkouts("modules/dummy")
    assert all(f".{old}" in name for name in gone)
    assert set(os.listdir(bare(site) / "worktrees")) == site.checkouts("modules/dummy")
    assert outcome.has(f"Removed '{site.path('modules/dummy', f'.{old}')}'")
    remembered = retention.load(layout_of(site))
    assert remembered[RepoId("modules", "elsewhere"), A] == 5.0, "what is known of other repositories stays"
    assert (DUMMY, young) in remembered
    assert (DUMMY, old) not in remembered
    assert look_up(site, used) == "1\n"
    assert site.update("--strict").code == 0


def look_up(site: Site, commit: str) -> str:
    return (site.path("modules/dummy", f".{commit}") / "code" / "text").read_text()


def test_the_retention_of_a_left_over_checkout_begins_when_it_is_first_seen(site: Site) -> None:
    old, _now = _push(site, "0", "1")
    state_path(layout_of(site), UNREFERENCED).unlink()
    assert_silent(collect(site, "-l"))
    assert old in site.checkouts("modules/dummy")
    age(site, old)
    assert_silent(collect(site, "-l"))
    assert old not in site.checkouts("modules/dummy")


def test_without_a_usable_inventory_nothing_is_removed_and_mirrors_are_packed(site: Site) -> None:
    old, _now = _push(site, "0", "1")
    age(site, old)
    shutil.copytree(bare(site), bare(site, "modules/gone"), symlinks=True)
    lost = git("rev-parse", f"{old}^", directory=bare(site))
    worktrees.add_record(bare(site), lost, site.path("modules/dummy", f".{lost}"))
    state_path(layout_of(site), INVENTORY).write_text("{")
    outcome = collect(site, "-l")
    assert_silent(outcome)
    assert len(outcome.lines("WARNING The inventory")) == 1
    assert old in site.checkouts("modules/dummy")
    assert worktrees.has_record(bare(site), lost)
    assert bare(site, "modules/gone").is_dir()
    assert_silent(collect(site, "-b"))
    assert _loose(bare(site, "common/site")) == 0


def test_records_of_checkouts_that_are_not_there_go(built: Site) -> None:
    worktrees.add_record(bare(built), A, built.path("modules/dummy", f".{A}"))
    needed = built.remotes["modules/dummy"].commit()
    shutil.rmtree(built.path("modules/dummy", f".{needed}"))
    outcome = collect(built, "-l")
    assert_silent(outcome)
    assert os.listdir(bare(built) / "worktrees") == [needed]
    assert outcome.has("Removed the record of")
    assert outcome.has("Removed: checkouts 0, records 1, mirrors 0")


def _left_over(site: Site, repo: str = "modules/gone") -> str:
    """Make a repository that is only on disk, with mirror, branch link and checkout; return its commit."""
    shutil.copytree(bare(site), bare(site, repo), symlinks=True)
    shutil.copytree(site.path("modules/dummy"), site.path(repo), symlinks=True)
    return site.remotes["modules/dummy"].commit()


def test_a_repository_that_nothing_needs_goes_and_its_checkouts_after_retention(built: Site) -> None:
    commit = _left_over(built)
    (bare(built, "hostgroups/half") / "objects").mkdir(parents=True)
    kept = {name: entry for name, entry in built.listing("bare", "clone").items() if "/gone" not in name}
    outcome = collect(built, "-l")
    assert_silent(outcome)
    assert os.listdir(built.root / "bare" / "modules") == ["dummy"]
    assert os.listdir(built.root / "bare" / "hostgroups") == ["myapp"]
    assert os.listdir(built.path("modules/gone")) == [f".{commit}"]
    assert outcome.has("Removed: checkouts 0, records 0, mirrors 2")
    built.settings["main.retention"] = "0"
    assert_silent(collect(built, "-l"))
    assert not built.path("modules/gone").exists()
    left = built.listing("bare", "clone")
    assert {name for name in kept if "hostgroups/half" not in name} == set(left)
    assert built.update("--strict").code == 0


def test_repositories_that_somebody_may_need_stay(built: Site) -> None:
    names = ["in_library", "in_library_with_a_bad_url", "in_inventory", "linked"]
    for name in names:
        _left_over(built, f"modules/{name}")
    built.urls["modules/in_library"] = built.urls["modules/dummy"]
    built.urls["modules/in_library_with_a_bad_url"] = "ext::sh -c evil"
    built.publish()
    _pull(built)
    layout, known = layout_of(built), RepoId("modules", "in_inventory")
    inventory.save(
        layout, {**inventory.load_or_generate(layout), known: {MASTER: built.remotes["modules/dummy"].commit()}}
    )
    link = built.root / "environments" / "production" / "modules" / "linked"
    link.symlink_to("../../../clone/modules/linked/master/code")
    _assert_that_these_stay(built, *(f"modules/{name}" for name in names))


def test_without_a_usable_library_every_repository_stays(built: Site) -> None:
    _left_over(built)
    built.publish("repositories: [\n")
    _pull(built)
    _assert_that_these_stay(built, "modules/gone")
    built.library.push({"repositories.yaml": None})
    _pull(built)
    _assert_that_these_stay(built, "modules/gone")
    (built.root / "metadata" / "repository" / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    _assert_that_these_stay(built, "modules/gone")


def _pull(site: Site) -> None:
    """Fetch the library, like a run that is then killed."""
    take_over(site.root / "metadata" / "repository")


def _assert_that_these_stay(site: Site, *repos: str) -> None:
    site.settings["main.retention"] = "0"
    tops = [f"{top}/{repo}" for repo in repos for top in ("bare", "clone")]
    before = site.listing(*tops)
    assert before
    assert_silent(collect(site, "-l"))
    assert site.listing(*tops) == before


def test_left_overs_of_killed_runs_are_removed(built: Site) -> None:
    places = ("environments", "bare/modules", "clone/common", "clone/modules/dummy", "cache", "cache/environments")
    for place in places:
        (built.root / place / ".new-0123456789ab" / "deep").mkdir(parents=True)
        (built.root / place / ".trash-0123456789ab").write_text("half")
    assert_silent(collect(built, "-l"))
    assert [name for name in built.listing("bare", "clone", "cache", "environments") if "/.new" in name] == []
    assert [name for name in built.listing("bare", "clone", "cache", "environments") if "/.trash" in name] == []


def test_what_a_link_leads_to_is_left_alone(built: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for top in ("bare", "clone"):
        (built.root / top / "modules" / "dummy").rename(outside.with_name(f"outside-{top}"))
        (built.root / top / "modules" / "dummy").symlink_to(outside.with_name(f"outside-{top}"))
    precious = outside.with_name("outside-clone") / ".new-0"
    precious.write_text("precious")
    shutil.copytree(built.path("hostgroups/myapp"), built.path("hostgroups/linked"), symlinks=True)
    bare(built, "hostgroups/linked").symlink_to(outside.with_name("outside-bare"))
    built.path("common/linked").symlink_to(outside.with_name("outside-clone"))
    shutil.copytree(bare(built, "common/site"), bare(built, "common/linked"), symlinks=True)
    built.settings["main.retention"] = "0"
    before = sorted(outside.with_name("outside-bare").rglob("*"))
    assert_silent(collect(built, "-a"))
    assert precious.read_text() == "precious"
    assert sorted(outside.with_name("outside-bare").rglob("*")) == before
    assert built.dangling("production") == []


def test_when_an_environment_cannot_be_read_nothing_is_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _now = _push(site, "0", "1")
    age(site, old)
    unreadable = site.root / "environments" / "production"
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", _refusing(str(unreadable)))
        assert_complaint(collect(site, "-a"), 10, "Permission denied", str(unreadable))
    assert old in site.checkouts("modules/dummy")
    assert_silent(collect(site, "-a"))
    assert old not in site.checkouts("modules/dummy")


def _refusing(refused: str) -> Callable[..., object]:
    scandir = os.scandir

    def instead(path: str | Path = ".") -> object:
        if str(path) == refused:
            raise PermissionError(13, os.strerror(13), str(path))
        return scandir(path)

    return instead


# Packing


def _loose(directory: Path) -> int:
    return int(git("count-objects", directory=directory).split()[0])


def test_every_mirror_is_packed_and_the_log_tells_how_large_it_was(built: Site) -> None:
    for number in range(3):
        built.remotes["modules/dummy"].push({"code/text": f"{number}\n"})
        assert built.update().code == 0
    assert _loose(bare(built)) > 0
    before = built.listing("environments", "clone", "cache")
    outcome = collect(built, "-b")
    assert_silent(outcome)
    assert built.listing("environments", "clone", "cache") == before
    for repo in built.urls:
        assert _loose(bare(built, repo)) == 0
        [line] = [line for line in outcome.lines("INFO Packed") if repo in line]
        assert re.fullmatch(rf"INFO Packed the mirror of {repo}: \d+\.\dKiB, before \d+\.\dKiB", line)
    assert re.fullmatch(r"INFO Packed: mirrors 4, \d+\.\dKiB, before \d+\.\dKiB", outcome.lines()[-2])
    assert outcome.lines()[-1] == "INFO Done"
    assert_silent(collect(built, "-b", "--aggressive"))
    assert_silent(built.update("--strict"))


def test_with_clones_alone_no_mirror_is_packed(built: Site) -> None:
    before = built.listing("bare")
    outcome = collect(built, "-l")
    assert_silent(outcome)
    assert built.listing("bare") == before
    assert not outcome.has("Packed")


def test_aggressive_is_passed_to_git(built: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = tmp_path / "git"
    trace.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {shutil.which("git")} "$@"\n')
    trace.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for option in ("-b", "-bg"):
        assert_silent(collect(built, option))
    calls = [line.split(" gc ")[1] for line in (tmp_path / "calls").read_text().splitlines() if " gc " in line]
    assert calls == ["--quiet"] * 4 + ["--quiet --aggressive"] * 4


def test_exit_10_one_mirror_that_cannot_be_packed_holds_up_no_other(built: Site) -> None:
    for path in (bare(built, "hostgroups/myapp") / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    outcome = collect(built, "-a")
    assert_complaint(outcome, 10, "hostgroups/myapp")
    [error] = outcome.lines("ERROR")
    assert "hostgroups/myapp" in error
    packed = {line.split()[5].rstrip(":") for line in outcome.lines("INFO Packed the mirror")}
    assert packed == set(built.urls) - {"hostgroups/myapp"}
    assert built.dangling("production") == []


def test_a_directory_that_is_no_repository_is_left_to_the_next_update(built: Site) -> None:
    shutil.rmtree(bare(built) / "objects")
    outcome = collect(built, "-a")
    assert_silent(outcome)
    assert any("modules/dummy" in line for line in outcome.lines("WARNING"))
    assert built.update("--strict").code == 0
    assert has(built, built.remotes["modules/dummy"].commit())


# The lock


def test_exit_50_after_ten_attempts_ten_seconds_apart(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    before = built.listing("bare", "clone", "cache", "environments")
    with run_lock(load_config(built.config)), monkeypatch.context() as patched:
        patched.setattr(time, "sleep", pauses.append)
        outcome = collect(built, "-a")
    assert_complaint(outcome, 50, "held")
    assert pauses == [10] * 9
    assert [line for line in outcome.lines() if "Obtaining" in line] == [
        f"INFO Obtaining lock 'jens' (attempt: {attempt})..." for attempt in range(1, 11)
    ]
    assert built.listing("bare", "clone", "cache", "environments") == before


def test_exit_51_the_lock_cannot_be_tried(built: Site) -> None:
    (built.root / "lock" / "jens").unlink()
    (built.root / "lock").rmdir()
    assert_complaint(collect(built, "-a"), 51, "could not be tried")


def test_between_two_repositories_the_lock_is_free(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[float] = []

    def update_gets_in(seconds: float) -> None:
        with run_lock(load_config(built.config)):
            free.append(seconds)

    with monkeypatch.context() as patched:
        patched.setattr(tools_gc, "LONGEST_REST", 10.0)
        patched.setattr(time, "sleep", update_gets_in)
        assert_silent(collect(built, "-l"))
    assert len(free) == len(built.urls)
    assert all(0 < seconds < 10 for seconds in free)


def test_updates_pushes_and_a_reader_at_the_same_time_miss_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        site.add(f"modules/m{number}", {**BOTH, "data/x": "x\n"})
    contents = {"modules": MODULE, "hostgroups": HOSTGROUP, "common/site": SITE_CODE, "common/hieradata": HIERADATA}
    everything = {repo: contents.get(repo) or contents[repo.split("/")[0]] for repo in site.urls}
    _push_all(site, everything, 0)
    site.publish()
    site.define("snap", definition(None, {"modules/dummy": f"commit/{site.remotes['modules/dummy'].commit()}"}))
    site.settings["main.retention"] = "1"
    assert site.update("--strict").code == 0
    config = str(site.config)
    monkeypatch.setattr(tools_gc, "PAUSE", 0.02)
    monkeypatch.setattr(tools_gc, "ATTEMPTS", 2000)
    monkeypatch.setattr(tools_gc, "LONGEST_REST", 0.2)
    stop = threading.Event()

    codes: list[int] = []

    def update(tools: Callable[[], int]) -> None:
        while not stop.is_set():
            _push_all(site, everything, len(codes) + 1)
            codes.append(tools())

    def collect() -> Iterator[int]:
        """Run jens-gc until two updates have run in between, at most twenty times."""
        for done in range(20):
            if done >= 2 and codes.count(0) > 1:
                return
            yield gc.main(["-a", "-c", config])

    with (
        warm(site.root / "output") as tools,
        ThreadPoolExecutor() as pool,
        reading(site.root / "environments", site.root) as met,
    ):
        updating = pool.submit(update, lambda: tools.run("update", "--strict", "-c", config))
        try:
            collected = list(collect())
        finally:
            stop.set()
        updating.result(timeout=60)
    assert met[:-1] == []
    assert set(collected) == {0}
    assert set(codes) <= {0, 50}
    assert codes.count(0) > 1, "updates get in between"
    assert site.update("--strict").code == 0
    assert site.read("snap/modules/dummy/one") == "0\n"
    for repo, remote in site.remotes.items():
        assert site.expanded(repo)["master"] == remote.commit()


def _push_all(site: Site, contents: Mapping[str, Mapping[str, str]], number: int) -> None:
    for repo, remote in site.remotes.items():
        files = {**contents[repo], "code/one": f"{number}\n", "code/two": f"{number}\n"}
        remote.push(files, rewrite=number % 2 == 0)


# Exit codes


@pytest.mark.parametrize("arguments", [[], ["-g"], ["--force"]])
def test_exit_2_without_anything_to_do(bare_site: Site, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gc.main(["-c", str(bare_site.config), *arguments])
    assert caught.value.code == 2
    assert "usage:" in bare_site.capture.readouterr().err
    assert not (bare_site.root / "log" / "jens-gc.log").exists()


def test_exit_2_the_configuration_cannot_be_used(bare_site: Site) -> None:
    bare_site.settings["main.debuglevel"] = "LOUD"
    assert_complaint(collect(bare_site, "-a"), 2, "debuglevel")


@pytest.mark.parametrize("name", ["bare", "clone", "cache", "environments", "log", "metadata/repository"])
def test_exit_3_a_directory_is_missing(bare_site: Site, name: str) -> None:
    (bare_site.root / name).rename(bare_site.root / "away")
    assert_complaint(collect(bare_site, "-a"), 3, str(bare_site.root / name))


def test_an_instance_that_never_ran_has_nothing_to_collect(bare_site: Site) -> None:
    assert_silent(collect(bare_site, "-a"))


def test_exit_130_interrupted_while_it_waits_for_the_lock(built: Site) -> None:
    command = [sys.executable, str(TREE / "bin" / "jens-gc"), "-a", "-c", str(built.config)]
    log = built.root / "log" / "jens-gc.log"
    with (
        run_lock(load_config(built.config)),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TREE)}
        ) as process,
    ):
        try:
            while not (log.exists() and "Obtaining lock" in log.read_text()):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, stdout) == (130, b"")
    assert len(stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_exit_3_whoever_may_not_write_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user nobody must be able to enter
        site = Site(Path(directory) / "site", capfd)
        call = ["-a", "-c", str(site.config)]
        before = site.listing(".")
        assert as_nobody(lambda: gc.main(call)) == 3
        assert site.listing(".") == before
    assert "belongs to 'root', expected that 'root' runs this" in capfd.readouterr().err


def test_it_knows_its_version_and_its_options(bare_site: Site) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            gc.main([option])
        assert caught.value.code == 0
    output = bare_site.capture.readouterr().out
    assert all(f"--{option}" in output for option in ("all", "bare", "clones", "aggressive"))
