"""Instances that were copied, moved, or restored in part from another day or another node: two runs repair them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

import pytest

from jens.tools.compare import compare
from tests.conftest import MODULE, Site, definition, git

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
PARTS = ("bare", "clone", "cache", "environments")


@pytest.fixture
def node(site: Site) -> Site:
    """An instance with all kinds of environments; one uses a commit that is on no branch of the remote."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature\n"}, "feature/x", onto="master")
    pinned = remote.push({INIT: "# pinned\n"}, "pinned", onto="master")
    site.add("modules/old")
    site.publish()
    site.define("team", definition("master", {DUMMY: "feature/x"}, more="parser: current\n"))
    site.define("snap", definition(None, {DUMMY: f"commit/{pinned}", MYAPP: "master"}))
    site.settings["main.directory_environments"] = "True"
    assert site.update("--strict").code == 0
    remote.delete("pinned")
    assert site.update("--strict").code == 0
    return site


def keep(site: Site, name: str) -> Path:
    """Copy the whole instance."""
    copy = site.root / name
    for part in PARTS:
        shutil.copytree(site.root / part, copy / part, symlinks=True)
    return copy


def time_goes_by(site: Site) -> None:
    """Change everything: push, add and remove branches, repositories and environments."""
    dummy = site.remotes[DUMMY]
    dummy.push({INIT: "# new\n"})
    dummy.push({**MODULE, INIT: "# another history\n"}, "feature/x", rewrite=True)
    dummy.branch("qa")
    site.add("modules/late")
    site.urls.pop("modules/old")
    site.remotes.pop("modules/old")
    site.publish()
    site.define("team", definition("master", {DUMMY: "feature/x", MYAPP: "master"}))
    site.define("late", definition(overrides={"modules/late": "master"}))


Damage = Callable[[Site, Path], None]


def lose(*parts: str) -> Damage:
    def damage(site: Site, _yesterday: Path) -> None:
        for part in parts:
            shutil.rmtree(site.root / part)
            (site.root / part).mkdir()

    return damage


def restore(*parts: str) -> Damage:
    def damage(site: Site, yesterday: Path) -> None:
        for part in parts:
            shutil.rmtree(site.root / part)
            shutil.copytree(yesterday / part, site.root / part, symlinks=True)

    return damage


def restore_without_modes(site: Site, yesterday: Path) -> None:
    """Restore a backup that has no owners, modes, times or empty directories."""
    for part in PARTS:
        shutil.rmtree(site.root / part)
        for parent, _, names in os.walk(yesterday / part):
            for name in names:
                path = Path(parent, name)
                to = site.root / path.relative_to(yesterday)
                to.parent.mkdir(parents=True, exist_ok=True)
                if path.is_symlink():
                    to.symlink_to(os.readlink(path))
                else:
                    shutil.copyfile(path, to)
            for name in (name for name in os.listdir(parent) if os.path.islink(os.path.join(parent, name))):
                to = site.root / Path(parent, name).relative_to(yesterday)
                to.parent.mkdir(parents=True, exist_ok=True)
                if not to.is_symlink():
                    to.symlink_to(os.readlink(os.path.join(parent, name)))
        (site.root / part).mkdir(exist_ok=True)


LOSSES = {
    "cachedir lost": lose("cache"),
    "baredir lost": lose("bare"),
    "clonedir lost": lose("clone"),
    "environmentsdir lost": lose("environments"),
    "cachedir and baredir lost": lose("cache", "bare"),
    "cachedir and clonedir lost": lose("cache", "clone"),
    "baredir and clonedir lost": lose("bare", "clone"),
    "all but environmentsdir lost": lose("cache", "bare", "clone"),
    "all but cachedir lost": lose("environments", "bare", "clone"),
}
RETURNS = {
    "cachedir of yesterday": restore("cache"),
    "baredir of yesterday": restore("bare"),
    "clonedir of yesterday": restore("clone"),
    "environmentsdir of yesterday": restore("environments"),
    "cachedir and environmentsdir of yesterday": restore("cache", "environments"),
    "clonedir and environmentsdir of yesterday": restore("clone", "environments"),
    "everything of yesterday": restore(*PARTS),
    "everything of yesterday, without modes": restore_without_modes,
}


def assert_right(site: Site, control: Path) -> None:
    """Check that two runs repair the instance, and that the second one logs no problem."""
    first = site.update()
    assert first.code == 0, first.log
    second = site.update("--strict")
    assert (second.code, second.lines("WARNING"), second.lines("ERROR")) == (0, [], []), second.log
    assert compare(site.root, control) == []
    assert {name: site.dangling(name) for name in site.environments() if site.dangling(name)} == {}
    silent = site.listing("clone", "environments")
    third = site.update("--strict")
    assert (third.code, third.lines("WARNING")) == (0, [])
    assert site.listing("clone", "environments") == silent
    for repo, remote in site.remotes.items():
        mirror = site.root / "bare" / repo
        assert git("rev-parse", "master", directory=mirror) == remote.commit()
        assert not (site.root / "bare" / "modules" / "old").exists()


@pytest.mark.parametrize("damages", [LOSSES, RETURNS], ids=["lost", "returned"])
def test_what_is_left_of_an_instance_becomes_a_whole_one(node: Site, damages: Mapping[str, Damage]) -> None:
    yesterday = keep(node, "yesterday")
    time_goes_by(node)
    assert node.update("--strict").code == 0
    control = keep(node, "control")
    for name, damage in damages.items():
        damage(node, yesterday)
        pinned = node.exists("snap/modules/dummy/manifests/init.pp")
        assert_right(node, control)
        if pinned:
            assert node.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n", name
        assert node.read("production/modules/dummy/manifests/init.pp") == "# new\n", name
        assert node.read("late/modules/late/manifests/init.pp")
        restore(*PARTS)(node, control)


def test_puppet_reads_what_it_read_while_an_instance_is_set_right_and_remotes_are_away(node: Site) -> None:
    yesterday = keep(node, "yesterday")
    before = {name: node.links(name) for name in node.environments()}
    for remote in node.remotes.values():
        remote.go_away()
    for damage in (lose("cache"), lose("bare"), restore("clone"), restore("cache")):
        damage(node, yesterday)
        for _ in range(2):
            assert node.update().code == 0
            assert {name: node.links(name) for name in node.environments()} == before
            assert node.dangling("production") == []
            assert node.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n"
        restore(*PARTS)(node, yesterday)


def test_an_instance_may_be_moved_as_a_whole(node: Site) -> None:
    control = keep(node, "control")
    moved = node.root / "somewhere" / "else"
    moved.mkdir(parents=True)
    for part in PARTS:
        (node.root / part).rename(moved / part)
        node.settings[f"main.{part}dir"] = str(moved / part)
    assert node.update("--strict").code == 0
    second = node.update("--strict")
    assert (second.code, second.lines("WARNING")) == (0, [])
    assert compare(moved, control) == []
    for link in (moved / "environments").rglob("*"):
        if link.is_symlink():
            assert str(node.root / "clone") not in os.readlink(link)


def test_an_instance_may_be_copied_and_both_work_independently(node: Site) -> None:
    copy = keep(node, "copy")
    original = {f"main.{part}dir": str(node.root / part) for part in PARTS}
    copied = {f"main.{part}dir": str(copy / part) for part in PARTS}
    lock = {"filelock.lockdir": str(node.root / "log")}
    time_goes_by(node)
    before = node.settings.copy()
    for number, settings in enumerate((copied | lock, original, copied | lock, original)):
        node.settings = before | settings
        outcome = node.update("--strict")
        assert outcome.code == 0, outcome.log
        assert number < 2 or outcome.lines("WARNING") == []
    node.settings = before
    assert compare(copy, node.root) == []
    assert (copy / "environments/snap/modules/dummy/manifests/init.pp").read_text() == "# pinned\n"
    assert node.read("snap/modules/dummy/manifests/init.pp") == "# pinned\n"


def test_clonedir_of_another_node_whose_mirrors_are_elsewhere_is_taken_over(node: Site) -> None:
    """The checkouts point to mirrors of the other node, which may even exist here under the same names."""
    other = keep(node, "other")
    time_goes_by(node)
    assert node.update("--strict").code == 0
    control = keep(node, "control")
    before = {path: path.read_bytes() for path in sorted((other / "bare").rglob("*")) if path.is_file()}
    for repo in (DUMMY, MYAPP):
        for checkout in (other / "clone" / repo).glob(".*"):
            record = other / "bare" / repo / "worktrees" / checkout.name[1:]
            (checkout / ".git").write_text(f"gitdir: {record}\n")
    before = {path: path.read_bytes() for path in sorted((other / "bare").rglob("*")) if path.is_file()}
    shutil.rmtree(node.root / "clone")
    shutil.copytree(other / "clone", node.root / "clone", symlinks=True)
    assert_right(node, control)
    assert {path: path.read_bytes() for path in sorted((other / "bare").rglob("*")) if path.is_file()} == before
