"""On demand: a run fetches only what hints name. No hint is lost, and none is trusted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import MODULE, Outcome, Remote, Site, definition

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"


@pytest.fixture
def ondemand(site: Site) -> Site:
    """A site on demand, after its first run. Its log tells what a run did that had nothing to do."""
    site.settings["main.debuglevel"] = "DEBUG"
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update().code == 0
    return site


def fetched(outcome: Outcome) -> list[str]:
    """The repositories that were fetched upon demand."""
    return sorted(line.split()[2] for line in outcome.lines("INFO Fetching ") if line.endswith("upon demand..."))


def is_current(site: Site, repo: str, branch: str = "master") -> bool:
    return site.expanded(repo).get(branch.replace("/", "~")) == site.remotes[repo].commit(branch)


# What is fetched


def test_a_push_is_visible_once_it_was_hinted(ondemand: Site) -> None:
    for repo in (DUMMY, MYAPP):
        ondemand.remotes[repo].push({INIT: f"# {repo}\n"})
    ondemand.hint(MYAPP)
    outcome = ondemand.update()
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert fetched(outcome) == [MYAPP]
    assert ondemand.read("production/hostgroups/hg_myapp/manifests/init.pp") == f"# {MYAPP}\n"
    assert not is_current(ondemand, DUMMY)
    assert ondemand.hinted() == []


def test_the_log_has_the_lines_about_hints_in_their_place(ondemand: Site) -> None:
    before = ondemand.remotes[DUMMY].commit()
    commit = ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.hint(DUMMY)
    lines = ondemand.update().lines()
    master = ondemand.path(DUMMY, "master")
    wanted = [
        "INFO Executed 'refresh_metadata' in ",
        "INFO Getting and processing hints...",
        "INFO 1 messages found",
        "INFO Executed 'fetch_update_hints' in ",
        "INFO Refreshing repositories...",
        "INFO Expanding EXISTING bare repositories...",
        "INFO Fetching modules/dummy upon demand...",
        f"INFO Updating ref '{master}'",
        f"INFO Updated ref '{master}' ({before[:7]}..{commit[:7]})",
        "INFO Executed 'refresh_environments' in ",
    ]
    positions = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in wanted]
    assert positions == sorted(positions)


def test_without_hints_no_remote_is_asked(ondemand: Site) -> None:
    for remote in ondemand.remotes.values():
        remote.go_away()
    outcome = ondemand.update("--strict")
    assert (outcome.code, fetched(outcome)) == (0, [])
    assert outcome.has("0 messages found")


def test_messages_merge_and_a_repository_hinted_fifty_times_is_fetched_once(ondemand: Site) -> None:
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    for _ in range(50):
        ondemand.hint(DUMMY)
    ondemand.hint(DUMMY, MYAPP)
    outcome = ondemand.update()
    assert outcome.has("51 messages found")
    assert fetched(outcome) == [MYAPP, DUMMY]
    assert is_current(ondemand, DUMMY)


def test_poll_leaves_the_queue_alone(ondemand: Site) -> None:
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.hint(MYAPP)
    (ondemand.root / "spool" / "00000000" / "0123456789abcd").mkdir()  # a damaged message
    before = ondemand.listing("spool")
    outcome = ondemand.update("--poll")
    assert is_current(ondemand, DUMMY)
    assert not outcome.has("hints...")
    del ondemand.settings["main.mode"]
    assert not ondemand.update().has("hints...")
    assert ondemand.listing("spool") == before


def test_poll_does_not_need_a_queue(site: Site) -> None:
    (site.root / "spool").rmdir()
    assert site.update().code == 0


def test_a_new_repository_is_added_without_a_hint(ondemand: Site) -> None:
    ondemand.add("modules/new")
    ondemand.publish()
    assert ondemand.update().code == 0
    assert ondemand.exists("production/modules/new/manifests/init.pp")


def test_a_new_repository_that_could_not_be_cloned_is_tried_again(ondemand: Site) -> None:
    remote = ondemand.add("modules/new")
    ondemand.publish()
    remote.go_away()
    ondemand.hint("modules/new")
    assert ondemand.update("--strict").code == 60
    remote.come_back()
    assert ondemand.update("--strict").code == 0
    assert ondemand.exists("production/modules/new")
    assert ondemand.hinted() == []


def test_a_gone_repository_is_removed_without_a_hint(ondemand: Site) -> None:
    ondemand.add("modules/old")
    ondemand.publish()
    ondemand.update()
    del ondemand.urls["modules/old"]
    ondemand.publish()
    ondemand.update()
    assert not ondemand.exists("production/modules/old")
    assert not (ondemand.root / "bare" / "modules" / "old").exists()


@pytest.mark.parametrize("how", ["new", "changed"])
def test_a_ref_that_a_new_or_changed_definition_needs_and_the_bare_lacks_is_fetched(ondemand: Site, how: str) -> None:
    if how == "changed":
        ondemand.define("test")
        ondemand.update()
    ondemand.remotes[DUMMY].branch("feature/x")
    ondemand.define("test", definition(overrides={DUMMY: "feature/x"}))
    outcome = ondemand.update()
    assert fetched(outcome) == [DUMMY]
    assert ondemand.exists("test/modules/dummy/manifests/init.pp")


def test_a_new_default_is_looked_for_everywhere_but_once(ondemand: Site) -> None:
    ondemand.remotes[DUMMY].branch("dev")
    ondemand.define("test", definition("dev"))
    assert fetched(ondemand.update()) == sorted(ondemand.remotes)
    assert ondemand.exists("test/modules/dummy/manifests/init.pp")
    outcome = ondemand.update()
    assert fetched(outcome) == []
    assert "hostgroups/hg_myapp" in ondemand.dangling("test")


def test_a_ref_that_the_bare_has_is_not_fetched(ondemand: Site) -> None:
    remote = ondemand.remotes[DUMMY]
    old, new = remote.commit(), remote.push({INIT: "# new\n"}, "other")
    ondemand.hint(DUMMY)
    ondemand.update()
    remote.go_away()
    ondemand.define("branch", definition(overrides={DUMMY: "other"}))
    ondemand.define("full", definition(overrides={DUMMY: f"commit/{new}"}))
    ondemand.define("short", definition(overrides={DUMMY: f"commit/{old[:9]}"}))
    outcome = ondemand.update("--strict")
    assert (outcome.code, fetched(outcome)) == (0, [])
    assert ondemand.read("branch/modules/dummy/manifests/init.pp") == "# new\n"
    assert ondemand.read("full/modules/dummy/manifests/init.pp") == "# new\n"
    assert ondemand.exists("short/modules/dummy/manifests/init.pp")


def test_a_commit_that_the_bare_lacks_is_fetched_for_a_new_definition_and_not_asked_for_every_minute(
    ondemand: Site,
) -> None:
    commit = ondemand.remotes[DUMMY].push({INIT: "# pinned\n"}, "side", onto="master")
    ondemand.define("pinned", definition(overrides={DUMMY: f"commit/{commit}", MYAPP: f"commit/{'ab' * 20}"}))
    assert fetched(ondemand.update()) == [MYAPP, DUMMY]
    assert ondemand.read("pinned/modules/dummy/manifests/init.pp") == "# pinned\n"
    outcome = ondemand.update()
    assert fetched(outcome) == []
    assert ondemand.dangling("pinned") == [
        "hieradata/fqdns/myapp",
        "hieradata/hostgroups/myapp",
        "hostgroups/hg_myapp",
    ]


def test_a_branch_that_comes_later_is_seen_with_its_hint(ondemand: Site) -> None:
    ondemand.define("test", definition(overrides={DUMMY: "later"}))
    ondemand.update()
    assert "modules/dummy" in ondemand.dangling("test")
    ondemand.remotes[DUMMY].branch("later")
    ondemand.hint(DUMMY)
    ondemand.update()
    assert ondemand.dangling("test") == []


def test_a_changed_definition_has_a_missing_branch_looked_for_again(ondemand: Site) -> None:
    ondemand.define("test", definition(overrides={DUMMY: "later"}))
    ondemand.update()
    ondemand.remotes[DUMMY].branch("later")
    ondemand.define("other", definition(overrides={DUMMY: "later"}))
    assert fetched(ondemand.update()) == [DUMMY]
    assert ondemand.dangling("test") == ondemand.dangling("other") == []


def test_a_branch_that_vanishes_is_gone_with_its_hint_and_not_before(ondemand: Site) -> None:
    remote = ondemand.remotes[DUMMY]
    remote.branch("feature")
    ondemand.define("test", definition(overrides={DUMMY: "feature"}))
    ondemand.update()
    remote.delete("feature")
    ondemand.update()
    assert ondemand.dangling("test") == []
    ondemand.hint(DUMMY)
    outcome = ondemand.update()
    assert any("ann@example.org" in line and "feature" in line for line in outcome.lines("WARNING"))
    assert "modules/dummy" in ondemand.dangling("test")
    assert list(ondemand.expanded(DUMMY)) == ["master"]
    assert not ondemand.update().lines("WARNING")


def test_a_changed_url_is_followed_without_a_hint(ondemand: Site) -> None:
    elsewhere = Remote.create(ondemand.root / "remotes" / "elsewhere.git")
    elsewhere.push({**MODULE, INIT: "# elsewhere\n"})
    ondemand.urls[DUMMY] = elsewhere.url
    ondemand.publish()
    ondemand.update()
    assert ondemand.read("production/modules/dummy/manifests/init.pp") == "# elsewhere\n"


# What fails stays hinted


def test_a_repository_whose_fetch_fails_stays_hinted_until_it_is_back(ondemand: Site) -> None:
    for repo in (DUMMY, MYAPP):
        ondemand.remotes[repo].push({INIT: "# new\n"})
    ondemand.remotes[DUMMY].go_away()
    first = ondemand.hint(DUMMY, MYAPP)
    outcome = ondemand.update("--strict")
    assert outcome.code == 60
    assert is_current(ondemand, MYAPP)
    assert ondemand.hinted() == [DUMMY]
    [again] = ondemand.queue.names()
    assert again != first
    assert any(DUMMY in line and again in line for line in outcome.lines("WARNING"))
    ondemand.remotes[DUMMY].come_back()
    assert fetched(ondemand.update("--strict")) == [DUMMY]
    assert is_current(ondemand, DUMMY)
    assert ondemand.hinted() == []


def test_a_fetch_that_failed_before_is_tried_again_without_a_hint(ondemand: Site) -> None:
    remote = ondemand.remotes[DUMMY]
    remote.push({INIT: "# new\n"})
    remote.go_away()
    ondemand.update("--poll")
    assert fetched(ondemand.update()) == [DUMMY]
    remote.come_back()
    assert fetched(ondemand.update()) == [DUMMY]
    assert is_current(ondemand, DUMMY)
    assert fetched(ondemand.update()) == []


@pytest.mark.parametrize("damage", ["missing", "garbage", "of another version", "hostile"])
def test_remotes_are_asked_again_when_the_record_of_absent_refs_is_lost(ondemand: Site, damage: str) -> None:
    path = ondemand.root / "cache" / "absent-refs.json"
    before = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        hostile = json.dumps({"version": 1, "content": {"modules/../x": ["master"], "modules/dummy": [".."]}})
        path.write_text({"garbage": "{", "of another version": '{"version": 0}', "hostile": hostile}[damage])
    assert fetched(ondemand.update()) == sorted(ondemand.remotes)
    assert path.read_bytes() == before


def _dies(*_arguments: object) -> NoReturn:
    raise SystemExit(9)


def killed_while_clearing_away(site: Site, *arguments: str) -> None:
    """Kill a run when environments are done and it begins to remove checkouts that nothing needs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jens.repositories.retention.retire_checkouts", _dies)
        with pytest.raises(SystemExit):
            site.update(*arguments)


def test_a_retry_outlives_a_run_that_is_killed_at_its_end(ondemand: Site) -> None:
    remote = ondemand.remotes[DUMMY]
    remote.push({INIT: "# new\n"})
    remote.go_away()
    killed_while_clearing_away(ondemand, "--poll")
    remote.come_back()
    assert fetched(ondemand.update()) == [DUMMY]
    assert is_current(ondemand, DUMMY)


def test_what_could_not_be_asked_for_a_new_definition_is_asked_after_a_kill(ondemand: Site) -> None:
    remote = ondemand.remotes[DUMMY]
    ondemand.define("one", definition(overrides={DUMMY: "later"}))
    ondemand.update()
    remote.branch("later")  # and its hint never arrives
    ondemand.define("two", definition(overrides={DUMMY: "later"}))
    remote.go_away()
    killed_while_clearing_away(ondemand)
    remote.come_back()
    ondemand.update()
    assert ondemand.dangling("one") == ondemand.dangling("two") == []


def test_while_a_definition_waits_for_one_repository_the_others_are_not_asked_every_minute(ondemand: Site) -> None:
    ondemand.define("test")
    ondemand.update()
    ondemand.remotes[DUMMY].go_away()
    ondemand.define("test", definition("dev"))
    assert fetched(ondemand.update()) == sorted(ondemand.remotes)
    assert fetched(ondemand.update()) == [DUMMY]
    ondemand.remotes[DUMMY].come_back()
    assert fetched(ondemand.update()) == [DUMMY]
    assert fetched(ondemand.update()) == []


def test_a_mirror_restored_from_a_backup_moves_nothing_back(ondemand: Site) -> None:
    bare = ondemand.root / "bare" / DUMMY
    shutil.copytree(bare, ondemand.root / "backup")
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.hint(DUMMY)
    ondemand.update()
    shutil.rmtree(bare)
    shutil.copytree(ondemand.root / "backup", bare)
    assert fetched(ondemand.update()) == [DUMMY]
    assert is_current(ondemand, DUMMY)
    assert fetched(ondemand.update()) == []


def test_a_remote_that_lost_all_its_branches_stays_hinted(ondemand: Site) -> None:
    ondemand.remotes[DUMMY].delete("master")
    ondemand.hint(DUMMY)
    assert ondemand.update("--strict").code == 60
    assert ondemand.exists("production/modules/dummy/manifests/init.pp")
    assert ondemand.hinted() == [DUMMY]


@pytest.mark.parametrize("failure", ["the library is unusable", "the disk refuses a link"])
def test_hints_stay_when_a_run_fails_as_a_whole_or_with_a_repository(
    ondemand: Site, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.hint(DUMMY)
    with monkeypatch.context() as patched:
        if failure == "the library is unusable":
            ondemand.publish("nothing: here\n")
        else:
            rename = os.rename

            def refuse(source: Path, target: Path) -> None:
                if str(target).endswith(f"{DUMMY}/master"):
                    raise PermissionError(13, "Permission denied", str(target))
                rename(source, target)

            patched.setattr(os, "rename", refuse)
        ondemand.update()
    assert ondemand.hinted() == [DUMMY]
    ondemand.publish()
    assert ondemand.update("--strict").code == 0
    assert is_current(ondemand, DUMMY)
    assert ondemand.hinted() == []


def test_when_the_queue_takes_no_new_hint_the_old_ones_stay(ondemand: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ondemand.remotes[DUMMY].go_away()
    name = ondemand.hint(DUMMY, MYAPP)
    with monkeypatch.context() as patched:
        patched.setattr("jens.messaging.elements._write", _full)
        outcome = ondemand.update("--strict")
    assert outcome.code == 60
    assert any("No space left" in line for line in outcome.lines("ERROR"))
    assert list(ondemand.queue.names()) == [name]


def _full(*_arguments: object) -> None:
    raise OSError(28, "No space left on device")


# Hostile and damaged hints


def test_a_hint_for_an_unknown_repository_is_dropped(ondemand: Site) -> None:
    ondemand.hint("modules/unknown", DUMMY)
    ondemand.hint("modules/../../etc")
    outcome = ondemand.update("--strict")
    assert outcome.code == 0
    assert any("modules/unknown" in line for line in outcome.lines("WARNING"))
    assert ondemand.hinted() == []


def test_hints_for_a_thousand_unknown_repositories_are_one_line(ondemand: Site) -> None:
    ondemand.hint(*(f"modules/m{number}" for number in range(1000)))
    lines = ondemand.update().lines("WARNING")
    assert len(lines) == 1
    assert len(lines[0]) < 1000


class Evil:
    """Runs a command in the process that unpickles it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def test_a_message_that_would_run_code_runs_nothing_and_its_neighbours_are_consumed(
    ondemand: Site, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    evil = [
        pickle.dumps(Evil(canary)),
        pickle.dumps({"modules": ["dummy", Evil(canary)]}, 0),
        b"cos\nsystem\n.",
        b")" + b"\x85" * 2**19 + b"K\x01sN.",
        pickle.dumps({"modules": ["x" * 2**21]}),
    ]
    ondemand.hint(MYAPP)
    for data in evil:
        ondemand.queue.add({"time": "now", "data": data})
    ondemand.hint(DUMMY)
    outcome = ondemand.update("--strict")
    assert outcome.code == 60
    assert len(outcome.lines("ERROR")) == len(evil)
    assert outcome.has("7 messages found")
    assert fetched(outcome) == [MYAPP, DUMMY]
    assert is_current(ondemand, DUMMY)
    assert not canary.exists()
    assert list(ondemand.queue.names()) == []
    assert ondemand.update("--strict").code == 0


def test_ill_formed_parts_of_a_message_are_dropped_and_the_others_count(ondemand: Site) -> None:
    content = {"modules": ["dummy", "../up", 7], "hostgroups": "myapp", b"elsewhere": ["x"]}
    ondemand.queue.add({"time": "now", "data": pickle.dumps(content)})
    outcome = ondemand.update("--strict")
    assert (outcome.code, fetched(outcome)) == (0, [DUMMY])
    assert len(outcome.lines("WARNING")) == 3


# The queue itself


def test_exit_3_and_25_tell_a_missing_queue_from_one_that_cannot_be_read(ondemand: Site) -> None:
    spool = ondemand.root / "spool"
    before = ondemand.listing("environments", "clone")
    shutil.rmtree(spool)
    outcome = ondemand.update()
    assert outcome.code == 3
    assert "queuedir" in outcome.stderr
    assert str(spool) in outcome.stderr
    spool.write_text("")
    outcome = ondemand.update()
    assert outcome.code == 25
    assert str(spool) in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    spool.unlink()
    spool.mkdir()
    (spool / "00000000").write_text("")
    assert ondemand.update().code == 25
    assert ondemand.listing("environments", "clone") == before
    assert not spool.joinpath("obsolete").exists()


def test_hints_that_a_dead_reader_locked_are_taken_at_once(ondemand: Site) -> None:
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    name = ondemand.hint(DUMMY)
    assert ondemand.queue.lock(name)
    ondemand.update()
    assert is_current(ondemand, DUMMY)
    assert ondemand.hinted() == []


def test_a_dry_run_consumes_no_hint(ondemand: Site) -> None:
    commit = ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.remotes[MYAPP].push({INIT: "# new\n"})
    ondemand.hint(DUMMY)
    ondemand.queue.add({"time": "now", "data": b"garbage"})
    before = ondemand.listing("spool", "clone", "cache", "environments")
    outcome = ondemand.update("--dry-run")
    assert commit[:7] in outcome.stdout
    assert "is dropped" in outcome.stdout
    assert "myapp" not in outcome.stdout
    assert ondemand.listing("spool", "clone", "cache", "environments") == before


# Repairs without asking remotes


def test_links_and_checkouts_that_were_removed_by_hand_are_repaired_on_demand(ondemand: Site) -> None:
    for remote in ondemand.remotes.values():
        remote.go_away()
    before = ondemand.listing("environments", "clone")
    link = ondemand.root / "environments" / "production" / "modules" / "dummy"
    link.unlink()
    link.symlink_to("/elsewhere")
    master = ondemand.path(DUMMY, "master")
    master.unlink()
    [commit] = ondemand.checkouts(MYAPP)
    shutil.rmtree(ondemand.path(MYAPP, f".{commit}"))
    assert ondemand.update("--strict").code == 0
    assert ondemand.listing("environments", "clone") == before


def test_a_mirror_that_lost_its_branches_or_objects_is_made_anew_on_demand(ondemand: Site) -> None:
    bare = ondemand.root / "bare"
    (bare / DUMMY / "packed-refs").write_text("")
    shutil.rmtree(bare / MYAPP / "objects" / "pack")
    (bare / MYAPP / "objects" / "pack").mkdir()
    [commit] = ondemand.checkouts(MYAPP)
    shutil.rmtree(ondemand.path(MYAPP, f".{commit}"))
    before = ondemand.links("production")
    ondemand.update()
    assert ondemand.dangling("production") == []
    assert ondemand.links("production") == before
    assert is_current(ondemand, DUMMY)
    assert is_current(ondemand, MYAPP)


def test_a_run_killed_between_fetch_and_switch_is_finished_by_the_next(
    ondemand: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ondemand.remotes[DUMMY].push({INIT: "# new\n"})
    ondemand.hint(DUMMY)
    with monkeypatch.context() as patched:
        patched.setattr("jens.repositories.publish.move_links", _dies)
        with pytest.raises(SystemExit):
            ondemand.update()
    assert ondemand.hinted() == [DUMMY]
    assert not is_current(ondemand, DUMMY)
    shutil.rmtree(ondemand.root / "spool")
    (ondemand.root / "spool").mkdir()
    for remote in ondemand.remotes.values():
        remote.go_away()
    ondemand.update("--strict")
    ondemand.remotes[DUMMY].come_back()
    assert is_current(ondemand, DUMMY)
