"""After a run: the hook is told what changed, at least once and in order, and it is never in the way of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jens import locking
from jens.commands import deliver, hold, release, reset
from jens.system import processes
from tests import TREE
from tests.conftest import Outcome, Site, definition, git
from tests.receivers import http_server

jsonschema: Any = pytest.importorskip("jsonschema")

DUMMY = "modules/dummy"

_SCHEMA = json.loads((TREE / "examples" / "hooks" / "hook.schema.json").read_text())


class Hook:
    """The site's hook: keeps each document that it gets, and ends as it is told to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.top = site.root / "hook"
        self.top.mkdir()
        self.path = self.top / "hook"
        self.does("")
        site.settings["hook.command"] = str(self.path)

    def does(self, more: str, *, reads: bool = True) -> None:
        """Let it do more after it has read what changed."""
        read = f"cat >{self.top}/.new && mv {self.top}/.new {self.top}/$(date +%s%N).json\n" if reads else ""
        self.path.write_text(f"#!/bin/sh\n{read}{more}\n")
        self.path.chmod(0o755)

    def told(self) -> list[dict[str, Any]]:
        """What it was told, the oldest first; each document is as the schema says."""
        documents = [json.loads(path.read_text()) for path in sorted(self.top.glob("*.json"))]
        for document in documents:
            jsonschema.validate(document, _SCHEMA)
        return documents

    def deliver(self, *arguments: str) -> Outcome:
        """Run jens-deliver."""
        return self.site.deliver(*arguments)

    def news(self) -> dict[str, Any]:
        """What it is told by a delivery, in one call."""
        before = len(self.told())
        assert self.deliver().code == 0
        [document] = self.told()[before:]
        return document


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that runs would have started."""
    commands: list[list[str]] = []
    monkeypatch.setattr(processes, "start_detached", commands.append)
    return commands


@pytest.fixture
def hook(site: Site, started: list[list[str]]) -> Hook:
    """A hook that knows what there is."""
    made = Hook(site)
    site.update()
    assert made.deliver().code == 0
    for path in made.top.glob("*.json"):
        path.unlink()
    started.clear()
    return made


def push(site: Site, text: str = "# more\n", branch: str = "master") -> str:
    return site.remotes[DUMMY].push({"code/manifests/init.pp": text}, branch)


def test_a_new_hook_is_told_that_everything_changed(site: Site, started: list[list[str]]) -> None:
    hook = Hook(site)
    site.update()
    assert [command[-2:] for command in started] == [["-c", str(site.config)]]
    assert hook.deliver().code == 0
    [document] = hook.told()
    assert (document["version"], document["all"], document["changed"]) == (1, True, ["production"])
    assert document["host"] == os.uname().nodename


def test_the_hook_is_told_of_a_push_with_its_commits_and_its_author(hook: Hook) -> None:
    before = hook.site.remotes[DUMMY].commit()
    hook.site.update()
    now = push(hook.site)
    hook.site.update()
    document = hook.news()
    assert (document["created"], document["changed"], document["deleted"]) == ([], ["production"], [])
    [deployment] = document["deployments"]
    assert (deployment["number"], deployment["status"]) == (2, 0)
    assert document["environments"] == {
        "production": {
            "change": "changed",
            "repositories": [
                {
                    "repository": DUMMY,
                    "ref": "master",
                    "before": before,
                    "now": now,
                    "author": "Ann",
                    "subject": "push",
                }
            ],
        }
    }


def test_an_environment_whose_files_are_as_they_were_is_not_named(hook: Hook) -> None:
    site = hook.site
    site.remotes[DUMMY].branch("dev")
    site.define("dev", definition("master", {DUMMY: "dev"}))
    site.update()
    assert hook.news()["created"] == ["dev"]
    push(site, branch="dev")
    site.update()
    assert hook.news()["changed"] == ["dev"]
    push(site)
    site.update()
    assert hook.news()["changed"] == ["production"]


def test_pushes_since_the_last_delivery_are_told_in_one_call_as_one_difference(hook: Hook) -> None:
    site = hook.site
    before = site.remotes[DUMMY].commit()
    for number in range(3):
        push(site, f"# {number}\n")
        site.update()
    document = hook.news()
    assert [each["number"] for each in document["deployments"]] == [4, 3, 2]
    [difference] = document["environments"]["production"]["repositories"]
    assert (difference["before"], difference["now"]) == (before, site.remotes[DUMMY].commit())


def test_what_was_taken_back_meanwhile_is_no_change(hook: Hook) -> None:
    site = hook.site
    before = site.remotes[DUMMY].commit()
    push(site)
    site.update()
    git("update-ref", "refs/heads/master", before, directory=site.remotes[DUMMY].path)
    site.update()
    document = hook.news()
    assert document["environments"] == {}
    assert len(document["deployments"]) == 2


def test_created_deleted_and_both(hook: Hook) -> None:
    site = hook.site
    site.define("short")
    site.update()
    assert hook.news()["created"] == ["short"]
    site.retire("short")
    site.define("passing")
    site.update()
    site.retire("passing")
    site.define("next")
    site.update()
    document = hook.news()
    assert (document["created"], document["changed"], document["deleted"]) == (["next"], [], ["short"])
    site.retire("next")
    site.update()
    site.define("next")
    site.update()
    assert hook.news()["changed"] == ["next"]


def test_faults_are_told_when_they_open_and_when_they_close(hook: Hook) -> None:
    site = hook.site
    site.define("production", definition("master", {"modules/nothing": "dev"}))
    site.update()
    [fault] = hook.news()["faults"]["opened"]
    assert (fault["kind"], fault["environment"], fault["addresses"]) == (
        "void override",
        "production",
        ["ann@example.org"],
    )
    site.define("production", definition("master"))
    site.update()
    document = hook.news()
    assert document["faults"]["opened"] == []
    [closed] = document["faults"]["closed"]
    assert closed["until"] is not None
    assert {**closed, "until": None} == fault


def test_a_fault_that_came_and_went_between_two_deliveries_is_in_both_lists(hook: Hook) -> None:
    site = hook.site
    site.define("production", definition("master", {"modules/nothing": "dev"}))
    site.update()
    site.define("production", definition("master"))
    site.update()
    faults = hook.news()["faults"]
    assert faults["opened"] == faults["closed"]
    assert [fault["kind"] for fault in faults["opened"]] == ["void override"]


def test_a_run_with_nothing_to_tell_starts_no_delivery(hook: Hook, started: list[list[str]]) -> None:
    assert hook.site.update().code == 0
    assert started == []
    assert hook.deliver().code == 0
    assert hook.told() == []


FAILURES = {
    "its status": ("echo no luck >&2; exit 3", "it ended with status 3: no luck"),
    "a signal": ("kill -KILL $$", "it ended with signal 9"),
    "it hangs": ("sleep 100", "it was ended, because it took too long"),
    "it reads nothing": ("exit 1", "it ended with status 1"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_hook_that_fails_is_told_again_until_it_works(hook: Hook, started: list[list[str]], kind: str) -> None:
    site = hook.site
    does, problem = FAILURES[kind]
    site.settings["hook.timeout"] = "1" if kind == "it hangs" else "30"
    hook.does(does, reads=False)
    now = push(site)
    assert site.update("--strict").code == 0
    assert len(started) == 1
    outcome = hook.deliver()
    assert outcome.code == 60
    [warning] = outcome.lines("WARNING")
    assert problem in warning
    assert problem in outcome.stderr

    site.update()  # it is a fault, and tried again
    [fault] = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]["faults"]
    assert (fault["kind"], fault["text"]) == ("delivery", f"hook {hook.path}: {problem}")
    assert len(started) == 2
    assert hook.deliver().lines("WARNING") == []

    hook.does("")
    document = hook.news()
    assert document["environments"]["production"]["repositories"][0]["now"] == now
    assert [fault["kind"] for fault in document["faults"]["opened"]] == ["delivery"]
    site.update()
    assert hook.news()["faults"]["closed"][0]["kind"] == "delivery"
    assert site.update("--strict").code == 0


def test_a_hook_that_cannot_be_started_is_a_fault(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    hook.path.chmod(0o644)
    assert "it cannot be started: Permission denied" in hook.deliver().stderr


def test_a_hook_that_does_not_read_has_been_told_when_it_says_so(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    hook.does("exit 0", reads=False)
    assert hook.deliver().code == 0
    hook.does("")
    assert hook.deliver().code == 0
    assert hook.told() == []


def alive(path: Path) -> bool:
    """Whether the process lives whose id is in a file."""
    process = processes.look(int(path.read_text()))
    return process is not None and process.state != "Z"


def test_what_a_hook_leaves_in_the_background_goes_on_and_holds_up_nobody(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    hook.does("setsid sleep 60 &\necho $! >$(dirname $0)/pid")
    begin = time.monotonic()
    assert hook.deliver().code == 0
    assert time.monotonic() - begin < 30
    push(hook.site, "# again\n")
    hook.site.update()
    hook.does("")
    hook.news()
    assert alive(hook.top / "pid")
    os.kill(int((hook.top / "pid").read_text()), signal.SIGKILL)


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_has_started(hook: Hook) -> None:
    hook.site.settings["hook.timeout"] = "1"
    push(hook.site)
    hook.site.update()
    hook.does("setsid sleep 60 &\necho $! >$(dirname $0)/pid; sleep 60")
    assert hook.deliver().code == 60
    wait_for(lambda: not alive(hook.top / "pid"))  # a killed process may need a moment to end


def test_what_a_killed_delivery_has_left_at_work_is_ended_by_the_next(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    hook.does("echo $$ >$(dirname $0)/pid; sleep 60", reads=False)
    command = [sys.executable, str(TREE / "bin" / "jens-deliver"), "-c", str(hook.site.config)]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TREE)})
    wait_for((hook.top / "pid").exists)
    killed.kill()
    killed.wait()
    assert alive(hook.top / "pid")
    hook.does("")
    assert len(hook.news()["changed"]) == 1
    wait_for(lambda: not alive(hook.top / "pid"))  # a killed process may need a moment to end


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_hook_that_takes_long_holds_up_no_other_receiver(hook: Hook) -> None:
    """While the hook is at work a run opens a fault, and the administrator is told of it by the same delivery."""
    pytest.importorskip("apprise")
    site = hook.site
    hook.does("touch $(dirname $0)/begun; while [ ! -e $(dirname $0)/go ]; do sleep 0.05; done")
    with http_server() as (server, posts):
        site.settings |= {"notify.admins": f"json://127.0.0.1:{server.server_port}/x,", "notify.grace": "0"}
        push(site)
        site.update()
        command = [sys.executable, str(TREE / "bin" / "jens-deliver"), "-c", str(site.config)]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TREE)})
        wait_for((hook.top / "begun").exists)
        site.remotes[DUMMY].go_away()
        site.update()  # it leaves the news to the delivery that is at work
        wait_for(lambda: bool(posts))
        assert not hook.told()[1:]
        (hook.top / "go").touch()
        assert process.wait(60) == 0
    assert "modules/dummy broken" in posts[0]["title"]
    assert [len(each["faults"]["opened"]) for each in hook.told()] == [0, 1]


def test_a_thread_that_cannot_be_started_is_the_failure_of_its_receiver(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    push(hook.site)
    hook.site.update()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        outcome = hook.deliver()
    assert outcome.code == 60
    assert "it cannot be told now: can't start new thread" in outcome.stderr
    assert hook.news()["changed"] == ["production"]


def test_a_hook_that_gets_another_name_is_no_fault_for_ever(hook: Hook) -> None:
    site = hook.site
    site.settings["hook.command"] = str(hook.top / "wrong")
    push(site)
    site.update()
    assert hook.deliver().code == 60
    site.settings["hook.command"] = str(hook.path)
    assert hook.deliver().code == 0
    assert site.update("--strict").code == 0


def test_a_hook_whose_interpreter_is_missing_says_so(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    hook.path.write_text("#!/bin/sh\r\n")
    assert "the program that its first line names is not there" in hook.deliver().stderr


def test_a_hook_that_prints_without_end_is_bounded(hook: Hook) -> None:
    hook.site.settings["hook.timeout"] = "2"
    push(hook.site)
    hook.site.update()
    hook.does("yes jens")
    outcome = hook.deliver()
    assert outcome.code == 60
    assert "too long: jens" in outcome.stderr


def test_two_deliveries_never_overlap(hook: Hook) -> None:
    push(hook.site)
    hook.site.update()
    lock = hook.site.root / "cache" / "deliver.lock"
    with locking.holding(lock):
        outcome = hook.deliver()
        told_all = hook.deliver("--all")
    assert (outcome.code, outcome.stderr) == (50, "")
    assert told_all.code == 50
    assert "Another jens-deliver is at work, try again" in told_all.stderr
    assert hook.told() == []
    assert len(hook.news()["changed"]) == 1


def test_all_tells_every_environment_as_changed(hook: Hook) -> None:
    hook.site.define("dev")
    hook.site.update()
    hook.news()
    assert hook.deliver("--all").code == 0
    document = hook.told()[-1]
    assert (document["all"], document["changed"]) == (True, ["dev", "production"])
    assert hook.deliver().code == 0
    assert len(hook.told()) == 2


def test_a_history_that_began_anew_is_told_from_its_beginning(hook: Hook) -> None:
    push(hook.site)
    (hook.site.root / "cache" / "history.sqlite").unlink()
    hook.site.update()
    document = hook.news()
    assert (document["all"], document["changed"]) == (True, ["production"])


def test_after_a_reset_environments_are_told_as_deleted_and_made_anew(hook: Hook) -> None:
    site = hook.site
    assert reset.main(["-c", str(site.config), "--yes"]) == 0
    assert hook.news()["deleted"] == ["production"]
    site.update()
    assert hook.news()["created"] == ["production"]


def test_a_lost_record_of_deliveries_tells_all_once_more(hook: Hook) -> None:
    (hook.site.root / "cache" / "deliveries.json").write_text("damaged")
    hook.site.update()
    assert hook.news()["all"] is True


def test_a_run_starts_the_delivery_and_does_not_wait_for_it(site: Site) -> None:
    hook = Hook(site)
    hook.does("sleep 3; echo done >$(dirname $0)/done")
    assert site.update("--strict").code == 0
    assert not (hook.top / "done").exists()
    deadline = time.monotonic() + 60
    while not (hook.top / "done").exists() or (site.root / "cache" / "deliver.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert hook.told()[0]["changed"] == ["production"]


def test_a_hold_and_its_release_are_told_at_once(hook: Hook, started: list[list[str]]) -> None:
    site = hook.site
    before = site.remotes[DUMMY].commit()
    now = push(site)
    site.update()
    hook.news()
    started.clear()
    options = ["-c", str(site.config), "production"]
    assert hold.main([*options, "--at", "1"]) == 0
    assert len(started) == 1
    [difference] = hook.news()["environments"]["production"]["repositories"]
    assert (difference["before"], difference["now"]) == (now, before)
    assert release.main(options) == 0
    [difference] = hook.news()["environments"]["production"]["repositories"]
    assert (difference["before"], difference["now"], difference["ref"]) == (before, now, "master")
    assert hold.main(options) == 0
    assert hook.news()["environments"] == {"production": {"change": "changed", "repositories": []}}


def test_under_systemd_the_path_unit_starts_it(
    hook: Hook, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "1")
    push(hook.site)
    hook.site.update()
    assert started == []
    assert (hook.site.root / "cache" / "deliver").exists()
    hook.news()
    assert not (hook.site.root / "cache" / "deliver").exists()


def test_without_receivers_there_is_nobody_to_tell(site: Site, started: list[list[str]]) -> None:
    site.update()
    assert started == []
    site.capture.readouterr()
    assert deliver.main(["-c", str(site.config), "--all"]) == 0
    assert "[hook]" in site.capture.readouterr().err
    assert {path.name for path in (site.root / "cache").iterdir() if path.name.startswith("deliver")} == set()
