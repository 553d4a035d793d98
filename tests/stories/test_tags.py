"""Tags: a definition may name one like a branch. Only tags that are needed are fetched, and moved ones are followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jens.commands import show
from tests.conftest import Outcome, Remote, Site, definition, git

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
MODES = pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])


@pytest.fixture
def dummy(site: Site) -> Remote:
    """The module's remote with the tag v1; environment team uses it. The branch master has moved on."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# v1\n"})
    remote.tag("v1")
    remote.push({INIT: "# newer\n"})
    site.define("team", definition(overrides={DUMMY: "tag/v1"}, mail="team"))
    return remote


def manifest(site: Site, environment: str) -> str:
    """The manifest of module dummy in an environment."""
    return site.read(f"{environment}/modules/dummy/manifests/init.pp")


def mirrored_tags(site: Site) -> dict[str, str]:
    """The tags of the module's mirror, with what they lead to."""
    lines = git("for-each-ref", "--format=%(refname:strip=2) %(objectname)", "refs/tags", directory=mirror(site))
    return dict(line.split() for line in lines.splitlines())


def mirror(site: Site) -> Path:
    return site.root / "bare" / DUMMY


def with_hint(site: Site, mode: str) -> Outcome:
    """A run after a push, which a Git server tells of where runs are on demand."""
    site.settings["main.mode"] = mode
    if mode == "ONDEMAND":
        site.hint(DUMMY)
    return site.update()


@pytest.mark.parametrize("annotated", [False, True], ids=["lightweight", "annotated"])
def test_a_tag_is_a_ref_like_a_branch(site: Site, dummy: Remote, annotated: bool) -> None:
    commit = dummy.tag("v1", "refs/tags/v1", annotated=annotated)
    outcome = site.update("--strict")
    assert (outcome.code, outcome.has("tag 'v1'")) == (0, False)
    assert (manifest(site, "team"), manifest(site, "production")) == ("# v1\n", "# newer\n")
    assert site.links("team")["modules/dummy"] == "../../../clone/modules/dummy/~v1/code"
    assert site.expanded(DUMMY) == {"~v1": commit, "master": dummy.commit()}
    assert mirrored_tags(site) == {"v1": commit}
    again = site.update()
    assert (again.code, again.has("Fetching"), again.has("Updating")) == (0, False, False)


def test_only_needed_tags_are_fetched_and_those_of_other_days_go(site: Site, dummy: Remote) -> None:
    commit = dummy.commit()
    many = "".join(f"create refs/tags/old/{number} {commit}\n" for number in range(5000))
    git("update-ref", "--stdin", directory=dummy.path, stdin=many.encode())
    assert site.update("--strict").code == 0
    assert list(mirrored_tags(site)) == ["v1"]
    site.define("team", definition(overrides={DUMMY: "tag/old/17"}))
    assert site.update("--strict").code == 0
    assert mirrored_tags(site) == {"old/17": commit}
    assert manifest(site, "team") == "# newer\n"
    assert set(site.expanded(DUMMY)) == {"~old~17", "master"}
    site.retire("team")
    assert site.update("--strict", "--allow-purge").code == 0
    assert mirrored_tags(site) == {}
    assert set(site.expanded(DUMMY)) == {"master"}


def test_a_tag_and_a_branch_of_one_name_are_two_refs(site: Site, dummy: Remote) -> None:
    dummy.push({INIT: "# the branch\n"}, "v1")
    site.define("other", definition(overrides={DUMMY: "v1"}))
    assert site.update("--strict").code == 0
    assert (manifest(site, "team"), manifest(site, "other")) == ("# v1\n", "# the branch\n")
    assert set(site.expanded(DUMMY)) == {"~v1", "v1", "master"}


@MODES
def test_a_moved_tag_is_followed_and_told(site: Site, dummy: Remote, mode: str) -> None:
    site.update()
    before = site.expanded(DUMMY)["~v1"]
    after = dummy.tag("v1", annotated=True)
    outcome = with_hint(site, mode)
    assert (outcome.code, manifest(site, "team")) == (0, "# newer\n")
    [warning] = outcome.lines("WARNING")
    assert all(word in warning for word in (DUMMY, "tag 'v1'", before, after)), warning
    assert with_hint(site, mode).lines("WARNING") == []


@MODES
def test_a_deleted_tag_dangles_and_comes_back(site: Site, dummy: Remote, mode: str) -> None:
    site.update()
    links = site.links("team")
    git("tag", "-d", "v1", directory=dummy.path)
    gone = with_hint(site, mode)
    assert (gone.code, site.dangling("team")) == (0, ["hieradata/module_names/dummy", "modules/dummy"])
    [warning] = gone.lines("WARNING")
    assert all(word in warning for word in ("'team'", "team@example.org", "tag 'v1'", DUMMY)), warning
    assert (site.links("team"), mirrored_tags(site)) == (links, {})
    dummy.tag("v1")
    back = with_hint(site, mode)
    assert (back.code, site.dangling("team"), manifest(site, "team")) == (0, [], "# newer\n")


def test_on_demand_a_tag_that_a_definition_names_anew_is_asked_for(site: Site, dummy: Remote) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    dummy.tag("v2")
    site.update()
    site.define("team", definition(overrides={DUMMY: "tag/v2"}))
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == "# newer\n"
    site.define("team", definition(overrides={DUMMY: "tag/v3"}))
    assert site.update("--strict").code == 60
    assert not site.update().has("upon demand")  # the remote has said that there is none


def test_a_tag_that_leads_to_no_commit_is_an_error_of_who_uses_it(site: Site, dummy: Remote) -> None:
    tree = git("rev-parse", "master^{tree}", directory=dummy.path)
    for annotated in (False, True):
        dummy.tag("v1", tree, annotated=annotated)
        for _ in range(2):
            outcome = site.update("--strict")
            assert outcome.code == 60
            assert any("tag 'v1' leads to no commit" in line for line in outcome.lines("ERROR")), outcome.log
            assert site.dangling("team") == ["hieradata/module_names/dummy", "modules/dummy"]
            assert manifest(site, "production") == "# newer\n"
    content = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    told = {address for fault in content["faults"] for address in fault["addresses"]}
    assert told == {"team@example.org"}
    dummy.tag("v1")
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == "# newer\n"


def test_a_default_may_be_a_tag(site: Site, dummy: Remote) -> None:
    for remote in site.remotes.values():
        if remote is not dummy:
            remote.tag("2026.1")
    dummy.tag("2026.1", "refs/tags/v1")
    site.define("release", definition("tag/2026.1"))
    assert site.update("--strict").code == 0
    assert manifest(site, "release") == "# v1\n"
    assert site.dangling("release") == []


def test_a_tag_may_take_the_place_of_a_directory_of_tags(site: Site, dummy: Remote) -> None:
    dummy.tag("release/1")
    site.define("team", definition(overrides={DUMMY: "tag/release/1"}))
    assert site.update("--strict").code == 0
    git("tag", "-d", "release/1", directory=dummy.path)
    dummy.tag("release", "refs/tags/v1")
    site.define("team", definition(overrides={DUMMY: "tag/release"}))
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == "# v1\n"


@pytest.mark.parametrize("kind", ["inventory.json", "baseline.json", "absent-refs.json"])
def test_a_lost_file_of_state_loses_no_tag(site: Site, dummy: Remote, kind: str) -> None:
    assert site.update("--strict").code == 0
    links, expanded = site.links("team"), site.expanded(DUMMY)
    (site.root / "cache" / kind).unlink()
    dummy.go_away()
    assert site.update().code == 0
    assert (site.links("team"), site.expanded(DUMMY), manifest(site, "team")) == (links, expanded, "# v1\n")


@pytest.mark.usefixtures("dummy")
def test_a_mirror_that_lost_its_tags_gets_them_again(site: Site) -> None:
    site.update()
    (mirror(site) / "refs" / "tags" / "v1").unlink()
    assert site.update("--strict").code == 0
    assert mirrored_tags(site) == {"v1": site.expanded(DUMMY)["~v1"]}


def test_jens_show_names_a_tag_as_definitions_do(site: Site, dummy: Remote) -> None:
    site.update()
    commit = git("rev-parse", "v1", directory=dummy.path)
    site.capture.readouterr()
    assert show.main(["-c", str(site.config), "commit", commit]) == 0
    assert "through tag/v1: team" in site.capture.readouterr().out
    assert show.main(["-c", str(site.config), "commit", commit, "--json"]) == 0
    said = site.capture.readouterr().out
    assert '"tag/v1"' in said
    assert "~v1" not in said
    assert show.main(["-c", str(site.config), "environment", "team"]) == 0
    assert "tag/v1" in site.capture.readouterr().out
