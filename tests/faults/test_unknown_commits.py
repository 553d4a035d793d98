"""Pinned commits that remotes do not have: they are asked for at once, and once, until something changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.conftest import Outcome, Remote, Site, git
from tests.faults.test_remotes import INIT, run
from tests.faults.test_server_budgets import DUMMY, calls, limit, ssh_program


def pin(site: Site, repo: str, commits: Sequence[str], owner: str = "ann") -> None:
    """Define environments that override a repository with these commits."""
    partition, _, name = repo.partition("/")
    texts = {
        f"pin{commit[:12]}.yaml": f"default: master\nnotifications: {owner}@example.org\noverrides:\n  {partition}:\n"
        f"    {name}: commit/{commit}\n"
        for commit in commits
    }
    site.definitions.push(texts)


def unknown(count: int) -> list[str]:
    return [f"{number:012x}{'ab' * 14}" for number in range(1, count + 1)]


def behind_ssh(site: Site, repo: str, script: str = "") -> Remote:
    ssh_program(site, script)
    remote = site.remotes[repo]
    site.urls[repo] = f"ssh://git@h.example.org{remote.path}"
    site.publish()
    return remote


def assert_unknown(outcome: Outcome, commits: Sequence[str]) -> None:
    """Each of these commits has an ERROR, and nothing else has one."""
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert sorted(errors) == [f"ERROR {DUMMY}: commit {commit} is unknown" for commit in sorted(commits)]


def test_ten_unknown_commits_at_a_slow_server_are_asked_for_within_its_time(site: Site) -> None:
    """What is known when the time is over is kept. The next run asks for the rest, and the one after it for nothing."""
    remote = behind_ssh(site, DUMMY)
    limit(site, 3)
    assert site.update().code == 0
    lost = remote.push({INIT: "# lost\n"}, "lost", onto="master")
    remote.delete("lost")
    pin(site, DUMMY, [*unknown(10), lost])
    ssh_program(site, "sleep 0.8")
    commit = site.remotes["hostgroups/myapp"].push({INIT: "# new\n"})
    calls(site)
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert site.expanded("hostgroups/myapp") == {"master": commit}
    [error] = [error for error in ended.outcome.lines("ERROR") if "is unknown" not in error]
    assert f"({DUMMY}: " in error
    assert "no time was left to ask which of " in error
    assert len(calls(site)) <= 2 + 3, "questions for its branches, and refusals for three seconds"
    behind_ssh(site, DUMMY)
    assert_unknown(site.update(), unknown(10))
    assert lost in site.checkouts(DUMMY)
    calls(site)
    assert_unknown(site.update(), unknown(10))
    assert len(calls(site)) == 1, "it is asked for its branches only"


def test_two_hundred_unknown_commits_are_asked_for_once(site: Site) -> None:
    behind_ssh(site, DUMMY)
    assert site.update("--strict").code == 0
    commits = unknown(200)
    pin(site, DUMMY, commits)
    calls(site)
    assert_unknown(site.update(), commits)
    assert len(calls(site)) <= 2 + 200, "questions for its branches, and then each refusal names one"
    assert_unknown(site.update(), commits)
    assert len(calls(site)) == 1


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_unknown_commits_are_asked_for_again_when_the_remote_or_a_definition_changes(site: Site, mode: str) -> None:
    remote = behind_ssh(site, DUMMY)
    site.settings["main.mode"] = mode
    assert site.update("--strict").code == 0
    commits = unknown(3)
    branches = 1 if mode == "POLL" else 0
    for change, asked in (("definition", 1 + 3), ("remote", 2 + 3), ("another", 1 + 1)):
        calls(site)
        if change == "remote":
            remote.push({INIT: "# new\n"}, "idea", onto="master")
            site.hint(DUMMY)
        else:
            pin(site, DUMMY, commits if change == "definition" else commits[:1], owner=change)
        assert_unknown(site.update(), commits)
        assert len(calls(site)) in (asked, asked + 1), "asked for its branches before the metadata changed, perhaps"
        assert_unknown(site.update(), commits)
        assert len(calls(site)) == branches, change


def test_a_commit_that_the_remote_gets_later_is_found(site: Site) -> None:
    remote = behind_ssh(site, DUMMY)
    elsewhere = Remote.create(site.root / "elsewhere.git", {"code/manifests/init.pp": "# elsewhere\n"})
    commit = elsewhere.push({INIT: "# later\n"})
    pin(site, DUMMY, [commit])
    assert "is unknown" in str(site.update().lines("ERROR"))
    assert "is unknown" in str(site.update().lines("ERROR"))
    git("fetch", "-q", str(elsewhere.path), f"{commit}:refs/heads/later", directory=remote.path)
    assert site.update("--strict").lines("ERROR") == []
    assert site.read(f"pin{commit[:12]}/modules/dummy/manifests/init.pp") == "# later\n"


def test_a_hint_has_commits_asked_for_again_that_no_branch_has(site: Site) -> None:
    remote = behind_ssh(site, DUMMY)
    site.settings["main.mode"] = "ONDEMAND"
    elsewhere = Remote.create(site.root / "elsewhere.git", {"code/manifests/init.pp": "# elsewhere\n"})
    commit = elsewhere.push({INIT: "# later\n"})
    pin(site, DUMMY, [commit])
    assert "is unknown" in str(site.update().lines("ERROR"))
    git("fetch", "-q", str(elsewhere.path), f"{commit}:refs/tags/later", directory=remote.path)
    site.hint(DUMMY)
    assert site.update("--strict").lines("ERROR") == []
    assert site.read(f"pin{commit[:12]}/modules/dummy/manifests/init.pp") == "# later\n"


def test_what_was_remembered_outlives_a_run_that_is_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its branches were fetched, and it was not asked for its commits: the next run asks."""
    remote = behind_ssh(site, DUMMY)
    site.update()
    pin(site, DUMMY, unknown(1))
    site.update()
    remote.push({INIT: "# new\n"}, "other", onto="master")
    with monkeypatch.context() as patched:
        patched.setattr("jens.repositories.commits.resolve_commits", _dies)
        with pytest.raises(SystemExit):
            site.update()
    calls(site)
    site.update()
    assert len(calls(site)) == 2
    site.update()
    assert len(calls(site)) == 1


def _dies(*_arguments: object) -> None:
    raise SystemExit(9)
