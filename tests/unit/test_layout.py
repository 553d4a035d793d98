"""Where everything is: paths, entries, and links that work from wherever the directories really are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jens.config import load_config
from jens.layout import (
    INVENTORY,
    LAST_RUN,
    Layout,
    LinkReader,
    Target,
    branch_entry,
    commit_entry,
    entry_ref,
    is_checkout_name,
    ref_entry,
)
from jens.model import COMMON, HIERADATA, MODULES, SITE, Branch, Commit, Ref, RepoId
from tests.values import DUMMY, MASTER, MYAPP, A, layout_in

_LAYOUT = Layout(
    Path("/j/bare"), Path("/j/clone"), Path("/j/cache"), Path("/j/environments"), ("common.yaml", "hardware")
)


def test_paths_are_those_of_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "main.conf"
    file.write_text(
        "[main]\nbaredir = /j/bare\nclonedir = /j/clone\ncachedir = /j/cache\nenvironmentsdir = /j/environments\n"
    )
    layout = Layout.of(load_config(file))
    assert layout == _LAYOUT._replace(common_hieradata_items=())
    assert {
        "bare": str(layout.bare(DUMMY)),
        "checkout": str(layout.checkout(DUMMY, A)),
        "branch": str(layout.ref(DUMMY, MASTER)),
        "commit": str(layout.ref(DUMMY, Commit("aaaa"), A)),
        "environment": str(layout.environment("production")),
        "inventory": str(layout.state(INVENTORY)),
        "definitions": str(layout.definitions),
        "last run": str(layout.state(LAST_RUN)),
    } == {
        "bare": "/j/bare/modules/dummy",
        "checkout": f"/j/clone/modules/dummy/.{A}",
        "branch": "/j/clone/modules/dummy/master",
        "commit": f"/j/clone/modules/dummy/.{A}",
        "environment": "/j/environments/production",
        "inventory": "/j/cache/inventory.json",
        "definitions": "/j/cache/environments",
        "last run": "/j/cache/last-run.json",
    }


@pytest.mark.parametrize(
    ("ref", "entry"),
    [
        (Branch("master"), "master"),
        (Branch("feature/x"), "feature~x"),
        (Branch("a/b/c"), "a~b~c"),
        (Branch("4f0c"), "4f0c"),
        (Branch("ä/@"), "ä~@"),
        (Commit("4f0c"), ".4f0c"),
        (Commit(A), f".{A}"),
    ],
    ids=str,
)
def test_a_ref_is_one_entry_and_back(ref: Ref, entry: str) -> None:
    assert ref_entry(ref, None) == entry
    assert entry_ref(entry) == ref


def test_a_resolved_commit_is_full_on_disk() -> None:
    assert ref_entry(Commit("aaaa"), A) == f".{A}"
    assert commit_entry(A) == f".{A}"
    assert branch_entry(MASTER) == "master"


@pytest.mark.parametrize(
    "entry", ["", ".", "..", ".new-1", ".trash-1", ".git", ".4f0", ".4F0C", "a b", "~", "-x", f".{A}a"]
)
def test_an_entry_that_is_none_of_ours_stands_for_no_ref(entry: str) -> None:
    assert entry_ref(entry) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f".{A}", True),
        (A, False),
        (f".{A}a", False),
        (f".{A[1:]}", False),
        (f".{A.upper()}", False),
        (f".{A}\n", False),
    ],
    ids=ascii,
)
def test_a_checkout_is_named_by_a_full_commit_behind_a_dot(entry: str, expected: bool) -> None:
    assert is_checkout_name(entry) == expected


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        (DUMMY, {"modules/dummy": "code", "hieradata/module_names/dummy": "data"}),
        (
            MYAPP,
            {
                "hostgroups/hg_myapp": "code",
                "hieradata/hostgroups/myapp": "data/hostgroup",
                "hieradata/fqdns/myapp": "data/fqdns",
            },
        ),
        (SITE, {"site": "code"}),
        (HIERADATA, {"hieradata/common.yaml": "data/common.yaml", "hieradata/hardware": "data/hardware"}),
        (RepoId(COMMON, "other"), {}),
        (RepoId(MODULES, "site"), {"modules/site": "code", "hieradata/module_names/site": "data"}),
    ],
    ids=str,
)
def test_links_of_a_repository(repo: RepoId, expected: dict[str, str]) -> None:
    assert _LAYOUT.links(repo) == expected


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("site", Target(SITE, "master", "code"), "../../clone/common/site/master/code"),
        ("modules/dummy", Target(DUMMY, "feature~x", "code"), "../../../clone/modules/dummy/feature~x/code"),
        (
            "hieradata/fqdns/myapp",
            Target(MYAPP, f".{A}", "data/fqdns"),
            f"../../../../clone/hostgroups/myapp/.{A}/data/fqdns",
        ),
    ],
)
def test_links_are_relative_and_come_back(link: str, target: Target, expected: str) -> None:
    assert _LAYOUT.link_target(link, target) == expected
    assert _LAYOUT.parse_target("production", link, expected) == target


@pytest.mark.parametrize(
    ("clonedir", "environmentsdir", "expected"),
    [
        ("/j/clone", "/j/environments", "../../clone/common/site/master/code"),
        ("/srv/clone", "/j/environments", "../../../srv/clone/common/site/master/code"),
        ("/j/clone", "/j/puppet/code/environments", "../../../../clone/common/site/master/code"),
        ("/j/a/../clone/", "/j/environments/", "../../clone/common/site/master/code"),
        ("/mnt/puppet/node/clone", "/mnt/puppet/node/environments", "../../clone/common/site/master/code"),
    ],
)
def test_links_are_computed_from_the_configured_directories(clonedir: str, environmentsdir: str, expected: str) -> None:
    layout = _LAYOUT._replace(clonedir=Path(clonedir), environmentsdir=Path(environmentsdir))
    assert layout.link_target("site", Target(SITE, "master", "code")) == expected


_DUMMY_TARGET = Target(DUMMY, "master", "code")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("../../../clone/modules/dummy/master/code", _DUMMY_TARGET, id="relative"),
        pytest.param("../../.././clone//modules/dummy/master/code/", _DUMMY_TARGET, id="relative, untidy"),
        pytest.param("../../../../j/clone/modules/dummy/master/code", _DUMMY_TARGET, id="relative, a longer way"),
        pytest.param("/j/clone/modules/dummy/master/code", _DUMMY_TARGET, id="absolute"),
        pytest.param("../../../clone/modules/dummy/master/data/a/b", Target(DUMMY, "master", "data/a/b"), id="deep"),
        pytest.param("../../../clone/modules/dummy/master", None, id="an entry itself"),
        pytest.param("../../../clone/modules/dummy", None, id="a repository itself"),
        pytest.param("../../../clone", None, id="clonedir itself"),
        pytest.param("../../../clone/other/dummy/master/code", None, id="no partition"),
        pytest.param("../../../clone-2/modules/dummy/master/code", None, id="a directory with a longer name"),
        pytest.param("../../../clone-modules/dummy/master/code", None, id="a directory beside clonedir"),
        pytest.param("../../../clone/modules/dummy/master/../../../../x", None, id="out again"),
        pytest.param("/etc/passwd", None, id="elsewhere, absolute"),
        pytest.param("x", None, id="within the environment"),
        pytest.param("../../clone/modules/dummy/master/code", None, id="one step too few"),
    ],
)
def test_what_a_link_points_to(text: str, expected: Target | None) -> None:
    assert _LAYOUT.parse_target("production", "modules/dummy", text) == expected


def test_very_many_links_are_read_as_each_of_them_is() -> None:
    tails = ["modules/dummy/master/code", "modules/dummy/master", "hostgroups/a/b/c/d", "other/a/b/c", "modules", ""]
    tails += ["../clone/modules/dummy/qa/code", "./modules/dummy/qa/code", "/modules/dummy/qa/code", ".x/a/b/c"]
    tails += ["modules/../modules/dummy/qa/code", "modules//dummy/qa/code", "modules/dummy/qa/code/", "../../etc/a/b"]
    prefixes = ["../../clone/", "../../../clone/", "../../elsewhere/", "../../../claim/", "/j/clone/", "/etc/", ""]
    reader = LinkReader(_LAYOUT)
    links = [("production", "site"), ("qa", "modules/dummy"), ("qa", "hieradata/a/b")]
    for environment, link in links * 2:
        for text in [prefix + tail for prefix in prefixes for tail in tails]:
            assert reader.target(environment, link, text) == _LAYOUT.parse_target(environment, link, text), text


@pytest.mark.parametrize("linked", ["clone", "environments", "both", "parent"])
def test_links_work_when_configured_directories_are_symbolic_links(tmp_path: Path, linked: str) -> None:
    real = layout_in(tmp_path / "real")
    (tmp_path / "far" / "away").mkdir(parents=True)
    layout = real
    for name in ("clone", "environments"):
        if linked in (name, "both"):
            (tmp_path / "real" / name).rename(tmp_path / "far" / "away" / name)
            (tmp_path / "real" / name).symlink_to(tmp_path / "far" / "away" / name)
    if linked == "parent":
        (tmp_path / "alias").symlink_to("real")
        layout = real._replace(clonedir=tmp_path / "alias" / "clone")
    (layout.checkout(SITE, A) / "code").mkdir(parents=True)
    (layout.checkout(SITE, A) / "code" / "site.pp").write_text("node default {}\n")
    layout.environment("x").mkdir()
    target = Target(SITE, f".{A}", "code")
    link = layout.environment("x") / "site"
    link.symlink_to(layout.link_target("site", target))
    assert not os.path.isabs(os.readlink(link))
    assert (link / "site.pp").read_text() == "node default {}\n"
    assert layout.parse_target("x", "site", os.readlink(link)) == target
    assert layout.parse_target("x", "site", f"{layout.clonedir}/common/site/.{A}/code") == target
    assert layout.parse_target("x", "site", f"{os.path.realpath(layout.clonedir)}/common/site/.{A}/code") == target


def test_the_pair_of_directories_can_be_mounted_elsewhere(tmp_path: Path) -> None:
    layout = layout_in(tmp_path / "here")
    (layout.checkout(SITE, A) / "code").mkdir(parents=True)
    layout.environment("x").mkdir()
    (layout.environment("x") / "site").symlink_to(layout.link_target("site", Target(SITE, f".{A}", "code")))
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "environments" / "x" / "site").is_dir()


def test_repositories_in_a_directory_are_real_directories_with_a_repositorys_name(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    for name in ("b", "a", ".trash-1", ".new-1", "x y"):
        (layout.baredir / "modules" / name).mkdir()
    (layout.baredir / "common" / "site").mkdir()
    (layout.baredir / "other").mkdir()
    (layout.baredir / "modules" / "file").write_text("x")
    (layout.baredir / "modules" / "link").symlink_to("a")
    assert sorted(layout.repositories_in(layout.baredir)) == [SITE, RepoId(MODULES, "a"), RepoId(MODULES, "b")]
