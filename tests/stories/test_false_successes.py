"""Remotes whose commits do not come, although Git or the library says that all is well."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from jens.commands import check, init
from jens.git import wrapper
from jens.git.wrapper import GitOptions
from tests.conftest import Outcome, Remote, Site, assert_complaint, git

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
REJECTED = "warning: rejected refs/heads/master because shallow roots are not allowed to be updated"
SUCCESS = "Git ended with success, but did not bring what the remote has in"


def failures(outcome: Outcome) -> list[str]:
    return [line for line in outcome.lines("ERROR") if "dummy" in line]


def make_shallow(site: Site) -> None:
    """Make the remote of the module anew, as a copy of the team's repository without history."""
    path = site.root / "remotes" / "shallow.git"
    shutil.rmtree(path, ignore_errors=True)
    git("clone", "--quiet", "--bare", "--depth=1", site.remotes[DUMMY].url, str(path), directory=site.root)
    site.urls[DUMMY] = f"file://{path}"


@pytest.fixture
def shallow(site: Site) -> Site:
    """A site that has a module from a remote without history; the remote was made anew after three pushes."""
    make_shallow(site)
    site.publish()
    assert failures(site.update()) == [], "a first clone is possible"
    assert site.expanded(DUMMY) == {"master": site.remotes[DUMMY].commit()}
    for number in range(3):
        site.remotes[DUMMY].push({INIT: f"# push {number}\n"})
    make_shallow(site)
    site.remotes[MYAPP].push({INIT: "# pushed meanwhile\n"})
    return site


EXPECTED = f"ERROR Unable to fetch 'dummy' from remote (modules/dummy: {SUCCESS} 'master': {REJECTED}"


def test_rejected_shallow_roots_are_an_error_each_time_and_hold_up_nobody(shallow: Site) -> None:
    before = shallow.expanded(DUMMY)
    for _ in range(2):
        outcome = shallow.update("--strict")
        [error] = failures(outcome)
        assert (outcome.code, error.startswith(EXPECTED)) == (60, True), error
        assert shallow.expanded(DUMMY) == before
    assert shallow.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# pushed meanwhile\n"
    assert SUCCESS in (shallow.root / "cache" / "last-run.json").read_text()


def test_the_hint_stays_until_the_remote_can_be_fetched(shallow: Site) -> None:
    shallow.settings["main.mode"] = "ONDEMAND"
    shallow.hint(DUMMY)
    for _ in range(2):
        [error] = failures(shallow.update())
        assert error.startswith(EXPECTED)
        assert shallow.hinted() == [DUMMY]
    shutil.rmtree(shallow.root / "remotes" / "shallow.git")
    git("clone", "-q", "--bare", shallow.remotes[DUMMY].url, "shallow.git", directory=shallow.root / "remotes")
    outcome = shallow.update()
    assert (failures(outcome), shallow.hinted()) == ([], [])
    assert shallow.expanded(DUMMY) == {"master": shallow.remotes[DUMMY].commit()}


def test_rejected_metadata_end_the_run(site: Site) -> None:
    site.update()
    site.define("qa")
    shallow = f"file://{site.root}/remotes/shallow"
    git("clone", "-q", "--bare", "--depth=1", site.definitions.url, "shallow", directory=site.root / "remotes")
    git("remote", "set-url", "origin", shallow, directory=site.root / "metadata" / "environments")
    words = (f"{SUCCESS} 'refs/heads/master'", "shallow roots are not allowed to be updated")
    assert_complaint(site.update(), 20, *words)
    assert site.environments() == ["production"]


@pytest.fixture
def meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What happens at the remote of the module between question and fetch: branches to commits, '' for a deletion."""
    moves: dict[str, str] = {}
    fetch = wrapper.fetch

    def fetch_after_moves(bare: Path, url: str, options: GitOptions, tags: Mapping[str, str]) -> str:
        for branch, commit in moves.items() if bare.name == "dummy" else ():
            arguments = [f"refs/heads/{branch}", commit] if commit else ["-d", f"refs/heads/{branch}"]
            git("update-ref", *arguments, directory=site.remotes[DUMMY].path)
        return fetch(bare, url, options, tags)

    monkeypatch.setattr(wrapper, "fetch", fetch_after_moves)
    return moves


def test_pushes_between_question_and_fetch_are_no_failure(site: Site, meanwhile: dict[str, str]) -> None:
    remote = site.remotes[DUMMY]
    first = remote.commit()
    second = remote.push({INIT: "# second\n"})
    remote.branch("old")
    git("update-ref", "refs/heads/master", first, directory=remote.path)
    site.update()
    git("update-ref", "refs/heads/master", second, directory=remote.path)
    git("update-ref", "refs/heads/old", first, directory=remote.path)
    remote.branch("new")
    meanwhile.update({"master": first, "old": second, "new": ""})  # all back
    outcome = site.update()
    assert failures(outcome) == []
    assert site.expanded(DUMMY) == {"master": first}


@pytest.mark.parametrize("change", ["move", "delete"])
def test_a_fetch_that_does_nothing_is_an_error(change: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = site.remotes[DUMMY]
    remote.branch("feature")
    site.update()
    commit = None
    if change == "move":
        commit = remote.push({INIT: "# new\n"}, "feature")
    else:
        remote.delete("feature")
    with monkeypatch.context() as patched:
        patched.setattr(wrapper, "fetch", lambda *_: "")
        expected = f"ERROR Unable to fetch 'dummy' from remote (modules/dummy: {SUCCESS} 'feature')"
        assert failures(site.update()) == [expected]
    assert failures(site.update()) == []
    assert wrapper.heads(site.root / "bare" / DUMMY).get("feature") == commit


@pytest.mark.parametrize("deleted", [False, True])
def test_a_first_clone_without_a_branch_is_an_error_unless_the_branch_is_gone(
    deleted: bool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = site.remotes[DUMMY]
    remote.branch("feature")
    clone = wrapper.clone

    def clone_less(bare: Path, url: str, options: GitOptions) -> None:
        clone(bare, url, options)
        if url == remote.url:
            git("update-ref", "-d", "refs/heads/feature", directory=bare)
            if deleted:
                remote.delete("feature")

    with monkeypatch.context() as patched:
        patched.setattr(wrapper, "clone", clone_less)
        expected = f"ERROR Unable to clone 'dummy' from remote (modules/dummy: {SUCCESS} 'feature')"
        assert failures(site.update()) == ([] if deleted else [expected])
        assert (site.root / "bare" / DUMMY).exists() == deleted
    assert failures(site.update()) == []


# Repositories with SHA-256 ids


def make_sha256(path: Path, files: dict[str, str]) -> str:
    """Make a bare repository with SHA-256 ids and one commit on branch master; return its URL."""
    git("init", "-q", "--bare", "--object-format=sha256", "--initial-branch=master", str(path), directory=path.parent)
    Remote(path).push(files)
    return f"file://{path}"


SHA1 = "expected SHA-1 commit ids from the remote"


@pytest.mark.parametrize("verb", ["clone", "fetch"])
def test_a_repository_with_sha256_ids_is_refused_by_name(verb: str, site: Site) -> None:
    if verb == "fetch":
        site.update()
    before = site.listing("environments", f"clone/{DUMMY}", f"bare/{DUMMY}")
    site.urls[DUMMY] = make_sha256(site.root / "remotes" / "sha256.git", {INIT: "# new\n"})
    site.publish()
    for mode in ("POLL", "ONDEMAND"):
        site.settings["main.mode"] = mode
        outcome = site.update("--strict")
        expected = f"ERROR Unable to {verb} 'dummy' from remote (modules/dummy: {SHA1}, it has SHA-256 ones)"
        assert (outcome.code, failures(outcome)) == (60, [expected])
    if verb == "fetch":
        assert site.listing("environments", f"clone/{DUMMY}", f"bare/{DUMMY}") == before
    else:
        assert not (site.root / "bare" / DUMMY).exists()


def test_jens_check_refuses_sha256_ids_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = make_sha256(tmp_path / "sha256.git", {INIT: "# new\n"})
    library = tmp_path / "repositories.yaml"
    library.write_text(f"repositories:\n  common: {{}}\n  hostgroups: {{}}\n  modules:\n    dummy: {url}\n")
    assert check.main(["--repositories", str(library), "--remote"]) != 0
    assert SHA1 in capsys.readouterr().out


def test_metadata_with_sha256_ids_are_refused_by_name(site: Site) -> None:
    site.update()
    url = make_sha256(site.root / "remotes" / "sha256.git", {"production.yaml": "default: master\n"})
    clone = site.root / "metadata" / "environments"
    git("remote", "set-url", "origin", url, directory=clone)
    assert_complaint(site.update(), 20, "metadata/environments", SHA1)
    shutil.rmtree(clone)
    git("clone", "-q", url, str(clone), directory=site.root)
    assert_complaint(site.update(), 20, "metadata/environments", "expected SHA-1 commit ids")


def test_jens_init_refuses_metadata_with_sha256_ids_by_name(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_sha256(tmp_path / "sha256.git", {"production.yaml": "default: master\n"})
    code = init.main(["--environments", url, "--repositories", site.library.url, str(tmp_path / "instance")])
    assert code == 20
    assert "expected SHA-1 commit ids" in capsys.readouterr().err
    assert not (tmp_path / "instance").exists()


# Tokens


def test_a_token_in_the_query_of_a_url_is_in_no_log(site: Site) -> None:
    site.update()
    token = "t0p's3cr3t"
    site.urls[DUMMY] = f"http://127.0.0.1:9/a/dummy.git?private_token={token.replace(chr(39), chr(39) * 2)}&x"
    site.urls["modules/new"] = site.urls[DUMMY].replace("dummy", "new")
    site.publish()
    outcome = site.update("--dry-run")
    assert "s3cr3t" not in outcome.stdout + outcome.stderr + outcome.log
    outcome = site.update("-v")
    assert len(outcome.lines("ERROR Unable to fetch 'dummy' from remote (")) == 1, outcome.log
    assert "127.0.0.1:9/a/dummy.git" in outcome.log or "127.0.0.1 port 9" in outcome.log
    assert "s3cr3t" not in outcome.stdout + outcome.stderr + outcome.log
    state = "".join(path.read_text() for path in (site.root / "cache").glob("last-run*"))
    assert "s3cr3t" not in state
