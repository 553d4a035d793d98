"""The hierarchy of Hiera that comes with an environment, and configured lines in each environment.conf."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jens.commands import compare, config, gc, history, hold, release, reset, show, snapshot, stats
from jens.layout import VERSIONS, Layout
from jens.links import HIERA_YAML
from jens.system import processes
from tests.conftest import Site, assert_complaint, definition, faults_of
from tests.faults.decoy import push_tree
from tests.faults.observer import ANYTHING, DIRECTORY, FILE, Expected, Observer
from tests.stories.test_versions import document, tool

SITE, DATA, DUMMY = "common/site", "common/hieradata", "modules/dummy"
LINK = f"production/{HIERA_YAML}"
FIRST, SECOND = "# first\n", "# second\n"
BASE_CONF = "modulepath = modules:hostgroups\nmanifest = site/site.pp\n"


@pytest.fixture
def with_hiera(site: Site) -> Site:
    """A site whose environments get the hiera.yaml of ``site``, which has none yet."""
    site.settings.update({"main.environment_hiera": "site", "main.directory_environments": "True"})
    assert site.update("--strict").code == 0
    assert not site.exists(LINK)
    return site


def push(site: Site, text: str | None, branch: str = "master", repo: str = SITE) -> str:
    """Push a hiera.yaml, or remove it."""
    commit = site.remotes[repo].push({HIERA_YAML: text}, branch, onto="master")
    site.hint(repo)
    return commit


def linked(site: Site, name: str = "production") -> str | None:
    return site.links(Layout.at(site.root).place(name)).get(HIERA_YAML)


def environment_changes(site: Site) -> list[str]:
    return [each["change"] for each in document(site, history.main, "production") if "change" in each]


@contextmanager
def observed(site: Site, scratch: Path, *, spared: tuple[str, ...] = ()) -> Iterator[None]:
    """Watch everything that there is now, but for what is ``spared``: nobody may miss any of it meanwhile."""
    scratch.mkdir()
    paths: dict[str, dict[str, str]] = {}
    contents = {}
    for name in site.environments():
        top = site.root / "environments" / name
        found = {str(path.relative_to(top)): path for path in top.rglob("*")}
        paths[name] = {
            path: DIRECTORY if full.is_dir() else FILE if full.is_file() else ANYTHING
            for path, full in found.items()
            if path not in spared
        }
        contents[name] = ((top / "environment.conf").read_text(),)
    observer = Observer(scratch)
    with observer.observing(site.root):
        observer.expect(Expected(1, paths, (), {}, contents, ()))
        yield
        observer.expect(Expected(2, paths, (), {}, contents, ()))
    assert observer.met() == []


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_it_comes_and_goes_with_a_push(with_hiera: Site, tmp_path: Path, mode: str) -> None:
    site = with_hiera
    site.settings["main.mode"] = mode
    site.update("--strict")
    with observed(site, tmp_path / "coming"):
        push(site, FIRST)
        assert site.update("--strict").code == 0
    assert linked(site) == "../../clone/common/site/master/hiera.yaml"
    assert site.read(LINK) == FIRST
    inode = os.lstat(site.root / "environments" / LINK).st_ino
    with observed(site, tmp_path / "changing"):
        push(site, SECOND)
        assert site.update("--strict").code == 0
        site.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
        site.hint(DUMMY)
        assert site.update("--strict").has("Only repositories that were pushed to")
        assert site.update("--strict", "--allow-purge").code == 0
    assert site.read(LINK) == SECOND
    assert os.lstat(site.root / "environments" / LINK).st_ino == inode  # nobody touched the link
    with observed(site, tmp_path / "going", spared=(HIERA_YAML,)):
        push(site, None)
        assert site.update("--strict").code == 0
    assert linked(site) is None
    assert site.update("--strict").has("Nothing new")


def test_what_was_fetched_without_a_hint_counts(with_hiera: Site) -> None:
    """A run on demand that looks at everything follows what the mirror has."""
    site = with_hiera
    site.settings["main.mode"] = "ONDEMAND"
    site.update("--strict")
    site.remotes[SITE].push({HIERA_YAML: FIRST})
    assert site.update("--strict").code == 0
    assert linked(site) is None  # nobody told
    assert site.update("--strict", "--poll").code == 0
    assert site.read(LINK) == FIRST
    (site.root / "environments" / LINK).unlink()
    assert site.update("--strict").code == 0
    assert site.read(LINK) == FIRST


def test_it_is_of_the_ref_that_the_environment_uses(with_hiera: Site, tmp_path: Path) -> None:
    site = with_hiera
    first = push(site, FIRST, "other")
    site.define("production", definition(overrides={SITE: "other"}))
    assert site.update("--strict").code == 0
    assert linked(site) == "../../clone/common/site/other/hiera.yaml"
    push(site, SECOND, "third")
    with observed(site, tmp_path / "moving"):  # from one ref with a hierarchy to another one
        site.define("production", definition(overrides={SITE: "third"}))
        assert site.update("--strict").code == 0
    assert site.read(LINK) == SECOND
    site.define("pinned", definition(None, {SITE: f"commit/{first}"}))
    site.define("production")
    assert site.update("--strict").code == 0
    assert linked(site) is None
    assert linked(site, "pinned") == f"../../clone/common/site/.{first}/hiera.yaml"
    assert site.read(f"pinned/{HIERA_YAML}") == FIRST


def test_when_its_branch_is_gone_it_dangles_like_all_links(with_hiera: Site) -> None:
    site = with_hiera
    push(site, FIRST, "other")
    site.define("production", definition(overrides={SITE: "other"}))
    site.update("--strict")
    site.remotes[SITE].delete("other")
    assert site.update().code == 0
    assert site.dangling("production") == [HIERA_YAML, "site"]
    dangling = document(site, stats.main, "--all")["environments"]["dangling"]
    assert sorted(each["link"] for each in dangling) == [HIERA_YAML, "site"]
    assert site.update("--allow-purge").code == 0
    assert site.dangling("production") == [HIERA_YAML, "site"]
    site.remotes[SITE].branch("other")  # as master: it has none
    assert site.update("--strict").code == 0
    assert site.dangling("production") == []
    assert linked(site) is None


def test_another_repository_may_bring_it(with_hiera: Site, tmp_path: Path) -> None:
    site = with_hiera
    push(site, FIRST)
    push(site, SECOND, repo=DATA)
    site.update("--strict")
    with observed(site, tmp_path / "scratch"):
        site.settings["main.environment_hiera"] = "hieradata"
        assert site.update("--strict").code == 0
    assert linked(site) == "../../clone/common/hieradata/master/hiera.yaml"
    assert site.read(LINK) == SECOND
    assert environment_changes(site)[:2] == ["changed", "changed"]
    del site.settings["main.environment_hiera"]
    assert site.update("--strict").code == 0
    assert linked(site) is None
    site.settings["main.common_hieradata_items"] = ","
    site.settings["main.environment_hiera"] = "hieradata"
    assert site.update("--strict").code == 0
    taken = document(site, snapshot.main, "production")
    assert (taken["doubts"], taken["overrides"]["common"]["hieradata"]) == ([], site.remotes[DATA].commit())
    assert tool(site, show.main, "repository", DATA).code == 0


def test_a_version_has_that_of_its_commit(with_hiera: Site) -> None:
    site = with_hiera
    site.settings["main.versionedenvironments"] = "production,"
    first = push(site, FIRST)
    assert site.update("--strict").code == 0
    place = Layout.at(site.root).place("production")
    assert linked(site) == f"../../../clone/common/site/.{first}/hiera.yaml"
    site.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
    site.hint(DUMMY)
    assert site.update("--strict").has("Only repositories that were pushed to")
    assert site.read(LINK) == FIRST
    push(site, None)
    assert site.update("--strict").code == 0
    assert linked(site) is None
    assert site.read(f"{place}/{HIERA_YAML}") == FIRST  # what has been replaced does not change
    push(site, SECOND)
    assert site.update("--strict").code == 0
    assert site.read(LINK) == SECOND
    del site.settings["main.versionedenvironments"]
    assert site.update("--strict").code == 0
    assert linked(site) == "../../clone/common/site/master/hiera.yaml"


def test_it_is_at_the_top_wherever_the_code_is(with_hiera: Site) -> None:
    site = with_hiera
    remotes = {name: remote.url for name, remote in site.remotes.items()}
    site.publish(
        "repositories:\n"
        f"  common: {{hieradata: '{remotes[DATA]}', site: {{url: '{remotes[SITE]}', code: ., data: null}}}}\n"
        f"  hostgroups: {{myapp: '{remotes['hostgroups/myapp']}'}}\n  modules: {{dummy: '{remotes[DUMMY]}'}}\n"
    )
    push(site, FIRST)
    assert site.update("--strict").code == 0
    links = site.links("production")
    assert (links["site"], links[HIERA_YAML]) == (
        "../../clone/common/site/master",
        "../../clone/common/site/master/hiera.yaml",
    )
    taken = document(site, snapshot.main, "production")
    assert (taken["doubts"], taken["overrides"]["common"]["site"]["code"]) == ([], ".")
    assert tool(site, hold.main, "production").stderr == ""
    push(site, SECOND)
    site.update()
    assert site.read(LINK) == FIRST


@pytest.mark.parametrize("versioned", [False, True])
def test_a_hold_keeps_it(with_hiera: Site, versioned: bool) -> None:
    site = with_hiera
    if versioned:
        site.settings["main.versionedenvironments"] = "production,"
    first = push(site, FIRST)
    site.update("--strict")
    assert tool(site, hold.main, "production").stderr == ""
    push(site, SECOND)
    site.define("other")
    site.update()
    assert site.read(LINK) == FIRST
    assert (linked(site) or "").endswith(f"/clone/common/site/.{first}/hiera.yaml")
    assert site.read(f"other/{HIERA_YAML}") == SECOND
    push(site, None)
    site.update()
    assert (site.read(LINK), linked(site, "other")) == (FIRST, None)
    assert tool(site, hold.main, "production", "--at", "1").code == 0  # before there was one
    assert linked(site) is None
    assert tool(site, release.main, "production").code == 0
    site.update("--strict")
    assert linked(site) is None


def test_the_tools_know_it(with_hiera: Site, tmp_path: Path) -> None:
    site = with_hiera
    push(site, FIRST)
    site.update("--strict")
    taken = document(site, snapshot.main, "production")
    assert (taken["doubts"], taken["overrides"]["common"]["site"]) == ([], site.remotes[SITE].commit())
    shown = document(site, show.main, "environment", "production")
    assert shown["strange_links"] == []
    assert all(part["dangling"] is None for part in shown["repositories"])
    assert document(site, stats.main, "--all")["environments"]["dangling"] == []
    assert tool(site, gc.main, "--all").code == 0
    other = tmp_path / "other"
    shutil.copytree(site.root, other, symlinks=True)
    assert compare.main([str(site.root), str(other)]) == 0
    (other / "environments" / LINK).unlink()
    site.capture.readouterr()
    assert compare.main([str(site.root), str(other)]) == 1
    assert HIERA_YAML in site.capture.readouterr().out
    outcome = tool(site, reset.main, "--yes")
    assert (outcome.code, outcome.stderr, site.environments()) == (0, "", [])
    assert site.update("--strict").code == 0
    assert site.read(LINK) == FIRST


def test_the_history_and_receivers_are_told(with_hiera: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    site = with_hiera
    site.settings["hook.command"] = str(site.root / "hook")
    (site.root / "hook").write_text(f"#!/bin/sh\ncat >{site.root}/told\n")
    (site.root / "hook").chmod(0o755)
    site.update("--strict")
    assert site.deliver().code == 0

    def told() -> Any:
        (site.root / "told").unlink(missing_ok=True)
        assert site.deliver().code == 0
        return json.loads((site.root / "told").read_text())["environments"]["production"]

    push(site, FIRST)
    site.update("--strict")
    assert told()["change"] == "changed"
    assert environment_changes(site) == ["changed", "created"]
    push(site, SECOND)  # the link stays, what it shows is told as a change of the repository
    site.update("--strict")
    environment = told()
    assert [each["repository"] for each in environment["repositories"]] == [SITE]
    assert environment_changes(site) == ["changed", "created"]
    del site.settings["main.environment_hiera"]  # no repository has changed
    site.update("--strict")
    environment = told()
    assert (environment["change"], environment["repositories"]) == ("changed", [])
    assert environment_changes(site) == ["changed", "changed", "created"]


def test_a_dry_run_foresees_it(with_hiera: Site) -> None:
    site = with_hiera
    before = site.listing("environments")
    push(site, FIRST)
    assert "Would change 1 and remove 0 links of environment 'production'" in site.update("-n").stdout
    site.update("--strict")
    push(site, SECOND)
    assert "links of environment" not in site.update("-n").stdout
    push(site, None)
    assert "Would change 0 and remove 1 links of environment 'production'" in site.update("-n").stdout
    site.update("--strict")
    assert site.listing("environments") == before
    assert site.update("-n").stdout == "Nothing would change.\n"


@pytest.mark.parametrize("versioned", [False, True])
def test_what_leads_out_of_the_repository_is_not_linked(with_hiera: Site, versioned: bool) -> None:
    site = with_hiera
    if versioned:
        site.settings["main.versionedenvironments"] = "production,"
    push(site, FIRST)
    site.update("--strict")
    push_tree(site.remotes[SITE], {HIERA_YAML: ("120000", "/etc/hostname"), "code/more.pp": ("100644", "# more\n")})
    outcome = site.update()
    [warning] = outcome.lines("WARNING")
    assert warning == (
        "WARNING Environment 'production' does not get the links ['hiera.yaml']: symbolic links in common/site "
        f"({'.' + site.remotes[SITE].commit() if versioned else 'master'}) make them lead out of it"
    )
    assert (outcome.code, outcome.lines("ERROR"), linked(site)) == (0, [], None)
    assert site.read("production/site/more.pp") == "# more\n"  # nothing else is held up
    assert faults_of(site.root) == {"link out of a checkout"}
    assert site.update("--strict").code == 60
    push_tree(site.remotes[SITE], {HIERA_YAML: ("120000", "code/real.yaml"), "code/real.yaml": ("100644", SECOND)})
    assert site.update("--strict").code == 0
    assert (site.read(LINK), faults_of(site.root)) == (SECOND, set())


def test_what_somebody_put_in_its_place(with_hiera: Site) -> None:
    site = with_hiera
    place = site.root / "environments" / LINK
    place.write_text("# mine\n")
    site.update("--allow-purge")
    assert place.read_text() == "# mine\n"  # as long as there is nothing that belongs there
    assert "'hiera.yaml' is nothing that Jens makes, left out" in tool(site, snapshot.main, "production").stderr
    push(site, FIRST)
    site.update("--strict")
    assert site.read(LINK) == FIRST
    place.unlink()
    place.mkdir()
    (place / "file").write_text("")
    site.update("--strict", "--allow-purge")
    assert site.read(LINK) == FIRST
    for target in ("nowhere", "/etc/hostname", "../../clone/common/site/master/code"):
        place.unlink()
        place.symlink_to(target)
        site.update("--allow-purge")
        assert site.read(LINK) == FIRST
    push(site, None)
    site.update("--strict")
    place.symlink_to("../../clone/common/site/master/hiera.yaml")  # as between a push and the end of its run
    [dangling] = document(site, stats.main, "--all")["environments"]["dangling"]
    assert (dangling["link"], dangling["repository"]) == (HIERA_YAML, SITE)
    site.update("--allow-purge")
    assert not os.path.lexists(place)


# environment.conf


def test_configured_lines_are_in_each_environment_conf(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.define("old", definition(more="parser: future\n"))
    site.update("--strict")
    before = site.links("production")
    site.settings["main.environment_conf"] = "environment_timeout = unlimited, rich_data = true"
    assert "Would write environment.conf of environment 'production'" in site.update("-n").stdout
    assert site.update("--strict").code == 0
    lines = "environment_timeout = unlimited\nrich_data = true\n"
    assert site.read("production/environment.conf") == BASE_CONF + lines
    assert site.read("old/environment.conf") == f"{BASE_CONF}parser = future\n{lines}"
    assert site.links("production") == before
    assert environment_changes(site) == ["changed", "created"]  # servers are told to read it
    assert site.update("--strict").has("Nothing new")
    assert site.update("-n").stdout == "Nothing would change.\n"
    assert document(site, snapshot.main, "old", "--name", "x")["parser"] == "future"
    (site.root / "cache" / "environments" / "old").unlink()  # what is lost, the links and environment.conf tell
    site.define("old", "overrides: 1\n")
    site.update()
    assert site.read("old/environment.conf") == f"{BASE_CONF}parser = future\n{lines}"
    site.settings["main.directory_environments"] = "False"
    assert site.update().lines("WARNING")[0].endswith("nothing is written without directory_environments = True")
    assert not site.exists("production/environment.conf")
    assert not site.exists("old/environment.conf")
    assert tool(site, config.main, "-k", "environment_conf").stdout == f"{lines.strip()}\n".replace("\n", ",", 1)


def test_a_version_tells_its_name_in_the_place_of_a_configured_line(site: Site) -> None:
    site.settings.update(
        {
            "main.directory_environments": "True",
            "main.versionedenvironments": "production,",
            "main.config_version": "True",
            "main.environment_conf": "config_version = /bin/true, environment_timeout = 0",
        }
    )
    site.define("plain")
    assert site.update("--strict").code == 0
    expected = f"{BASE_CONF}environment_timeout = 0\nconfig_version = /bin/echo production_1\n"
    assert site.read("production/environment.conf") == expected
    assert site.read("plain/environment.conf") == f"{BASE_CONF}config_version = /bin/true\nenvironment_timeout = 0\n"
    site.update("--strict", "--allow-purge")
    assert sorted(os.listdir(site.root / "environments" / VERSIONS)) == ["production_1"]
    site.settings["main.environment_conf"] = "rich_data = true,"
    assert site.update("--strict").code == 0
    assert site.read("production/environment.conf") == (
        f"{BASE_CONF}rich_data = true\nconfig_version = /bin/echo production_2\n"
    )


@pytest.mark.parametrize("line", ["modulepath = /etc", "rich_data = true, rich_data = false", "environment_timeout"])
def test_a_bad_line_is_a_configuration_error(site: Site, line: str) -> None:
    site.settings["main.environment_conf"] = line
    outcome = site.update()
    assert_complaint(outcome, 2, "main.conf", "[main]", "environment_conf", "expected a list of lines 'key = value'")
