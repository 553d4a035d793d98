"""A disk that is full of what is no longer declared: a run removes that, and needs no room for it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens import purgeguard
from jens.commands import hold, release
from jens.metadata import reserve
from jens.system import files
from tests.conftest import MODULE, Site, definition, faults_of
from tests.faults.mounts import Small, require_mounts, small

_INSTANCE = ("bare", "cache", "clone", "environments", "log", "metadata", "spool")


@pytest.fixture
def disk(site: Site) -> Iterator[Small]:
    """One small disk with everything of the instance but its lock; there has been a run."""
    require_mounts()
    (site.root / "disk").mkdir()
    for name in _INSTANCE:
        (site.root / name).rename(site.root / "disk" / name)
        (site.root / name).symlink_to(f"disk/{name}")
    with small(site.root / "disk") as mounted:
        assert site.update("--strict").code == 0
        yield mounted


def _flood(site: Site, count: int, text: str | None) -> None:
    site.definitions.push({f"flood{number:03}.yaml": text for number in range(count)})


def test_six_hundred_definitions_that_fill_the_disk_are_gone_as_soon_as_somebody_removes_them(
    site: Site, disk: Small
) -> None:
    disk.leave_inodes(1500)
    _flood(site, 600, "# four\n# lines\ndefault: master\nnotifications: eve@example.org\n")
    outcome = site.update()
    assert outcome.code == 0
    assert 1 < len(site.environments()) < 600
    assert [line for line in outcome.lines("ERROR") if "No space left" in line]
    last = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    assert "No space left" in json.dumps(last["failed"])
    assert site.update("--strict").code == 60

    _flood(site, 600, None)
    assert site.update().code == 31  # the purge guard, and nothing else
    assert site.update("--allow-purge").code == 0
    assert site.environments() == ["production"]
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("limit", ["inodes", "pages"])
def test_when_nothing_at_all_is_free_a_push_still_removes_an_environment(site: Site, disk: Small, limit: str) -> None:
    site.define("gone")
    assert site.update("--strict").code == 0
    site.retire("gone")
    _leave_nothing(disk, limit)
    outcome = site.update()
    assert outcome.code == 0
    assert site.environments() == ["production"]
    assert outcome.has("is given up")
    disk.make_room()
    assert site.update("--strict").code == 0
    assert (site.root / "metadata" / "environments" / ".git" / "jens-reserve" / "bytes").stat().st_size == 1 << 20


def _leave_nothing(disk: Small, limit: str) -> None:
    if limit == "inodes":
        disk.leave_inodes(0)
    else:
        disk.leave_pages(0)


def test_without_a_reserve_full_metadata_end_the_run_as_ever_and_other_failures_give_up_nothing(
    site: Site, disk: Small
) -> None:
    clones = [site.root / "metadata" / name for name in ("environments", "repository")]
    assert not reserve.release(clones)  # the disk is not full
    assert all((clone / ".git" / "jens-reserve").is_dir() for clone in clones)
    for clone in clones:
        shutil.rmtree(clone / ".git" / "jens-reserve")
    site.retire("production")
    disk.leave_inodes(0)
    assert site.update().code == 20
    assert site.environments() == ["production"]


@pytest.mark.parametrize("limit", ["inodes", "pages"])
@pytest.mark.parametrize("top", ["bare", "cache", "clone", "environments"])
def test_whichever_directory_is_full_what_is_no_longer_declared_goes_in_this_very_run(
    site: Site, top: str, limit: str
) -> None:
    require_mounts()
    site.settings["main.retention"] = "0"
    site.add("modules/old", {**MODULE, "code/files/a": "a\n"})
    site.publish()
    site.remotes["modules/dummy"].branch("dev")
    pinned = site.remotes["modules/dummy"].push({"code/pinned": "1\n"}, "dev")
    site.define("gone", definition("master", {"modules/dummy": "dev"}))
    site.define("pinned", definition(None, {"modules/dummy": f"commit/{pinned}"}))
    with small(site.root / top) as disk:
        assert site.update("--strict").code == 0
        for name in ("gone", "pinned"):
            site.retire(name)
        del site.urls["modules/old"]
        site.publish()
        site.define("more", definition("master", {"modules/dummy": "dev2"}))
        site.remotes["modules/dummy"].push({"code/new": "2\n"}, "dev2", onto="master")
        _leave_nothing(disk, limit)
        outcome = site.update()
        assert outcome.code == 0
        assert not {"gone", "pinned"} & set(site.environments())
        assert sorted(path.name for path in (site.root / "bare" / "modules").iterdir()) == ["dummy"]
        assert site.path("modules/old").is_dir() is False
        assert pinned not in site.checkouts("modules/dummy")
        disk.make_room()
        assert site.update("--strict").code == 0
        assert site.read("more/modules/dummy/new") == "2\n"


def test_a_repository_that_has_no_room_for_a_push_gives_up_its_own_old_checkouts(site: Site) -> None:
    require_mounts()
    site.settings["main.retention"] = "0"
    dummy = site.remotes["modules/dummy"]
    large = dummy.push({f"code/files/{number}": f"{number} of the large one\n" for number in range(60)}, "large")
    site.define("pins", definition(None, {"modules/dummy": f"commit/{large}"}))
    with small(site.root / "clone") as disk:
        assert site.update("--strict").code == 0
        site.retire("pins")
        dummy.push({f"code/{number}": f"{number}\n" for number in range(30)})
        disk.leave_inodes(20)
        outcome = site.update()
        assert outcome.code == 0
        assert [line for line in outcome.lines("ERROR") if "modules/dummy" in line]
        assert large not in site.checkouts("modules/dummy")
        assert site.update("--strict").code == 0
        assert site.read("production/modules/dummy/29") == "29\n"


def test_an_environment_that_finds_no_room_gets_that_of_those_that_go_in_the_same_run(site: Site) -> None:
    require_mounts()
    for name in ("gone", "gone2"):
        site.define(name)
    site.add("modules/two")
    with small(site.root / "environments") as disk:
        assert site.update("--strict").code == 0
        site.retire("gone")
        site.retire("gone2")
        site.publish()
        site.define("new")
        disk.leave_inodes(3)
        assert site.update("--strict").code == 0
        assert site.environments() == ["new", "production"]
        assert site.links("new") == {
            link: text.replace("production", "new") for link, text in site.links("production").items()
        }


def test_a_change_that_takes_links_away_makes_its_own_room(site: Site) -> None:
    require_mounts()
    site.define("x")
    with small(site.root / "environments") as disk:
        assert site.update("--strict").code == 0
        site.remotes["common/site"].branch("dev")
        site.define("x", definition(None, {"common/site": "dev"}))
        disk.leave_inodes(0)
        assert site.update("--strict").code == 0
        assert "modules/dummy" not in site.links("x")
        assert site.links("x")["site"].endswith("/dev/code")


def test_a_log_that_has_no_room_is_one_line_on_stderr_and_the_work_is_done(site: Site) -> None:
    require_mounts()
    site.define("gone")
    with small(site.root / "log") as disk:
        assert site.update().code == 0
        (disk.path / "jens-update.log").unlink()
        disk.leave_inodes(0)
        site.retire("gone")
        outcome = site.update()
        assert outcome.code == 0
        [line] = outcome.stderr.splitlines()
        assert str(disk.path) in line
        assert "No space left on device" in line
        assert site.environments() == ["production"]
        disk.make_room()
        outcome = site.update("--strict")
        assert (outcome.code, outcome.stderr) == (0, "")
        assert outcome.has("Done")


def test_in_a_full_queue_hints_whose_work_is_done_go_and_the_others_stay(site: Site) -> None:
    require_mounts()
    site.update("--poll")
    site.settings["main.mode"] = "ONDEMAND"
    with small(site.root / "spool") as disk:
        site.hint("modules/dummy")
        site.hint("hostgroups/myapp", "common/site")
        shutil.rmtree(site.root / "spool" / "obsolete", ignore_errors=True)
        site.remotes["hostgroups/myapp"].go_away()
        disk.leave_inodes(0)
        assert site.update("--strict").code == 60
        assert site.hinted() == ["common/site", "hostgroups/myapp"]
        disk.make_room()
        site.remotes["hostgroups/myapp"].come_back()
        assert site.update("--strict").code == 0
        assert site.hinted() == []


def test_refusals_that_cannot_be_saved_stand_and_nothing_new_is_taken_in_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        site.define(f"e{number}")
    assert site.update("--strict").code == 0
    site.definitions.push({f"e{number}.yaml": None for number in range(12)})
    site.define("new")
    site.add("modules/new")
    site.publish()
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "refusals.json")

    with monkeypatch.context() as patch:
        patch.setattr(purgeguard, "save_refusals", fail)
        outcome = site.update()
    assert outcome.code == 31
    assert outcome.has("Unable to remember what is refused")
    assert len(site.environments()) == 13
    assert "new" not in site.environments()
    assert not site.path("modules/new").exists()
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert site.update().code == 31
    assert "new" in site.environments()


def test_more_environments_than_allowed_are_refused_and_all_else_goes_on(site: Site) -> None:
    site.settings["main.maxenvironments"] = "3"
    site.define("zz")
    assert site.update("--strict").code == 0
    for name in ("a", "b", "c"):
        site.define(name)
    site.define("zz", definition("master", mail="bob"))
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    outcome = site.update()
    assert outcome.code == 0
    [error] = outcome.lines("ERROR")
    assert error == ("ERROR Refusing to make 2 environments, expected 3 in all at most (maxenvironments): ['b', 'c']")
    assert site.environments() == ["a", "production", "zz"]
    assert site.read("a/modules/dummy/manifests/init.pp") == "# new\n"
    last = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    assert [fault["kind"] for fault in last["faults"]] == ["too many"]
    assert site.update("--strict", "--dry-run").code == 60
    site.retire("a")
    assert site.update("--strict").code == 60
    assert site.environments() == ["b", "production", "zz"]
    site.settings["main.maxenvironments"] = "1"  # those that exist stay
    site.retire("c")
    assert site.update("--strict").code == 0
    assert site.environments() == ["b", "production", "zz"]
    assert faults_of(site.root) == set()


def test_a_new_name_that_finds_no_room_does_not_keep_an_old_checkout_from_being_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new name can need a block in its directory."""
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / ".git").touch()

    def fail(path: object, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        files.discard(tmp_path / "tree")  # Puppet could see half of it
    assert files.discard(tmp_path / "tree", is_unseen=True)
    assert not (tmp_path / "tree").exists()


def test_a_hold_can_be_released_on_a_full_disk(site: Site, disk: Small) -> None:
    assert hold.main(["-c", str(site.config), "production"]) == 0
    disk.leave_inodes(0)
    assert release.main(["-c", str(site.config), "production"]) in (0, 20, 30, 40)  # as a run ends on a full disk
    assert os.listdir(site.root / "cache" / "holds") == []
    disk.make_room()
    assert site.update("--strict").code == 0
    assert all("/master/" in text for text in site.links("production").values())
