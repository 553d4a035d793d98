"""Versioned environments: each state is a directory of its own, and one link is flipped."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jens import deliveries
from jens.commands import compare, gc, history, hold, release, reset, show, snapshot, stats
from jens.layout import VERSIONS, Layout
from jens.system import files, processes
from jens.update import baseline
from tests import TREE
from tests.conftest import MODULE, Outcome, Site, assert_complaint, definition, let_pass

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
SHOWN = "production/modules/dummy/manifests/init.pp"
ON = {"main.versionedenvironments": "production,", "main.directory_environments": "True"}
#: So many runs are killed; more with KILLS in the environment.
KILLS = int(os.environ.get("KILLS", "16"))
Main = Callable[[list[str]], int]


def tool(site: Site, main: Main, *arguments: str) -> Outcome:
    site.capture.readouterr()
    code = main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, "")


def document(site: Site, main: Main, *arguments: str) -> Any:
    outcome = tool(site, main, *arguments, "--json")
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def version(site: Site, name: str = "production") -> str:
    """The name of the current version."""
    text = os.readlink(site.root / "environments" / name)
    assert os.path.dirname(text) == str(site.root / "environments" / VERSIONS)
    return os.path.basename(text)


def on_disk(site: Site) -> list[str]:
    place = site.root / "environments" / VERSIONS
    return sorted(os.listdir(place)) if place.is_dir() else []


def links(site: Site, which: str) -> dict[str, str]:
    return site.links(f"{VERSIONS}/{which}")


def push(site: Site, text: str) -> str:
    return site.remotes[DUMMY].push({INIT: f"{text}\n"})


@pytest.fixture
def versioned(site: Site) -> Site:
    """A site whose production has versions."""
    site.settings.update(ON)
    push(site, "first")
    assert site.update("--strict").code == 0
    return site


# What it is


def test_a_version_is_a_directory_whose_links_lead_to_commits(versioned: Site) -> None:
    assert version(versioned) == "production_1"
    commits = {repo: remote.commit() for repo, remote in versioned.remotes.items()}
    up = "../../.."
    assert links(versioned, "production_1") == {
        "hieradata/common.yaml": f"{up}/../clone/common/hieradata/.{commits['common/hieradata']}/data/common.yaml",
        "hieradata/environments": f"{up}/../clone/common/hieradata/.{commits['common/hieradata']}/data/environments",
        "hieradata/hardware": f"{up}/../clone/common/hieradata/.{commits['common/hieradata']}/data/hardware",
        "hieradata/operatingsystems": (
            f"{up}/../clone/common/hieradata/.{commits['common/hieradata']}/data/operatingsystems"
        ),
        "hieradata/fqdns/myapp": f"{up}/../../clone/hostgroups/myapp/.{commits[MYAPP]}/data/fqdns",
        "hieradata/hostgroups/myapp": f"{up}/../../clone/hostgroups/myapp/.{commits[MYAPP]}/data/hostgroup",
        "hieradata/module_names/dummy": f"{up}/../../clone/modules/dummy/.{commits[DUMMY]}/data",
        "hostgroups/hg_myapp": f"{up}/../clone/hostgroups/myapp/.{commits[MYAPP]}/code",
        "modules/dummy": f"{up}/../clone/modules/dummy/.{commits[DUMMY]}/code",
        "site": f"{up}/clone/common/site/.{commits['common/site']}/code",
    }
    assert versioned.read(SHOWN) == "first\n"
    assert versioned.read("production/environment.conf") == "modulepath = modules:hostgroups\nmanifest = site/site.pp\n"
    mode = (versioned.root / "environments" / VERSIONS / "production_1").stat().st_mode & 0o777
    assert mode == 0o755


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_each_run_that_changes_something_makes_a_version_and_no_other(versioned: Site, mode: str) -> None:
    versioned.settings["main.mode"] = mode
    versioned.define("other", definition())
    versioned.update("--strict")
    versioned.update("--strict")
    assert version(versioned) == "production_1"
    before = links(versioned, "production_1")
    for number in (2, 3):
        commit = push(versioned, f"push {number}")
        versioned.hint(DUMMY)
        outcome = versioned.update("--strict")
        assert (outcome.code, outcome.has("Only repositories that were pushed to")) == (0, True)
        assert outcome.has(f"INFO Environment 'production' is version production_{number} now")
        assert version(versioned) == f"production_{number}"
        assert versioned.read(SHOWN) == f"push {number}\n"
        assert links(versioned, f"production_{number}")["modules/dummy"].endswith(f"/.{commit}/code")
    # It is at rest, although the link was flipped.
    assert versioned.update("--strict").has("Nothing new")
    assert version(versioned) == "production_3"
    assert links(versioned, "production_1") == before  # never changed, and whole
    for link in before:
        assert versioned.exists(f"{VERSIONS}/production_1/{link}")
    assert versioned.links("other")["modules/dummy"].endswith("/dummy/master/code")
    # A push that production does not show makes no version.
    versioned.remotes[DUMMY].push({INIT: "elsewhere\n"}, "test", onto="master")
    versioned.hint(DUMMY)
    versioned.update("--strict")
    assert version(versioned) == "production_3"
    versioned.add("modules/new", MODULE)
    versioned.publish()
    versioned.update("--strict")
    assert version(versioned) == "production_4"
    assert "modules/new" in links(versioned, "production_4")


def test_a_replaced_version_stays_as_long_as_puppet_may_read_it(
    versioned: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = versioned.remotes[DUMMY].commit()
    push(versioned, "second")
    versioned.update("--strict")
    assert versioned.checkouts(DUMMY) >= {first}
    with monkeypatch.context() as patched:
        let_pass(patched, 290)
        (versioned.root / "cache" / "baseline.json").unlink()
        versioned.update("--strict")
        assert on_disk(versioned) == ["production_1", "production_2"]
        assert tool(versioned, gc.main, "-a").code == 0
        assert versioned.checkouts(DUMMY) >= {first}
    with monkeypatch.context() as patched:
        let_pass(patched, 601)  # a run that looks at everything
        versioned.update("--strict")
        assert on_disk(versioned) == ["production_2"]
        assert versioned.checkouts(DUMMY) >= {first}  # for another retention
    with monkeypatch.context() as patched:
        let_pass(patched, 2000)
        versioned.update("--strict")
        assert versioned.checkouts(DUMMY) == {versioned.remotes[DUMMY].commit()}


def test_a_version_waits_until_servers_were_flushed(versioned: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    versioned.settings["main.retention"] = "0"
    versioned.settings |= {"puppetserver.urls": "https://puppet.example.org:8140", "puppetserver.ssl_cert": "/c.pem"}
    versioned.settings["puppetserver.ssl_key"] = "/k.pem"
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    layout, name = Layout.at(versioned.root), "puppetserver https://puppet.example.org:8140"
    for text in ("second", "third"):
        push(versioned, text)
        versioned.update("--poll")
    versioned.update("--allow-purge")
    assert on_disk(versioned) == ["production_1", "production_2", "production_3"]
    for at, left in ((0, 3), (time.time(), 1)):
        deliveries.save(layout, deliveries.Record({name: deliveries.Told(memory={"at": at})}))
        versioned.update("--allow-purge")
        assert len(on_disk(versioned)) == left
    assert on_disk(versioned) == ["production_3"]


def test_the_loss_of_its_file_begins_the_retention_anew(versioned: Site) -> None:
    first = versioned.remotes[DUMMY].commit()
    push(versioned, "second")
    versioned.update()
    for text in ("{", None):
        path = versioned.root / "cache" / "versions.json"
        path.write_text(text) if text else path.unlink()
        versioned.update("--allow-purge")
        [(name, (_since, commits))] = [
            item for item in json.loads(path.read_text())["content"].items() if item[0] != "noted"
        ]
        assert (name, commits[DUMMY]) == ("production_1", [first])


def test_puppet_servers_may_see_them_elsewhere(site: Site) -> None:
    site.settings.update({**ON, "main.versionsdir": "/mnt/puppet/environments/.versions"})
    push(site, "first")
    for number in (1, 2, 2):
        site.update("--strict")
        link = site.root / "environments" / "production"
        assert os.readlink(link) == f"/mnt/puppet/environments/.versions/production_{number}"
        found = document(site, show.main, "environment", "production")
        assert found["version_of_environment"] == f"production_{number}"
        assert document(site, stats.main, "-e")["environments"]["dangling"] == []
        if number == 1:
            push(site, "second")
    assert site.update("--strict").has("Nothing new")
    assert (site.root / "environments" / VERSIONS / "production_2" / "modules" / "dummy").exists()
    del site.settings["main.versionsdir"]
    site.update("--strict")
    assert version(site) == "production_2"
    assert site.read(SHOWN) == "second\n"


def test_puppet_learns_the_version(versioned: Site) -> None:
    versioned.settings["main.config_version"] = "True"
    versioned.update("--strict")
    conf = "modulepath = modules:hostgroups\nmanifest = site/site.pp\n"
    assert versioned.read("production/environment.conf") == f"{conf}config_version = /bin/echo production_2\n"
    versioned.update("--strict")
    assert version(versioned) == "production_2"
    push(versioned, "second")
    versioned.update("--strict")
    assert versioned.read("production/environment.conf").endswith("config_version = /bin/echo production_3\n")
    versioned.define("production", definition(more="parser: future\n"))
    versioned.update("--strict")
    assert versioned.read("production/environment.conf").splitlines()[2:] == [
        "parser = future",
        "config_version = /bin/echo production_4",
    ]


def test_it_needs_an_environment_conf(site: Site) -> None:
    site.settings["main.versionedenvironments"] = "*"
    assert_complaint(site.update(), 2, "[main] directory_environments: expected True")
    site.settings["main.versionedenvironments"] = "../x,"
    assert_complaint(site.update(), 2, "versionedenvironments: expected a list of environments, or *")


# Switching


def readers(site: Site, paths: tuple[str, ...]) -> Iterator[list[str]]:
    missed: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for path in paths:
                try:
                    site.read(path)
                except OSError as error:
                    missed.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    yield missed
    done.set()
    thread.join()


PATHS = (SHOWN, "production/site/site.pp", "production/environment.conf", "production/hieradata/common.yaml")


def test_switching_it_on_and_off_is_missed_by_nobody(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.update()
    plain = site.links("production")
    watching = readers(site, PATHS)
    missed = next(watching)
    for number in range(1, 5):
        site.settings.update(ON)
        assert site.update("--strict").lines("WARNING") == []
        assert (site.root / "environments" / "production").is_symlink()
        push(site, f"push {number}")
        site.update("--strict")
        del site.settings["main.versionedenvironments"]
        assert site.update("--strict").lines("WARNING") == []
        assert site.links("production") == plain
    next(watching, None)
    assert missed == []
    changes = [each["change"] for each in document(site, history.main, "production") if "change" in each]
    assert changes == ["created"]  # nothing else became of it


def test_a_file_system_that_cannot_exchange_is_told_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_one: Path, _other: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(files, "_exchange", refuse)
    site.settings["main.directory_environments"] = "True"
    site.update()
    site.settings.update(ON)
    warning = "WARNING Environment 'production' was missing for a moment: the file system of"
    assert [line.startswith(warning) for line in site.update("--strict").lines("WARNING")] == [True]
    push(site, "second")
    assert site.update("--strict").lines("WARNING") == []  # a flip is one rename everywhere
    del site.settings["main.versionedenvironments"]
    assert [line.startswith(warning) for line in site.update("--strict").lines("WARNING")] == [True]
    assert site.update("--strict").lines("WARNING") == []
    assert site.read(SHOWN) == "second\n"


def test_when_it_is_switched_off_nothing_of_it_stays(versioned: Site) -> None:
    versioned.settings["main.retention"] = "0"
    del versioned.settings["main.versionedenvironments"]
    assert "Would take the versions from environment 'production'" in versioned.update("-n").stdout
    for _ in range(3):
        versioned.update("--allow-purge")
    assert versioned.environments() == ["production"]
    assert versioned.update().has("Nothing new")


def test_all_environments_may_have_versions(site: Site) -> None:
    site.settings.update({**ON, "main.versionedenvironments": "*"})
    site.define("snap", definition(None, {DUMMY: f"commit/{site.remotes[DUMMY].commit()}"}))
    site.define("gone", definition("nowhere"))
    site.define("production_7", definition())
    assert site.update().lines("ERROR") == []
    assert on_disk(site) == ["gone_1", "production_1", "production_7_1", "snap_1"]
    assert site.dangling("gone")
    push(site, "second")
    site.update()
    assert on_disk(site) == ["gone_1", "production_1", "production_2", "production_7_1", "production_7_2", "snap_1"]
    assert site.read("production_7/modules/dummy/manifests/init.pp") == "second\n"
    # A branch that appears is another version.
    for remote in site.remotes.values():
        remote.branch("nowhere")
    site.update("--poll")
    assert version(site, "gone") == "gone_2"
    assert site.dangling("gone") == []
    assert all("/nowhere/" not in text for text in links(site, "gone_2").values())
    site.retire("snap")
    site.update("--strict")
    assert "snap" not in site.environments()
    assert "snap_1" in on_disk(site)  # a compilation may be reading it


# With the other tools


def test_the_tools_know_it(versioned: Site) -> None:
    push(versioned, "second")
    versioned.update("--strict")
    found = document(versioned, show.main, "environment", "production")
    assert found["version_of_environment"] == "production_2"
    assert {(part["ref"], part["why"]) for part in found["repositories"]} == {("master", "default")}
    assert "Version: production_2" in tool(versioned, show.main, "environment", "production").stdout
    uses = tool(versioned, show.main, "repository", DUMMY).stdout.splitlines()
    assert uses[-1] == "\tused by production"
    [line] = [line for line in uses if line.startswith("master")]
    assert versioned.remotes[DUMMY].commit()[:7] in line
    text = tool(versioned, stats.main, "-e").stdout.splitlines()
    assert "There are 1 synchronized environments" in text
    taken = document(versioned, snapshot.main, "production")
    assert (taken["doubts"], taken["overrides"]["modules"]) == ([], {"dummy": versioned.remotes[DUMMY].commit()})
    outcome = tool(versioned, reset.main, "--yes")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "\t2 versions of environments" in outcome.stdout.splitlines()
    assert versioned.environments() == []
    assert versioned.update("--strict").code == 0
    assert versioned.read(SHOWN) == "second\n"


def test_a_versioned_and_a_plain_instance_have_no_difference(versioned: Site, tmp_path: Path) -> None:
    versioned.settings["main.config_version"] = "True"
    versioned.define("test", definition("master", {DUMMY: "nowhere"}))
    versioned.settings["main.versionedenvironments"] = "*"
    versioned.update()
    other = tmp_path / "plain"
    for name in ("clone", "environments"):
        (other / name).mkdir(parents=True)
    places = {f"main.{name}dir": str(other / name) for name in ("clone", "environments")}
    plain = {**places, "main.baredir": str(other / "bare"), "main.cachedir": str(other / "cache")}
    for name in ("bare", "cache"):
        (other / name).mkdir()
    before, versioned.settings = versioned.settings, {"main.directory_environments": "True", **plain}
    versioned.update()
    versioned.settings = before
    assert compare.main([str(versioned.root), str(other)]) == 0
    push(versioned, "second")
    versioned.update()
    assert compare.main([str(versioned.root), str(other)]) == 1


def test_it_can_be_held(versioned: Site) -> None:
    push(versioned, "second")
    versioned.update("--strict")
    assert tool(versioned, hold.main, "production", "--at", "1").code == 0
    assert versioned.read(SHOWN) == "first\n"
    assert version(versioned) == "production_3"
    push(versioned, "third")
    versioned.update()
    assert version(versioned) == "production_3"
    assert versioned.read(SHOWN) == "first\n"
    assert tool(versioned, release.main, "production").code == 0
    assert versioned.read(SHOWN) == "third\n"
    told = [each["change"] for each in document(versioned, history.main, "production") if "change" in each]
    assert told == ["released", "held", "created"]


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_what_is_not_held_follows_the_definition_of_now(versioned: Site, mode: str) -> None:
    versioned.settings["main.mode"] = mode
    assert tool(versioned, hold.main, "production", "--except", DUMMY).code == 0
    versioned.remotes[DUMMY].push({INIT: "on test\n"}, "test", onto="master")
    versioned.define("production", definition(overrides={DUMMY: "test"}))
    assert versioned.update().lines("ERROR") == []
    assert versioned.read(SHOWN) == "on test\n"
    before = version(versioned)
    push(versioned, "on master")
    versioned.hint(DUMMY)
    assert versioned.update().has("Only repositories that were pushed to")
    assert (versioned.read(SHOWN), version(versioned)) == ("on test\n", before)
    versioned.remotes[DUMMY].push({INIT: "on test again\n"}, "test")
    versioned.hint(DUMMY)
    assert versioned.update().has("Only repositories that were pushed to")
    assert versioned.read(SHOWN) == "on test again\n"
    versioned.update("--allow-purge")
    assert versioned.read(SHOWN) == "on test again\n"
    newest = [each["change"] for each in document(versioned, history.main, "production") if "change" in each]
    assert newest == ["changed", "held", "created"]


def test_the_history_knows_which_push_made_a_version(versioned: Site) -> None:
    for text in ("second", "third"):
        push(versioned, text)
        versioned.update("--strict")
    lines = tool(versioned, history.main).stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in lines[:3]] == [f"[production_{number}]" for number in (3, 2, 1)]
    [line] = tool(versioned, history.main, "production_2").stdout.splitlines()
    assert line == lines[1]
    assert [each["versions"] for each in document(versioned, history.main)[:2]] == [["production_3"], ["production_2"]]
    assert tool(versioned, history.main, "production_9").code == 3
    # A report names a version: go back to it.
    taken = document(versioned, snapshot.main, "production", "--at", "production_2")
    outcome = tool(versioned, hold.main, "production", "--at", "production_2")
    assert outcome.stdout.splitlines()[0].endswith(f"(deployment {taken['deployment']}).")
    assert versioned.read(SHOWN) == "second\n"
    assert_complaint(tool(versioned, hold.main, "production", "--at", "production_9"), 3, "has no version production_9")
    assert tool(versioned, release.main, "production").code == 0
    lines = tool(versioned, history.main, "production", "-n", "2").stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["[production_5]", "[production_4]"]


def test_what_somebody_bent_by_hand_is_another_version(versioned: Site) -> None:
    place = versioned.root / "environments" / VERSIONS / "production_1"
    (place / "modules" / "dummy").unlink()
    assert versioned.update("--strict").code == 0
    assert version(versioned) == "production_2"
    link = versioned.root / "environments" / "production"
    link.unlink()
    link.symlink_to("/nowhere")
    assert versioned.update("--strict").code == 0
    assert versioned.read(SHOWN) == "first\n"
    assert version(versioned) == "production_3"
    link.unlink()
    assert versioned.update("--strict").code == 0
    assert version(versioned) == "production_4"


def test_what_somebody_bends_while_the_baseline_is_saved_is_seen(
    versioned: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioned.update("--strict")
    push(versioned, "second")
    renew = baseline.renew

    def bend_then_renew(*arguments: Any, **named: Any) -> object:
        (versioned.root / "environments" / VERSIONS / "production_2" / "site").unlink()
        return renew(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(baseline, "renew", bend_then_renew)
        versioned.update("--strict")
    assert version(versioned) == "production_2"
    assert versioned.update("--strict").code == 0
    assert version(versioned) == "production_3"
    assert versioned.dangling(f"{VERSIONS}/production_3") == []
    assert versioned.exists("production/site/site.pp")


def test_generated_types_are_carried_along(versioned: Site) -> None:
    types = versioned.root / "environments" / VERSIONS / "production_1" / ".resource_types"
    types.mkdir()
    (types / "dummy.pp").write_text("# generated\n")
    push(versioned, "second")
    versioned.update("--strict")
    assert version(versioned) == "production_2"
    assert versioned.read("production/.resource_types/dummy.pp") == "# generated\n"
    assert document(versioned, snapshot.main, "production")["doubts"] == []


# Faults


def test_a_full_disk_leaves_the_version_before(versioned: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    push(versioned, "second")

    def refuse(_path: Path, _tree: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jens.environments.tree.make", refuse)
        outcome = versioned.update()
    assert outcome.has("ERROR Unable to refresh environment 'production': ")
    assert on_disk(versioned) == ["production_1"]
    assert versioned.read(SHOWN) == "first\n"
    first = links(versioned, "production_1")["modules/dummy"].split("/")[-2][1:]
    versioned.settings["main.retention"] = "0"
    with monkeypatch.context() as patched:
        patched.setattr("jens.environments.tree.make", refuse)
        versioned.update()
        versioned.update()
    assert versioned.checkouts(DUMMY) >= {first}
    assert versioned.update("--strict").code == 0
    assert versioned.read(SHOWN) == "second\n"


def flushed_path(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def test_a_version_is_on_stable_storage_before_its_link_leads_there(
    versioned: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is flushed with it: that would wait for what others write."""
    (versioned.root / "environments" / VERSIONS / "production_1" / ".resource_types").mkdir()
    (versioned.root / "environments" / VERSIONS / "production_1" / ".resource_types" / "dummy.pp").write_text("# made")
    fsync, syncfs = os.fsync, files.flush_file_system
    flushed: dict[Path, str] = {}
    whole: list[Path] = []

    def note(descriptor: int) -> None:
        flushed[flushed_path(descriptor)] = version(versioned)
        fsync(descriptor)

    def note_whole(path: Path) -> None:
        whole.append(path)
        syncfs(path)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(files, "flush_file_system", note_whole)
    push(versioned, "second")
    assert versioned.update("--strict").code == 0
    top = versioned.root / "environments"
    made = top / VERSIONS / "production_2"
    there = {made, *(path for path in made.rglob("*") if not path.is_symlink()), made.parent, top}
    assert made / ".resource_types" / "dummy.pp" in there
    assert {path: shown for path, shown in flushed.items() if top in (path, *path.parents)} == dict.fromkeys(
        there, "production_1"
    )
    assert whole == [versioned.root / "clone"]
    assert version(versioned) == "production_2"


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("place", ["production_2/environment.conf", "production_2/hieradata", "production_2", ""])
def test_a_version_that_cannot_be_flushed_is_not_shown(
    versioned: Site, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    push(versioned, "second")
    versions = versioned.root / "environments" / VERSIONS
    number, fsync, failed = getattr(errno, name), os.fsync, []

    def refuse(descriptor: int) -> None:
        if flushed_path(descriptor) == versions / place:
            failed.append(place)
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        outcome = versioned.update()
    assert failed
    [line] = outcome.lines("ERROR")
    assert line.startswith("ERROR Unable to refresh environment 'production': ")
    assert os.strerror(number) in line
    assert on_disk(versioned) == ["production_1"] == [version(versioned)]
    assert versioned.read(SHOWN) == "first\n"
    assert versioned.update("--strict").code == 0
    assert on_disk(versioned) == ["production_1", "production_2"]
    assert versioned.read(SHOWN) == "second\n"


def test_nothing_is_removed_while_nobody_can_see_what_versions_use(
    versioned: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioned.settings["main.retention"] = "0"
    first = versioned.remotes[DUMMY].commit()
    push(versioned, "second")
    versioned.update("--strict")
    (versioned.root / "cache" / "versions.json").unlink()

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("jens.environments.versions.commits_of", refuse)
        outcome = versioned.update("--allow-purge")
        [line] = outcome.lines("ERROR")
        assert line.startswith("ERROR Unable to see what versions of environments use, so nothing is removed: ")
        assert outcome.code == 0
    assert versioned.checkouts(DUMMY) >= {first}
    assert on_disk(versioned) == ["production_1", "production_2"]
    for _ in range(3):
        versioned.update("--allow-purge")
    assert on_disk(versioned) == ["production_2"]
    assert versioned.checkouts(DUMMY) == {versioned.remotes[DUMMY].commit()}


def start(site: Site) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), "--allow-purge"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TREE)}, stderr=subprocess.DEVNULL)


def test_a_kill_at_any_instant_leaves_a_whole_environment(versioned: Site) -> None:
    """Now and then it is switched on or off."""
    versioned.settings["main.retention"] = "0"
    chance, pushed, shown_before = random.Random(7), ["first\n"], 0
    layout = Layout.at(versioned.root)
    begin = time.monotonic()
    with start(versioned) as process:
        process.wait()
    usual = time.monotonic() - begin
    for number in range(KILLS):
        push(versioned, f"push {number}")
        pushed.append(f"push {number}\n")
        if number % 5 > 2:
            versioned.settings["main.versionedenvironments"] = "other," if number % 2 else "production,"
        with start(versioned) as process:
            time.sleep(chance.uniform(0.3, 1.05) * usual)
            process.kill()
        for link in versioned.links(layout.place("production")):
            assert (layout.tree("production") / link).exists(), link
        assert pushed.index(versioned.read(SHOWN)) >= shown_before
        shown_before = pushed.index(versioned.read(SHOWN))
        if number % 4 == 3:
            assert versioned.update().lines("ERROR") == []
            assert versioned.read(SHOWN) == f"push {number}\n"
    versioned.settings.update(ON)
    for _ in range(3):
        versioned.update("--allow-purge")
    assert on_disk(versioned) == [version(versioned)]
    assert versioned.checkouts(DUMMY) == {versioned.remotes[DUMMY].commit()}


def test_left_overs_of_killed_runs_go(versioned: Site) -> None:
    place = versioned.root / "environments" / VERSIONS
    (place / f"{files.STAGING}abc").mkdir()
    shutil.copytree(place / "production_1", place / "production_9", symlinks=True)
    versioned.settings["main.retention"] = "0"
    versioned.update("--allow-purge")
    assert on_disk(versioned) == ["production_1", "production_9"]  # somebody may have seen it
    versioned.update("--allow-purge")
    assert on_disk(versioned) == ["production_1"]
