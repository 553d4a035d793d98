"""Environments: new, changed, ill-formed, retired, pinned. The tests look only at the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jens.commands import check, gc, reset
from tests.conftest import Remote, Site, definition, faults_of, git

DUMMY = "modules/dummy"
MYAPP = "hostgroups/myapp"
INIT = "code/manifests/init.pp"
CONF = "modulepath = modules:hostgroups\nmanifest = site/site.pp\n"


def manifest(site: Site, environment: str) -> str:
    """The manifest of module dummy in an environment."""
    return site.read(f"{environment}/modules/dummy/manifests/init.pp")


def identities(site: Site, environment: str) -> dict[str, tuple[int, int]]:
    """The inode and the ctime of each link."""
    top = site.root / "environments" / environment
    states = {link: (top / link).lstat() for link in site.links(environment)}
    return {link: (state.st_ino, state.st_ctime_ns) for link, state in states.items()}


def remembered(site: Site, environment: str) -> Path:
    return site.root / "cache" / "environments" / environment


@pytest.fixture
def dummy(site: Site) -> Remote:
    """The module's remote; no environment uses its branches feature and other yet."""
    remote = site.remotes[DUMMY]
    remote.push({INIT: "# feature\n"}, "feature", onto="master")
    remote.push({INIT: "# other\n"}, "other", onto="master")
    return remote


# New and changed


def test_a_new_environment_is_complete_and_leaves_the_others_alone(site: Site, dummy: Remote) -> None:
    site.update()
    before = identities(site, "production")
    text = definition(overrides={DUMMY: "feature"})
    site.define("team", text)
    outcome = site.update("--strict")
    assert outcome.code == 0
    assert site.environments() == ["production", "team"]
    assert site.links("team").keys() == site.links("production").keys()
    assert site.dangling("team") == []
    assert manifest(site, "team") == "# feature\n"
    assert identities(site, "production") == before
    assert remembered(site, "team").read_text() == text
    assert outcome.has("INFO New environments: ['team']")
    assert outcome.has("INFO modules 'dummy' overridden to use treeish 'feature'")
    assert dummy.commit("feature") in site.checkouts(DUMMY)


def test_an_environment_is_directories_and_links_with_modes_for_all(site: Site) -> None:
    before = os.umask(0o077)
    try:
        site.update()
    finally:
        os.umask(before)
    listing = site.listing("environments/production", "clone")
    for path, entry in listing.items():
        expected = {"d": "drwxr-xr-x", "l": "lrwxrwxrwx", "-": "-rw-r--r--"}[entry[0]]
        assert entry.startswith(expected), (path, entry)
    kinds = {entry[0] for path, entry in listing.items() if path.startswith("environments")}
    assert kinds == {"d", "l"}


def test_the_directories_of_an_environment_exist_even_when_empty(bare_site: Site) -> None:
    bare_site.publish("repositories: {common: {}, hostgroups: {}, modules: null}\n")
    bare_site.define("empty")
    assert bare_site.update("--strict").code == 0
    top = bare_site.root / "environments" / "empty"
    found = sorted(str(path.relative_to(top)) for path in top.rglob("*"))
    assert found == [
        "hieradata",
        "hieradata/fqdns",
        "hieradata/hostgroups",
        "hieradata/module_names",
        "hostgroups",
        "modules",
    ]


def test_only_the_links_of_a_changed_override_are_touched(site: Site, dummy: Remote) -> None:
    site.define("team")
    site.update()
    before = identities(site, "team")
    top = (site.root / "environments" / "team").stat().st_ino
    site.define("team", definition(overrides={DUMMY: "feature"}))
    outcome = site.update("--strict")
    assert outcome.code == 0
    after = identities(site, "team")
    changed = sorted(link for link in before if before[link] != after[link])
    assert changed == ["hieradata/module_names/dummy", "modules/dummy"]
    assert before.keys() == after.keys()
    assert (site.root / "environments" / "team").stat().st_ino == top
    assert manifest(site, "team") == "# feature\n"
    assert outcome.has("INFO Existing and changed environments: ['team']")
    assert outcome.has("INFO Recreating environment 'team'")
    assert site.expanded(DUMMY)["feature"] == dummy.commit("feature")


def test_a_definition_whose_words_alone_change_touches_no_link(site: Site) -> None:
    site.update()
    before = identities(site, "production")
    text = "# whom to tell\n" + definition(mail="new")
    site.define("production", text)
    assert site.update("--strict").code == 0
    assert identities(site, "production") == before
    assert remembered(site, "production").read_text() == text


def test_a_second_run_touches_nothing(site: Site, dummy: Remote) -> None:
    site.define("team", definition(overrides={DUMMY: f"commit/{dummy.commit('other')}"}))
    site.update()
    before = {name: identities(site, name) for name in ("production", "team")}
    listing = site.listing("environments", "clone", "cache")
    assert site.update("--strict").code == 0
    assert {name: identities(site, name) for name in ("production", "team")} == before
    assert {**site.listing("environments", "clone", "cache"), "cache/last-run.json": ""} == {
        **listing,
        "cache/last-run.json": "",
    }


def test_the_default_of_an_environment_changes(site: Site) -> None:
    for remote in site.remotes.values():
        remote.branch("qa")
    site.remotes[DUMMY].push({INIT: "# qa\n"}, "qa")
    site.update()
    site.define("production", definition("qa"))
    assert site.update("--strict").code == 0
    assert {text.split("/clone/")[1].split("/")[2] for text in site.links("production").values()} == {"qa"}
    assert manifest(site, "production") == "# qa\n"


def test_a_dynamic_environment_becomes_a_snapshot_and_back(site: Site) -> None:
    site.update()
    before = site.links("production")
    site.define("production", definition(None, {DUMMY: f"commit/{site.remotes[DUMMY].commit()}"}))
    assert site.update("--strict").code == 0
    assert sorted(os.listdir(site.root / "environments/production/hostgroups")) == []
    assert site.exists("production/modules/dummy")
    site.define("production")
    assert site.update("--strict").code == 0
    assert site.links("production") == before


# Ill-formed


ILL_FORMED = {
    "not_yaml": "default: [\n",
    "empty": "",
    "only_a_comment": "# to do\n",
    "a_list": "- default\n",
    "no_notifications": "default: master\n",
    "default_a_number": "default: 1\nnotifications: a@example.org\n",
    "default_null": "default:\nnotifications: a@example.org\n",
    "default_an_empty_list": "default: []\nnotifications: a@example.org\n",
    "overrides_null": "default: master\nnotifications: a@example.org\noverrides:\n",
    "overrides_a_list": "default: master\nnotifications: a@example.org\noverrides: [modules]\n",
    "unknown_partition": "default: master\nnotifications: a@example.org\noverrides: {module: {dummy: feature}}\n",
    "partition_null": "default: master\nnotifications: a@example.org\noverrides: {modules: null}\n",
    "partition_a_list": "default: master\nnotifications: a@example.org\noverrides: {modules: [dummy]}\n",
    "ref_a_number": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: 1234}}\n",
    "ref_null": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: null}}\n",
    "ref_not_git": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: 'a..b'}}\n",
    "ref_an_option": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: '-f'}}\n",
    "ref_outside": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: '../../x'}}\n",
    "commit_not_hex": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: commit/xyz1}}\n",
    "commit_too_short": "default: master\nnotifications: a@example.org\noverrides: {modules: {dummy: commit/abc}}\n",
    "default_not_git": "default: 'a b'\nnotifications: a@example.org\n",
    "default_misspelt": "defualt: master\nnotifications: a@example.org\n",
    "overrides_misspelt": "default: master\nnotifications: a@example.org\noverride: {modules: {dummy: feature}}\n",
    "nothing": "notifications: a@example.org\n",
    "no_override": "notifications: a@example.org\noverrides: {modules: {}}\n",
    "parser_unknown": "default: master\nnotifications: a@example.org\nparser: past\n",
}


def test_an_ill_formed_definition_leaves_its_environment_and_its_needs_as_they_were(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    good = definition(overrides={DUMMY: "feature", MYAPP: f"commit/{site.remotes[MYAPP].commit()}"})
    for name in ILL_FORMED:
        site.define(name, good)
    assert site.update("--strict").code == 0
    site.remotes[MYAPP].push({INIT: "# hostgroup 2\n"})
    dummy.push({INIT: "# master 2\n"})
    before = {name: identities(site, name) for name in ILL_FORMED}
    for name, text in ILL_FORMED.items():
        site.define(name, text)
    site.define("another")

    for code, options in ((0, ()), (60, ("--strict",))):
        outcome = site.update(*options)
        assert outcome.code == code
        errors = outcome.lines("ERROR")
        assert len(errors) == len(ILL_FORMED)
        for name in ILL_FORMED:
            line = next(error for error in errors if f"'{name}'" in error)
            assert f"{name}.yaml" in line
            assert len(line) > len(f"ERROR Environment '{name}' is ill-formed: {name}.yaml: "), "it gives a reason"
            assert identities(site, name) == before[name]
            assert manifest(site, name) == "# feature\n"
            assert site.read(f"{name}/hostgroups/hg_myapp/manifests/init.pp") == "class hg_myapp {}\n"
            assert remembered(site, name).read_text() == good
        for name in ("another", "production"):
            assert manifest(site, name) == "# master 2\n"
            assert site.read(f"{name}/hostgroups/hg_myapp/manifests/init.pp") == "# hostgroup 2\n"

    for name in ILL_FORMED:
        site.define(name, definition(overrides={DUMMY: "other"}))
    assert site.update("--strict").code == 0
    for name in ILL_FORMED:
        assert manifest(site, name) == "# other\n"
        assert site.read(f"{name}/hostgroups/hg_myapp/manifests/init.pp") == "# hostgroup 2\n"


def test_an_ill_formed_new_environment_is_not_made_until_its_definition_is_corrected(site: Site) -> None:
    for name, text in ILL_FORMED.items():
        site.define(name, text)
    outcome = site.update()
    assert outcome.code == 0
    assert len(outcome.lines("ERROR")) == len(ILL_FORMED)
    assert site.environments() == ["production"]
    assert os.listdir(site.root / "cache" / "environments") == ["production"]
    for name in ILL_FORMED:
        site.define(name)
    assert site.update("--strict").code == 0
    assert site.environments() == sorted(["production", *ILL_FORMED])


@pytest.mark.parametrize("name", ["with-dash", "with.dot", "größe", "-f", "a b"])
def test_a_bad_name_makes_no_environment(site: Site, name: str) -> None:
    site.define(name)
    outcome = site.update()
    assert outcome.code == 0
    errors = outcome.lines("ERROR")
    assert len(errors) == 1
    assert f"{name}.yaml" in errors[0]
    assert site.environments() == ["production"]


@pytest.mark.parametrize("files", [(".pre-commit-config.yaml", ".gitlab-ci.yml"), (".yaml", ".hidden.yaml", "..yaml")])
def test_a_hidden_file_is_no_definition(site: Site, files: tuple[str, ...]) -> None:
    site.update()
    for text in ("repos: []\n", definition(), "]"):
        site.definitions.push(dict.fromkeys(files, text))
        outcome = site.update("--strict")
        assert (outcome.code, outcome.lines("ERROR"), outcome.lines("WARNING")) == (0, [], [])
        assert site.environments() == os.listdir(site.root / "cache" / "environments") == ["production"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defualt: master\nnotifications: ann@example.org\n", "line 1: unknown key 'defualt', expected 'default'"),
        ("notifications: ann@example.org\n", "neither 'default' nor an override, expected one at least"),
    ],
    ids=["a misspelt key", "no key at all"],
)
def test_a_typo_takes_no_module_away_from_production(
    site: Site, dummy: Remote, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str
) -> None:
    site.update()
    before = site.links("production")
    assert "modules/dummy" in before
    site.define("production", text)
    site.add("modules/late")
    site.publish()
    dummy.push({INIT: "# master 2\n"})
    for _ in range(2):
        outcome = site.update("--strict")
        assert outcome.code == 60
        [error] = outcome.lines("ERROR")
        assert error.endswith(f"Environment 'production' is ill-formed: production.yaml: {said}")
        assert site.links("production").items() > before.items()
        assert site.dangling("production") == []
        assert manifest(site, "production") == "# master 2\n"
        assert site.exists("production/modules/late")
    (tmp_path / "production.yaml").write_text(text)
    assert check.main(["--environments", str(tmp_path)]) == 1
    assert said.rpartition(": ")[2] in capsys.readouterr().out


def test_what_an_older_jens_has_built_stays_as_it_was(site: Site, dummy: Remote) -> None:
    """An older Jens ignored misspelt keys: what it remembers has them."""
    site.update()
    text = definition(more="override: {modules: {dummy: feature}}\n")
    site.define("production", text)
    remembered(site, "production").write_text(text)
    before = site.links("production")
    site.add("modules/late")
    site.publish()
    dummy.push({INIT: "# master 2\n"})
    outcome = site.update()
    assert "'override', expected 'overrides'" in "".join(outcome.lines("ERROR"))
    assert site.links("production").items() > before.items()
    assert site.exists("production/modules/late")
    assert manifest(site, "production") == "# master 2\n"


def test_an_ill_formed_environment_whose_memory_is_lost_keeps_what_its_links_use(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    old = dummy.commit()
    site.define("team", definition(overrides={DUMMY: "feature", "common/site": "master"}))
    site.define("pins", definition(None, {DUMMY: f"commit/{old[:8]}"}))
    dummy.push({INIT: "# master 2\n"})
    site.update()
    before = {name: (site.links(name), identities(site, name)) for name in ("team", "pins")}
    for name in before:
        site.define(name, "default: [\n")
        remembered(site, name).unlink()
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        assert {name: (site.links(name), identities(site, name)) for name in before} == before
        assert manifest(site, "team") == "# feature\n"
        assert manifest(site, "pins") == "class dummy {}\n"
        assert site.dangling("team") == site.dangling("pins") == []


# Retired and protected


def test_a_retired_environment_goes_with_all_that_it_alone_needed(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.define("pins", definition(None, {DUMMY: f"commit/{dummy.commit('other')}"}))
    site.update()
    site.retire("team")
    site.retire("pins")
    outcome = site.update("--strict")
    assert outcome.code == 0
    assert site.environments() == ["production"]
    assert not remembered(site, "team").exists()
    assert site.expanded(DUMMY) == {"master": dummy.commit()}
    assert site.checkouts(DUMMY) == {dummy.commit()}
    assert outcome.has("INFO Deleted environments: ['pins', 'team']")
    assert outcome.has("INFO Deleting environment 'team'")
    assert outcome.has(f"INFO Deleted '{site.root}/environments/team'")
    assert not site.update().has("team")


def test_a_protected_environment_stays_and_goes_on_following(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.settings["main.protectedenvironments"] = "production, qa"
    site.define("production", definition(overrides={DUMMY: "feature"}))
    site.define("qa")
    site.define("team")
    site.update()
    before = site.links("production")
    for name in ("production", "team"):
        site.retire(name)
    for level, arguments in (("WARNING", []), ("INFO", ["--allow-purge"])):
        dummy.push({INIT: f"# {level}\n"}, "feature")
        outcome = site.update("--strict", *arguments)
        assert outcome.code == 60
        assert f"{level} Refusing to delete 'production' as it's protected" in outcome.lines()
        assert faults_of(site.root) == {"undeclared environment"}
        assert site.environments() == ["production", "qa"]
        assert site.links("production") == before
        assert manifest(site, "production") == f"# {level}\n"
    assert site.update().lines("INFO") == ["INFO Nothing new", "INFO Done"]
    assert faults_of(site.root) == {"undeclared environment"}
    remembered(site, "production").unlink()
    assert site.update("--strict").code == 60
    assert site.links("production") == before
    assert manifest(site, "production") == "# INFO\n"
    site.settings["main.protectedenvironments"] = "qa,"
    site.update()
    assert site.environments() == ["qa"]
    assert list(site.expanded(DUMMY)) == ["master"]


def test_a_re_created_environment_is_made_from_its_new_definition(site: Site, dummy: Remote) -> None:
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.update()
    site.retire("team")
    site.update()
    site.define("team", definition(overrides={DUMMY: "other"}))
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == "# other\n"
    assert site.expanded(DUMMY) == {"master": dummy.commit(), "other": dummy.commit("other")}


def test_the_purge_guard_keeps_environments_and_does_everything_else(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    names = [f"e{number:02}" for number in range(11)]
    for name in names:
        site.define(name, definition(overrides={DUMMY: "feature"}))
    site.update()
    git("update-ref", "-d", "refs/heads/master", directory=site.definitions.path)
    site.definitions.push({"production.yaml": definition(overrides={DUMMY: "other"}), "new.yaml": definition()})
    dummy.push({INIT: "# feature 2\n"}, "feature")
    outcome = site.update()
    assert outcome.code == 31
    assert len(outcome.stderr.splitlines()) == 1
    assert any("e00" in line for line in outcome.lines("ERROR"))
    assert site.environments() == [*names, "new", "production"]
    assert {manifest(site, name) for name in names} == {"# feature 2\n"}
    assert manifest(site, "production") == "# other\n"
    assert site.update("--allow-purge").code == 0
    assert site.environments() == ["new", "production"]
    assert "feature" not in site.expanded(DUMMY)


# Snapshots


def test_a_snapshot_holds_its_pins_and_the_common_repositories_and_does_not_move(site: Site) -> None:
    site.settings["main.mandatorybranches"] = "qa,"
    for remote in site.remotes.values():
        remote.branch("qa")
    site.retire("production")
    site.add("modules/loose", branches=("qa",))
    site.publish()
    pins = {repo: site.remotes[repo].commit() for repo in (DUMMY, "common/hieradata")}
    site.define("frozen", definition(None, {repo: f"commit/{commit}" for repo, commit in pins.items()}))
    assert site.update("--strict").code == 0
    before = site.links("frozen")
    assert before == {
        "modules/dummy": f"../../../clone/modules/dummy/.{pins[DUMMY]}/code",
        "hieradata/module_names/dummy": f"../../../../clone/modules/dummy/.{pins[DUMMY]}/data",
        "site": "../../clone/common/site/master/code",
        **{
            f"hieradata/{item}": f"../../../clone/common/hieradata/.{pins['common/hieradata']}/data/{item}"
            for item in ("common.yaml", "environments", "hardware", "operatingsystems")
        },
    }
    assert site.dangling("frozen") == []
    identity = identities(site, "frozen")

    for repo in (DUMMY, MYAPP, "common/site", "common/hieradata"):
        new = {INIT: "# new\n", "code/site.pp": "# new\n", "data/common.yaml": "new: true\n"}
        site.remotes[repo].push(new)
    site.add("modules/extra", branches=("qa",))
    site.publish()
    assert site.update("--strict").code == 0
    assert identities(site, "frozen") == identity
    assert manifest(site, "frozen") == "class dummy {}\n"
    assert site.read("frozen/hieradata/common.yaml") == "--- {}\n"
    assert site.read("frozen/site/site.pp") == "# new\n", "site is not overridden, it follows master"


def test_a_snapshot_may_follow_branches_and_need_nothing_else(site: Site, dummy: Remote) -> None:
    site.define("some", definition(None, {MYAPP: "master", DUMMY: "feature"}))
    site.update()
    dummy.push({INIT: "# feature 2\n"}, "feature")
    assert site.update("--strict").code == 0
    assert manifest(site, "some") == "# feature 2\n"


# Definitions that wait for a ref


def test_a_definition_that_moves_to_a_ref_that_cannot_be_fetched_waits_for_it(site: Site) -> None:
    site.settings["main.retention"] = "0"
    remote = site.remotes[DUMMY]
    old = definition(overrides={DUMMY: f"commit/{remote.commit()}"})
    site.define("team", old)
    site.define("pins", old)
    remote.push({INIT: "# master 2\n"})
    site.update()
    links = site.links("team")
    remote.push({INIT: "# late\n"}, "late", onto="master")
    late = remote.commit("late")
    remote.go_away()
    site.remotes[MYAPP].push({INIT: "# hostgroup feature\n"}, "feature", onto="master")
    site.define("team", definition(overrides={DUMMY: "late", MYAPP: "feature"}))
    site.define("pins", definition(overrides={DUMMY: f"commit/{late}"}))
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == 0
        assert site.links("team")["modules/dummy"] == links["modules/dummy"]
        assert site.links("pins")["modules/dummy"] == links["modules/dummy"]
        for name in ("team", "pins"):
            assert manifest(site, name) == "class dummy {}\n"
            assert site.dangling(name) == []
        assert site.read("team/hostgroups/hg_myapp/manifests/init.pp") == "# hostgroup feature\n"
        assert outcome.lines("WARNING Environment 'team' (ann@example.org): dangling") == []
    remote.come_back()
    assert site.update("--strict").code == 0
    assert manifest(site, "team") == manifest(site, "pins") == "# late\n"
    assert site.dangling("team") == site.dangling("pins") == []
    assert site.checkouts(DUMMY) == {remote.commit(), late}, "and now the old one goes"


def test_a_default_that_cannot_be_fetched_is_waited_for(site: Site) -> None:
    site.update()
    for remote in site.remotes.values():
        remote.branch("qa")
    site.remotes[DUMMY].go_away()
    site.define("production", definition("qa"))
    site.update()
    assert site.links("production")["modules/dummy"] == "../../../clone/modules/dummy/master/code"
    assert site.links("production")["hostgroups/hg_myapp"] == "../../../clone/hostgroups/myapp/qa/code"
    assert site.dangling("production") == []
    site.remotes[DUMMY].come_back()
    assert site.update("--strict").code == 0
    assert site.links("production")["modules/dummy"] == "../../../clone/modules/dummy/qa/code"


def test_a_definition_that_is_taken_back_while_it_waits(site: Site, dummy: Remote) -> None:
    site.update()
    before = identities(site, "production")
    dummy.push({INIT: "# late\n"}, "late", onto="master")
    dummy.go_away()
    site.define("production", definition(overrides={DUMMY: "late"}))
    site.update()
    site.define("production")
    dummy.come_back()
    assert site.update("--strict").code == 0
    assert identities(site, "production") == before
    assert list(site.expanded(DUMMY)) == ["master"]


# Warnings


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (definition(overrides={"modules/unheard": "master"}), "'unheard'"),
        (definition(overrides={"hostgroups/dummy": "master"}), "'dummy'"),
        (definition(overrides={"common/unheard": "master"}), "'unheard'"),
        (definition(more="overrides: {}\n"), "overrides"),
        ("default: master\nnotifications:\n", "notifications"),
    ],
    ids=["unknown module", "unknown hostgroup", "unknown common", "no overrides", "null notifications"],
)
def test_a_probable_mistake_in_a_definition_is_a_warning_and_makes_nothing(site: Site, text: str, word: str) -> None:
    site.define("team", text)
    outcome = site.update("--strict")
    warnings = [line for line in outcome.lines("WARNING") if "'team'" in line]
    assert len(warnings) == 1
    assert word in warnings[0]
    assert outcome.code == (0 if "without" in warnings[0] else 60), "what means nothing is a fault"
    assert site.links("team") == site.links("production")
    assert [line for line in site.update().lines("WARNING") if "'team'" in line] == []


def test_an_override_of_an_unknown_repository_takes_effect_once_the_library_has_it(site: Site) -> None:
    site.define("team", definition(overrides={"modules/late": "feature"}))
    site.update()
    site.add("modules/late").push({INIT: "# late\n"}, "feature", onto="master")
    site.publish()
    assert site.update("--strict").code == 0
    assert site.read("team/modules/late/manifests/init.pp") == "# late\n"
    assert site.read("production/modules/late/manifests/init.pp") == "class dummy {}\n"


def test_a_common_item_that_the_data_lack_is_a_dangling_link_logged_once(site: Site) -> None:
    site.settings["main.common_hieradata_items"] = "common.yaml, vendors"
    outcome = site.update()
    assert site.links("production")["hieradata/vendors"] == "../../../clone/common/hieradata/master/data/vendors"
    warnings = outcome.lines("WARNING Environment 'production'")
    assert len(warnings) == 1
    assert "vendors" in warnings[0]
    assert "ann@example.org" in warnings[0]
    assert site.update().lines("WARNING Environment") == []
    site.remotes["common/hieradata"].push({"data/vendors/a.yaml": "--- {}\n"})
    assert site.update().lines("WARNING Environment") == []
    assert site.dangling("production") == []


def test_a_common_item_that_is_not_configured_any_more_goes(site: Site) -> None:
    site.update()
    site.settings["main.common_hieradata_items"] = "common.yaml,"
    assert site.update("--strict").code == 0
    items = sorted(os.listdir(site.root / "environments/production/hieradata"))
    assert items == ["common.yaml", "fqdns", "hostgroups", "module_names"]


# Files in the metadata that do not count


def test_only_the_commit_of_the_metadata_counts_not_their_work_tree(site: Site) -> None:
    site.update()
    before = site.listing("environments", "clone")
    tree = site.root / "metadata" / "environments"
    (tree / "rogue.yaml").write_text(definition())
    (tree / "linked.yaml").symlink_to("production.yaml")
    (tree / "production.yaml").write_text("default: [half-writ")
    library = site.root / "metadata" / "repository"
    (library / "repositories.yaml").unlink(missing_ok=True)
    (library / "repositories.yaml").symlink_to("/dev/null")
    (library / "untracked.yaml").write_text("x\n")
    assert site.update("--strict").code == 0
    assert site.listing("environments", "clone") == before
    assert (tree / "production.yaml").read_text() == "default: [half-writ", "nobody needs it, and nobody touches it"
    assert (library / "repositories.yaml").is_symlink()


def test_files_that_are_no_definitions_make_no_environment(site: Site) -> None:
    files = ("below/team.yaml", "team.yml", "team.YAML", "team.yaml.orig", "team", "team.json")
    site.definitions.push(dict.fromkeys(files, definition()))
    assert site.update("--strict").code == 0
    assert site.environments() == ["production"]


def test_a_committed_symbolic_link_is_no_definition(site: Site) -> None:
    site.define("team")
    site.update()
    work = site.root / "work"
    git("clone", "-q", site.definitions.url, str(work), directory=site.root)
    for name in ("team", "new"):
        (work / f"{name}.yaml").unlink(missing_ok=True)
        (work / f"{name}.yaml").symlink_to("production.yaml")
    git("add", "--all", directory=work)
    git("commit", "-q", "-m", "Link", directory=work)
    git("push", "-q", directory=work)
    before = site.links("team")
    outcome = site.update()
    assert outcome.code == 0
    assert {"team.yaml", "new.yaml"} == {
        name for name in ("team.yaml", "new.yaml") for line in outcome.lines("ERROR") if name in line
    }
    assert site.environments() == ["production", "team"]
    assert site.links("team") == before


@pytest.mark.usefixtures("dummy")
def test_metadata_whose_history_was_rewritten_are_followed(site: Site) -> None:
    site.update()
    site.definitions.push({"production.yaml": definition(overrides={DUMMY: "other"})}, rewrite=True)
    text = git("show", "master:repositories.yaml", directory=site.library.path)
    site.library.push({"repositories.yaml": f"{text}\n# anew\n"}, rewrite=True)
    assert site.update("--strict").code == 0
    assert manifest(site, "production") == "# other\n"
    for name, remote in (("environments", site.definitions), ("repository", site.library)):
        assert git("rev-parse", "HEAD", directory=site.root / "metadata" / name) == remote.commit()


@pytest.mark.parametrize("how", ["cloned so", "set upstream"])
def test_a_metadata_clone_may_track_a_branch_of_another_name(site: Site, how: str) -> None:
    site.definitions.branch("trunk/live")
    site.definitions.push({"rogue.yaml": definition()})
    clone = site.root / "metadata" / "environments"
    if how == "cloned so":
        shutil.rmtree(clone)
        git("clone", "-q", "--branch", "trunk/live", site.definitions.url, str(clone), directory=site.root)
    else:
        git("fetch", "-q", directory=clone)
        git("branch", "-q", "-u", "origin/trunk/live", directory=clone)
    assert site.update("--strict").code == 0
    assert site.environments() == ["production"]
    site.definitions.push({"team.yaml": definition()}, "trunk/live")
    assert site.update("--strict").code == 0
    assert site.environments() == ["production", "team"]
    assert git("rev-parse", "HEAD", directory=clone) == site.definitions.commit("trunk/live")


# environment.conf


def test_environment_conf_comes_with_directory_environments_and_goes_without(site: Site) -> None:
    site.define("future", definition(more="parser: future\n"))
    site.define("current", definition(more="parser: current\n"))
    site.update()
    assert not site.exists("production/environment.conf")
    assert not site.exists("future/environment.conf")
    site.settings["main.directory_environments"] = "True"
    assert site.update("--strict").code == 0
    assert site.read("production/environment.conf") == CONF
    assert site.read("future/environment.conf") == f"{CONF}parser = future\n"
    assert site.read("current/environment.conf") == f"{CONF}parser = current\n"
    assert (site.root / "environments/future/environment.conf").stat().st_mode & 0o777 == 0o644
    site.define("future", definition(more="parser: current\n"))
    site.define("current")
    assert site.update("--strict").code == 0
    assert site.read("future/environment.conf") == f"{CONF}parser = current\n"
    assert site.read("current/environment.conf") == CONF
    site.settings["main.directory_environments"] = "False"
    assert site.update("--strict").code == 0
    for name in ("production", "future", "current"):
        assert not os.path.lexists(site.root / "environments" / name / "environment.conf")


def test_a_new_environment_appears_with_its_environment_conf(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.define("future", definition(more="parser: future\n"))
    site.update()
    assert site.read("future/environment.conf") == f"{CONF}parser = future\n"
    (site.root / "environments/future/environment.conf").write_text("modulepath = /tmp\n")
    assert site.update("--strict").code == 0
    assert site.read("future/environment.conf") == f"{CONF}parser = future\n"


# Lost files, and links changed by hand


def test_a_lost_remembered_definition_is_remembered_again(site: Site) -> None:
    site.update()
    before = identities(site, "production")
    remembered(site, "production").unlink()
    assert site.update("--strict").code == 0
    assert identities(site, "production") == before
    assert remembered(site, "production").read_text() == definition()


def test_a_lost_cachedir_takes_nothing_away(site: Site, dummy: Remote) -> None:
    site.settings["main.retention"] = "0"
    site.settings["main.protectedenvironments"] = "kept,"
    site.define("team", definition(overrides={DUMMY: "feature"}))
    site.define("kept", definition(overrides={DUMMY: "other"}))
    site.define("pins", definition(None, {DUMMY: f"commit/{dummy.commit()[:7]}"}))
    site.update()
    site.retire("kept")
    dummy.push({INIT: "# master 2\n"})
    site.update()
    before = site.listing("environments", "clone")
    shutil.rmtree(site.root / "cache")
    (site.root / "cache").mkdir()
    for _ in range(2):
        assert site.update("--strict").code == 60
        assert faults_of(site.root) == {"undeclared environment"}
        assert site.listing("environments", "clone") == before
    assert sorted(os.listdir(site.root / "cache/environments")) >= ["pins", "production", "team"]


def test_a_directory_of_others_in_environmentsdir_is_left_alone(site: Site) -> None:
    top = site.root / "environments"
    for name in ("notes", ".git", "lost+found"):
        (top / name / "modules").mkdir(parents=True)
        (top / name / "modules" / "file").write_text("mine\n")
    (top / "README").write_text("mine\n")
    (top / "link").symlink_to("/nowhere")
    names = ["notes", ".git", "lost+found", "README", "link"]
    before = {name: entry for name, entry in site.listing("environments").items() if name.split("/")[1] in names}
    for _ in range(2):
        assert site.update("--strict").code == 0
    site.retire("production")
    assert site.update("--strict").code == 0
    assert site.listing("environments") == before


@pytest.mark.parametrize("how", ["removed", "bent", "another branch", "a file", "a directory", "a full path"])
def test_only_the_environment_link_that_was_changed_by_hand_is_repaired(site: Site, how: str) -> None:
    site.update()
    before, listing = identities(site, "production"), site.listing("environments")
    link = site.root / "environments/production/modules/dummy"
    text = os.readlink(link)
    link.unlink()
    if how == "bent":
        link.symlink_to("/nowhere")
    elif how == "another branch":
        link.symlink_to(text.replace("/master/", "/qa/"))
    elif how == "a file":
        link.write_text("mine\n")
    elif how == "a directory":
        (link / "manifests").mkdir(parents=True)
    elif how == "a full path":
        link.symlink_to(site.path(DUMMY, "master") / "code")
    assert site.update("--strict").code == 0
    assert site.listing("environments") == listing
    after = identities(site, "production")
    assert [name for name in before if before[name] != after[name]] == ["modules/dummy"]


@pytest.mark.parametrize("what", ["production", "production/modules", "production/hieradata"])
@pytest.mark.parametrize("how", ["removed", "a file", "a link"])
def test_a_removed_or_replaced_directory_of_an_environment_is_repaired(site: Site, what: str, how: str) -> None:
    site.update()
    listing = site.listing("environments")
    path = site.root / "environments" / what
    shutil.rmtree(path)
    if how == "a file":
        path.write_text("mine\n")
    elif how == "a link":
        path.symlink_to(site.root / "remotes")
    assert site.update("--strict").code == 0
    assert site.listing("environments") == listing


def test_a_link_that_does_not_belong_is_removed(site: Site) -> None:
    site.update()
    listing = site.listing("environments")
    for name in ("modules/foreign", "hostgroups/hg_foreign", "hieradata/foreign", "foreign"):
        (site.root / "environments/production" / name).symlink_to("/nowhere")
    assert site.update("--strict").code == 0
    assert site.listing("environments") == listing


def test_what_puppet_wrote_of_types_stays_as_long_as_its_environment(site: Site) -> None:
    site.define("other")
    site.update()
    types = [site.root / "environments" / name / ".resource_types" for name in ("production", "other")]
    for path in types:
        path.mkdir()
        (path / "thing.pp").write_text("a thing\n")
    site.update("--strict")  # it looks at everything, once
    outcome = site.update("--strict")
    assert not outcome.has("Refreshing environments...")
    (site.root / "environments/other/.new-0123").mkdir()
    site.remotes[DUMMY].push({INIT: "# more\n"})
    site.define("other", definition("master", {DUMMY: "commit/" + site.remotes[DUMMY].commit()}))
    (site.root / "cache" / "inventory.json").unlink()
    assert site.update("--strict").code == 0
    (site.root / "environments/other/site").unlink()
    shutil.rmtree(site.root / "environments/other/modules")
    (site.root / "environments/other/modules").write_text("mine\n")
    assert site.update("--strict").code == 0  # it is made anew
    assert gc.main(["-c", str(site.config), "--all"]) == 0
    assert [(path / "thing.pp").read_text() for path in types] == ["a thing\n", "a thing\n"]
    assert not (site.root / "environments/other/.new-0123").exists()
    site.retire("other")
    assert site.update("--strict").code == 0
    assert site.environments() == ["production"]
    assert reset.main(["-c", str(site.config), "--yes"]) == 0
    assert site.environments() == []
