"""Holds: an environment stays as it is, or goes back to what it was, whatever is pushed, redeclared or deleted."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jens.commands import gc, history, hold, release, reset, show, stats
from jens.config import load_config
from jens.git.lock import repository_lock
from jens.locking import run_lock
from tests import TREE
from tests.conftest import MODULE, Outcome, Site, assert_complaint, definition, git, let_pass

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
SHOWN = "production/modules/dummy/manifests/init.pp"
#: So many holds are killed; more with KILLS in the environment.
KILLS = int(os.environ.get("KILLS", "8"))
Main = Callable[[list[str]], int]


def tool(site: Site, main: Main, *arguments: str) -> Outcome:
    site.capture.readouterr()
    code = main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    log = site.root / "log" / "jens-hold.log"
    return Outcome(code, captured.out, captured.err, log.read_text() if log.exists() else "")


def document(site: Site, main: Main, *arguments: str) -> Any:
    outcome = tool(site, main, *arguments)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def hold_now(site: Site, *arguments: str) -> Outcome:
    outcome = tool(site, hold.main, "production", *arguments)
    assert (outcome.code, outcome.stderr) == (0, "")
    return outcome


def said(line: str, *parts: str) -> None:
    assert all(part in line for part in parts), line


def last_deployment(site: Site) -> str:
    return str(document(site, history.main, "--json")[0]["deployment"])


def push(site: Site, text: str, repo: str = DUMMY) -> str:
    """Push and run; the deployment before."""
    before = last_deployment(site)
    site.remotes[repo].push({INIT: f"{text}\n"})
    assert site.update().lines("ERROR") == []
    return before


def kinds(site: Site) -> list[tuple[str, str | None]]:
    found = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]["faults"]
    return [(fault["kind"], fault["environment"]) for fault in found]


@pytest.fixture
def old(site: Site) -> Site:
    """A site whose module was pushed to; ``first`` is what production showed before."""
    site.remotes[DUMMY].push({INIT: "first\n"})
    assert site.update("--strict").code == 0
    return site


# The purpose


def test_an_environment_stays_as_it_is_until_it_is_released(old: Site) -> None:
    outcome = hold_now(old, "--reason", "freeze")
    assert outcome.stdout.splitlines() == [
        "Environment 'production' is held as it is.",
        "0 of 4 repositories show another commit now.",
        "It ends with: jens-release production",
    ]
    pinned = old.links("production")
    assert all("/." in text for text in pinned.values())
    old.remotes[DUMMY].push({INIT: "second\n"})
    old.add("modules/new")
    old.publish()
    outcome = old.update("--strict")
    assert (outcome.code, outcome.lines("ERROR")) == (60, [])  # nobody forgets it
    assert kinds(old) == [("held", "production")]
    assert old.read(SHOWN) == "first\n"
    assert old.links("production") == pinned
    assert old.expanded(DUMMY) == {"master": old.remotes[DUMMY].commit()}  # others would have it

    outcome = tool(old, release.main, "production")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert old.read(SHOWN) == "second\n"
    assert "modules/new" in old.links("production")
    assert old.update("--strict").code == 0
    assert not list((old.root / "cache" / "holds").iterdir())
    told = [each["change"] for each in document(old, history.main, "--json", "production") if "change" in each]
    assert told == ["released", "held", "created"]
    assert_complaint(tool(old, release.main, "production"), 3, "'production' is not held", "jens-hold --list")


def test_it_goes_back_to_what_it_was_at_once(old: Site) -> None:
    first = old.remotes[DUMMY].commit()
    old.settings["main.retention"] = "0"
    before = push(old, "second")
    second = old.remotes[DUMMY].commit()
    old.update()
    assert old.checkouts(DUMMY) == {second}  # it has to be laid out again
    old.remotes[DUMMY].go_away()  # and nobody needs a server for that, nor the metadata
    (old.root / "metadata").rename(old.root / "elsewhere")
    outcome = hold_now(old, "--at", before, "--json")
    assert json.loads(outcome.stdout)["moves"] == [
        {"repository": DUMMY, "ref": "master", "before": second, "now": first}
    ]
    assert old.read(SHOWN) == "first\n"
    assert sum(1 for name in os.listdir(old.root / "clone" / DUMMY) if name.startswith(".new")) == 0


def test_runs_keep_it_so_and_everybody_can_see_why(old: Site) -> None:
    first = old.remotes[DUMMY].commit()
    before = push(old, "second")
    outcome = hold_now(old, "--at", before, "--reason", "dummy broke DNS")
    said(outcome.stdout.splitlines()[0], "is held as it was at", f"(deployment {before})")
    assert f"\t{DUMMY} master {old.remotes[DUMMY].commit()[:7]}..{first[:7]}" in outcome.stdout.splitlines()
    for _ in range(2):
        assert old.update().lines("ERROR") == []
    assert old.read(SHOWN) == "first\n"

    found = document(old, show.main, "environment", "production", "--json")
    assert (found["hold"]["reason"], found["hold"]["then"]["deployment"]) == ("dummy broke DNS", int(before))
    assert {(part["why"], part["asked"]) for part in found["repositories"]} == {("hold", None)}
    lines = tool(old, show.main, "environment", "production").stdout.splitlines()
    said(lines[1], "Held since", "dummy broke DNS")
    said(lines[2], "As it was at", f"(deployment {before})")
    listed = tool(old, stats.main, "-e").stdout.splitlines()
    assert "There are 1 held environments" in listed
    assert document(old, stats.main, "--json")["environments"]["held"]["production"]["reason"] == "dummy broke DNS"
    [line] = tool(old, hold.main, "--list").stdout.splitlines()
    said(line, "production, held since", "dummy broke DNS", f"(deployment {before})")
    [held] = document(old, hold.main, "--list", "--json")["holds"]
    assert held["repositories"][DUMMY] == {"ref": "master", "commit": first, "code": "code", "data": "data"}
    [fault] = document(old, history.main, "--faults", "--json")
    assert (fault["kind"], fault["environment"], fault["addresses"]) == ("held", "production", ["ann@example.org"])
    newest = document(old, history.main, "--json", "-n", "1")[0]
    assert (newest["environment"], newest["change"]) == ("production", "held")
    assert (old.root / "log" / "jens-hold.log").read_text().count("Holding environment 'production' by ") == 1


def test_a_time_will_do_as_well(old: Site) -> None:
    time.sleep(0.01)
    then = datetime.now().isoformat()
    push(old, "second")
    hold_now(old, "--at", then)
    assert old.read(SHOWN) == "first\n"


def test_a_hotfix_passes_during_a_freeze(old: Site) -> None:
    old.add("modules/other", MODULE)
    old.publish()
    old.update()
    hold_now(old, "--except", DUMMY)
    old.remotes[DUMMY].push({INIT: "hotfix\n"})
    old.remotes["modules/other"].push({INIT: "not now\n"})
    assert old.update().lines("ERROR") == []
    assert old.read(SHOWN) == "hotfix\n"
    assert old.read("production/modules/other/manifests/init.pp") == MODULE[INIT]
    found = document(old, show.main, "environment", "production", "--json")
    assert {part["repository"]: part["why"] for part in found["repositories"]}[DUMMY] == "default"
    # What keeps moving follows the definition, also when that changes.
    old.remotes[DUMMY].push({INIT: "on test\n"}, "test", onto="master")
    old.define("production", definition(overrides={DUMMY: "test", "modules/other": "nowhere"}))
    assert old.update().lines("ERROR") == []
    assert old.read(SHOWN) == "on test\n"
    assert old.read("production/modules/other/manifests/init.pp") == MODULE[INIT]
    # Without its definition it follows what it followed last.
    old.retire("production")
    old.remotes[DUMMY].push({INIT: "still moving\n"}, "test")
    assert old.update().lines("ERROR") == []
    assert old.read(SHOWN) in ("still moving\n", "hotfix\n")
    assert_complaint(
        tool(old, hold.main, "production", "--except", "modules/dumy"), 3, "has a repository modules/dumy", DUMMY
    )


def test_it_ends_by_itself(old: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = hold_now(old, "--until", "5m")
    said(outcome.stdout.splitlines()[-1], "It ends at ", ", or with: jens-release production")
    old.remotes[DUMMY].push({INIT: "second\n"})
    assert old.update("--strict").code == 0  # no fault: it is not forgotten
    assert old.update("--strict").has("Nothing new")
    assert old.read(SHOWN) == "first\n"
    with monkeypatch.context() as patched:
        let_pass(patched, 290)
        assert old.update("--strict").has("Nothing new")
        assert old.read(SHOWN) == "first\n"
    with monkeypatch.context() as patched:
        let_pass(patched, 301)
        assert "Would end the hold of environment 'production', its time is over" in old.update("-n").stdout
        outcome = old.update("--strict")
        assert outcome.has("INFO Environment 'production' is no longer held, the time of its hold is over")
        assert old.read(SHOWN) == "second\n"
    assert tool(old, hold.main, "--list").stdout == ""


@pytest.mark.parametrize("how", ["released", "--until"])
def test_everybody_can_see_that_it_is_over_but_waits_for_a_run(
    old: Site, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hold_now(old, "--reason", "freeze", *(["--until", "5m"] if how == "--until" else []))
    push(old, "second")
    old.definitions.go_away()
    if how == "released":
        outcome = tool(old, release.main, "production")
        assert outcome.code == 20
        said(outcome.stderr.splitlines()[-1], "'production' is not up to date yet: it stays as it was held until a run")
    else:
        let_pass(monkeypatch, 301)
        assert old.update().code == 20
    assert old.read(SHOWN) == "first\n"
    [line] = tool(old, hold.main, "--list").stdout.splitlines()
    said(line, "production, held since", "freeze", "; it is over, but the environment waits for a run of jens-update")
    assert "1970" not in line
    assert [each["ended"] for each in document(old, hold.main, "--list", "--json")["holds"]] == [True]
    assert "; it is over, but the environment waits for a run of jens-update" in tool(old, stats.main, "-e").stdout
    assert document(old, stats.main, "--json")["environments"]["held"]["production"]["ended"] is True
    assert "The hold is over. A run of jens-update brings" in tool(old, show.main, "environment", "production").stdout
    assert document(old, show.main, "environment", "production", "--json")["hold"]["ended"] is True
    old.definitions.come_back()
    old.update()
    assert old.read(SHOWN) == "second\n"
    assert tool(old, hold.main, "--list").stdout == ""
    assert document(old, show.main, "environment", "production", "--json")["hold"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which ENVIRONMENT?"),
        (("--list", "production"), "--list takes no environment"),
        (("production", "--until", "2020-01-01"), "expected a time to come"),
        (("production", "--until", "99999999999d"), "expected a time to come"),
        (("production", "--until", "9" * 400 + "d"), "expected a time to come"),
        (("production", "--at", "yesterday"), "expected a time such as"),
        (("production", "--at", "2099-01-01"), "expected a time that is over"),
        (("pro/duction",), "no name of an environment"),
        (("production", "--except", "dummy"), "expected a repository such as modules/dummy"),
    ],
)
def test_mistakes_of_a_tired_administrator(site: Site, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        tool(site, hold.main, *arguments)
    assert ended.value.code == 2
    assert words in site.capture.readouterr().err


def test_what_cannot_be_held(old: Site) -> None:
    assert_complaint(tool(old, hold.main, "qa"), 3, "environments/qa': does not exist")
    assert_complaint(tool(old, hold.main, "qa", "--at", "1h"), 3, "history.sqlite' has nothing of")
    assert_complaint(tool(old, hold.main, "qa", "--at", "1"), 3, "held nothing after deployment 1")
    assert_complaint(tool(old, hold.main, "production", "--at", "99"), 3, "history.sqlite' has no deployment 99")
    assert tool(old, hold.main, "--list").stdout == ""
    assert old.update("--strict").code == 0


# What it outranks


def test_it_survives_redeclaration_deletion_and_mistakes(old: Site) -> None:
    before = push(old, "second")
    hold_now(old, "--at", before, "--until", "1d")
    pinned = old.links("production")
    for text in (definition("nowhere"), "overrides: []\n", None):
        old.definitions.push({"production.yaml": text})
        outcome = old.update()
        assert outcome.code == 0
        assert not outcome.has("Refusing")
        assert old.links("production") == pinned
    assert old.update("--strict").code == 0  # a held environment is nobody's failure
    # Back with another definition: that is taken when the hold ends, in one run.
    old.remotes[DUMMY].branch("test")
    old.define("production", definition(overrides={DUMMY: "test"}))
    old.update("--strict")
    assert old.links("production") == pinned
    assert tool(old, release.main, "production").code == 0
    assert old.links("production")["modules/dummy"].endswith("/dummy/test/code")


def test_a_deleted_environment_comes_back_as_it_was(old: Site) -> None:
    before = last_deployment(old)
    shown = {link: old.read(f"production/{link}/manifests/init.pp") for link in ("modules/dummy",)}
    old.retire("production")
    assert old.update("--strict").code == 0
    assert old.environments() == []
    hold_now(old, "--at", before)
    assert {link: old.read(f"production/{link}/manifests/init.pp") for link in shown} == shown
    assert old.read("production/site/site.pp")
    assert old.update().lines("ERROR") == []
    assert old.dangling("production") == []
    assert tool(old, release.main, "production").code == 0
    assert old.environments() == []  # nobody declares it


def test_neither_protection_nor_purge_guard_nor_limits_count_it(old: Site) -> None:
    for number in range(12):
        old.define(f"e{number}", definition())
    assert old.update("--strict").code == 0
    hold_now(old, "--until", "1d")
    pinned = old.links("production")
    for number in range(12):
        old.retire(f"e{number}")
    old.retire("production")
    outcome = old.update()
    assert outcome.code == 31
    assert outcome.has("Refusing to remove 12 of the environments")
    assert old.links("production") == pinned
    assert old.update("--allow-purge").code == 0
    assert old.environments() == ["production"]
    old.settings.update({"main.protectedenvironments": "production,", "main.maxenvironments": "1"})
    old.define("one", definition())
    outcome = old.update("--strict")
    assert outcome.code == 0
    assert not outcome.has("protected")
    assert old.environments() == ["one", "production"]


def test_a_repository_that_left_the_library_stays_in_it(old: Site) -> None:
    hold_now(old, "--until", "1d")
    pinned = old.links("production")
    del old.urls[DUMMY]
    old.publish()
    old.settings["main.retention"] = "0"
    for _ in range(3):
        outcome = old.update("--strict")
        assert (outcome.code, [line for line in outcome.lines("WARNING") if "retention" not in line]) == (0, [])
    assert old.links("production") == pinned
    assert old.read(SHOWN) == "first\n"
    assert tool(old, release.main, "production").code == 0
    assert "modules/dummy" not in old.links("production")
    assert old.checkouts(DUMMY) == set()


def test_a_repository_that_had_left_the_library_comes_back_for_it(old: Site) -> None:
    before = last_deployment(old)
    del old.urls[DUMMY]
    old.publish()
    old.update("--strict")
    assert "modules/dummy" not in old.links("production")
    hold_now(old, "--at", before)  # its checkout is still there, its mirror is not
    old.settings["main.retention"] = "0"
    for _ in range(3):
        assert [line.partition(",")[0] for line in old.update().lines("ERROR")] == [
            f"ERROR The mirror of {DUMMY} is gone"
        ]
        assert old.read(SHOWN) == "first\n"
    assert tool(old, release.main, "production").code == 0
    assert old.update("--strict").lines("ERROR") == []
    assert old.checkouts(DUMMY) == set()


def test_it_survives_the_loss_of_all_else_in_the_cache(old: Site) -> None:
    before = push(old, "second")
    hold_now(old, "--at", before, "--until", "1d")
    pinned = old.links("production")
    cache = old.root / "cache"
    for entry in cache.iterdir():
        if entry.name != "holds":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for _ in range(2):
        assert old.update().lines("ERROR") == []
        assert old.links("production") == pinned
        assert old.read(SHOWN) == "first\n"


def test_it_survives_a_reset_and_garbage_collection(old: Site) -> None:
    first = old.remotes[DUMMY].commit()
    before = push(old, "second")
    old.settings["main.retention"] = "0"
    hold_now(old, "--at", before)
    assert tool(old, gc.main, "-a").code == 0  # no run has seen the hold yet
    assert old.read(SHOWN) == "first\n"
    outcome = tool(old, reset.main, "--yes")
    assert outcome.code == 0
    assert "WARNING: these environments stay held (jens-release ends that): production" in outcome.stderr
    assert "cannot have made" not in outcome.stderr
    assert old.update().lines("ERROR") == []
    assert old.checkouts(DUMMY) >= {first}
    assert old.read(SHOWN) == "first\n"
    assert tool(old, gc.main, "-a").code == 0
    assert old.read(SHOWN) == "first\n"


def test_a_damaged_hold_moves_nothing(old: Site) -> None:
    hold_now(old)
    pinned = old.links("production")
    path = old.root / "cache" / "holds" / "production.json"
    path.write_text("{")
    old.remotes[DUMMY].push({INIT: "second\n"})
    outcome = old.update()
    assert outcome.has("ERROR Environment 'production' stays as it is, as its hold cannot be read: ")
    assert old.links("production") == pinned
    assert tool(old, hold.main, "--list").stderr.count("cannot be read") == 1
    assert "whose hold cannot be read" in tool(old, stats.main, "-e").stdout
    outcome = tool(old, hold.main, "production")
    assert outcome.code == 0
    assert ": WARNING: the hold that there was is damaged, and replaced" in outcome.stderr
    assert " WARNING the hold that there was is damaged, and replaced" in outcome.log
    path.write_text("[]")
    assert tool(old, release.main, "production").code == 0
    assert old.read(SHOWN) == "second\n"


def test_a_hold_that_is_damaged_in_place_is_noticed_at_once(old: Site) -> None:
    hold_now(old, "--until", "1d")
    assert old.update("--strict").code == 0
    assert old.update("--strict").has("Nothing new")
    with open(old.root / "cache" / "holds" / "production.json", "r+", encoding="utf-8") as file:
        file.write("[")
    assert old.update().has("ERROR Environment 'production' stays as it is, as its hold cannot be read: ")


@pytest.mark.parametrize("what", ["a dangling link", "a directory"])
def test_whatever_is_in_the_place_of_a_hold_can_be_released(old: Site, what: str) -> None:
    hold_now(old)
    push(old, "second")
    path = old.root / "cache" / "holds" / "production.json"
    path.unlink()
    if what == "a directory":
        (path / "below").mkdir(parents=True)
    else:
        path.symlink_to("nowhere")
    assert old.update().has("as its hold cannot be read: ")
    assert old.read(SHOWN) == "first\n"
    assert tool(old, release.main, "production").code == 0
    assert old.read(SHOWN) == "second\n"
    assert not os.path.lexists(path)


def test_a_file_in_the_place_of_the_holds_stops_nothing_else(old: Site) -> None:
    (old.root / "cache" / "holds").write_text("")
    old.remotes[DUMMY].push({INIT: "second\n"})
    outcome = old.update()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.has("cache/holds' is no directory, so no environment is held")
    assert old.read(SHOWN) == "second\n"
    assert tool(old, hold.main, "--list").stdout == ""
    assert_complaint(tool(old, release.main, "production"), 3, "'production' is not held")


def test_a_very_long_reason_is_cut(old: Site) -> None:
    said(hold_now(old, "--reason", "x" * 100_000).stdout, "is held as it is")
    [line] = tool(old, hold.main, "--list").stdout.splitlines()
    said(line, "x" * 1000 + "... (cut, 100000 characters)")
    assert len(line) < 1200


# Commits that were taken away


def rewrite(site: Site) -> str:
    """Force-push the module's first commit away, for good; the deployment before."""
    before = last_deployment(site)
    remote = site.remotes[DUMMY]
    remote.push({INIT: "rewritten\n"}, rewrite=True)
    git("reflog", "expire", "--expire=now", "--all", directory=remote.path)
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    assert site.update().lines("ERROR") == []
    return before


def test_a_commit_that_was_force_pushed_away_is_found_in_the_checkout_or_the_mirror(old: Site) -> None:
    before = rewrite(old)
    hold_now(old, "--at", before)  # the checkout is there
    assert old.read(SHOWN) == "first\n"
    assert tool(old, release.main, "production").code == 0
    old.settings["main.retention"] = "0"
    old.update("--poll")
    old.update("--poll")
    assert old.checkouts(DUMMY) == {old.remotes[DUMMY].commit()}
    hold_now(old, "--at", before)  # the mirror still has it
    assert old.read(SHOWN) == "first\n"
    assert old.update().lines("ERROR") == []


def test_a_commit_that_is_nowhere_any_more_changes_nothing(old: Site) -> None:
    first = old.remotes[DUMMY].commit()
    before = rewrite(old)
    old.settings["main.retention"] = "0"
    old.update()
    old.update()
    git("gc", "--quiet", "--prune=now", directory=old.root / "bare" / DUMMY)
    kept = old.listing("clone", "environments", "cache")
    outcome = tool(old, hold.main, "production", "--at", before)
    assert (outcome.code, outcome.stdout) == (60, "")
    first_line, last_line = outcome.stderr.splitlines()
    said(first_line, f"{DUMMY} at {first}", "is unknown")
    said(last_line, "'production' is not held, and nothing was changed: 1 commit", "is nowhere any more")
    assert old.listing("clone", "environments", "cache") == kept
    assert old.update("--strict").code == 0


def test_a_mirror_that_was_lost_is_made_anew(old: Site) -> None:
    before = push(old, "second")
    old.settings["main.retention"] = "0"
    old.update()
    shutil.rmtree(old.root / "bare" / DUMMY)
    hold_now(old, "--at", before)
    assert old.read(SHOWN) == "first\n"
    assert old.update().lines("ERROR") == []
    assert old.read(SHOWN) == "first\n"


# What is missing at this moment


def held_commits(site: Site) -> dict[str, str | None]:
    [held] = document(site, hold.main, "--list", "--json")["holds"]
    return {repo: kept["commit"] for repo, kept in held["repositories"].items()}


def test_a_checkout_that_is_missing_is_laid_out_again_and_held(old: Site) -> None:
    first = old.remotes[DUMMY].commit()
    everything = {repo: old.remotes[repo].commit() for repo in old.urls}
    shutil.rmtree(old.root / "clone" / DUMMY / f".{first}")
    outcome = tool(old, hold.main, "production", "--until", "1d")
    assert outcome.code == 0
    said(
        outcome.stderr, f"WARNING: {DUMMY} is held at {first}, as a link says: there is no checkout of branch 'master'"
    )
    assert (old.read(SHOWN), held_commits(old)) == ("first\n", everything)
    # Again, when it is held: the hold that there was names the commit.
    old.remotes[DUMMY].push({INIT: "second\n"})
    old.update()
    shutil.rmtree(old.root / "clone" / DUMMY / f".{first}")
    assert tool(old, hold.main, "production", "--until", "1d").code == 0
    assert (old.read(SHOWN), held_commits(old)) == ("first\n", everything)
    assert old.update("--strict").code == 0
    assert old.read(SHOWN) == "first\n"


def test_it_never_holds_nothing(old: Site) -> None:
    everything = {repo: old.remotes[repo].commit() for repo in old.urls}
    before = old.links("production").keys()
    for partition in (old.root / "clone").iterdir():
        shutil.rmtree(partition)
        partition.mkdir()
    assert tool(old, hold.main, "production", "--until", "1d").code == 0
    assert (held_commits(old), old.links("production").keys()) == (everything, before)
    assert old.read(SHOWN) == "first\n"
    assert old.update("--strict").code == 0
    assert old.dangling("production") == []


def test_without_inventory_and_history_nothing_is_held_that_nobody_knows(old: Site) -> None:
    shutil.rmtree(old.root / "clone" / DUMMY)
    (old.root / "cache" / "inventory.json").unlink()
    (old.root / "cache" / "history.sqlite").unlink()
    before = old.listing("clone", "environments", "cache")
    outcome = tool(old, hold.main, "production")
    assert (outcome.code, outcome.stdout) == (60, "")
    lost, last = outcome.stderr.splitlines()
    said(lost, f"{DUMMY}: there is no checkout of branch 'master', and neither the inventory nor the history knows")
    said(last, "'production' is not held, and nothing was changed: nobody can tell what it should show")
    assert old.listing("clone", "environments", "cache") == before
    assert tool(old, hold.main, "production", "--except", DUMMY).code == 0  # that one need not be known


def test_links_that_somebody_removed_are_held_too(old: Site) -> None:
    before = old.links("production").keys()
    top = old.root / "environments" / "production"
    for link in ("modules/dummy", "hieradata/module_names/dummy", "site"):
        (top / link).unlink()
    outcome = tool(old, hold.main, "production", "--until", "1d")
    assert outcome.code == 0
    said(outcome.stderr, f"{DUMMY} is held at {old.remotes[DUMMY].commit()}, as the history says: no link leads to it")
    assert "snapshot" not in outcome.stderr
    assert old.links("production").keys() == before
    assert old.read(SHOWN) == "first\n"


def test_what_nobody_has_is_left_out_with_a_warning(old: Site) -> None:
    nowhere = "0123456789" * 4
    old.define("production", definition(overrides={DUMMY: "nowhere", MYAPP: f"commit/{nowhere}"}))
    old.update()
    outcome = tool(old, hold.main, "production", "--until", "1d")
    assert outcome.code == 0
    [first, second] = outcome.stderr.splitlines()
    said(first, f"{MYAPP} is left out: there is no checkout of commit {nowhere}")
    said(second, f"{DUMMY} is left out: there is no checkout of branch 'nowhere'")
    assert held_commits(old)[DUMMY] is None
    assert "modules/dummy" not in old.links("production")


# Who else is at work


def test_it_waits_for_a_run_to_end(old: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_lock(load_config(old.config)):
        process = start(old, "hold", "production")
        assert process.stderr is not None
        stderr = process.stderr.readline()
        assert process.poll() is None
    process.communicate(timeout=60)
    assert process.returncode == 0
    said(stderr, "jens-hold: Lock ", " is held by another process", ": waiting for up to 60 seconds")
    monkeypatch.setattr(hold, "PATIENCE", 0.1)
    with run_lock(load_config(old.config)):
        for main, *arguments in ((hold.main, "--reason", "another"), (release.main,)):
            outcome = tool(old, main, "production", *arguments)
            assert outcome.code == 50
            said(outcome.stderr.splitlines()[-1], "is held by another process", ". Nothing was changed")
    assert document(old, hold.main, "--list", "--json")["holds"][0]["reason"] == ""


def test_it_waits_for_nobody_who_has_a_repository(old: Site) -> None:
    before = push(old, "second")
    with ExitStack() as stack:
        for repo in old.remotes:
            stack.enter_context(repository_lock(old.root / "bare" / repo))
        hold_now(old, "--at", before)
    assert old.read(SHOWN) == "first\n"


def start(site: Site, name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(TREE / "bin" / f"jens-{name}"), "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_administrators_at_once_the_last_word_counts(old: Site) -> None:
    before = push(old, "second")
    both = [start(old, "hold", "production", "--at", before, "--reason", f"by {name}") for name in ("ann", "bob")]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    [replaced] = [line for text in texts for line in text.splitlines() if line.startswith("This replaces")]
    [held] = document(old, hold.main, "--list", "--json")["holds"]
    assert {held["reason"], replaced.rpartition(": ")[2]} == {"by ann", "by bob"}
    assert old.read(SHOWN) == "first\n"
    # Held again without a time, it stays what it is, and its refs are not forgotten.
    hold_now(old, "--reason", "still")
    [held] = document(old, hold.main, "--list", "--json")["holds"]
    assert held["repositories"][DUMMY]["ref"] == "master"
    assert held["then"]["deployment"] == int(before)
    assert old.read(SHOWN) == "first\n"
    # Once something has moved, it is no more what it was then.
    hold_now(old, "--except", DUMMY)
    assert old.update().code == 0
    assert old.read(SHOWN) == "second\n"
    outcome = hold_now(old)
    assert outcome.stdout.splitlines()[0] == "Environment 'production' is held as it is."
    [held] = document(old, hold.main, "--list", "--json")["holds"]
    assert held["then"] is None


def test_the_history_tells_who_holds_it_now(old: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = push(old, "second")
    for name, arguments in (("ann", []), ("bob", ["--at", before, "--reason", "two"]), ("eve", ["--reason", "three"])):
        monkeypatch.setenv("SUDO_USER", name)
        hold_now(old, "--until", "1d", *arguments)
    old.update()
    lines = tool(old, history.main, "production", "-n", "3").stdout.splitlines()
    assert [line[20:] for line in lines] == [f"environment production held ({name})" for name in ("eve", "bob", "ann")]
    assert tool(old, release.main, "production").code == 0
    line = tool(old, history.main, "production", "-n", "1").stdout
    assert line[20:] == "environment production released\n"


def test_readers_miss_nothing_while_it_is_held_and_released(old: Site) -> None:
    old.settings["main.retention"] = "0"
    before = push(old, "second")
    missed: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for path in (SHOWN, "production/site/site.pp", "production/hostgroups/hg_myapp/manifests/init.pp"):
                try:
                    old.read(path)
                except OSError as error:
                    missed.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            hold_now(old, "--at", before)
            old.update()
            assert tool(old, release.main, "production").code == 0
    finally:
        done.set()
        reader.join()
    assert [text for text in missed if "init.pp" not in text or "dummy" not in text] == []


@pytest.mark.parametrize(
    "at",
    [
        "jens.repositories.retention.reclaim",
        "jens.repositories.publish.put_in_place",
        "jens.environments.hold.save",
        "jens.environments.stage.EnvironmentsStage.refresh",
        "jens.environments.tree.put_link",
        "jens.update.deployment.record_visible",
    ],
)
def test_a_kill_at_any_step_leaves_the_old_or_the_new(old: Site, at: str) -> None:
    before = push(old, "second")
    old.settings["main.retention"] = "0"
    old.update()
    killed = kill(old, at, "production", "--at", before)
    assert killed == -9
    assert old.read(SHOWN) in ("first\n", "second\n")
    assert old.dangling("production") == []
    is_held = (old.root / "cache" / "holds" / "production.json").exists()
    outcome = old.update()
    assert outcome.lines("ERROR") == []
    assert old.read(SHOWN) == ("first\n" if is_held else "second\n")
    assert old.dangling("production") == []
    changes = [each["change"] for each in document(old, history.main, "--json", "production") if "change" in each]
    # A run first records what a killed one has done, and then goes on with it.
    assert changes in ((["held", "created"], ["changed", "held", "created"]) if is_held else (["created"],))
    hold_now(old, "--at", before)
    assert old.read(SHOWN) == "first\n"


def test_a_kill_at_any_instant_leaves_a_whole_environment(old: Site) -> None:
    old.settings["main.retention"] = "0"
    before = push(old, "second")
    old.update()
    chance = random.Random(3)
    begin = time.monotonic()
    start(old, "hold", "production", "--at", before).communicate(timeout=60)
    usual = time.monotonic() - begin
    for _ in range(KILLS):
        assert tool(old, release.main, "production").code == 0
        old.update("--poll")
        process = start(old, "hold", "production", "--at", before)
        time.sleep(chance.uniform(0.4, 1.1) * usual)
        process.kill()
        process.communicate(timeout=60)
        assert old.dangling("production") == []
        is_held = (old.root / "cache" / "holds" / "production.json").exists()
        assert old.update().lines("ERROR") == []
        assert old.read(SHOWN) == ("first\n" if is_held else "second\n")
        assert tool(old, hold.main, "production", "--at", before).code == 0


def kill(site: Site, at: str, *arguments: str) -> int:
    """Kill jens-hold when it calls a function for the second time, or at its end if it calls it only once."""
    program = f"""
import importlib, os, signal, sys
parts = {at!r}.split(".")
owner = importlib.import_module(".".join(parts[:3]))
for part in parts[3:-1]:
    owner = getattr(owner, part)
before, calls = getattr(owner, parts[-1]), []
def die(*arguments, **named):
    calls.append(0)
    if len(calls) == 3 or parts[-1] != "put_link":
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*arguments, **named)
setattr(owner, parts[-1], die)
from jens.commands.hold import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode


def test_a_switch_that_fails_is_finished_by_the_next_run(old: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jens.environments.stage.deferred.tree.put_link", _refuse)
    outcome = tool(old, hold.main, "production")
    assert outcome.code == 40
    said(outcome.stderr, "the next run of jens-update goes on with it", "No space left")
    monkeypatch.undo()
    old.update()
    assert all("/." in text for text in old.links("production").values())


@pytest.mark.parametrize("obstacle", ["a file", "no room"])
def test_what_cannot_be_saved_is_not_held(old: Site, monkeypatch: pytest.MonkeyPatch, obstacle: str) -> None:
    before = old.listing("clone", "environments")
    if obstacle == "a file":
        (old.root / "cache" / "holds").write_text("")
    else:
        monkeypatch.setattr("jens.environments.hold.statefile.save", _no_room)
    outcome = tool(old, hold.main, "production")
    assert_complaint(outcome, 30, "Environment 'production' is not held, and nothing was changed: ", "holds")
    assert old.listing("clone", "environments") == before


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device", "holds")


def _refuse(path: Path, _text: str) -> None:
    raise OSError(28, "No space left on device", str(path))
