"""The history: what became visible when, in which environments, and what is broken since when."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from jens.commands import history, reset, snapshot
from jens.config import load_config
from jens.git import authors
from jens.history import queries
from jens.history.queries import Change, EnvironmentChange, Filter
from jens.history.store import Reader, Store
from jens.model import Branch, Commit
from jens.update import deployment, record
from tests import TREE
from tests.conftest import Outcome, Site, definition, git

DUMMY, MYAPP, SITE, HIERADATA = "modules/dummy", "hostgroups/myapp", "common/site", "common/hieradata"

#: A time at the beginning of a line.
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


def run_history(site: Site, *arguments: str) -> tuple[int, str, str]:
    site.capture.readouterr()
    code = history.main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    return code, captured.out, captured.err


def told(site: Site, *arguments: str) -> list[str]:
    """The lines of jens-history without their times."""
    code, out, err = run_history(site, *arguments)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(map(_TIME.match, lines))
    return [_TIME.sub("", line) for line in lines]


def listed(site: Site, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = run_history(site, "--json", *arguments)
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def updated(site: Site) -> Outcome:
    outcome = site.update("--strict")
    assert outcome.code == 0, outcome.log
    return outcome


def entries(site: Site, wanted: Filter = queries.ALL) -> list[queries.Entry]:
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        return [*queries.entries(reader, wanted)]


def test_what_became_visible_is_told(site: Site) -> None:
    first = {repo: remote.commit()[:7] for repo, remote in site.remotes.items()}
    updated(site)
    begun = [
        f"environment production created ({site.definitions.commit()[:7]} Ann)",
        *(f"{repo} master {commit} (new) Ann: push -- production" for repo, commit in sorted(first.items())),
    ]
    assert told(site) == begun

    # Two pushes in one run, which a narrow look finds.
    site.remotes[DUMMY].push({"code/manifests/foo.pp": "# 1\n"})
    second = site.remotes[DUMMY].push({"code/manifests/foo.pp": "# 2\n"})[:7]
    assert updated(site).has("Only repositories that were pushed to are looked at")
    pushed = f"{DUMMY} master {first[DUMMY]}..{second} (2 commits) Ann: push -- production"
    assert told(site) == [pushed, *begun]

    # A branch in an environment of its own, and an environment that follows it later.
    site.remotes[DUMMY].branch("test")
    site.define("test", definition("master", {DUMMY: "test"}))
    updated(site)
    made = [
        f"environment test created ({site.definitions.commit()[:7]} Ann)",
        f"{DUMMY} test {second} (new) Ann: push -- test",
    ]
    site.define("production", definition("master", {DUMMY: "test"}))
    updated(site)
    moved = f"environment production changed ({site.definitions.commit()[:7]} Ann)"
    third = site.remotes[DUMMY].push({"code/manifests/foo.pp": "# 3\n"}, "test")[:7]
    updated(site)
    both = f"{DUMMY} test {second}..{third} (1 commit) Ann: push -- production, test"
    assert told(site) == [both, moved, *made, pushed, *begun]

    # Who is named narrows.
    assert told(site, "test")[:2] == [both, made[0]]
    assert told(site, "production", "-r", DUMMY, "-n", "2") == [both, pushed]
    code, out, err = run_history(site, "nobody", "test", "-n", "1")
    assert (code, err) == (3, "jens-test: the history has nothing of environment 'nobody'\n")
    assert both in out
    code, out, err = run_history(site, "--faults", "nobody", "-r", "modules/nothing")
    assert (code, out) == (3, "")
    assert err == "jens-test: the history has nothing of environment 'nobody', repository 'modules/nothing'\n"
    assert told(site, "--since", "1h") == told(site)
    assert told(site, "--since", "2100-01-01") == []
    assert told(site, "--until", "2000-01-01T00:00") == []


def test_branches_that_lose_commits_say_so(site: Site) -> None:
    updated(site)
    dummy = site.remotes[DUMMY]
    first = dummy.commit()
    second = dummy.push({"code/a": "1\n"})
    updated(site)
    git("update-ref", "refs/heads/master", first, directory=dummy.path)  # a rollback
    updated(site)
    third = dummy.push({"code/a": "2\n"}, rewrite=True)
    updated(site)
    dummy.branch("kept")
    site.define("kept", definition("master", {DUMMY: "kept"}))
    updated(site)
    site.retire("kept")
    updated(site)
    assert told(site, "-r", DUMMY)[:4] == [
        f"{DUMMY} kept {third[:7]} (gone) -- kept",
        f"{DUMMY} kept {third[:7]} (new) Ann: push -- kept",
        f"{DUMMY} master {first[:7]}..{third[:7]} (1 commit, 1 lost) Ann: push -- production",
        f"{DUMMY} master {second[:7]}..{first[:7]} (back 1 commit) Ann: push -- production",
    ]
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        shown = queries.shown(reader, second[:9])
        assert [(each.environment, each.commit, each.replaced_by) for each in shown] == [("production", second, first)]
        assert shown[0].until is not None
        assert shown[0].since < shown[0].until
        assert {(each.environment, each.until is None) for each in queries.shown(reader, third)} == {
            ("production", True),
            ("kept", False),
        }
        assert queries.shown(reader, "0" * 7) == []


def test_programs_get_the_same(site: Site) -> None:
    begin = time.time()
    updated(site)
    before, now = site.remotes[DUMMY].commit(), site.remotes[DUMMY].push({"code/a": "1\n"})
    updated(site)
    [change, made, *rest] = listed(site, "--since", "1h")
    when = datetime.fromisoformat(change.pop("time"))
    assert when.tzinfo is not None
    assert begin - 1 < when.timestamp() < time.time()
    assert change == {
        "deployment": 2,
        "host": os.uname().nodename,
        "repository": DUMMY,
        "ref": "master",
        "before": before,
        "now": now,
        "author": "Ann",
        "subject": "push",
        "commits": 1,
        "environments": ["production"],
        "seconds_since_push": None,
    }
    del made["time"]
    assert made == {
        "deployment": 1,
        "host": os.uname().nodename,
        "environment": "production",
        "change": "created",
    }
    assert [(each["repository"], each["before"], each["commits"]) for each in rest] == [
        (repo, None, None) for repo in sorted(site.remotes)
    ]


def test_the_time_since_the_push_is_known_when_a_hint_told_of_it(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    updated(site)
    site.remotes[DUMMY].push({"code/a": "1\n"})
    site.hint(DUMMY)
    time.sleep(0.3)
    site.hint(DUMMY, MYAPP)
    updated(site)
    [change] = listed(site, "-n", "1")
    assert 0.3 <= change["seconds_since_push"] < 60
    assert told(site, "-n", "1")[0].endswith(f", {change['seconds_since_push']:.1f} s after the push")
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        assert queries.seconds_to_visible(reader, 0) == [change["seconds_since_push"]]
        assert [each.mode for each in queries.deployments(reader)] == ["hints", "hints"]

    # A hint that is renewed keeps its time.
    site.remotes[DUMMY].push({"code/a": "2\n"})
    site.hint(DUMMY)
    site.remotes[DUMMY].go_away()
    time.sleep(0.3)
    assert site.update().code == 0
    assert site.hinted() == [DUMMY]
    site.remotes[DUMMY].come_back()
    updated(site)
    assert 0.3 <= listed(site, "-n", "1")[0]["seconds_since_push"] < 60


def test_faults_have_lives(site: Site) -> None:
    updated(site)
    assert told(site, "--faults") == []
    site.define("test", "default: [master\n")
    site.remotes[MYAPP].go_away()
    assert site.update().code == 0
    kinds = [(fault["kind"], fault["environment"], fault["repository"], fault["until"]) for fault in _faults(site)]
    assert sorted(kinds, key=str) == [
        ("definition", "test", None, None),
        ("repository not fetched", None, MYAPP, None),
    ]
    assert [line.split(":")[0] for line in told(site, "--faults", "test")] == ["definition test"]
    assert [line.split(":")[0] for line in told(site, "--faults", "-r", MYAPP)] == [f"repository not fetched {MYAPP}"]
    since = {fault["kind"]: fault["since"] for fault in _faults(site)}
    let = datetime.fromtimestamp(time.time() + 1, timezone.utc)
    while datetime.now(timezone.utc) < let:
        time.sleep(0.1)

    # The same fault with another text is still the same; a mended one has an end.
    site.define("test", "default: [other\n\n")
    site.remotes[MYAPP].come_back()
    assert site.update().code == 0
    [still] = _faults(site)
    assert (still["kind"], still["since"]) == ("definition", since["definition"])
    everything = {fault["kind"]: fault for fault in _faults(site, "--since", "1h")}
    assert everything["repository not fetched"]["until"] > since["repository not fetched"]
    assert everything["definition"]["until"] is None
    line = next(line for line in told(site, "--faults", "--since", "1h") if MYAPP in line)
    assert line.startswith("until ")

    # A run that fails as a whole opens one, too, and the next one that does not closes it.
    site.definitions.go_away()
    assert site.update().code == 20
    assert {fault["kind"] for fault in _faults(site)} == {"definition", "metadata"}
    site.definitions.come_back()
    site.retire("test")
    updated(site)
    assert _faults(site) == []


def _faults(site: Site, *arguments: str) -> list[dict[str, Any]]:
    return listed(site, "--faults", *arguments)


def test_a_run_knows_how_it_ended(site: Site) -> None:
    updated(site)
    site.define("bad", "default: [master\n")
    site.remotes[DUMMY].push({"code/a": "1\n"})
    assert site.update("--strict").code == 60
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        last, first = queries.deployments(reader)
    assert (last.status, last.mode, first.status) == (60, "POLL", 0)
    assert last.began is not None
    assert last.seconds is not None
    assert last.began < last.visible < last.began + last.seconds + 1


# What it costs


def test_an_idle_run_neither_opens_nor_imports_it(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    updated(site)
    path = site.root / "cache" / "history.sqlite"
    before = path.read_bytes(), path.stat()
    program = (
        "import sys; from jens.commands.update import main; code = main(sys.argv[1:]);"
        "print(code, [name for name in sys.modules if name == 'sqlite3' or name.startswith('jens.history')])"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, "-c", str(site.config)],
            env={**os.environ, "PYTHONPATH": str(TREE)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "0 []\n"
    assert (path.read_bytes(), path.stat().st_ctime_ns) == (before[0], before[1].st_ctime_ns)


def test_what_no_repository_tells_of_an_environment_is_told(site: Site) -> None:
    updated(site)
    before = len(listed(site))
    site.settings["main.common_hieradata_items"] = "common.yaml, hardware"
    updated(site)
    # Nobody has changed its definition, so it names nobody.
    assert told(site)[:-before] == ["environment production changed"]
    updated(site)
    assert len(listed(site)) == before + 1
    # A new repository is told by its own line alone.
    site.add("modules/new")
    site.publish()
    updated(site)
    [line] = told(site)[: -before - 1]
    assert line.startswith("modules/new master")


@pytest.mark.parametrize(
    "links",
    [
        ["hieradata/common.yaml"],
        ["modules/dummy"],
        ["hieradata/fqdns/myapp"],
        ["modules/dummy", "hieradata/module_names/dummy"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["removed", "bent"])
def test_an_environment_that_is_put_right_has_changed_twice(site: Site, links: list[str], how: str) -> None:
    updated(site)
    before = len(listed(site))
    shown = site.links("production")
    for link in links:
        path = site.root / "environments" / "production" / link
        path.unlink()
        if how == "bent":
            path.symlink_to("/nowhere")
    updated(site)
    assert site.links("production") == shown
    assert told(site)[:-before] == ["environment production changed"] * 2
    updated(site)
    assert len(listed(site)) == before + 2


def test_a_push_is_visible_before_anything_is_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    updated(site)
    commit = site.remotes[DUMMY].push({"code/a": "1\n"})
    order: list[tuple[str, dict[str, str]]] = []

    def opened(path: Path) -> Store:
        order.append(("opened", site.expanded(DUMMY)))
        return Store(path)

    monkeypatch.setattr(deployment, "Store", opened)
    updated(site)
    assert order == [("opened", {"master": commit})]


def test_no_git_is_started_for_the_authors_of_many_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "_MOST_ASKED", 3)
    asked: list[str] = []
    monkeypatch.setattr(authors, "describe", lambda _bare, commit: asked.append(commit))
    updated(site)
    assert asked == []
    assert {entry.author for entry in entries(site) if isinstance(entry, Change)} == {None}


# Days


def test_without_days_there_is_none(site: Site) -> None:
    site.settings["history.days"] = "0"
    updated(site)
    site.remotes[DUMMY].push({"code/a": "1\n"})
    site.definitions.go_away()
    assert site.update().code == 20
    site.definitions.come_back()
    updated(site)
    assert not (site.root / "cache" / "history.sqlite").exists()
    code, out, err = run_history(site)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "[history] days is 0" in err
    assert run_history(site, "--json")[:2] == (3, "")


def test_before_the_first_run_there_is_none(site: Site) -> None:
    code, out, err = run_history(site)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "no run has recorded anything yet" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "yesterday"], "a time such as"),
        (["--since", "-1h"], "argument"),
        (["-n", "many"], "a number"),
        (["-r", "dummy"], "a repository such as modules/dummy"),
        (["../x"], "no name of an environment"),
    ],
)
def test_what_cannot_be_asked_is_a_mistake(site: Site, arguments: list[str], expected: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run_history(site, *arguments)
    assert caught.value.code == 2
    assert expected in site.capture.readouterr().err


# What environments hold, and held


def test_what_an_environment_held_is_known(site: Site) -> None:
    old = site.remotes[DUMMY].commit()
    site.define("snap", definition(None, {DUMMY: f"commit/{old}"}))
    updated(site)
    between = time.time()
    let_later()
    new = site.remotes[DUMMY].push({"code/a": "1\n"})
    site.remotes[DUMMY].branch("test", "master")
    site.define("test", definition("master", {DUMMY: "test"}))
    updated(site)
    site.remotes[DUMMY].delete("test")
    assert site.update().code == 0

    def held(name: str, number: int | None = None) -> dict[str, tuple[object, str | None]]:
        return {each.repository: (each.ref, each.commit) for each in queries.held_by(reader, name, number)}

    with Reader(site.root / "cache" / "history.sqlite") as reader:
        first = queries.deployment_at(reader, between)
        assert first == 1
        assert queries.deployment_at(reader, 0) is None
        assert held("production")[DUMMY] == (Branch("master"), new)
        assert held("production", first)[DUMMY] == (Branch("master"), old)
        assert set(held("production")) == set(site.remotes)
        assert held("snap")[DUMMY] == held("snap", first)[DUMMY] == (Commit(old), old)
        assert held("test", first) == {}
        assert held("test", 2)[DUMMY] == (Branch("test"), new)
        assert held("test")[DUMMY] == (Branch("test"), None)
        assert queries.environments_at(reader, first) == ["production", "snap"]
        holders = {each.environment: each.commit for each in queries.holders_of(reader, DUMMY)}
        assert holders == {"production": new, "snap": old, "test": None}
        since = {each.repository: each.since for each in queries.held_by(reader, "production")}
        assert since[DUMMY] > between > since[MYAPP]
        assert [(each.environment, each.until) for each in queries.shown(reader, old) if each.until is None] == [
            ("snap", None)
        ]
        assert queries.commits_seen(reader, new[:7]) == [(DUMMY, new)]


def let_later() -> None:
    """Let the clock by which files have times go on."""
    time.sleep(0.05)


def test_an_unchanged_environment_with_a_missing_pin_is_looked_at_again(site: Site) -> None:
    unknown = "0123456789" * 4
    site.define("snap", definition(None, {DUMMY: f"commit/{unknown}"}))
    assert site.update().code == 0
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        assert [each.commit for each in queries.held_by(reader, "snap") if each.repository == DUMMY] == [None]


# Runs that were killed, and histories that begin late


class _KilledError(BaseException):
    """Ends a run as SIGKILL would: nothing else is done."""


def _killed_after(site: Site, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def die(*_: object, **__: object) -> None:
        raise _KilledError

    with monkeypatch.context() as patched:
        patched.setattr(record, what, die)
        with pytest.raises(_KilledError):
            site.update()


def test_what_a_killed_run_did_is_recorded_by_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    updated(site)
    first = site.remotes[DUMMY].commit()
    second = site.remotes[DUMMY].push({"code/a": "1\n"})
    site.hint(DUMMY)
    _killed_after(site, monkeypatch, "save_published")
    link = (site.path(DUMMY) / "master").lstat().st_mtime
    let_later()
    third = site.remotes[DUMMY].push({"code/a": "2\n"})
    site.hint(DUMMY)
    updated(site)
    changes = [entry for entry in entries(site, Filter(repository=DUMMY)) if isinstance(entry, Change)]
    assert [(change.before, change.now) for change in changes] == [(second, third), (first, second), (None, first)]
    assert abs(changes[1].time - link) < 0.01
    assert changes[0].time > changes[1].time
    assert all(change.seconds_since_push is not None for change in changes[:2])
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        after, killed, _ = queries.deployments(reader)
    assert (killed.began, killed.status, killed.mode) == (None, None, None)
    assert abs(killed.visible - link) < 0.01
    assert after.status == 0
    updated(site)
    assert len([entry for entry in entries(site, Filter(repository=DUMMY)) if isinstance(entry, Change)]) == 3


def test_environments_of_a_killed_run_are_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    updated(site)
    site.define("test")
    _killed_after(site, monkeypatch, "save_retired")
    site.retire("test")
    updated(site)
    made = [entry for entry in entries(site) if isinstance(entry, EnvironmentChange) and entry.environment == "test"]
    assert [entry.change for entry in made] == ["deleted", "created"]


def test_a_history_begins_with_what_is_there(site: Site) -> None:
    site.settings["history.days"] = "0"
    updated(site)
    del site.settings["history.days"]
    commit = site.remotes[DUMMY].push({"code/a": "1\n"})
    outcome = site.update("--strict")
    assert outcome.code == 0
    assert [line for line in outcome.lines("WARNING") if "history" in line] == [
        "WARNING The history begins with what is there: nothing is known of what was before"
    ]
    [pushed, begun] = told(site)
    assert begun == "the history begins with what was there"
    assert pushed.startswith(f"{DUMMY} master ")
    assert commit[:7] in pushed
    assert (listed(site)[1]["environment"], listed(site)[1]["change"]) == (None, "begun")
    assert told(site, "production") == [pushed, begun]
    assert updated(site).lines("WARNING") == []


# Old rows


def test_what_is_too_old_goes_and_what_is_still_so_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings["history.days"] = "1"
    updated(site)
    site.define("gone")
    updated(site)
    site.retire("gone")
    second = site.remotes[DUMMY].push({"code/a": "1\n"})
    updated(site)
    later = time.time() + 2 * 86_400
    third = site.remotes[DUMMY].push({"code/a": "2\n"})
    monkeypatch.setattr(time, "time", lambda: later)
    updated(site)
    changes = [entry for entry in entries(site) if isinstance(entry, Change)]
    assert {(change.repository, change.before is None) for change in changes} == {
        (DUMMY, False),
        *((repo, True) for repo in (MYAPP, SITE, HIERADATA)),
    }
    assert [change.now for change in changes if change.repository == DUMMY] == [third]
    assert [change.before for change in changes if change.repository == DUMMY] == [second]
    assert not any(isinstance(entry, EnvironmentChange) for entry in entries(site))
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        assert {each.repository: each.commit for each in queries.held_by(reader, "production")} == {
            repo: remote.commit() for repo, remote in site.remotes.items()
        }
        assert queries.environments_at(reader) == ["production"]


# Hostile texts


def test_texts_of_commits_are_one_line_each(site: Site) -> None:
    updated(site)
    dummy = site.remotes[DUMMY]
    message = b"\nAdd\x1b]0;x\x07 foo\nand bar\n\nrest\n"
    stream = b"commit refs/heads/master\nauthor \x1b[31mM\xfcller <m@example.org> now\n"
    stream += b"committer Ann <ann@example.org> now\ndata %d\n%s\n" % (len(message), message)
    stream += b"from refs/heads/master^0\nM 100644 inline code/a\ndata 1\na\n"
    git("fast-import", "--quiet", "--date-format=now", directory=dummy.path, stdin=stream)
    updated(site)
    [line] = told(site, "-n", "1")
    assert line.endswith("\\x1b[31mM\ufffdller: Add\\x1b]0;x\\x07 foo and bar -- production")


def test_names_of_branches_may_be_any_bytes(site: Site) -> None:
    name = os.fsdecode(b"k\xe4se")
    site.remotes[DUMMY].branch(name)
    site.define("cheese", definition("master", {DUMMY: "master"}))
    site.definitions.push({"cheese.yaml": None})
    updated(site)
    clone = site.path(DUMMY)
    os.symlink(os.readlink(clone / "master"), clone / name)  # nobody can write such a name in YAML
    (site.root / "cache" / "baseline.json").unlink()
    found = deployment.record_visible(load_config(site.config), deployment.Run(), None, None)
    assert found.problem == ""
    assert f"{DUMMY} k\\udce4se {site.remotes[DUMMY].commit()[:7]} (new) Ann: push -- in no environment" in told(site)


# Resets, and snapshots of what was


def test_a_reset_leaves_it_and_is_an_entry_in_it(site: Site) -> None:
    updated(site)
    site.capture.readouterr()
    assert reset.main(["-c", str(site.config), "--yes"]) == 0
    captured = site.capture.readouterr()
    assert captured.err == ""
    assert "history" not in captured.out
    assert told(site)[0] == "jens-reset removed everything"
    assert told(site, "production")[0] == "jens-reset removed everything"
    assert len(told(site)) == 2 + len(site.remotes)
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        assert queries.environments_at(reader) == []
        assert queries.environments_at(reader, 1) == ["production"]
    updated(site)
    assert len(told(site)) == 3 + 2 * len(site.remotes)


def test_a_reset_before_there_was_a_history_makes_none(site: Site) -> None:
    assert reset.main(["-c", str(site.config), "--yes"]) == 0
    assert not (site.root / "cache" / "history.sqlite").exists()


def _snapshot(site: Site, *arguments: str) -> tuple[int, str, str]:
    site.capture.readouterr()
    code = snapshot.main(["-c", str(site.config), "production", *arguments])
    captured = site.capture.readouterr()
    return code, captured.out, captured.err


def test_a_snapshot_of_what_was_shows_that_again(site: Site) -> None:
    updated(site)
    first = site.remotes[DUMMY].commit()
    let_later()
    between = datetime.now().isoformat()
    let_later()
    second = site.remotes[DUMMY].push({"code/a": "1\n"}, rewrite=True)
    updated(site)

    code, by_number, err = _snapshot(site, "--at", "1", "--name", "then")
    assert (code, err) == (0, "")
    assert f"dummy: commit/{first}" in by_number
    assert "# As it was after deployment 1, which was visible at " in by_number
    code, by_time, err = _snapshot(site, "--at", between, "--name", "then")
    assert (code, err) == (0, "")
    assert _without_times(by_time) == _without_times(by_number)
    assert f"dummy: commit/{second}" in _snapshot(site, "--at", "2")[1]
    assert json.loads(_snapshot(site, "--at", "1", "--json")[1])["deployment"] == 1
    _, now, _ = _snapshot(site, "--name", "then")
    assert _without_times(_snapshot(site, "--at", "0s", "--name", "then")[1]) == _without_times(now)

    site.define("then", by_number)
    updated(site)
    assert site.path(DUMMY, f".{first}").is_dir()
    assert os.path.realpath(site.root / "environments/then/modules/dummy") == str(
        site.path(DUMMY, f".{first}") / "code"
    )


def _without_times(definition_text: str) -> list[str]:
    return [line for line in definition_text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--at", "7"], "' has no deployment 7"),
        (["--at", "2000-01-01"], "' has nothing of 2000-01-01 00:00:00"),
        (["--at", "9999999999999999999999"], "' has no deployment"),
    ],
)
def test_what_the_history_does_not_know_cannot_be_pinned(site: Site, arguments: list[str], expected: str) -> None:
    updated(site)
    code, out, err = _snapshot(site, *arguments)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert expected in err


def test_a_snapshot_of_what_was_says_what_is_lost(site: Site) -> None:
    site.settings["main.retention"] = "0"
    first = site.remotes[DUMMY].commit()
    updated(site)
    site.remotes[DUMMY].push({"code/a": "1\n"}, rewrite=True)
    updated(site)
    updated(site)
    git("reflog", "expire", "--expire=now", "--all", directory=site.root / "bare" / DUMMY)
    git("gc", "-q", "--prune=now", directory=site.root / "bare" / DUMMY)
    shutil.rmtree(site.path(DUMMY, f".{first}"), ignore_errors=True)
    code, out, err = _snapshot(site, "--at", "1")
    assert code == 60
    assert f"dummy: commit/{first}" in out
    assert f"neither disk nor mirror has commit {first} of {DUMMY}" in err
