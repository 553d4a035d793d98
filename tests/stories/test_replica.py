"""A webhook that is quicker than the server that Jens fetches from, such as a replica behind its primary."""

from __future__ import annotations

import json
import shutil

import pytest
from werkzeug.test import Client

from jens.config import load_config
from jens.gitlabproducer.app import create_app
from jens.update import arrivals
from tests.conftest import Remote, Site, git

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
NOBODY = "0" * 40
LATE = "Not on the server yet, so the hints stay for the next run"


@pytest.fixture
def ondemand(site: Site) -> Site:
    """A site on demand, after a first run."""
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update("--strict").code == 0
    return site


@pytest.fixture
def primary(ondemand: Site) -> Remote:
    """The repository that a team pushes to; the module's remote is a replica of it."""
    path = ondemand.root / "primary.git"
    shutil.copytree(ondemand.remotes[DUMMY].path, path)
    return Remote(path)


def replicate(site: Site, primary: Remote) -> None:
    git("fetch", "-q", "--prune", str(primary.path), "+refs/heads/*:refs/heads/*", directory=site.remotes[DUMMY].path)


def tell(site: Site, before: str, after: str, branch: str = "master") -> None:
    """Send the webhook of a push, as GitLab does."""
    payload = {"object_kind": "push", "ref": f"refs/heads/{branch}", "before": before, "after": after}
    body = json.dumps({**payload, "project": {"git_ssh_url": site.urls[DUMMY]}})
    response = Client(create_app(load_config(site.config))).post("/gitlab", data=body)
    assert response.status_code == 201


def test_a_hint_stays_until_the_replica_has_the_push(ondemand: Site, primary: Remote) -> None:
    before = primary.commit()
    after = primary.push({INIT: "# new\n"})
    tell(ondemand, before, after)
    [name] = ondemand.queue.names()
    for _ in range(2):
        outcome = ondemand.update("--strict")
        assert outcome.code == 0
        assert outcome.has(f"{LATE}: ['modules/dummy master {after[:7]}']")
        assert outcome.has("Fetching modules/dummy upon demand...")
        assert list(ondemand.queue.names()) == [name]
    replicate(ondemand, primary)
    outcome = ondemand.update("--strict")
    assert (outcome.code, outcome.has(LATE)) == (0, False)
    assert ondemand.expanded(DUMMY)["master"] == after
    assert ondemand.hinted() == []
    assert not ondemand.update().has("Fetching")


def test_only_the_hints_of_what_is_late_stay(ondemand: Site, primary: Remote) -> None:
    commit = ondemand.remotes[MYAPP].push({INIT: "# new\n"})
    ondemand.hint(MYAPP)
    tell(ondemand, primary.commit(), primary.push({INIT: "# new\n"}))
    assert ondemand.update("--strict").code == 0
    assert ondemand.expanded(MYAPP)["master"] == commit
    assert ondemand.hinted() == [DUMMY]


def test_later_pushes_stand_for_earlier_ones(ondemand: Site, primary: Remote) -> None:
    """The first push was taken back by a forced one, so nobody will ever have its commit."""
    before = primary.commit()
    first = primary.push({INIT: "# first\n"})
    second = primary.push({INIT: "# second\n"}, rewrite=True)
    tell(ondemand, before, first)
    tell(ondemand, first, second)
    replicate(ondemand, primary)
    assert not ondemand.update("--strict").has(LATE)
    assert ondemand.expanded(DUMMY)["master"] == second
    assert ondemand.hinted() == []


def test_a_push_that_came_before_another_one_has_arrived_with_it(ondemand: Site, primary: Remote) -> None:
    before = primary.commit()
    first = primary.push({INIT: "# first\n"})
    tell(ondemand, before, first)
    primary.push({INIT: "# second\n"})
    replicate(ondemand, primary)
    assert not ondemand.update("--strict").has(LATE)
    assert ondemand.hinted() == []


def test_a_new_branch_and_its_deletion_are_waited_for(ondemand: Site, primary: Remote) -> None:
    commit = primary.commit()
    primary.branch("x")
    tell(ondemand, NOBODY, commit, "x")
    assert ondemand.update().has(f"{LATE}: ['modules/dummy x {commit[:7]}']")
    replicate(ondemand, primary)
    assert not ondemand.update().has(LATE)
    assert ondemand.hinted() == []
    primary.delete("x")
    tell(ondemand, commit, NOBODY, "x")
    assert ondemand.update().has(f"{LATE}: ['modules/dummy x deleted']")
    replicate(ondemand, primary)
    assert not ondemand.update().has(LATE)
    assert ondemand.hinted() == []


def test_a_commit_that_never_comes_is_given_up(
    ondemand: Site, primary: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(ondemand, primary.commit(), "4f0c" * 10)
    assert ondemand.update().has(LATE)
    monkeypatch.setattr(arrivals, "PATIENCE", -1)
    outcome = ondemand.update("--strict")
    [warning] = outcome.lines("WARNING")
    assert "the hints are given up: ['modules/dummy master 4f0c4f0']" in warning
    assert outcome.code == 0
    assert ondemand.hinted() == []


def test_a_server_that_is_away_does_not_use_up_the_time(
    ondemand: Site, primary: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that cannot be fetched is hinted again; what was pushed is not forgotten."""
    before = primary.commit()
    after = primary.push({INIT: "# new\n"})
    tell(ondemand, before, after)
    ondemand.remotes[DUMMY].go_away()
    with monkeypatch.context() as patched:
        patched.setattr(arrivals, "PATIENCE", -1)
        assert ondemand.update().has("To be fetched again: ['modules/dummy']")
    ondemand.remotes[DUMMY].come_back()
    assert ondemand.update().has(f"{LATE}: ['modules/dummy master {after[:7]}']")
    replicate(ondemand, primary)
    assert not ondemand.update("--strict").has(LATE)
    assert ondemand.expanded(DUMMY)["master"] == after
    assert ondemand.hinted() == []


def test_pushes_of_repositories_that_the_library_does_not_have_are_done_with(ondemand: Site, primary: Remote) -> None:
    tell(ondemand, primary.commit(), primary.push({INIT: "# new\n"}))
    del ondemand.urls[DUMMY]
    ondemand.publish()
    assert not ondemand.update().has(LATE)
    assert ondemand.hinted() == []
