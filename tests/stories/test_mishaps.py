"""Mishaps: servers that come and go while definitions change, and files that cannot be read or written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens.config import load_config
from jens.layout import Layout
from jens.repositories import retention
from jens.system import files
from tests import TREE
from tests.conftest import Remote, Site, git

OVERRIDES = "default: master\nnotifications: ann@example.org\noverrides:\n  modules: {{dummy: {}, late: {}}}\n"


def _dangling(site: Site) -> list[str]:
    return [link for environment in site.environments() for link in site.dangling(environment)]


@pytest.fixture
def two(site: Site) -> Site:
    """A site with two modules that environment team overrides."""
    for branch in ("a", "b", "c"):
        site.remotes["modules/dummy"].push({"code/manifests/init.pp": f"# {branch}\n"}, branch, onto="master")
    site.add("modules/late").branch("a")
    site.publish()
    site.define("team", OVERRIDES.format("a", "a"))
    assert site.update("--strict").code == 0
    return site


def test_a_link_that_waits_keeps_its_branch_however_often_the_definition_changes(two: Site) -> None:
    two.remotes["modules/late"].push({"code/x": "1\n"}, "b", onto="master")
    two.remotes["modules/late"].go_away()
    two.define("team", OVERRIDES.format("b", "b"))
    two.update()
    assert two.read("team/modules/dummy/manifests/init.pp") == "# b\n"
    assert two.links("team")["modules/late"].endswith("/late/a/code")
    two.remotes["modules/dummy"].push({"code/manifests/init.pp": "# d\n"}, "d", onto="master")
    two.remotes["modules/dummy"].go_away()
    two.define("team", OVERRIDES.format("d", "b"))
    for _ in range(2):
        two.update()
        assert _dangling(two) == []
        assert two.read("team/modules/dummy/manifests/init.pp") == "# b\n"
    two.remotes["modules/dummy"].come_back()
    two.remotes["modules/late"].come_back()
    assert two.update("--strict").code == 0
    assert two.read("team/modules/dummy/manifests/init.pp") == "# d\n"
    assert two.read("team/modules/late/x") == "1\n"
    assert set(two.expanded("modules/dummy")) == {"master", "d"}


def test_one_link_that_cannot_be_put_leaves_the_others_alone(two: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    put_link = files.put_link

    def refuse(path: Path, text: str) -> Path | None:
        if path.name == "dummy" and path.parent.name == "modules":
            raise PermissionError(13, "Permission denied", str(path))
        return put_link(path, text)

    two.remotes["modules/late"].branch("b")
    two.define("team", OVERRIDES.format("b", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "put_link", refuse)
        outcome = two.update("--strict")
    assert outcome.code == 60
    assert len(outcome.lines("ERROR")) == 1
    assert two.links("team")["modules/late"].endswith("/late/b/code")
    assert _dangling(two) == []
    assert two.update("--strict").code == 0
    assert two.read("team/modules/dummy/manifests/init.pp") == "# b\n"


def test_a_directory_in_the_place_of_environment_conf_is_replaced(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.update()
    conf = site.root / "environments" / "production" / "environment.conf"
    conf.unlink()
    conf.mkdir()
    assert site.update("--strict").code == 0
    assert conf.read_text().startswith("modulepath = modules:hostgroups\n")


def test_a_commit_that_could_not_be_asked_for_is_not_gone(site: Site) -> None:
    remote = site.remotes["modules/dummy"]
    old = remote.commit()
    new = remote.push({"code/manifests/init.pp": "# new\n"}, "hidden", onto="master")
    remote.delete("hidden")
    script = site.root / "ssh"
    broken = f"test -e {site.root}/broken && test -e {site.root}/asked && exit 1"
    script.write_text(f'#!/bin/sh\nfor last; do :; done\n{broken}\ntouch {site.root}/asked\nexec sh -c "$last"\n')
    script.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(script)
    site.urls["modules/dummy"] = f"ssh://git@gitlab.example.org{remote.path}"
    site.publish()
    pin = "notifications: ann@example.org\noverrides:\n  modules: {{dummy: commit/{}}}\n"
    site.define("snap", pin.format(old))
    assert site.update("--strict").code == 0
    (site.root / "broken").touch()
    (site.root / "asked").unlink()
    site.define("snap", pin.format(new))
    outcome = site.update()
    assert site.read("snap/modules/dummy/manifests/init.pp") == "class dummy {}\n"
    assert outcome.has("Unable to fetch 'dummy' from remote (modules/dummy: ")
    (site.root / "broken").unlink()
    assert site.update("--strict").code == 0
    assert site.read("snap/modules/dummy/manifests/init.pp") == "# new\n"


def test_attributes_of_the_user_do_not_change_what_is_laid_out(site: Site) -> None:
    attributes = Path(os.environ["HOME"]) / ".config" / "git" / "attributes"
    attributes.parent.mkdir(parents=True)
    attributes.write_text("* text eol=crlf ident\n")
    site.remotes["modules/dummy"].push({"code/id": "$Id$\nline\n"})
    site.update()
    assert (site.root / "environments/production/modules/dummy/id").read_bytes() == b"$Id$\nline\n"


@pytest.mark.parametrize(
    "place",
    ["environments/private", "clone/modules/private", "bare/modules/private", "clone/modules/old", "bare/modules/old"],
)
def test_a_directory_that_cannot_be_read_spoils_only_itself(
    place: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("modules/old")
    site.publish()
    site.update()
    del site.urls["modules/old"]
    site.publish()
    hidden = site.root / place
    hidden.mkdir(exist_ok=True)
    monkeypatch.setattr(os, "listdir", _unless(os.listdir, hidden))
    monkeypatch.setattr(os, "scandir", _unless(os.scandir, hidden))
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    assert site.update().code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


def _unless(function: object, hidden: Path) -> object:
    def refuse(path: object = ".") -> object:
        if str(path).startswith(str(hidden)):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path)  # type: ignore[operator]

    return refuse


def test_parts_of_an_instance_may_be_moved(site: Site) -> None:
    site.update()
    commit = site.expanded("modules/dummy")["master"]
    for part in ("bare", "clone"):
        deeper = site.root / "elsewhere" / part
        deeper.parent.mkdir(exist_ok=True)
        shutil.move(site.root / part, deeper)
        site.settings[f"main.{part}dir"] = str(deeper)
        assert site.update("--strict").code == 0
        checkout = Path(site.settings.get("main.clonedir", str(site.root / "clone"))) / "modules" / "dummy" / "master"
        assert git("rev-parse", "HEAD", directory=checkout) == commit
        assert git("status", "--porcelain", directory=checkout) == ""
    assert _dangling(site) == []
    worktrees = git("worktree", "list", directory=site.root / "elsewhere" / "bare" / "modules" / "dummy")
    assert str(site.root / "elsewhere" / "clone") in worktrees


def test_the_record_of_a_checkout_goes_with_it(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    records = site.root / "bare" / "modules" / "dummy" / "worktrees"
    shutil.copytree(records / site.remotes["modules/dummy"].commit(), records / ("a" * 40))
    new = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.update()
    assert os.listdir(records) == [new]


def test_an_abbreviation_stays_what_it_was_when_the_inventory_is_lost(site: Site) -> None:
    remote = site.remotes["modules/dummy"]
    pinned = remote.commit()
    site.define("snap", f"notifications: ann@example.org\noverrides:\n  modules: {{dummy: commit/{pinned[:4]}}}\n")
    site.update()
    other = _commit_like(remote, pinned[:4])
    git("update-ref", "refs/heads/master", other, directory=remote.path)
    assert site.update("--strict").code == 0
    (site.root / "cache" / "inventory.json").unlink()
    assert site.update("--strict").code == 0
    assert site.checkouts("modules/dummy") == {pinned, other}
    assert site.links("snap")["modules/dummy"] == f"../../../clone/modules/dummy/.{pinned}/code"


def _commit_like(remote: Remote, digits: str) -> str:
    """Make a commit whose id begins with these digits."""
    tree = git("rev-parse", "master^{tree}", directory=remote.path)
    for number in range(2_000_000):
        who = f"A <a@example.org> {number} +0000"
        body = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
        if hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False).hexdigest().startswith(digits):
            return git("hash-object", "-t", "commit", "-w", "--stdin", directory=remote.path, stdin=body)
    raise AssertionError(digits)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(closed: str, site: Site) -> None:
    command = f"exec {sys.executable} {TREE}/bin/jens-update -c {site.config} {closed}"
    done = subprocess.run(["sh", "-c", command], env={**os.environ, "PYTHONPATH": str(TREE)}, check=False)
    assert done.returncode == 0
    assert site.exists("production/modules/dummy/manifests/init.pp")


def test_a_log_on_a_full_disk_is_one_line_and_stops_nothing(site: Site) -> None:
    (site.root / "log" / "jens-update.log").symlink_to("/dev/full")
    outcome_code, error = _run(site)
    assert outcome_code == 0
    assert error.count("\n") == 1
    assert "jens-update.log cannot be written" in error
    assert site.exists("production/modules/dummy/manifests/init.pp")


def _run(site: Site) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_new_repository_whose_files_cannot_be_laid_out_is_in_no_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.update()
    site.add("modules/big")
    site.publish()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jens.repositories.prepare.worktrees.check_out", full)
        for _ in range(2):
            assert site.update("--strict").code == 60
            assert "modules/big" not in site.links("production")
    assert site.update("--strict").code == 0
    assert site.exists("production/modules/big/manifests/init.pp")


def test_the_last_run_is_recorded_though_it_crashed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("jens.update.plan.plan_everything", crash)
    assert site.update().code == 70
    last = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    assert (last["status"], last["failed"]) == (70, ["a bug"])


def test_an_emptied_index_of_a_metadata_clone_holds_nobody_up(site: Site) -> None:
    site.update()
    (site.root / "metadata" / "environments" / ".git" / "index").write_bytes(b"")
    site.define("new")
    assert site.update("--strict").code == 0
    assert site.exists("new/modules/dummy")


def test_a_terminal_that_is_closed_ends_the_run_and_its_git_processes(site: Site) -> None:
    script = site.root / "ssh"
    script.write_text(f"#!/bin/sh\necho $$ > {site.root}/pid\nexec sleep 60\n")
    script.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(script)
    site.urls["modules/far"] = "git@gitlab.example.org:far.git"
    site.publish()
    process = subprocess.Popen(
        [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        stderr=subprocess.DEVNULL,
    )
    pid, end = site.root / "pid", time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 130
    while Path(f"/proc/{pid.read_text().strip()}/cmdline").exists() and time.monotonic() < end:
        if b"sleep" not in Path(f"/proc/{pid.read_text().strip()}/cmdline").read_bytes():
            break  # a zombie, which its new parent has not collected yet
        time.sleep(0.02)
    assert time.monotonic() < end


def test_a_time_that_is_no_number_counts_as_lost(site: Site) -> None:
    site.update()
    state = site.root / "cache" / "unreferenced.json"
    commit = site.remotes["modules/dummy"].commit()
    state.write_text(f'{{"version": 1, "content": {{"modules/dummy/{commit}": NaN}}}}')
    layout = Layout.of(load_config(site.config))
    assert retention.load(layout) == {}


def test_checkouts_are_on_stable_storage_before_anything_shows_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.update()
    old = site.remotes["modules/dummy"].commit()
    new = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    seen = []
    flush = files.flush_file_system

    def look_and_flush(path: Path) -> None:
        if path == site.root / "clone":
            seen.append((site.expanded("modules/dummy"), new in site.checkouts("modules/dummy")))
        flush(path)

    monkeypatch.setattr(files, "flush_file_system", look_and_flush)
    assert site.update().code == 0
    assert seen == [({"master": old}, False)]
    assert site.expanded("modules/dummy") == {"master": new}


def test_a_git_process_that_outlived_its_run_is_not_raced(site: Site) -> None:
    site.update()
    calls = site.root / "calls"
    calls.mkdir()
    script = site.root / "ssh"
    # The second call is the fetch of the run that will be killed; it takes two seconds.
    script.write_text(
        f"#!/bin/sh\nfor last; do :; done\nn=1; while ! mkdir {calls}/$n 2>/dev/null; do n=$((n+1)); done\n"
        f'test $n = 2 && sleep 2\nsh -c "$last"\necho $n >> {site.root}/ended\n'
    )
    script.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(script)
    remote = site.remotes["modules/dummy"]
    site.urls["modules/dummy"] = f"ssh://git@gitlab.example.org{remote.path}"
    site.publish()
    remote.push({"code/manifests/init.pp": "# new\n"})
    process = subprocess.Popen(
        [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    end = time.monotonic() + 30
    while not (calls / "2").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert site.update("--strict").code == 0
    assert (site.root / "ended").read_text().split().index("2") < (site.root / "ended").read_text().split().index("4")
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


def test_a_server_that_never_replies_is_tried_once_and_holds_up_nothing_else(site: Site) -> None:
    site.update()
    silent = socket.socket()
    with silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        for number in range(9):  # more than are asked at once
            site.urls[f"modules/far{number}"] = f"git://{server}/far{number}.git"
        site.publish()
        site.settings.update({"git.timeout": "4", "git.clonetimeout": "4", "git.jobs": "2"})
        commit = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
        begin = time.monotonic()
        outcome = site.update()
        elapsed = time.monotonic() - begin
    assert outcome.code == 0
    assert site.expanded("modules/dummy") == {"master": commit}
    errors = outcome.lines("ERROR")
    assert len(errors) == 9
    assert [error for error in errors if "no answer within 4 seconds" in error]
    assert [error for error in errors if f"not tried, {server} did not answer in time before" in error]
    assert elapsed < 60  # four timeouts with their grace, in turn, take less; only a hang takes longer
