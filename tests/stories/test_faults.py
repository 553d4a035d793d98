"""Whatever is wrong is seen by everybody who looks: jens-stats, last-run.json, the monitoring recipe and --strict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jens import lastrun
from jens.commands import hold, stats
from jens.delivery.messages import REMEDIES
from jens.system import processes
from tests import TREE
from tests.conftest import Site, definition, git
from tests.faults.decoy import push_tree

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
LATER = {f"modules/m{number}" for number in range(14)}


def ill_formed(site: Site) -> None:
    site.define("production", "default: master\n")


def lost_meaning(site: Site) -> None:
    site.define("production", "notifications: ann@example.org\n")


def branch_in_use_deleted(site: Site) -> None:
    site.remotes[DUMMY].branch("idea")
    site.define("team", definition(overrides={DUMMY: "idea"}))
    site.update()
    site.remotes[DUMMY].delete("idea")


def override_of_nothing(site: Site) -> None:
    site.define("team", definition(overrides={"modules/nothing": "master"}))


def undeclared_and_protected(site: Site) -> None:
    site.settings["main.protectedenvironments"] = "production,"
    site.retire("production")


def unknown_commit(site: Site) -> None:
    site.define("team", definition(overrides={DUMMY: f"commit/{'0123456789' * 4}"}))


def remote_away(site: Site) -> None:
    site.remotes[DUMMY].go_away()


def no_mandatory_branch(site: Site) -> None:
    site.remotes[DUMMY].branch("other")
    site.remotes[DUMMY].delete("master")


def new_without_mandatory_branch(site: Site) -> None:
    site.add("modules/odd", {"code/x": "x"}).branch("other")
    site.remotes["modules/odd"].delete("master")
    site.publish()


def new_that_cannot_be_cloned(site: Site) -> None:
    site.add("modules/odd").go_away()
    site.publish()


def bad_entry(site: Site) -> None:
    site.urls["modules/odd"] = "ext::sh -c x"
    site.publish()


def no_code(site: Site) -> None:
    site.remotes[DUMMY].push({"code/manifests/init.pp": None})


def submodules(site: Site) -> None:
    site.remotes[DUMMY].push({".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ../x\n'})


def large_files(site: Site) -> None:
    site.remotes[DUMMY].push({".gitattributes": "*.iso filter=lfs diff=lfs merge=lfs -text\n"})


def large_files_below(site: Site) -> None:
    site.remotes[DUMMY].push({"code/files/.gitattributes": "*.iso filter=lfs diff=lfs merge=lfs -text\n"})


def repository_in_a_repository(site: Site) -> None:
    push_tree(site.remotes[DUMMY], {"code/lib": ("160000", site.remotes[MYAPP].commit())})


def most_modules_gone(site: Site) -> None:
    for repo in LATER:
        del site.urls[repo]
    site.publish()


def most_modules_taken_away(site: Site) -> None:
    site.define("production", definition(None, {DUMMY: "master"}))


def default_that_no_repository_has(site: Site) -> None:
    site.define("production", "default: maste\nnotifications: ann@example.org\n")


def defaults_that_no_repository_has(site: Site) -> None:
    site.define("production", "default: [maste, quality]\nnotifications: ann@example.org\n")


def most_environments_gone(site: Site) -> None:
    names = [f"e{number}.yaml" for number in range(14)]
    site.definitions.push(dict.fromkeys(names, definition()))
    site.update()
    site.definitions.push(dict.fromkeys(names))


def too_many_environments(site: Site) -> None:
    site.settings["main.maxenvironments"] = "1"
    site.define("team")


def unknown_key(site: Site) -> None:
    site.define("production", definition(more="colour: red\n"))


def typo_in_the_configuration(site: Site) -> None:
    site.settings["main.purgelimt"] = "30"


def waits_for_a_branch(site: Site) -> None:
    remote_away(site)
    site.define("production", definition(overrides={DUMMY: "idea"}))


def too_large(site: Site) -> None:
    site.settings["main.maxfiles"] = "20"
    site.remotes[DUMMY].push({f"code/{number}": "" for number in range(21)})


def link_out(site: Site) -> None:
    push_tree(site.remotes["common/hieradata"], {"data/later": ("120000", "/etc")})
    site.update()
    site.settings["main.common_hieradata_items"] = "common.yaml, environments, hardware, operatingsystems, later"


def held(site: Site) -> None:
    assert hold.main(["-c", str(site.config), "production"]) == 0


def hook_that_fails(site: Site) -> None:
    site.settings["hook.command"] = "/bin/false"
    site.remotes[DUMMY].push({"code/x": "x"})
    site.update()
    assert site.deliver().code == 60


def queue_of_no_use(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    (site.root / "spool" / "00000000").write_text("")


def library_away(site: Site) -> None:
    site.library.push({"repositories.yaml": None})


def metadata_away(site: Site) -> None:
    site.definitions.go_away()


def library_of_no_use(site: Site) -> None:
    site.publish("repositories: []\n")


FAULTS = [
    (ill_formed, "definition", 60),
    (lost_meaning, "definition", 60),
    (branch_in_use_deleted, "dangling link", 60),
    (override_of_nothing, "void override", 60),
    (undeclared_and_protected, "undeclared environment", 60),
    (unknown_commit, "unknown commit", 60),
    (remote_away, "repository not fetched", 60),
    (no_mandatory_branch, "missing mandatory branch", 60),
    (new_without_mandatory_branch, "repository refused", 60),
    (new_that_cannot_be_cloned, "repository refused", 60),
    (bad_entry, "library entry", 60),
    (no_code, "repository content", 60),
    (submodules, "repository content", 60),
    (large_files, "repository content", 60),
    (large_files_below, "repository content", 60),
    (repository_in_a_repository, "repository content", 60),
    (most_modules_gone, "purge guard", 31),
    (most_modules_taken_away, "purge guard", 31),
    (default_that_no_repository_has, "purge guard", 31),
    (defaults_that_no_repository_has, "purge guard", 31),
    (most_environments_gone, "purge guard", 31),
    (too_many_environments, "too many", 60),
    (typo_in_the_configuration, "configuration", 60),
    (unknown_key, "unknown key", 60),
    (waits_for_a_branch, "environment", 60),
    (too_large, "checkout refused", 60),
    (link_out, "link out of a checkout", 60),
    (held, "held", 60),
    (hook_that_fails, "delivery", 60),
    (queue_of_no_use, "hints queue", 25),
    (library_away, "run", 3),
    (metadata_away, "metadata", 20),
    (library_of_no_use, "repositories", 30),
]


@pytest.fixture
def well(site: Site) -> Site:
    """A site of fifteen modules at which all is well."""
    for repo in sorted(LATER):
        site.add(repo)
    site.publish()
    assert site.update("--strict").code == 0
    return site


def last_run(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    return found


def is_green(site: Site) -> bool:
    """What the recipe of docs/operation.md says, as it stands there; without jq, what it asks for."""
    found = last_run(site)
    is_well = bool(found["status"] == 0 and found["failed"] == [] and found["faults"] == [])
    if shutil.which("jq"):
        page = (TREE / "docs" / "operation.md").read_text()
        recipe = page.split("few hints wait:\n\n```sh\n")[1].split("```")[0]
        tool = site.root / "jens-stats"
        tool.write_text(f'#!/bin/sh\n{sys.executable} {TREE}/bin/jens-stats -c {site.config} "$@" 2>{os.devnull}\n')
        tool.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(TREE), "PATH": f"{site.root}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", recipe], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == ("" if is_well else "Jens needs a look\n"), done
        assert done.stderr == ""
    return is_well


def told(site: Site, *options: str, code: int = 0) -> str:
    site.capture.readouterr()
    assert stats.main(["-c", str(site.config), *options]) == code
    return site.capture.readouterr().out


def test_where_all_is_well_nobody_says_otherwise(well: Site) -> None:
    assert is_green(well)
    assert "There are 0 open faults\n" in told(well)
    assert told(well).startswith("Last run: ")


#: Kinds that no row of this table has: the stage fails in tests of its exit code, and a thousand faults in others.
ELSEWHERE = {"environments", "more"}


def test_the_table_has_every_kind_that_somebody_can_be_told_of() -> None:
    assert {kind for _, kind, _ in FAULTS} | ELSEWHERE == REMEDIES.keys()
    for page in ("operation.md", "troubleshooting.md"):
        text = (TREE / "docs" / page).read_text()
        assert [kind for kind in REMEDIES if f"`{kind}`" not in text] == [], page


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)


@pytest.mark.parametrize(("make", "kind", "code"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_whatever_is_wrong_is_seen_by_all_who_look(
    well: Site, make: Callable[[Site], None], kind: str, code: int
) -> None:
    make(well)
    assert well.update("--strict").code == code
    [found] = [fault for fault in last_run(well)["faults"] if fault["kind"] == kind]
    assert not is_green(well)
    said = told(well, code=25 if kind == "hints queue" else 0)  # jens-stats counts hints, too
    assert f"\t- {kind}" in said
    assert found["text"] in said
    if found["environment"] or kind in ("unknown commit", "too many"):
        assert found["addresses"] == ["ann@example.org"]
    if code == 60:
        assert well.update("--dry-run", "--strict").code == 60
    assert json.loads(told(well, "--json", "-i"))["last_run"]["faults"] == last_run(well)["faults"]


@pytest.mark.parametrize(
    "files",
    [
        {".gitmodules": ""},
        {".gitmodules": "# [submodule]\n"},
        {".gitattributes": "# *.iso filter=lfs\n*.iso -filter\n*.pp filter=lfsx\n"},
        {"code/.gitattributes": "*.pp text\n", "code/files/x.gitattributes": "*.iso filter=lfs\n"},
        {"data/.gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ../x\n'},
    ],
)
def test_what_only_looks_like_submodules_or_large_files_is_no_fault(well: Site, files: dict[str, str | None]) -> None:
    well.remotes[DUMMY].push(files)
    assert well.update("--strict").code == 0
    assert is_green(well)


@pytest.mark.parametrize("began", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-14:00", "1e3"])
def test_times_that_are_none_spoil_nothing(well: Site, began: str) -> None:
    override_of_nothing(well)
    well.update()
    path = well.root / "cache" / "last-run.json"
    document = json.loads(path.read_text())
    document["content"]["began"] = began
    for fault in document["content"]["faults"]:
        fault["since"] = began
    path.write_text(json.dumps(document))
    assert told(well).startswith("Last run: ")


def test_a_fault_stays_open_with_its_time_until_it_is_gone(well: Site) -> None:
    override_of_nothing(well)
    well.update()
    [since] = [fault["since"] for fault in last_run(well)["faults"]]
    for _ in range(2):  # what a run does not look at is as it was
        assert well.update("--strict").code == 60
        assert [fault["since"] for fault in last_run(well)["faults"]] == [since]
    well.remotes[DUMMY].push({"code/manifests/init.pp": "# pushed\n"})
    assert well.update("--strict").code == 60
    assert [fault["since"] for fault in last_run(well)["faults"]] == [since]
    well.retire("team")
    assert well.update("--strict").code == 0
    assert is_green(well)


def test_a_push_to_a_repository_keeps_whom_to_tell_of_it(well: Site) -> None:
    no_code(well)
    well.define("team", definition(overrides={DUMMY: "master"}))
    for text in ("once", "again"):
        well.update()
        [fault] = last_run(well)["faults"]
        assert (fault["kind"], fault["addresses"]) == ("repository content", ["ann@example.org"])
        well.remotes[DUMMY].push({"README.md": text})


def test_what_a_run_cannot_look_at_stays_open(well: Site) -> None:
    unknown_commit(well)
    well.update()
    [before] = [fault for fault in last_run(well)["faults"] if fault["kind"] == "unknown commit"]
    well.remotes[DUMMY].go_away()
    well.update("--poll")
    assert before in last_run(well)["faults"]
    well.remotes[DUMMY].come_back()
    well.update("--poll")
    assert before in last_run(well)["faults"]
    well.retire("team")
    assert well.update("--strict").code == 0


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_lost_record_of_faults_is_made_anew_by_the_next_run(well: Site, damage: str) -> None:
    override_of_nothing(well)
    for _ in range(2):
        well.update()
    path = well.root / "cache" / "last-run.json"
    path.unlink()
    if damage:
        path.write_text(damage)
    assert well.update("--strict").code == 60
    assert [fault["kind"] for fault in last_run(well)["faults"]] == ["void override"]


def test_a_run_that_fails_as_a_whole_tells_the_other_faults_too(well: Site) -> None:
    override_of_nothing(well)
    well.update()
    metadata_away(well)
    assert well.update().code == 20
    assert [fault["kind"] for fault in last_run(well)["faults"]] == ["metadata", "void override"]
    well.definitions.come_back()
    well.update()
    assert [fault["kind"] for fault in last_run(well)["faults"]] == ["void override"]


def test_a_fault_names_environment_repository_and_addresses(well: Site) -> None:
    branch_in_use_deleted(well)
    well.update()
    [fault] = last_run(well)["faults"]
    assert (fault["environment"], fault["repository"], fault["addresses"]) == ("team", DUMMY, ["ann@example.org"])
    assert "dangling link team modules/dummy since " in told(well)
    assert "(ann@example.org)" in told(well)


def test_a_definition_that_takes_most_away_changes_nothing_until_it_is_allowed(well: Site) -> None:
    before = well.links("production")
    most_modules_taken_away(well)
    outcome = well.update()
    assert outcome.code == 31
    assert outcome.has("ERROR Refusing to take 15 of 16 modules and hostgroups away from environment 'production'")
    assert well.links("production") == before
    assert well.update().code == 31
    assert well.update("--allow-purge").code == 0
    assert set(well.links("production")) < set(before)
    assert well.update("--strict").code == 0


def test_a_default_that_no_repository_has_changes_nothing_until_it_is_allowed(well: Site) -> None:
    before = well.links("production")
    default_that_no_repository_has(well)
    outcome = well.update()
    assert outcome.code == 31
    assert outcome.has("ERROR Refusing to take 16 of 16 modules and hostgroups away from environment 'production'")
    assert well.update("--poll").code == 31
    assert well.links("production") == before
    assert well.exists("production/modules/m1/manifests/init.pp")
    assert well.update("--allow-purge").code == 0
    assert not well.exists("production/modules/m1/manifests/init.pp")


def test_a_default_that_is_pushed_together_with_its_branches_is_followed(well: Site) -> None:
    for remote in well.remotes.values():
        remote.branch("next")
    well.define("production", definition("next"))
    assert well.update("--strict").code == 0
    assert well.links("production")["modules/m1"].endswith("/m1/next/code")


def test_a_snapshot_has_the_first_mandatory_branch_of_site_and_hiera_data_without_a_master(site: Site) -> None:
    site.settings["main.mandatorybranches"] = "production, qa"
    for repo, remote in site.remotes.items():
        remote.branch("production")
        remote.branch("qa")
        if repo != "common/hieradata":
            remote.delete("master")
    site.define("production", definition("production"))
    site.define("snap", definition(None, {DUMMY: "qa"}))
    assert site.update("--dry-run", "--strict").code == 0
    assert site.update("--strict").code == 0
    links = site.links("snap")
    assert (links["site"], links["hieradata/common.yaml"]) == (
        "../../clone/common/site/production/code",
        "../../../clone/common/hieradata/master/data/common.yaml",
    )
    site.remotes["common/hieradata"].delete("master")
    assert site.update("--strict", "--poll").code == 0
    assert site.links("snap")["hieradata/common.yaml"].split("/")[-3] == "production"


def test_a_library_that_loses_what_an_override_names_is_told_of_once(well: Site) -> None:
    well.define("team", definition(overrides={"modules/m1": "master"}))
    well.update()
    del well.urls["modules/m1"]
    well.publish()
    outcome = well.update()
    assert outcome.has(
        "WARNING Environment 'team' (ann@example.org) overrides modules 'm1', which the library does not have"
    )
    assert not well.update("--poll").has("which the library does not have")
    assert [fault["kind"] for fault in last_run(well)["faults"]] == ["void override"]


def test_a_snapshot_keeps_a_module_that_the_library_has_lost(well: Site) -> None:
    pinned = well.remotes["modules/m1"].commit()
    well.define("snap", definition(None, {DUMMY: "master", "modules/m1": f"commit/{pinned}"}))
    assert well.update("--strict").code == 0
    before = well.links("snap")
    del well.urls["modules/m1"]
    well.remotes["modules/m1"].go_away()
    well.publish()
    for _ in range(2):
        well.update("--poll")
        assert well.links("snap") == before
        assert well.exists("snap/modules/m1/manifests/init.pp")
        assert "modules/m1" not in well.links("production")
    shutil.rmtree(well.root / "bare/modules/m1")
    assert well.update("--poll").has("ERROR The mirror of modules/m1 is gone")
    assert well.exists("snap/modules/m1/manifests/init.pp")
    well.retire("snap")
    assert well.update("--strict").code == 0
    assert not (well.root / "bare/modules/m1").exists()


def preview(site: Site) -> tuple[int, list[str]]:
    """What a dry run says, and its exit code with --strict."""
    before = site.listing("clone", "bare", "environments", "cache")
    outcome = site.update("--dry-run", "--strict")
    assert site.listing("clone", "bare", "environments", "cache") == before
    return outcome.code, outcome.stdout.splitlines()


def test_a_dry_run_says_that_links_would_dangle(well: Site) -> None:
    branch_in_use_deleted(well)
    code, lines = preview(well)
    assert code == 60
    assert "Would leave links of environment 'team' to modules/dummy dangling: there is no branch 'idea'" in lines
    assert "Would remove modules/dummy idea" in lines
    well.update()
    assert preview(well) == (60, ["Nothing would change."])


def test_a_dry_run_does_not_promise_a_commit_that_nobody_has(well: Site) -> None:
    unknown_commit(well)
    code, lines = preview(well)
    assert code == 60
    assert "modules/dummy: commit 0123456789012345678901234567890123456789 is unknown" in lines
    assert not [line for line in lines if "Would expand" in line]


def test_a_dry_run_promises_a_commit_that_only_the_remote_has(well: Site) -> None:
    commit = well.remotes[DUMMY].push({"code/x": "x"}, "aside")
    well.remotes[DUMMY].delete("aside")
    well.define("team", definition(overrides={DUMMY: f"commit/{commit}"}))
    code, lines = preview(well)
    assert code == 0
    assert f"Would expand modules/dummy .{commit} at {commit[:7]}" in lines


@pytest.mark.parametrize("make", [large_files_below, repository_in_a_repository])
def test_a_dry_run_looks_into_all_directories_of_what_was_pushed(well: Site, make: Callable[[Site], None]) -> None:
    make(well)
    code, lines = preview(well)
    assert (code, len([line for line in lines if line.startswith("Would have a fault: modules/dummy")])) == (60, 1)
    well.update()
    assert preview(well) == (60, ["Nothing would change."])


def test_a_dry_run_looks_into_what_was_pushed(well: Site) -> None:
    submodules(well)
    well.remotes["common/hieradata"].push({"data/hardware/kvm.yaml": None})
    code, lines = preview(well)
    assert code == 60
    assert (
        "Would leave links of environment 'production' to common/hieradata dangling: "
        "there is no 'data/hardware' in branch 'master'" in lines
    )
    assert "Would have a fault: modules/dummy branch 'master': it has submodules, which are not laid out" in lines
    well.remotes["common/hieradata"].push({"data/hardware/kvm.yaml": "--- {}\n"})
    well.remotes[DUMMY].push({".gitmodules": None})
    assert preview(well)[0] == 0


@pytest.mark.parametrize("length", [40, 10])
def test_a_dry_run_knows_the_commits_of_a_new_repository(well: Site, length: int) -> None:
    first = well.add("modules/later").commit()
    tip = well.remotes["modules/later"].push({"code/x": "x"})
    well.publish()
    well.define("team", definition(overrides={"modules/later": f"commit/{first[:length]}"}))
    code, lines = preview(well)
    assert (code, f"Would expand modules/later .{first} at {first[:7]}" in lines) == (0, True)
    assert f"Would expand modules/later master at {tip[:7]}" in lines
    nobody = "0123456789" * 4
    well.define("team", definition(overrides={"modules/later": f"commit/{nobody[:length]}"}))
    code, lines = preview(well)
    assert (code, f"modules/later: commit {nobody[:length]} is unknown" in lines) == (60, True)


def test_faults_are_saved_before_the_next_run_need_not_look_for_them(
    well: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    well.update("--poll")
    no_code(well)
    with monkeypatch.context() as patch:  # as if the run were killed when it has saved its baseline
        patch.setattr(lastrun, "save", lambda *_: None)
        well.update()
    assert well.update("--strict").code == 60
    assert [fault["kind"] for fault in last_run(well)["faults"]] == ["repository content"]


def test_a_dry_run_says_what_would_be_refused(well: Site) -> None:
    most_modules_taken_away(well)
    code, lines = preview(well)
    assert code == 60
    assert [line for line in lines if line.startswith("Refusing to take 15 of 16 modules and hostgroups away")]


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_dry_run_says_which_commits_would_be_too_much(well: Site, is_mirrored: bool) -> None:
    well.settings["main.maxfiles"] = "20"
    remote = well.remotes[DUMMY]
    commit = remote.push({f"code/{number}": "" for number in range(21)})
    if is_mirrored:  # as if a run were killed after its fetch
        git("fetch", "-q", str(remote.path), "+refs/heads/*:refs/heads/*", directory=well.root / "bare" / DUMMY)
    before = well.expanded(DUMMY)
    code, lines = preview(well)
    refusal = f"Unable to check out modules/dummy at {commit}: it has more than 20 files ([main] maxfiles)"
    assert (code, [line for line in lines if refusal in line] != []) == (60, True), lines
    assert not [
        line for line in lines if commit[:7] in line and line not in {refusal, f"Would have a fault: {refusal}"}
    ]
    outcome = well.update("--strict")
    assert (outcome.code, well.expanded(DUMMY)) == (60, before)
    assert outcome.lines("ERROR") == [f"ERROR {refusal}"]


def test_a_dry_run_of_a_site_at_which_all_is_well_is_well(well: Site) -> None:
    assert preview(well) == (0, ["Nothing would change."])
