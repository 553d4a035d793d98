"""Branches and commits: what teams push, and what Puppet then reads. The tests look only at the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

import pytest

from tests.conftest import Remote, Site, definition, git, let_pass

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"


def manifest(site: Site, environment: str) -> str:
    """The manifest of module dummy in an environment."""
    return site.read(f"{environment}/modules/dummy/manifests/init.pp")


@pytest.fixture
def dummy(site: Site) -> Remote:
    """The module's remote; environment team uses its branch feature."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature 1\n"}, "feature", onto="master")
    site.define("team", definition(overrides={DUMMY: "feature"}, mail="team"))
    return remote


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that sets the clock of retention to so many seconds from now."""
    begin = time.monotonic()
    return lambda seconds: let_pass(monkeypatch, begin + seconds - time.monotonic())


# Branches that move


def test_a_changed_branch_moves_alone_and_its_old_checkout_stays_whole(site: Site, dummy: Remote) -> None:
    site.update()
    old, master = dummy.commit("feature"), dummy.commit()
    before = site.links("team")
    new = dummy.push({INIT: "# feature 2\n"}, "feature")
    assert site.update().code == 0
    assert manifest(site, "team") == "# feature 2\n"
    assert manifest(site, "production") == "class dummy {}\n"
    assert site.expanded(DUMMY) == {"feature": new, "master": master}
    assert site.links("team") == before
    assert (site.path(DUMMY, f".{old}") / INIT).read_text() == "# feature 1\n"


def test_a_rewritten_branch_is_followed(site: Site, dummy: Remote) -> None:
    site.update()
    dummy.push({INIT: "# rewritten\n", "code/files/new": "new\n"}, "feature", rewrite=True)
    assert site.update().code == 0
    assert manifest(site, "team") == "# rewritten\n"
    assert sorted(os.listdir(site.path(DUMMY, "feature"))) == [".git", "code"]
    assert site.read("team/modules/dummy/files/new") == "new\n"
    assert not site.exists("team/hieradata/module_names/dummy")


def test_a_branch_that_goes_back_to_its_old_commit_is_followed(
    site: Site, dummy: Remote, set_clock: Callable[[float], None]
) -> None:
    site.update()
    old = dummy.commit("feature")
    dummy.push({INIT: "# feature 2\n"}, "feature")
    site.update()
    git("update-ref", "refs/heads/feature", old, directory=dummy.path)
    set_clock(200)
    site.update()
    assert manifest(site, "team") == "# feature 1\n"
    for moment in (400, 1000):
        set_clock(moment)
        site.update()
        assert manifest(site, "team") == "# feature 1\n"
    assert site.checkouts(DUMMY) == {old, dummy.commit()}


def test_a_deleted_branch_dangles_is_logged_once_and_comes_back(site: Site, dummy: Remote) -> None:
    site.update()
    before = site.links("team")
    commit = dummy.commit("feature")
    dummy.delete("feature")

    gone = site.update()
    assert gone.code == 0
    assert list(site.expanded(DUMMY)) == ["master"]
    assert site.links("team") == before
    assert site.dangling("team") == ["hieradata/module_names/dummy", "modules/dummy"]
    assert site.dangling("production") == []
    warnings = gone.lines("WARNING")
    assert len(warnings) == 1
    assert all(word in warnings[0] for word in ("'team'", "team@example.org", "feature", DUMMY)), warnings
    assert gone.has(f"INFO Removing {site.path(DUMMY, 'feature')}")

    silent = site.update()
    assert silent.lines("WARNING") == []
    assert silent.lines("ERROR") == []
    assert not silent.has("Removing")

    git("update-ref", "refs/heads/feature", commit, directory=dummy.path)
    back = site.update()
    assert back.lines("WARNING") == []
    assert back.has("'team'")
    assert site.links("team") == before
    assert site.dangling("team") == []
    assert manifest(site, "team") == "# feature 1\n"

    dummy.delete("feature")
    assert len(site.update().lines("WARNING")) == 1, "a link that dangles again is told again"


def test_a_branch_re_created_elsewhere_after_its_checkout_went(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    dummy.delete("feature")
    site.update()
    assert site.checkouts(DUMMY) == {dummy.commit()}
    new = dummy.push({INIT: "# feature 2\n"}, "feature", onto="master")
    site.update()
    assert site.expanded(DUMMY)["feature"] == new
    assert manifest(site, "team") == "# feature 2\n"


def test_a_branch_deleted_before_anything_else_moves_spoils_nothing_else(site: Site, dummy: Remote) -> None:
    site.update()
    dummy.delete("feature")
    dummy.push({INIT: "# master 2\n"})
    site.update()
    assert manifest(site, "production") == "# master 2\n"
    assert "dummy" not in [os.path.basename(link) for link in site.dangling("production")]


# Names


@pytest.mark.parametrize("branch", ["feature/x", "team/ann/feature-1.2", "größe", "feature#1", "@", "v1.0+rc{1}"])
def test_a_branch_is_one_entry_whatever_its_name(site: Site, branch: str) -> None:
    remote = site.remotes[DUMMY]
    commit = remote.push({INIT: "# odd\n"}, branch, onto="master")
    site.define("team", definition(overrides={DUMMY: f'"{branch}"'}))
    assert site.update().code == 0
    entry = branch.replace("/", "~")
    assert site.expanded(DUMMY) == {entry: commit, "master": remote.commit()}
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/{entry}/code"
    assert manifest(site, "team") == "# odd\n"


def test_a_branch_becomes_a_directory_of_branches_and_back(site: Site, dummy: Remote) -> None:
    site.update()
    dummy.delete("feature")
    dummy.push({INIT: "# feature/x\n"}, "feature/x", onto="master")
    site.define("team", definition(overrides={DUMMY: "feature/x"}))
    outcome = site.update()
    assert (outcome.code, outcome.lines("ERROR"), outcome.lines("WARNING")) == (0, [], [])
    assert manifest(site, "team") == "# feature/x\n"
    assert list(site.expanded(DUMMY)) == ["feature~x", "master"]

    dummy.delete("feature/x")
    dummy.push({INIT: "# feature 2\n"}, "feature", onto="master")
    site.define("team", definition(overrides={DUMMY: "feature"}))
    outcome = site.update()
    assert (outcome.code, outcome.lines("ERROR"), outcome.lines("WARNING")) == (0, [], [])
    assert manifest(site, "team") == "# feature 2\n"
    assert list(site.expanded(DUMMY)) == ["feature", "master"]


def test_a_branch_becomes_a_directory_of_branches_while_the_definition_stays(site: Site, dummy: Remote) -> None:
    site.update()
    dummy.delete("feature")
    dummy.push({INIT: "# feature/x\n"}, "feature/x", onto="master")
    dummy.push({INIT: "# master 2\n"})
    assert site.update().code == 0
    assert manifest(site, "production") == "# master 2\n"
    assert site.dangling("team") == ["hieradata/module_names/dummy", "modules/dummy"]


def test_a_branch_is_a_branch_though_a_tag_bears_its_name(site: Site, dummy: Remote) -> None:
    git("tag", "feature", "master", directory=dummy.path)
    site.update()
    assert manifest(site, "team") == "# feature 1\n"
    git("tag", "-f", "master", "feature", directory=dummy.path)
    dummy.push({INIT: "# master 2\n"})
    site.update()
    assert manifest(site, "production") == "# master 2\n"
    assert manifest(site, "team") == "# feature 1\n"


def test_a_tag_is_no_branch(site: Site) -> None:
    git("tag", "v1", "master", directory=site.remotes[DUMMY].path)
    site.define("team", definition(overrides={DUMMY: "v1"}))
    outcome = site.update()
    assert outcome.code == 0
    assert "modules/dummy" in site.dangling("team")
    assert len(outcome.lines("WARNING Environment 'team'")) == 1
    assert site.expanded(DUMMY).keys() == {"master"}
    refs = git("for-each-ref", "--format=%(refname)", directory=site.root / "bare" / DUMMY)
    assert refs == "refs/heads/master", "nothing but branches is fetched"


@pytest.mark.parametrize("digits", [40, 8])
def test_a_branch_bears_the_name_of_a_commit(site: Site, digits: int) -> None:
    remote = site.remotes[DUMMY]
    old = remote.commit()
    new = remote.push({INIT: "# new\n"})
    name = old[:digits]
    git("update-ref", f"refs/heads/{name}", new, directory=remote.path)
    site.define("by_branch", definition(overrides={DUMMY: f'"{name}"'}))
    site.define("by_commit", definition(overrides={DUMMY: f"commit/{name}"}))
    assert site.update().code == 0
    assert site.expanded(DUMMY) == {"master": new, name: new}
    assert manifest(site, "by_branch") == "# new\n"
    assert manifest(site, "by_commit") == "class dummy {}\n"
    assert site.links("by_commit")["modules/dummy"] == f"../../../clone/modules/dummy/.{old}/code"


# Which branches are expanded


def test_a_branch_that_nobody_needs_is_not_expanded(site: Site) -> None:
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# other\n"}, "other", onto="master")
    site.update()
    assert site.expanded(DUMMY) == {"master": remote.commit()}
    assert site.checkouts(DUMMY) == {remote.commit()}


def test_a_mandatory_branch_is_expanded_though_no_environment_uses_it(site: Site) -> None:
    site.settings["main.mandatorybranches"] = "master, qa"
    for remote in site.remotes.values():
        remote.branch("qa")
    qa = site.remotes[DUMMY].push({INIT: "# qa\n"}, "qa")
    site.update()
    assert site.expanded(DUMMY) == {"master": site.remotes[DUMMY].commit(), "qa": qa}
    assert (site.path(DUMMY, "qa") / INIT).read_text() == "# qa\n"


def test_qa_and_master_at_one_commit_share_one_checkout(site: Site) -> None:
    site.settings["main.mandatorybranches"] = "master, qa"
    for remote in site.remotes.values():
        remote.branch("qa")
    site.define("qa", definition("qa"))
    site.update()
    commit = site.remotes[DUMMY].commit()
    assert site.checkouts(DUMMY) == {commit}
    assert site.expanded(DUMMY) == {"master": commit, "qa": commit}
    site.remotes[DUMMY].push({INIT: "# qa\n"}, "qa")
    site.update()
    assert manifest(site, "qa") == "# qa\n"
    assert manifest(site, "production") == "class dummy {}\n"


def test_the_link_of_a_ref_that_is_not_needed_any_more_is_removed(site: Site, dummy: Remote) -> None:
    site.update()
    site.define("team")
    outcome = site.update()
    assert list(site.expanded(DUMMY)) == ["master"]
    assert manifest(site, "team") == "class dummy {}\n"
    assert outcome.has(f"INFO Removing {site.path(DUMMY, 'feature')}")
    assert site.checkouts(DUMMY) == {dummy.commit(), dummy.commit("feature")}, "but the checkout is retained"


def test_a_default_that_only_some_repositories_have(site: Site) -> None:
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# dev\n"}, "dev", onto="master")
    site.define("dev", definition("dev", {"common/site": "master", "common/hieradata": "master"}, mail="dev"))
    first = site.update()
    assert first.code == 0
    assert first.lines("ERROR") == []
    assert manifest(site, "dev") == "# dev\n"
    dangling = ["hieradata/fqdns/myapp", "hieradata/hostgroups/myapp", "hostgroups/hg_myapp"]
    assert site.dangling("dev") == dangling
    warnings = first.lines("WARNING Environment 'dev'")
    assert len(warnings) == 1
    assert "dev@example.org" in warnings[0]
    assert "hostgroups/myapp" in warnings[0]
    assert list(site.expanded("hostgroups/myapp")) == ["master"]

    site.remotes["hostgroups/myapp"].branch("dev")
    assert site.update().lines("WARNING") == []
    assert site.dangling("dev") == []


# Branches that must not vanish


def test_a_mandatory_branch_vanishes_and_its_last_checkout_stays(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    commit = dummy.commit()
    dummy.delete("master")
    dummy.push({INIT: "# feature 2\n"}, "feature")
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        errors = outcome.lines("ERROR")
        assert len(errors) == 1
        assert DUMMY in errors[0]
        assert "master" in errors[0]
        assert site.expanded(DUMMY)["master"] == commit
        assert manifest(site, "production") == "class dummy {}\n"
        assert site.dangling("production") == []
        assert manifest(site, "team") == "# feature 2\n"
    assert site.update("--strict").code == 60
    dummy.branch("master", "feature")
    assert site.update("--strict").code == 0
    assert manifest(site, "production") == "# feature 2\n"


def test_a_vanished_mandatory_branch_outlives_garbage_collection(site: Site, dummy: Remote) -> None:
    site.update()
    commit = dummy.commit()
    dummy.push({INIT: "# feature anew\n"}, "feature", rewrite=True)
    dummy.delete("master")
    site.update()
    git("gc", "--quiet", "--prune=now", directory=site.root / "bare" / DUMMY)
    site.update()
    assert site.expanded(DUMMY)["master"] == commit
    assert git("rev-parse", "HEAD", directory=site.path(DUMMY, "master")) == commit
    assert git("status", "--porcelain", directory=site.path(DUMMY, "master")) == ""


def test_an_emptied_remote_prunes_nothing(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    clone = site.listing("environments", "clone")
    bare = git("for-each-ref", directory=site.root / "bare" / DUMMY)
    dummy.delete("master")
    dummy.delete("feature")
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        errors = outcome.lines("ERROR")
        assert len(errors) == 1
        assert DUMMY in errors[0]
        assert outcome.lines("WARNING Environment") == []
        assert site.listing("environments", "clone") == clone
        assert git("for-each-ref", directory=site.root / "bare" / DUMMY) == bare
    dummy.push({INIT: "# anew\n"})
    outcome = site.update()
    assert outcome.lines("ERROR") == []
    assert manifest(site, "production") == "# anew\n"
    assert "modules/dummy" in site.dangling("team")


# Retention


def test_a_replaced_checkout_stays_for_retention_seconds_then_goes(
    site: Site, set_clock: Callable[[float], None]
) -> None:
    site.settings["main.retention"] = "300"
    site.update()
    remote = site.remotes[DUMMY]
    old, new = remote.commit(), remote.push({INIT: "# new\n"})
    set_clock(0)
    site.update()
    set_clock(290)
    site.update()
    assert site.checkouts(DUMMY) == {old, new}
    assert (site.path(DUMMY, f".{old}") / INIT).read_text() == "class dummy {}\n"
    assert git("rev-parse", "HEAD", directory=site.path(DUMMY, f".{old}")) == old
    set_clock(310)
    site.update()
    assert site.checkouts(DUMMY) == {new}
    assert os.listdir(site.root / "bare" / DUMMY / "worktrees") == [new]


def test_retention_begins_anew_when_its_memory_is_lost_or_of_the_future(
    site: Site, set_clock: Callable[[float], None]
) -> None:
    site.update()
    remote = site.remotes[DUMMY]
    old, new = remote.commit(), remote.push({INIT: "# new\n"})
    set_clock(5000)
    site.update()
    set_clock(0)
    site.update()
    assert site.checkouts(DUMMY) == {old, new}
    set_clock(310)
    site.update()
    assert site.checkouts(DUMMY) == {new}, "a time in the future means now"

    newer = remote.push({INIT: "# newer\n"})
    set_clock(400)
    site.update()
    shutil.rmtree(site.root / "cache")
    (site.root / "cache").mkdir()
    set_clock(800)
    site.update()
    assert site.checkouts(DUMMY) == {new, newer}
    set_clock(1110)
    site.update()
    assert site.checkouts(DUMMY) == {newer}


def test_without_retention_a_replaced_checkout_goes_in_the_same_run(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.update()
    new = site.remotes[DUMMY].push({INIT: "# new\n"})
    site.update()
    assert site.checkouts(DUMMY) == {new}
    assert manifest(site, "production") == "# new\n"


# Commits


@pytest.mark.parametrize(
    ("prefix", "digits"),
    [("commit/", 40), ("commit/", 12), ("commit/", 4), ("COMMIT/", 40), ("Commit/", 9)],
    ids=["full", "abbreviated", "four digits", "upper case", "mixed case, abbreviated"],
)
def test_a_commit_is_its_full_lower_case_id_on_disk(site: Site, prefix: str, digits: int) -> None:
    remote = site.remotes[DUMMY]
    old, new = remote.commit(), remote.push({INIT: "# new\n"})
    text = old[:digits] if prefix == "commit/" else old[:digits].upper()
    site.define("team", definition(overrides={DUMMY: f"{prefix}{text}"}))
    outcome = site.update()
    assert (outcome.code, outcome.lines("ERROR")) == (0, [])
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{old}/code"
    assert site.links("team")["hieradata/module_names/dummy"] == f"../../../../clone/modules/dummy/.{old}/data"
    assert manifest(site, "team") == "class dummy {}\n"
    assert site.expanded(DUMMY) == {"master": new}
    assert site.checkouts(DUMMY) == {old, new}
    before = site.listing("environments", "clone")
    assert site.update().code == 0
    assert site.listing("environments", "clone") == before


def test_another_hash_prefix_is_matched_without_regard_to_case(site: Site) -> None:
    site.settings["main.hashprefix"] = "sha:"
    commit = site.remotes[DUMMY].commit()
    site.define("team", definition(overrides={DUMMY: f'"SHA:{commit[:8]}"'}))
    site.update()
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{commit}/code"


def push_twins(remote: Remote) -> tuple[str, list[str]]:
    """Push many commits to a branch; return four digits with which several of them begin, and these commits."""
    lines = []
    for number in range(1200):
        lines.append(f"commit refs/heads/many\nmark :{number + 1}\n")
        lines.append(f"committer Ann <ann@example.org> {1400000000 + number} +0000\ndata 4\npush\n")
        lines.append(f"M 100644 inline code/manifests/init.pp\ndata {len(str(number))}\n{number}\n")
    git("fast-import", "--quiet", directory=remote.path, stdin="".join(lines).encode())
    families: dict[str, list[str]] = {}
    for commit in git("rev-list", "refs/heads/many", directory=remote.path).split():
        families.setdefault(commit[:4], []).append(commit)
    return next((digits, commits) for digits, commits in families.items() if len(commits) > 1)


def test_an_ambiguous_commit_dangles_until_it_is_spelled_out(site: Site) -> None:
    digits, commits = push_twins(site.remotes[DUMMY])
    site.define("team", definition(overrides={DUMMY: f"commit/{digits}"}))
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == 1
    assert all(word in errors[0] for word in (DUMMY, digits, "ambiguous")), errors
    assert "modules/dummy" in site.dangling("team")
    assert manifest(site, "production") == "class dummy {}\n"
    site.define("team", definition(overrides={DUMMY: f"commit/{commits[1]}"}))
    assert site.update().lines("ERROR") == []
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{commits[1]}/code"
    assert site.exists("team/modules/dummy/manifests/init.pp")


def test_an_abbreviation_once_resolved_stays_resolved(site: Site) -> None:
    remote = site.remotes[DUMMY]
    digits, commits = push_twins(remote)
    first = commits[-1]  # the oldest one
    git("update-ref", "refs/heads/many", first, directory=remote.path)
    site.define("team", definition(overrides={DUMMY: f"commit/{digits}"}))
    assert site.update().lines("ERROR") == []
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{first}/code"
    git("update-ref", "refs/heads/many", commits[0], directory=remote.path)
    for _ in range(2):
        assert site.update("--strict").code == 0
        assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{first}/code"
        assert site.exists("team/modules/dummy/manifests/init.pp")


@pytest.mark.parametrize("digits", ["deadbeef", "deadbeef" * 5])
def test_an_unknown_commit_dangles_until_it_is_pushed_elsewhere(site: Site, digits: str) -> None:
    site.define("team", definition(overrides={DUMMY: f"commit/{digits}"}, mail="team"))
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == 1
    assert all(word in errors[0] for word in (DUMMY, digits, "unknown")), errors
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{digits}/code"
    assert site.dangling("team") == ["hieradata/module_names/dummy", "modules/dummy"]
    warnings = outcome.lines("WARNING Environment 'team'")
    assert len(warnings) == 1
    assert "team@example.org" in warnings[0]
    assert site.update().lines("WARNING Environment") == []
    assert site.exists("team/site/site.pp")


def test_an_unknown_commit_is_found_once_it_is_pushed(site: Site) -> None:
    remote = site.remotes[DUMMY]
    commit = remote.push({INIT: "# late\n"}, "late", onto="master")
    tree = remote.path.with_name("hidden.git")
    shutil.copytree(remote.path, tree)
    remote.delete("late")
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    site.define("team", definition(overrides={DUMMY: f"commit/{commit[:10]}"}))
    site.update()
    assert "modules/dummy" in site.dangling("team")
    git("fetch", "-q", str(tree), "late:late", directory=remote.path)
    outcome = site.update()
    assert outcome.lines("ERROR") == []
    assert site.dangling("team") == []
    assert manifest(site, "team") == "# late\n"
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{commit}/code"


def test_a_commit_that_was_forced_away_is_fetched_from_the_remote_by_its_id(site: Site) -> None:
    remote = site.remotes[DUMMY]
    commit = remote.push({INIT: "# lost\n"}, "feature", onto="master")
    remote.push({INIT: "# rewritten\n"}, "feature", rewrite=True)
    site.update()
    site.define("team", definition(overrides={DUMMY: f"commit/{commit}"}))
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == "# lost\n"


def test_a_commit_stays_though_the_remote_lost_it_and_the_bare_collects_garbage(site: Site) -> None:
    remote = site.remotes[DUMMY]
    commit = remote.push({INIT: "# pinned\n"}, "feature", onto="master")
    site.define("pins", definition(None, {DUMMY: f"commit/{commit}"}))
    site.define("short", definition(None, {DUMMY: f"commit/{commit[:8]}"}))
    site.update()
    remote.delete("feature")
    remote.push({INIT: "# master anew\n"}, rewrite=True)
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    bare = site.root / "bare" / DUMMY
    for _ in range(2):
        assert site.update("--strict").code == 0
        git("gc", "--quiet", "--prune=now", directory=bare)
        for environment in ("pins", "short"):
            assert manifest(site, environment) == "# pinned\n"
        assert git("rev-parse", "HEAD", directory=site.path(DUMMY, f".{commit}")) == commit
    assert manifest(site, "production") == "# master anew\n"


def test_a_checkout_outranks_a_bare_and_a_remote_that_lost_its_commit(site: Site) -> None:
    site.settings["main.retention"] = "0"
    remote = site.remotes[DUMMY]
    commit = remote.push({INIT: "# pinned\n"}, "feature", onto="master")
    site.define("pins", definition(None, {DUMMY: f"commit/{commit}"}))
    site.define("short", definition(None, {DUMMY: f"commit/{commit[:8]}"}))
    site.update()
    remote.delete("feature")
    git("gc", "--quiet", "--prune=now", directory=remote.path)
    shutil.rmtree(site.root / "bare" / DUMMY)
    (site.root / "cache" / "inventory.json").unlink()
    for _ in range(2):
        outcome = site.update()
        assert (outcome.code, outcome.lines("ERROR")) == (0, [])
        assert manifest(site, "pins") == "# pinned\n"
        assert manifest(site, "short") == "# pinned\n"
        assert manifest(site, "production") == "class dummy {}\n"


@pytest.mark.parametrize("what", ["annotated tag", "tree", "blob"])
def test_the_id_of_another_object_is_no_commit(site: Site, what: str) -> None:
    remote = site.remotes[DUMMY]
    git("tag", "--annotate", "--message", "Version 1", "v1", "master", directory=remote.path)
    expression = {"annotated tag": "v1", "tree": "master^{tree}", "blob": f"master:{INIT}"}[what]
    digits = git("rev-parse", expression, directory=remote.path)
    site.define("team", definition(overrides={DUMMY: f"commit/{digits}"}))
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == 1
    assert DUMMY in errors[0]
    assert digits in errors[0]
    assert site.links("team")["modules/dummy"] == f"../../../clone/modules/dummy/.{digits}/code"
    assert "modules/dummy" in site.dangling("team")
    assert site.checkouts(DUMMY) == {remote.commit()}


def test_a_hostgroup_and_the_common_repositories_can_be_pinned_as_well(site: Site) -> None:
    commits = {repo: remote.commit() for repo, remote in site.remotes.items()}
    site.define("pins", definition(overrides={repo: f"commit/{commit}" for repo, commit in commits.items()}))
    site.remotes["common/site"].push({"code/site.pp": "# new\n"})
    site.remotes["common/hieradata"].push({"data/common.yaml": "new: true\n"})
    site.remotes["hostgroups/myapp"].push({INIT: "# new\n"})
    site.update()
    assert site.read("pins/site/site.pp") == "node default {}\n"
    assert site.read("pins/hieradata/common.yaml") == "--- {}\n"
    assert site.read("pins/hostgroups/hg_myapp/manifests/init.pp") == "class hg_myapp {}\n"
    assert site.read("production/site/site.pp") == "# new\n"
    assert site.links("pins")["site"] == f"../../clone/common/site/.{commits['common/site']}/code"


# Git commands of an administrator


def test_a_checkout_answers_log_status_and_rev_parse(site: Site) -> None:
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# two\r\nlines\n", ".gitattributes": "*.txt text eol=crlf\n", "data/a.txt": "one\ntwo\n"})
    site.update()
    for entry in ("master", f".{remote.commit()}"):
        checkout = site.path(DUMMY, entry)
        assert git("rev-parse", "HEAD", directory=checkout) == remote.commit()
        assert git("log", "--format=%H", directory=checkout) == git("rev-list", "master", directory=remote.path)
        assert git("status", "--porcelain", "--ignored", directory=checkout) == ""
    assert (site.path(DUMMY, "master") / INIT).read_bytes() == b"# two\r\nlines\n"
    new = remote.push({INIT: "# three\n"})
    site.update()
    assert git("rev-parse", "HEAD", directory=site.path(DUMMY, "master")) == new
    assert git("status", "--porcelain", "--ignored", directory=site.path(DUMMY, "master")) == ""
