"""Damage by disks, people and killed Git processes: the next run repairs the instance, and says what it repaired."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jens.commands import update
from jens.git import damage as git_damage
from jens.git import lock as git_lock
from jens.git import wrapper
from tests.conftest import Site, definition, git
from tests.faults.users import NOBODY, as_user, give, instance_of, needs_root

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
PUBLISHED = ("clone", "environments")


@pytest.fixture
def worn(site: Site) -> Site:
    """A site with a snapshot whose commit the remote has lost: only the mirror and the checkout have it."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature\n"}, "feature", onto="master")
    pinned = remote.push({INIT: "# pinned\n"}, "pinned", onto="master")
    remote.delete("pinned")
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.define("snap", definition(None, {DUMMY: f"commit/{pinned}"}))
    assert site.update("--strict").code == 0
    git("prune", "--expire=now", directory=remote.path)
    return site


def bare(site: Site, repo: str = DUMMY) -> Path:
    return site.root / "bare" / repo


def warnings(site: Site) -> list[str]:
    """Do a run that has nothing to do but repairs; return its warnings."""
    outcome = site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", ""), outcome.log
    return outcome.lines("WARNING")


def make_loose(mirror: Path) -> None:
    """Unpack all objects, so that each has its own file."""
    for pack in [*(mirror / "objects" / "pack").glob("*.pack")]:
        aside = mirror / "aside"
        pack.rename(aside)
        for path in (mirror / "objects" / "pack").iterdir():
            path.unlink()
        git("unpack-objects", "-q", directory=mirror, stdin=aside.read_bytes())
        aside.unlink()


# Mirrors


def lose_an_object(mirror: Path) -> None:
    commit = wrapper.heads(mirror)["feature"]
    make_loose(mirror)
    (mirror / "objects" / commit[:2] / commit[2:]).unlink()


def empty_an_object(mirror: Path) -> None:
    commit = wrapper.heads(mirror)["feature"]
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
    (lose_an_object, r"is damaged \(it has lost [0-9a-f]{40}\), it was made anew"),
    (empty_an_object, r"is damaged \(it has lost [0-9a-f]{40}\), it was made anew"),
    (lose_all_objects, r"is damaged \(.*/objects/pack: .*\), it was made anew"),
    (cut_a_pack_off, r"is damaged \(pack-.*\.pack is cut off\), it was made anew"),
    (empty_a_pack, r"is damaged \(pack-.*\.pack is cut off\), it was made anew"),
    (cut_an_index_off, r"is damaged \(.* is cut off\), it was made anew"),
    (lose_a_pack, r"is damaged \(.*\.pack: No such file.*\), it was made anew"),
    (lose_an_index, r"is damaged \(it has lost .*\), it was made anew"),
    (empty_packed_refs, r"had lost branches: \['feature', 'master'\]"),
    (lose_one_branch, r"had lost branches: \['feature'\]"),
    (lose_refs, r"is damaged \(.*\), it was made anew"),
    (have_no_head, "is missing or no repository, it was made anew"),
    (garble_head, r"is damaged \(its HEAD is no reference\), it was made anew"),
    (
        garble_the_configuration,
        r"is damaged \(its configuration is none\), it was made anew",
    ),
    (lose_the_configuration, r"is damaged \(.*/config: No such file.*\), it was made anew"),
    (become_a_file, "is missing or no repository, it was made anew"),
    (vanish, "is missing or no repository, it was made anew"),
]


#: The end of the warning when the snapshot's commit was lost with the damaged file.
_LOST = r"(; only their checkouts are left of \['[0-9a-f]{7}'\])?"


def test_the_next_run_repairs_damaged_mirrors_and_says_so(site: Site) -> None:
    """Each mirror is damaged in another way, and has a snapshot's commit that the remote has lost."""
    repos = {damage.__name__: f"modules/{damage.__name__}" for damage, _ in MIRRORS}
    pins = {}
    for repo in repos.values():
        remote = site.add(repo)
        remote.push({INIT: "# feature\n"}, "feature", onto="master")
        pins[repo] = f"commit/{remote.push({INIT: '# pinned'}, 'pinned', onto='master')}"
        remote.delete("pinned")
    site.publish()
    site.define("team", definition(overrides=dict.fromkeys(repos.values(), "feature")))
    site.define("snap", definition(None, pins))
    assert site.update("--strict").code == 0
    before = site.listing(*PUBLISHED)
    for damage, _ in MIRRORS:
        git("prune", "--expire=now", directory=site.remotes[repos[damage.__name__]].path)
        damage(bare(site, repos[damage.__name__]))
    found = warnings(site)
    for damage, warning in MIRRORS:
        line = re.compile(f"WARNING The mirror of {repos[damage.__name__]} {warning}{_LOST}")
        assert sum(bool(line.fullmatch(warned)) for warned in found) == 1, (damage.__name__, found)
    assert site.listing(*PUBLISHED) == before
    assert warnings(site) == []
    for repo in repos.values():
        mirror, remote = bare(site, repo), site.remotes[repo]
        assert wrapper.heads(mirror) == {name: remote.commit(name) for name in ("master", "feature")}
        assert git_damage.find_damage(mirror, wrapper.heads(mirror).values()) is None
        remote.push({INIT: f"# pushed to {repo}\n"}, "feature")
    assert warnings(site) == []
    for name, repo in repos.items():
        assert site.read(f"team/modules/{name}/manifests/init.pp") == f"# pushed to {repo}\n"
        assert site.read(f"snap/modules/{name}/manifests/init.pp") == "# pinned"


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


def test_commits_that_only_a_damaged_mirror_has_are_salvaged(worn: Site) -> None:
    [pinned] = worn.checkouts(DUMMY) - set(worn.expanded(DUMMY).values())
    for damage in (
        *(have_no_head, garble_head, lose_refs),
        *(lose_the_configuration, garble_the_configuration, lose_an_object),
    ):
        damage(bare(worn))
        [warning] = [line for line in warnings(worn) if "it was made anew" in line]
        assert "only their checkouts" not in warning, damage
        assert wrapper.commits_like(bare(worn), pinned) == [pinned], damage
        assert git("status", "--porcelain", directory=worn.path(DUMMY, f".{pinned}")) == ""


def test_a_commit_that_cannot_be_salvaged_is_named_and_its_checkout_stays(worn: Site) -> None:
    [pinned] = worn.checkouts(DUMMY) - set(worn.expanded(DUMMY).values())
    lose_all_objects(bare(worn))
    assert f"only their checkouts are left of ['{pinned[:7]}']" in warnings(worn)[0]
    assert worn.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n"
    assert warnings(worn) == []


def test_an_emptied_remote_takes_nothing_away_even_if_the_mirror_is_damaged(worn: Site) -> None:
    before = worn.listing(*PUBLISHED)
    for branch in ("master", "feature"):
        worn.remotes[DUMMY].delete(branch)
    lose_an_object(bare(worn))
    for _ in range(2):
        [error] = worn.update().lines("ERROR")
        assert "has no branches at all, what is mirrored stays" in error
        assert worn.listing(*PUBLISHED) == before


def test_a_damaged_mirror_of_a_silent_remote_costs_no_more_than_asking_does(worn: Site) -> None:
    worn.settings |= {"git.timeout": "1", "git.clonetimeout": "200"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worn.urls[DUMMY] = f"git://127.0.0.1:{silent.getsockname()[1]}/dummy"
        worn.publish()
        lose_an_object(bare(worn))
        begin = time.monotonic()
        [error] = worn.update().lines("ERROR")
    assert "no answer within 1 seconds" in error
    assert time.monotonic() - begin < 90
    assert worn.read("team/modules/dummy/manifests/init.pp") == "# feature\n"


def test_packs_of_any_format_that_the_user_configures_are_no_damage(worn: Site) -> None:
    for setting in ("pack.indexVersion=1", "pack.writeReverseIndex=true", "repack.writeBitmaps=true"):
        key, _, value = setting.partition("=")
        git("config", "--global", key, value, directory=worn.root)
        git("-c", setting, "repack", "-adfkq", "--write-midx", directory=bare(worn))
        worn.remotes[DUMMY].push({INIT: f"# {setting}\n"})
        assert [warnings(worn) for _ in range(3)] == [[], [], []], setting
        git("config", "--global", "--unset", key, directory=worn.root)


def test_a_branch_is_found_in_an_index_whatever_its_digits_begin_with(tmp_path: Path) -> None:
    """Commits in the first and the last of the fan-out's 256 entries, and digits that occur only across two names."""
    mirror = tmp_path / "many"
    git("init", "-q", "--bare", str(mirror), directory=tmp_path)
    stream = "".join(
        f"commit refs/heads/b{number}\nmark :{number}\ncommitter A <a@example.org> {number} +0000\ndata 0\n\n"
        for number in range(1, 1500)
    )
    git("fast-import", "--quiet", directory=mirror, stdin=stream.encode())
    git("-c", "pack.indexVersion=2", "repack", "-adq", directory=mirror)
    commits = set(wrapper.heads(mirror).values())
    assert {"00", "ff"} <= {commit[:2] for commit in commits}
    assert git_damage.find_damage(mirror, commits) is None
    for commit in sorted(commits)[:50]:
        shifted = commit[2:] + next(other for other in sorted(commits) if other > commit)[:2]
        assert git_damage.find_damage(mirror, [shifted]) == f"it has lost {shifted}"


def test_nobody_makes_a_mirror_anew_in_which_somebody_is_at_work(worn: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gc by hand moves packs; meanwhile the mirror looks damaged."""
    monkeypatch.setattr(git_lock, "_PATIENCE", 0.3)
    [pack] = _packs(bare(worn), ".pack")
    left, identity = bare(worn) / "objects" / "pack" / "tmp_pack_1", bare(worn).stat().st_ino
    with open(bare(worn) / "jens.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        aside = pack.rename(pack.with_suffix(".aside"))
        left.touch()
        [error] = worn.update().lines("ERROR")
        assert "another Git process is still at work" in error
        assert left.exists(), "it may be what the other is just writing"
        aside.rename(pack)
    assert bare(worn).stat().st_ino == identity
    assert warnings(worn) == []


def a_pipe_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_nobody_waits_for_a_pipe_in_a_mirror(worn: Site) -> None:
    for name in (
        *("jens.lock", "HEAD", "config", "packed-refs", "refs/heads/pipe", "objects/pack/pack-1.keep"),
        *("pack", "index"),
    ):
        [pack] = _packs(bare(worn), ".pack")
        index = bare(worn) / "worktrees" / worn.expanded(DUMMY)["master"] / "index"
        a_pipe_at({"pack": pack, "index": index}.get(name, bare(worn) / name))
        worn.remotes[DUMMY].push({INIT: f"# {name}\n"})
        assert worn.update().code == 0, name
        assert warnings(worn) == [], name
        assert worn.exists("snap/modules/dummy/manifests/init.pp")
        assert worn.expanded(DUMMY)["master"] == worn.remotes[DUMMY].commit()


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_what_is_in_the_place_of_a_mirrors_lock_is_not_written_to(worn: Site, kind: str) -> None:
    path, precious = bare(worn) / "jens.lock", worn.root / "precious"
    precious.write_text("Not to be overwritten\n")
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(precious)
    else:
        path.mkdir()
    worn.remotes[DUMMY].push({INIT: "# new\n"})
    assert warnings(worn) == []
    assert precious.read_text() == "Not to be overwritten\n"
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize(
    ("lost", "mode"), [("tree", "POLL"), ("blob", "POLL"), ("parent", "POLL"), ("tree", "ONDEMAND")]
)
def test_missing_parts_of_a_pinned_commit_are_fetched_after_a_git_was_killed(worn: Site, lost: str, mode: str) -> None:
    remote, mirror = worn.remotes[DUMMY], bare(worn)
    parent = remote.push({INIT: "# one of two\n"}, "aside", onto="master")
    commit = remote.push({INIT: "# two of two\n"}, "aside")
    expressions = {"tree": f"{commit}^{{tree}}", "blob": f"{commit}:{INIT}", "parent": parent}
    missing = git("rev-parse", expressions[lost], directory=remote.path)
    for line in git("rev-list", "--objects", commit, "^master", directory=remote.path).splitlines():
        name = line[:40]
        if name != missing:
            copy = mirror / "objects" / name[:2] / name[2:]
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(remote.path / "objects" / name[:2] / name[2:], copy)
    assert "missing" in git("cat-file", "--batch-check", directory=mirror, stdin=missing.encode())
    remote.delete("aside")
    worn.define("pins", definition(None, {DUMMY: f"commit/{commit}"}))
    worn.settings["main.mode"] = mode
    outcome = worn.update("--strict")
    assert (outcome.code, outcome.lines("ERROR")) == (0, []), outcome.log
    assert worn.read("pins/modules/dummy/manifests/init.pp") == "# two of two\n"
    git("fsck", "--no-dangling", directory=mirror)


@pytest.fixture
def holed(worn: Site) -> tuple[Site, str]:
    """A snapshot pins a commit that only the mirror has; the mirror has lost a file of the commit before it."""
    remote = worn.remotes[DUMMY]
    parent = remote.push({INIT: "# parent\n"}, "aside", onto="master")
    pinned = remote.push({INIT: "# holed\n"}, "aside")
    blob = git("rev-parse", f"{parent}:{INIT}", directory=remote.path)
    worn.define("holed", definition(None, {DUMMY: f"commit/{pinned}"}))
    assert warnings(worn) == []
    remote.delete("aside")
    git("prune", "--expire=now", directory=remote.path)
    assert warnings(worn) == []
    make_loose(bare(worn))
    (bare(worn) / "objects" / blob[:2] / blob[2:]).unlink()
    return worn, pinned


def test_a_checkout_is_laid_out_again_though_history_that_it_does_not_need_is_lost(holed: tuple[Site, str]) -> None:
    site, pinned = holed
    checkout = site.path(DUMMY, f".{pinned}")
    shutil.rmtree(checkout)
    assert f"WARNING '{checkout}' was missing, it is laid out again" in warnings(site)
    assert site.read("holed/modules/dummy/manifests/init.pp") == "# holed\n"
    shutil.rmtree(bare(site) / "worktrees" / pinned)
    assert f"WARNING Checkouts of {DUMMY} are tied to its mirror again: ['{pinned[:7]}']" in warnings(site)
    assert git("status", "--porcelain", directory=checkout) == ""


@pytest.mark.parametrize("verb", ["cat-file", "rev-list"])
def test_a_git_that_is_killed_while_it_looks_for_a_commit_takes_nothing_away(
    worn: Site, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    remote = worn.remotes[DUMMY]
    other = remote.push({INIT: "# other\n"}, "other", onto="master")
    remote.delete("other")
    worn.define("snap", definition(None, {DUMMY: f"commit/{other}"}))
    shutil.copytree(remote.path / "objects", bare(worn) / "objects", dirs_exist_ok=True)
    program = worn.root / "path" / "git"
    program.parent.mkdir()
    kills = f'for word; do if [ "$word" = {verb} ]; then [ "$2" = cat-file ] || kill -9 $$; fi; done'
    kills = kills if verb == "rev-list" else f'case "$*" in *batch-check*) kill -9 $$;; esac; {kills}'
    program.write_text(f'#!/bin/sh\n{kills}\nexec {shutil.which("git")} "$@"\n')
    program.chmod(0o755)
    with monkeypatch.context() as patches:
        patches.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        outcome = worn.update()
        [error] = outcome.lines("ERROR")
        assert "was ended by signal 9" in error
        assert "dummy" in error
    assert worn.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n"
    assert worn.update("--strict").code == 0
    assert worn.read("snap/modules/dummy/manifests/init.pp") == "# other\n"


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_damaged_mirror_is_repaired_in_both_modes(worn: Site, mode: str) -> None:
    worn.settings["main.mode"] = mode
    assert worn.update("--strict").code == 0
    cut_a_pack_off(bare(worn))
    assert "is cut off" in warnings(worn)[0]
    assert warnings(worn) == []


def test_a_lock_file_of_a_git_that_was_killed_is_removed_in_a_run_that_has_nothing_else_to_do(worn: Site) -> None:
    for name in (
        "packed-refs.lock",
        "shallow.lock",
        "index.lock",
        "HEAD.lock",
        "config.lock",
        "refs/heads/master.lock",
        "objects/info/commit-graphs/commit-graph-chain.lock",
    ):
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
    """An administrator made it with --reference; objects that it borrows are not missing."""
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


def test_a_branch_link_that_somebody_changed_is_put_right(worn: Site) -> None:
    before = worn.listing(*PUBLISHED)
    link = worn.path(DUMMY, "feature")
    for damage in (bend, bend_outside, bend_to_nowhere, remove, put_a_file, put_a_directory):
        damage(link)
        assert warnings(worn) == [f"WARNING '{link}' is not at the commit that is on record, it is put right"], damage
        after = {path: what for path, what in worn.listing(*PUBLISHED).items() if "/.trash-" not in path}
        assert after == before, damage
        assert warnings(worn) == []
        assert worn.listing(*PUBLISHED) == before, "what was there instead is gone"


def test_links_that_only_lag_behind_are_no_damage(worn: Site) -> None:
    """A run leaves such links when it is killed after its fetch and before it moves the links."""
    worn.remotes[DUMMY].push({INIT: "# new\n"}, "feature")
    git("fetch", "-q", worn.remotes[DUMMY].url, "+refs/heads/*:refs/heads/*", directory=bare(worn))
    assert warnings(worn) == []
    assert worn.read("team/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("link", ["team/modules/dummy", "team/site", "snap/hieradata/common.yaml"])
def test_a_link_of_an_environment_that_somebody_changed_is_put_right(worn: Site, link: str) -> None:
    before = worn.listing(*PUBLISHED)
    for damage in (bend_outside, remove, put_a_file, put_a_directory):
        damage(worn.root / "environments" / link)
        assert worn.update("--strict").code == 0
        assert worn.update("--strict").code == 0
        assert worn.listing(*PUBLISHED) == before, damage


def test_a_lost_worktree_record_of_a_checkout_is_made_again(worn: Site) -> None:
    """Without the record, Git would delete the commit of a snapshot that is on no branch."""
    [pinned] = worn.checkouts(DUMMY) - set(worn.expanded(DUMMY).values())
    shutil.rmtree(bare(worn) / "worktrees" / pinned)
    assert warnings(worn) == [f"WARNING Checkouts of {DUMMY} are tied to its mirror again: ['{pinned[:7]}']"]
    git("-c", "safe.directory=*", "gc", "-q", "--prune=now", directory=bare(worn))
    assert wrapper.commits_like(bare(worn), pinned) == [pinned]
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


def test_an_inventory_that_cannot_be_used_is_made_anew(worn: Site) -> None:
    path = worn.root / "cache" / "inventory.json"
    good, before = json.loads(path.read_bytes()), worn.listing(*PUBLISHED)
    for damage in (garbage, half, gone, another_version, of_another_shape, a_directory, a_pipe, a_loop):
        damage(path)
        assert warnings(worn) == ["WARNING Inventory on disk not found or corrupt, generating..."], damage
        assert json.loads(path.read_bytes()) == good
        assert worn.listing(*PUBLISHED) == before
        assert warnings(worn) == [], damage


@needs_root
def test_an_inventory_that_belongs_to_another_user_is_made_anew(
    open_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens when root has done a run instead of the user jens."""
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
