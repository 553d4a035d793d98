"""What disks, people and killed Git processes do to an instance: the next run mends it, and says what it mended."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jens import gitwrapper, soundness
from jens.commands import update
from tests.conftest import Site, definition, git
from tests.faults.users import NOBODY, as_user, give, instance_of, needs_root

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
PUBLISHED = ("clone", "environments")


@pytest.fixture
def worn(site: Site) -> Site:
    """A site that has a snapshot whose commit its remote has lost: the mirror has it, and the checkout."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature\n"}, "feature", onto="master")
    pinned = remote.push({INIT: "# pinned\n"}, "pinned", onto="master")
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.define("snap", definition(None, {DUMMY: f"commit/{pinned}"}))
    assert site.update("--strict").code == 0
    remote.delete("pinned")
    git("gc", "-q", "--prune=now", directory=remote.path)
    assert site.update("--strict").code == 0
    return site


def bare(site: Site, repo: str = DUMMY) -> Path:
    return site.root / "bare" / repo


def warnings(site: Site) -> list[str]:
    """What a run that has nothing to do but to mend has mended."""
    outcome = site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", ""), outcome.log
    return outcome.lines("WARNING")


def make_loose(mirror: Path) -> None:
    """Have every object in a file of its own."""
    for pack in [*(mirror / "objects" / "pack").glob("*.pack")]:
        aside = mirror / "aside"
        pack.rename(aside)
        for path in (mirror / "objects" / "pack").iterdir():
            path.unlink()
        git("unpack-objects", "-q", directory=mirror, stdin=aside.read_bytes())
        aside.unlink()


# Mirrors


def lose_an_object(mirror: Path) -> None:
    commit = gitwrapper.heads(mirror)["feature"]
    make_loose(mirror)
    (mirror / "objects" / commit[:2] / commit[2:]).unlink()


def empty_an_object(mirror: Path) -> None:
    commit = gitwrapper.heads(mirror)["feature"]
    make_loose(mirror)
    path = mirror / "objects" / commit[:2] / commit[2:]
    path.chmod(0o644)
    path.write_bytes(b"")


def lose_all_objects(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()


def _packs(mirror: Path, suffix: str) -> list[Path]:
    git("repack", "-adkq", directory=mirror)
    paths = sorted((mirror / "objects" / "pack").glob(f"*{suffix}"))
    for path in paths:
        path.chmod(0o644)
    return paths


def cut_a_pack_off(mirror: Path) -> None:
    for pack in _packs(mirror, ".pack"):
        os.truncate(pack, pack.stat().st_size - 30)


def empty_a_pack(mirror: Path) -> None:
    for pack in _packs(mirror, ".pack"):
        os.truncate(pack, 0)


def cut_an_index_off(mirror: Path) -> None:
    for index in _packs(mirror, ".idx"):
        os.truncate(index, 900)


def lose_a_pack(mirror: Path) -> None:
    for pack in _packs(mirror, ".pack"):
        pack.unlink()


def lose_an_index(mirror: Path) -> None:
    for index in _packs(mirror, ".idx"):
        index.unlink()


def empty_packed_refs(mirror: Path) -> None:
    git("pack-refs", "--all", directory=mirror)
    (mirror / "packed-refs").write_bytes(b"")


def lose_one_branch(mirror: Path) -> None:
    git("update-ref", "-d", "refs/heads/feature", directory=mirror)


def lose_refs(mirror: Path) -> None:
    git("pack-refs", "--all", directory=mirror)
    (mirror / "packed-refs").unlink()
    shutil.rmtree(mirror / "refs")


def have_no_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def garble_head(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"\0" * 24)


def garble_the_configuration(mirror: Path) -> None:
    (mirror / "config").write_bytes(b"\0" * 100)


def lose_the_configuration(mirror: Path) -> None:
    (mirror / "config").unlink()


def become_a_file(mirror: Path) -> None:
    shutil.rmtree(mirror)
    mirror.write_bytes(b"")


def vanish(mirror: Path) -> None:
    shutil.rmtree(mirror)


MIRRORS = [
    (lose_an_object, r"The mirror of modules/dummy is damaged \(it has lost [0-9a-f]{40}\), it was made anew"),
    (empty_an_object, r"The mirror of modules/dummy is damaged \(it has lost [0-9a-f]{40}\), it was made anew"),
    (lose_all_objects, r"The mirror of modules/dummy is damaged \(.*/objects/pack: .*\), it was made anew"),
    (cut_a_pack_off, r"The mirror of modules/dummy is damaged \(pack-.*\.pack is cut off\), it was made anew"),
    (empty_a_pack, r"The mirror of modules/dummy is damaged \(pack-.*\.pack is cut off\), it was made anew"),
    (cut_an_index_off, r"The mirror of modules/dummy is damaged \(.* is cut off\), it was made anew"),
    (lose_a_pack, r"The mirror of modules/dummy is damaged \(.*\.pack: No such file.*\), it was made anew"),
    (lose_an_index, r"The mirror of modules/dummy is damaged \(it has lost .*\), it was made anew"),
    (empty_packed_refs, r"The mirror of modules/dummy had lost branches: \['feature', 'master'\]"),
    (lose_one_branch, r"The mirror of modules/dummy had lost branches: \['feature'\]"),
    (lose_refs, r"The mirror of modules/dummy is damaged \(.*\), it was made anew"),
    (have_no_head, "The mirror of modules/dummy is missing or no repository, it was made anew"),
    (garble_head, r"The mirror of modules/dummy is damaged \(its HEAD is no reference\), it was made anew"),
    (
        garble_the_configuration,
        r"The mirror of modules/dummy is damaged \(its configuration is none\), it was made anew",
    ),
    (lose_the_configuration, r"The mirror of modules/dummy is damaged \(.*/config: No such file.*\), it was made anew"),
    (become_a_file, "The mirror of modules/dummy is missing or no repository, it was made anew"),
    (vanish, "The mirror of modules/dummy is missing or no repository, it was made anew"),
]


@pytest.mark.parametrize(("damage", "warning"), MIRRORS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_mirror_is_mended_by_the_next_run_which_says_so(
    worn: Site, damage: Callable[[Path], None], warning: str
) -> None:
    before = worn.listing(*PUBLISHED)
    damage(bare(worn))
    found = warnings(worn)
    assert any(re.fullmatch(f"WARNING {warning}", line) for line in found), found
    assert worn.listing(*PUBLISHED) == before
    assert warnings(worn) == []
    assert gitwrapper.heads(bare(worn)) == {name: worn.remotes[DUMMY].commit(name) for name in ("master", "feature")}
    assert soundness.find_damage(bare(worn), gitwrapper.heads(bare(worn)).values()) is None
    worn.remotes[DUMMY].push({INIT: "# pushed\n"}, "feature")
    assert warnings(worn) == []
    assert worn.read("team/modules/dummy/manifests/init.pp") == "# pushed\n"
    assert worn.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n"


@pytest.mark.parametrize("damage", [lose_an_object, cut_a_pack_off, garble_head, vanish])
def test_while_the_remote_of_a_damaged_mirror_is_away_everything_stays_as_it_is(
    worn: Site, damage: Callable[[Path], None]
) -> None:
    before = worn.listing(*PUBLISHED)
    damage(bare(worn))
    worn.remotes[DUMMY].go_away()
    for _ in range(2):
        outcome = worn.update()
        assert outcome.code == 0
        [error] = outcome.lines("ERROR")
        assert "Unable to clone 'dummy' from remote" in error
        assert worn.listing(*PUBLISHED) == before
    worn.remotes[DUMMY].come_back()
    assert "it was made anew" in warnings(worn)[0]
    assert warnings(worn) == []
    assert worn.listing(*PUBLISHED) == before


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_damaged_mirror_is_mended_in_both_modes(worn: Site, mode: str) -> None:
    worn.settings["main.mode"] = mode
    assert worn.update("--strict").code == 0
    cut_a_pack_off(bare(worn))
    assert "is cut off" in warnings(worn)[0]
    assert warnings(worn) == []


@pytest.mark.parametrize(
    "name",
    [
        "packed-refs.lock",
        "shallow.lock",
        "index.lock",
        "HEAD.lock",
        "config.lock",
        "refs/heads/master.lock",
        "objects/info/commit-graphs/commit-graph-chain.lock",
    ],
)
def test_a_lock_file_of_a_git_that_was_killed_is_removed_in_a_run_that_has_nothing_else_to_do(
    worn: Site, name: str
) -> None:
    path = bare(worn) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert warnings(worn) == [f"WARNING Removed '{path}', which a Git that was killed had left"]
    assert not path.exists()
    assert warnings(worn) == []


def test_the_lock_file_of_a_checkouts_record_is_removed_too(worn: Site) -> None:
    [commit] = {worn.expanded(DUMMY)["master"]}
    path = bare(worn) / "worktrees" / commit / "index.lock"
    path.touch()
    assert warnings(worn) == [f"WARNING Removed '{path}', which a Git that was killed had left"]
    assert not path.exists()


def test_lock_files_in_the_metadata_are_removed_too(worn: Site) -> None:
    path = worn.root / "metadata" / "environments" / ".git" / "index.lock"
    path.touch()
    worn.define("another")
    assert warnings(worn) == [f"WARNING Removed '{path}', which a Git that was killed had left"]
    assert worn.read("another/modules/dummy/manifests/init.pp") == "class dummy {}\n"


def test_the_look_for_damage_takes_a_borrowing_mirror_as_it_is(worn: Site, tmp_path: Path) -> None:
    """One that an administrator has made with --reference: what is not its own is not its damage."""
    mirror = bare(worn)
    lender = tmp_path / "lender"
    shutil.copytree(mirror, lender)
    shutil.rmtree(mirror / "objects" / "pack")
    (mirror / "objects" / "pack").mkdir()
    (mirror / "objects" / "info").mkdir(exist_ok=True)
    (mirror / "objects" / "info" / "alternates").write_text(f"{lender}/objects\n")
    assert warnings(worn) == []


# Checkouts and links


def test_a_checkout_that_was_removed_is_laid_out_again(worn: Site) -> None:
    before = worn.listing(*PUBLISHED)
    commit = worn.expanded(DUMMY)["feature"]
    path = worn.path(DUMMY, f".{commit}")
    shutil.rmtree(path)
    assert warnings(worn) == [f"WARNING '{path}' was missing, it is laid out again"]
    assert worn.listing(*PUBLISHED) == before
    assert warnings(worn) == []


def test_the_checkout_of_a_snapshot_is_laid_out_again_as_long_as_the_mirror_has_its_commit(worn: Site) -> None:
    before = worn.listing(*PUBLISHED)
    [pinned] = worn.checkouts(DUMMY) - set(worn.expanded(DUMMY).values())
    shutil.rmtree(worn.path(DUMMY, f".{pinned}"))
    assert warnings(worn) == [f"WARNING '{worn.path(DUMMY, f'.{pinned}')}' was missing, it is laid out again"]
    assert worn.listing(*PUBLISHED) == before


def bend(path: Path) -> None:
    text = os.readlink(path.with_name("master"))
    path.unlink()
    path.symlink_to(text)


def bend_outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../..")


def bend_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(f".{'0' * 40}")


def remove(path: Path) -> None:
    path.unlink()


def put_a_file(path: Path) -> None:
    path.unlink()
    path.write_text("Not a link\n")


def put_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("damage", [bend, bend_outside, bend_to_nowhere, remove, put_a_file, put_a_directory])
def test_a_branch_link_that_somebody_changed_is_put_right(worn: Site, damage: Callable[[Path], None]) -> None:
    before = worn.listing(*PUBLISHED)
    link = worn.path(DUMMY, "feature")
    damage(link)
    assert warnings(worn) == [f"WARNING '{link}' was not as the last run left it, it is put right"]
    after = {path: what for path, what in worn.listing(*PUBLISHED).items() if "/.trash-" not in path}
    assert after == before
    assert warnings(worn) == []
    assert worn.listing(*PUBLISHED) == before, "what was there instead is gone"


def test_links_that_only_lag_behind_are_nobodys_damage(worn: Site) -> None:
    """A run that was killed between its fetch and its switch leaves this."""
    worn.remotes[DUMMY].push({INIT: "# new\n"}, "feature")
    git("fetch", "-q", worn.remotes[DUMMY].url, "+refs/heads/*:refs/heads/*", directory=bare(worn))
    assert warnings(worn) == []
    assert worn.read("team/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("damage", [bend_outside, remove, put_a_file, put_a_directory])
@pytest.mark.parametrize("link", ["team/modules/dummy", "team/site", "snap/hieradata/common.yaml"])
def test_a_link_of_an_environment_that_somebody_changed_is_put_right(
    worn: Site, damage: Callable[[Path], None], link: str
) -> None:
    before = worn.listing(*PUBLISHED)
    damage(worn.root / "environments" / link)
    assert worn.update("--strict").code == 0
    assert worn.update("--strict").code == 0
    assert worn.listing(*PUBLISHED) == before


def test_a_checkout_whose_tie_to_the_mirror_is_lost_is_tied_again(worn: Site) -> None:
    """Without it Git would drop the commit of a snapshot that no branch has."""
    [pinned] = worn.checkouts(DUMMY) - set(worn.expanded(DUMMY).values())
    shutil.rmtree(bare(worn) / "worktrees" / pinned)
    assert warnings(worn) == [f"WARNING Checkouts of {DUMMY} are tied to its mirror again: ['{pinned[:7]}']"]
    git("-c", "safe.directory=*", "gc", "-q", "--prune=now", directory=bare(worn))
    assert gitwrapper.commits_like(bare(worn), pinned) == [pinned]
    assert warnings(worn) == []


# The inventory


def a_directory(path: Path) -> None:
    path.unlink()
    (path / "in it").mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def another_version(path: Path) -> None:
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "version": document["version"] + 1}))


def of_another_shape(path: Path) -> None:
    document = json.loads(path.read_bytes())
    document["content"]["modules"] = {"../../etc": {"branches": {}, "commits": {}}}
    path.write_text(json.dumps(document))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage", [garbage, half, gone, another_version, of_another_shape, a_directory, a_pipe, a_loop]
)
def test_an_inventory_that_cannot_be_used_is_made_anew(worn: Site, damage: Callable[[Path], None]) -> None:
    path = worn.root / "cache" / "inventory.json"
    good, before = json.loads(path.read_bytes()), worn.listing(*PUBLISHED)
    damage(path)
    assert warnings(worn) == ["WARNING Inventory on disk not found or corrupt, generating..."]
    assert json.loads(path.read_bytes()) == good
    assert worn.listing(*PUBLISHED) == before
    assert warnings(worn) == []


@needs_root
def test_an_inventory_that_belongs_to_another_user_is_made_anew(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when root has run what the user jens runs."""
    site = open_site
    config, path = str(site.config), site.root / "cache" / "inventory.json"
    assert site.update("--strict").code == 0
    (site.root / "log" / "jens-update.log").unlink()
    for part in (site.root / "remotes", *instance_of(site)):
        give(part, NOBODY)
    os.chown(path, 0, 0)
    path.chmod(0o600)
    monkeypatch.setenv("HOME", str(site.root))
    for expected in (1, 0):
        assert as_user(NOBODY, lambda: update.main(["-c", config, "--strict"])) == 0
        log = (site.root / "log" / "jens-update.log").read_text()
        assert log.count("WARNING Inventory on disk not found or corrupt, generating...") == expected
        (site.root / "log" / "jens-update.log").unlink()
    assert path.stat().st_uid == NOBODY
