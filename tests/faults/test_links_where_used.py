"""Links out of a checkout that nobody saw when it was laid out: no environment gets a link that leads there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jens import links
from jens.links import leads_out
from tests.conftest import HIERADATA, Outcome, Site, definition, git
from tests.faults.decoy import push_tree

_LINK = "120000"


def _faults(site: Site) -> list[tuple[str, str, str]]:
    content = json.loads((site.root / "cache" / "last-run.json").read_text())["content"]
    return [(fault["kind"], fault["environment"], fault["repository"]) for fault in content["faults"]]


def _assert_refused(outcome: Outcome, environment: str, link: str, repo: str) -> None:
    assert outcome.code == 0
    [error] = [line for line in outcome.lines("ERROR") if f"'{environment}'" in line]
    assert f"'{link}'" in error
    assert repo in error


def test_an_item_that_is_configured_later_is_not_linked_when_it_leads_out(site: Site) -> None:
    push_tree(site.remotes["common/hieradata"], {"data/later": (_LINK, "/etc"), "data/good": (_LINK, "common.yaml")})
    site.define("other")
    assert site.update("--strict").code == 0
    before = site.links("production")
    site.settings["main.common_hieradata_items"] = "common.yaml, environments, hardware, operatingsystems, later, good"
    assert site.update("--strict", "--dry-run").code == 60
    for _ in range(2):
        site.remotes["modules/dummy"].push({"code/manifests/init.pp": f"# {_}\n"})
        outcome = site.update()
        for name in ("other", "production"):
            _assert_refused(outcome, name, "hieradata/later", "common/hieradata")
        assert len(outcome.lines("ERROR")) == 2
        assert {**site.links("production"), "hieradata/good": ""} == {**before, "hieradata/good": ""}
        assert site.exists("production/hieradata/good")
        assert site.read("production/modules/dummy/manifests/init.pp") == f"# {_}\n"
        kind = "link out of a checkout"
        assert _faults(site) == [(kind, name, "common/hieradata") for name in ("other", "production")]
    push_tree(site.remotes["common/hieradata"], {"data/later": (_LINK, "hardware")})
    assert site.update("--strict").code == 0
    assert site.exists("other/hieradata/later/kvm.yaml")


def test_an_item_that_was_linked_already_is_removed(site: Site) -> None:
    push_tree(site.remotes["common/hieradata"], {"data/later": (_LINK, "/etc")})
    assert site.update("--strict").code == 0
    link = site.root / "environments" / "production" / "hieradata" / "later"
    link.symlink_to(os.readlink(link.with_name("hardware")).replace("hardware", "later"))
    assert link.resolve() == Path("/etc").resolve()
    site.settings["main.common_hieradata_items"] = "common.yaml, environments, hardware, operatingsystems, later"
    _assert_refused(site.update(), "production", "hieradata/later", "common/hieradata")
    assert not os.path.lexists(link)


def _clone_like_1x(site: Site, repo: str, commit: str, entry: str) -> None:
    place = site.path(repo, entry)
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    git("clone", "-q", "--no-checkout", str(site.remotes[repo].path), str(place), directory=site.root)
    git("-c", "core.autocrlf=false", "reset", "-q", "--hard", commit, directory=place)


def test_in_a_checkout_of_1x_that_is_adopted_the_link_is_not_made(site: Site) -> None:
    hieradata = site.remotes["common/hieradata"]
    hostile = push_tree(hieradata, {"data/later": (_LINK, "/etc")}, "hostile")
    for name in HIERADATA:
        hostile = push_tree(hieradata, {name: ("100644", "--- {}\n")}, "hostile")
    assert site.update("--strict").code == 0
    _clone_like_1x(site, "common/hieradata", hostile, f".{hostile}")
    site.settings["main.common_hieradata_items"] = "common.yaml, hardware, later"
    site.define("pinned", definition("master", {"common/hieradata": f"commit/{hostile}"}))
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    outcome = site.update()
    _assert_refused(outcome, "pinned", "hieradata/later", "common/hieradata")
    assert not site.path("common/hieradata", f".{hostile}/.git").is_dir()  # adopted
    assert "hieradata/later" not in site.links("pinned")
    assert site.exists("pinned/hieradata/hardware/kvm.yaml")
    assert site.read("pinned/modules/dummy/manifests/init.pp") == "# new\n"
    assert ("link out of a checkout", "pinned", "common/hieradata") in _faults(site)

    # A branch that moves to this checkout is refused as if it were laid out now.
    before = site.expanded("common/hieradata")
    git("update-ref", "refs/heads/master", hostile, directory=hieradata.path)
    outcome = site.update()
    assert [line for line in outcome.lines("ERROR") if f"Unable to use common/hieradata at {hostile}" in line]
    assert site.expanded("common/hieradata") == before


def test_a_clone_of_1x_that_has_to_stay_keeps_no_link_that_leads_out(site: Site) -> None:
    """Its commit cannot be laid out, as it leads out; so the clone stays, and links wait."""
    evil = site.add("modules/evil", {"code/manifests/init.pp": "class evil {}\n", "README": "x\n"})
    site.publish()
    assert site.update("--strict").code == 0
    hostile = push_tree(evil, {"data": (_LINK, "/etc")})
    _clone_like_1x(site, "modules/evil", hostile, "master")
    for checkout in site.checkouts("modules/evil"):
        shutil.rmtree(site.path("modules/evil", f".{checkout}"), ignore_errors=True)
    outcome = site.update()
    assert outcome.code == 0
    assert "hieradata/module_names/evil" not in site.links("production")
    assert ("link out of a checkout", "production", "modules/evil") in _faults(site)
    assert site.exists("production/modules/evil/manifests/init.pp")


def test_a_target_is_looked_at_once_a_run_however_many_environments_share_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.definitions.push({f"e{number}.yaml": definition() for number in range(9)})
    looks: list[tuple[str, str]] = []

    def look(top: Path | str, path: str) -> bool:
        looks.append((str(top), path))
        return leads_out(top, path)

    assert site.update("--strict").code == 0
    site.definitions.push({f"e{number}.yaml": definition(mail="bob") for number in range(9)})
    monkeypatch.setattr(links, "leads_out", look)
    assert site.update("--strict").code == 0
    assert len(looks) == len(set(looks)) == 10  # two of the module, three of the hostgroup, four items, the site


@pytest.mark.parametrize(
    ("made", "path", "expected"),
    [
        ({}, "code", False),
        ({"code": "src"}, "code", False),
        ({"code": "/etc"}, "code", True),
        ({"code": "a/../../x"}, "code", True),
        ({"code": "code"}, "code", False),
        ({f"l{n}": "a/../" * 700 + f"l{n + 1}" for n in range(41)} | {"code": "l0"}, "code", False),
        ({f"l{n}": f"l{n + 1}" + "/../a" * 700 for n in range(41)} | {"code": "l0"}, "code", False),
    ],
)
def test_whether_a_path_leads_out(tmp_path: Path, made: dict[str, str], path: str, expected: bool) -> None:
    for name, text in made.items():
        (tmp_path / name).symlink_to(text)
    assert leads_out(tmp_path, path) == expected


def test_a_link_behind_a_path_that_is_too_long_for_us_leads_out(tmp_path: Path) -> None:
    """The kernel follows the text of a link from where the link is, so it gets further than an absolute path."""
    deep = "/".join(["d" * 250] * 16)
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for name in deep.split("/"):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.symlink("/etc", "out", dir_fd=here)
    finally:
        os.close(here)
    (tmp_path / "code").symlink_to(f"{deep}/out")
    assert leads_out(tmp_path, "code")
