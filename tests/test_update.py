"""Whole runs: who pushed what, what Puppet then sees. Everything is told from the disk."""

from __future__ import annotations

import pytest

from tests.conftest import Site


def test_production_shows_exactly_the_links_of_the_layout(site: Site) -> None:
    assert site.update().code == 0
    assert site.links("production") == {
        "modules/dummy": "../../../clone/modules/dummy/master/code",
        "hieradata/module_names/dummy": "../../../../clone/modules/dummy/master/data",
        "hostgroups/hg_myapp": "../../../clone/hostgroups/myapp/master/code",
        "hieradata/hostgroups/myapp": "../../../../clone/hostgroups/myapp/master/data/hostgroup",
        "hieradata/fqdns/myapp": "../../../../clone/hostgroups/myapp/master/data/fqdns",
        "site": "../../clone/common/site/master/code",
        "hieradata/common.yaml": "../../../clone/common/hieradata/master/data/common.yaml",
        "hieradata/environments": "../../../clone/common/hieradata/master/data/environments",
        "hieradata/hardware": "../../../clone/common/hieradata/master/data/hardware",
        "hieradata/operatingsystems": "../../../clone/common/hieradata/master/data/operatingsystems",
    }
    assert site.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"


def test_a_push_is_visible_after_one_run(site: Site) -> None:
    site.update()
    commit = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "class dummy { notice(1) }\n"})
    outcome = site.update()
    assert site.read("production/modules/dummy/manifests/init.pp") == "class dummy { notice(1) }\n"
    assert site.expanded("modules/dummy") == {"master": commit}
    assert outcome.has(f"INFO Updated ref '{site.root}/clone/modules/dummy/master' ({commit[:7]})")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_every_configured_directory_may_be_a_symbolic_link(site: Site, mode: str) -> None:
    site.settings["main.mode"] = mode
    for name in ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata"):
        (site.root / name).rename(site.root / f"real-{name}")
        (site.root / name).symlink_to(site.root / f"real-{name}")
    assert site.update("--strict").code == 0
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.hint("modules/dummy")
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
