"""The purge guard in whole runs: a wrong library or wrong definitions remove nothing, and hold up nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.commands import hold, update
from jens.config import load_config
from jens.layout import Layout
from jens.tools.compare import compare
from tests.conftest import HOSTGROUP, MODULE, Outcome, Remote, Site, definition, git
from tests.warm import Warm, warm

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"
TWELVE = [f"{number:02}" for number in range(12)]
PUBLISHED = ("bare", "clone", "environments")


def fill(site: Site, *kinds: str) -> None:
    """Add twelve modules, hostgroups (all with the same remote) or environments, and run."""
    site.settings["main.retention"] = "0"
    for number in TWELVE:
        if "modules" in kinds:
            site.urls[f"modules/m{number}"] = site.remotes[DUMMY].url
        if "hostgroups" in kinds:
            site.urls[f"hostgroups/h{number}"] = site.remotes[MYAPP].url
    if "environments" in kinds:
        site.definitions.push({f"e{number}.yaml": definition() for number in TWELVE})
    site.publish()
    assert site.update("--strict").code == 0


def lose(site: Site, *kinds: str) -> None:
    """Remove the declarations of the twelve."""
    site.urls = {repo: url for repo, url in site.urls.items() if not (repo.startswith(kinds) and repo[-2:] in TWELVE)}
    site.publish()
    if "environments" in kinds:
        site.definitions.push({f"e{number}.yaml": None for number in TWELVE})


def refused(outcome: Outcome, *kinds: str) -> None:
    """Check that the guard stopped the run: exit 31, one line on stderr, an ERROR for each of these kinds."""
    assert outcome.code == 31
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    errors = [line for line in outcome.lines("ERROR") if "Refusing to remove" in line]
    assert [kind for kind in kinds if not any(f" of the {kind} at once" in line for line in errors)] == []
    assert len(errors) == len(kinds), errors


def assert_whole(site: Site) -> None:
    """Check that no link of any environment dangles."""
    assert {name: site.dangling(name) for name in site.environments() if site.dangling(name)} == {}


def assert_as_if_made_afresh(site: Site) -> None:
    """Check that the instance equals a new one, which has never had what is gone."""
    root = site.root.parent / "control"
    for name in ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata"):
        (root / name).mkdir(parents=True)
    for name, remote in (("environments", site.definitions), ("repository", site.library)):
        git("clone", "-q", remote.url, str(root / "metadata" / name), directory=root)
    config = root / "main.conf"
    config.write_text(site.config.read_text().replace(str(site.root), str(root)))
    assert update.main(["-c", str(config), "--strict", "--poll"]) == 0
    assert compare(site.root, root) == []
    for place in ("bare/modules", "bare/hostgroups", "bare/common", "clone/modules", "clone/hostgroups"):
        assert sorted(os.listdir(site.root / place)) == sorted(os.listdir(root / place)), place
    assert sorted(os.listdir(site.root / "cache/environments")) == sorted(os.listdir(root / "cache/environments"))


# Everything else is done


def test_each_kind_is_judged_on_its_own_and_all_other_work_is_done(site: Site) -> None:
    for name in ("old", "moving"):
        site.define(name)
    site.urls["hostgroups/small"] = site.remotes[MYAPP].url
    fill(site, "modules", "hostgroups")
    lose(site, "modules")
    del site.urls["hostgroups/small"]  # one hostgroup, one environment: that is nothing unusual
    site.retire("old")
    site.add("modules/extra")
    site.publish()
    site.define("new")
    site.define("moving", definition(overrides={DUMMY: "other"}))
    site.remotes[DUMMY].push({INIT: "# other\n"}, "other", onto="master")
    site.remotes[DUMMY].push({INIT: "# pushed\n"})
    refused(site.update(), "modules")
    assert site.environments() == ["moving", "new", "production"]
    for environment in site.environments():
        modules = sorted(os.listdir(site.root / "environments" / environment / "modules"))
        assert modules == ["dummy", "extra", *(f"m{number}" for number in TWELVE)]
        assert not os.path.lexists(site.root / "environments" / environment / "hostgroups" / "hg_small")
        assert len(os.listdir(site.root / "environments" / environment / "hostgroups")) == 13
    assert site.read("production/modules/dummy/manifests/init.pp") == "# pushed\n"
    assert site.read("moving/modules/dummy/manifests/init.pp") == "# other\n"
    assert not (site.root / "bare" / "hostgroups" / "small").exists()
    assert json.loads((site.root / "cache" / "last-run.json").read_text())["content"]["status"] == 31
    assert_whole(site)
    assert site.update("--strict", "--allow-purge").code == 0
    assert_as_if_made_afresh(site)


def test_a_library_that_loses_only_its_hostgroups(site: Site) -> None:
    fill(site, "hostgroups")
    site.settings["main.mode"] = "ONDEMAND"
    before = site.listing("bare/hostgroups", "clone/hostgroups", "environments/production")
    site.urls = {repo: url for repo, url in site.urls.items() if not repo.startswith("hostgroups/")}
    site.publish()
    site.define("another")
    refused(site.update(), "hostgroups")
    assert site.listing("bare/hostgroups", "clone/hostgroups", "environments/production") == before
    assert len(os.listdir(site.root / "environments" / "another" / "hostgroups")) == 13
    assert site.update("--allow-purge").code == 0
    assert os.listdir(site.root / "environments" / "production" / "hostgroups") == []
    assert os.listdir(site.root / "bare" / "hostgroups") == []


def test_a_partition_that_is_emptied_in_the_library(site: Site) -> None:
    fill(site, "modules", "hostgroups")
    before = site.listing(*PUBLISHED)
    common = "".join(f"    {name}: '{site.urls[f'common/{name}']}'\n" for name in ("hieradata", "site"))
    site.publish(f"repositories:\n  common:\n{common}  hostgroups: {{}}\n  modules: {{}}\n")
    refused(site.update(), "modules", "hostgroups")
    assert site.listing("clone", "environments") == {
        name: what for name, what in before.items() if not name.startswith("bare")
    }
    site.publish("repositories:\n  common:\n  hostgroups:\n  modules:\n")
    refused(site.update(), "modules", "hostgroups", "common")
    assert_whole(site)
    assert site.exists("production/site/site.pp")


def test_an_environment_repository_that_is_emptied(site: Site) -> None:
    fill(site, "environments")
    site.settings["main.mode"] = "ONDEMAND"
    site.definitions.push({f"{name}.yaml": None for name in site.environments()})
    site.add("modules/extra")
    site.publish()
    site.remotes[DUMMY].push({INIT: "# pushed\n"})
    site.hint(DUMMY)
    refused(site.update(), "environments")
    assert site.hinted() == []
    assert len(site.environments()) == 13
    for environment in site.environments():
        assert site.read(f"{environment}/modules/dummy/manifests/init.pp") == "# pushed\n"
        assert site.exists(f"{environment}/modules/extra")
    assert site.update("--allow-purge").code == 0
    assert site.environments() == []
    assert os.listdir(site.root / "cache" / "environments") == []


def test_a_limit_of_100_lets_everything_go(site: Site) -> None:
    fill(site, "modules", "environments")
    site.settings["main.purgelimit"] = "100"
    del site.urls["common/site"]
    lose(site, "modules", "environments")
    outcome = site.update("--strict")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert site.environments() == ["production"]
    assert os.listdir(site.root / "environments" / "production" / "modules") == ["dummy"]
    assert not os.path.lexists(site.root / "environments" / "production" / "site")
    assert not (site.root / "bare" / "common" / "site").exists()
    assert_as_if_made_afresh(site)


def test_a_small_site_may_lose_all_it_has_but_for_the_common_repositories(site: Site) -> None:
    for number in TWELVE[:9]:
        site.urls[f"modules/m{number}"] = site.remotes[DUMMY].url
        site.define(f"e{number}")
    site.publish()
    assert site.update("--strict").code == 0
    site.urls = {repo: url for repo, url in site.urls.items() if repo.startswith("common/")}
    site.publish()
    site.definitions.push({f"{name}.yaml": None for name in site.environments() if name != "e00"})
    assert site.update("--strict").code == 0
    assert site.environments() == ["e00"]
    assert os.listdir(site.root / "environments" / "e00" / "modules") == []
    site.retire("e00")
    assert site.update("--strict").code == 0
    assert site.environments() == []


def test_exactly_the_limit_is_not_more_than_it(site: Site) -> None:
    site.definitions.push({f"x{number}.yaml": definition() for number in TWELVE[:11]})
    fill(site, "environments")
    lose(site, "environments")
    assert site.update("--strict").code == 0  # 12 of 24
    assert len(site.environments()) == 12
    site.definitions.push({f"x{number}.yaml": None for number in TWELVE[:11]})
    refused(site.update(), "environments")  # 11 of 12
    assert len(site.environments()) == 12
    site.define("x00")
    assert site.update("--strict").code == 0  # 10 of 12
    assert site.environments() == ["production", "x00"]


# What snapshots and holds keep


@pytest.mark.parametrize("how", ["held", "snapshot"])
def test_what_one_environment_keeps_is_not_taken_away_from_the_others(site: Site, how: str) -> None:
    site.define("qa")
    fill(site, "modules")
    if how == "held":
        assert hold.main(["-c", str(site.config), "production", "--until", "1d"]) == 0
    else:
        pins = {f"modules/m{number}": f"commit/{site.remotes[DUMMY].commit()}" for number in TWELVE}
        site.define("frozen", definition(None, pins))
        assert site.update("--strict").code == 0
    lose(site, "modules")
    assert "Refusing to remove 12 of the modules at once" in site.update("--dry-run").stdout
    for _ in range(2):
        refused(site.update(), "modules")
        assert_whole(site)
        assert len(os.listdir(site.root / "environments" / "qa" / "modules")) == 13
    site.define("late")
    refused(site.update(), "modules")
    assert len(os.listdir(site.root / "environments" / "late" / "modules")) == 13
    assert site.update("--allow-purge").code == 0
    for _ in range(2):  # what has left the others can leave them no more
        assert site.update().code == 0
        assert os.listdir(site.root / "environments" / "qa" / "modules") == ["dummy"]
        kept = "production" if how == "held" else "frozen"
        assert len(os.listdir(site.root / "environments" / kept / "modules")) == 12 + (how == "held")


def test_what_one_environment_keeps_is_not_taken_away_from_a_versioned_one(site: Site) -> None:
    site.settings["main.directory_environments"] = "True"
    site.settings["main.versionedenvironments"] = "qa,"
    site.settings["main.versionsdir"] = "/as/servers/see/it/.versions"
    site.define("qa")
    fill(site, "modules")
    assert hold.main(["-c", str(site.config), "production", "--until", "1d"]) == 0
    lose(site, "modules")
    tree = Layout.of(load_config(site.config)).tree
    refused(site.update(), "modules")
    assert len(os.listdir(tree("qa") / "modules")) == 13
    assert site.update("--allow-purge").code == 0
    assert site.update().code == 0
    assert os.listdir(tree("qa") / "modules") == ["dummy"]


@pytest.mark.parametrize("name", ["site", "hieradata"])
def test_the_common_repositories_of_others_are_guarded_though_a_hold_keeps_them(site: Site, name: str) -> None:
    site.define("qa")
    assert site.update("--strict").code == 0
    assert hold.main(["-c", str(site.config), "production", "--until", "1d"]) == 0
    before = site.links("qa")
    del site.urls[f"common/{name}"]
    site.publish()
    for _ in range(2):
        refused(site.update(), "common")
        assert site.links("qa") == before
    assert site.update("--allow-purge").code == 0
    assert site.update().code == 0
    assert site.links("qa") != before


# Later runs refuse it, too


def test_what_is_refused_does_not_go_later_whatever_jens_forgets_meanwhile(site: Site) -> None:
    fill(site, "modules", "environments")
    urls = dict(site.urls)
    lose(site, "modules", "environments")
    before = {**site.listing("clone"), **site.listing("environments")}

    def forget(*paths: str) -> None:
        for path in paths:
            for found in sorted(site.root.glob(path)):
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found)
                else:
                    found.unlink()

    for paths in (
        (),
        ("clone/modules/m0*/master", "cache/inventory.json"),
        ("cache/environments/*",),
        ("bare/modules/m*",),
        ("bare/modules/m*", "cache/*"),
    ):
        forget(*paths)
        outcome = site.update()
        assert {**site.listing("clone"), **site.listing("environments")} == before, paths
        refused(outcome, "modules", "environments")
    site.urls = urls
    site.publish()
    site.definitions.push({f"e{number}.yaml": definition() for number in TWELVE})
    assert site.update("--strict").code == 0
    assert_as_if_made_afresh(site)


def test_what_comes_back_in_part_leaves_the_rest_to_be_judged_anew(site: Site) -> None:
    fill(site, "modules")
    urls = dict(site.urls)
    lose(site, "modules")
    refused(site.update(), "modules")
    site.urls["modules/m00"] = urls["modules/m00"]
    site.publish()
    refused(site.update(), "modules")  # 11 of 13
    site.urls["modules/m01"] = urls["modules/m01"]
    site.publish()
    assert site.update("--strict").code == 0  # only 10
    assert sorted(os.listdir(site.root / "bare" / "modules")) == ["dummy", "m00", "m01"]
    assert_as_if_made_afresh(site)


def test_after_many_renames_the_new_names_are_added_and_the_old_ones_stay(site: Site) -> None:
    fill(site, "modules", "environments")
    lose(site, "modules", "environments")
    for number in TWELVE:
        site.urls[f"modules/renamed{number}"] = site.remotes[DUMMY].url
    site.publish()
    site.definitions.push({f"renamed{number}.yaml": definition() for number in TWELVE})
    refused(site.update(), "modules", "environments")
    assert len(site.environments()) == 25
    for environment in site.environments():
        assert len(os.listdir(site.root / "environments" / environment / "modules")) == 25
    assert_whole(site)
    refused(site.update(), "modules", "environments")  # though 12 of 25 are less than half of them
    assert len(site.environments()) == 25
    assert site.update("--strict", "--allow-purge").code == 0
    assert_as_if_made_afresh(site)


# Dry runs


def test_a_dry_run_tells_what_the_guard_would_refuse_and_what_would_go_when_it_is_allowed(site: Site) -> None:
    site.urls["hostgroups/small"] = site.remotes[MYAPP].url
    fill(site, "modules", "environments")
    lose(site, "modules", "environments")
    del site.urls["hostgroups/small"]
    site.publish()
    before = site.listing(*PUBLISHED, "cache")
    lines = site.update("--dry-run").stdout.splitlines()
    assert [line[:45] for line in lines if line.startswith("Refusing")] == [
        "Refusing to remove 12 of the modules at once:",
        "Refusing to remove 12 of the environments at ",
    ]
    assert [line for line in lines if line.startswith(("Would remove", "Would delete"))] == [
        "Would remove repository hostgroups/small"
    ]
    lines = site.update("--dry-run", "--allow-purge").stdout.splitlines()
    assert [line for line in lines if line.startswith(("Refusing", "Would remove", "Would delete"))] == [
        "Would remove repository hostgroups/small",
        *(f"Would remove repository modules/m{number}" for number in TWELVE),
        *(f"Would delete environment 'e{number}'" for number in TWELVE),
    ]
    assert site.listing(*PUBLISHED, "cache") == before


# Kills


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Warm]:
    with warm(tmp_path / "output") as found:
        yield found


def kill_at(site: Site, tools: Warm, words: str, *arguments: str) -> bool:
    """Kill a run and its Git processes as soon as the log has these words; False if the run ended first."""
    log = site.root / "log" / "jens-update.log"
    begin = log.stat().st_size
    run = tools.start("update", "-c", str(site.config), *arguments)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with open(log, "rb") as file:
            file.seek(begin)
            text = file.read().decode()
        if words in text or "Releasing lock" in text:
            break
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


@pytest.mark.parametrize("allowed", [False, True])
def test_whenever_a_run_that_would_purge_is_killed_environments_stay_whole_and_purging_needs_leave(
    site: Site, tools: Warm, allowed: bool
) -> None:
    site.settings["main.debuglevel"] = "DEBUG"
    fill(site, "modules", "environments")
    for number in TWELVE[:2]:
        site.urls[f"hostgroups/h{number}"] = site.remotes[MYAPP].url
    lose(site, "modules", "environments")
    arguments = ("--allow-purge",) if allowed else ()
    kills = 0
    for words in (
        "New repositories",
        "Deleting environment 'e00'" if allowed else "Refreshing not changed environments",
        "/clone/modules/m03/." if allowed else "Executed 'refresh_environments'",
    ):
        kills += kill_at(site, tools, words, *arguments)
        assert_whole(site)
        outcome = site.update()
        assert_whole(site)
        assert outcome.code in ((0, 31) if allowed else (31,))
        if not allowed:
            assert len(site.environments()) == 13
            assert len(os.listdir(site.root / "environments" / "e11" / "modules")) == 13
    assert kills >= 1
    assert site.update("--strict", "--allow-purge").code == 0
    assert_as_if_made_afresh(site)


# Metadata that cannot be believed


@pytest.mark.parametrize("which", ["definitions", "library"])
@pytest.mark.parametrize(
    ("how", "code"), [("another, empty", 20), ("detached", 20), ("HEAD garbage", 20), ("another, without files", 0)]
)
def test_metadata_that_cannot_be_read_take_nothing_away(site: Site, which: str, how: str, code: int) -> None:
    if code == 0:
        site.definitions.push({f"e{number}.yaml": definition() for number in TWELVE})
    assert site.update("--strict").code == 0
    remote = {"definitions": site.definitions, "library": site.library}[which]
    clone = site.root / "metadata" / {"definitions": "environments", "library": "repository"}[which]
    if how.startswith("another"):
        shutil.rmtree(remote.path)
        Remote.create(remote.path)
        if code == 0:
            remote.push({"README": "Something else\n", **MODULE, **HOSTGROUP})
            code = {"definitions": 31, "library": 3}[which]
    else:
        remote.push(dict.fromkeys(git("ls-tree", "--name-only", "master", directory=remote.path).split()))
        if how == "detached":
            git("checkout", "-q", "--detach", directory=clone)
        else:
            (clone / ".git" / "HEAD").write_text("\0garbage\n")
    before = site.listing(*PUBLISHED, "cache/environments")
    for _ in range(2):
        outcome = site.update()
        assert outcome.code == code
        assert outcome.stderr.count("\n") == 1
        assert site.listing("clone", "environments", "cache/environments").items() <= before.items()
        assert site.listing(*PUBLISHED, "cache/environments").keys() >= before.keys()
