"""Links of environments: which there are, and that they work wherever the directories really are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jens.layout import Layout
from jens.links import (
    LinkReader,
    Target,
    all_links_of,
    directories_shown,
    link_text,
    links_of,
    optional_links_of,
    parse_target,
)
from jens.model import COMMON, HIERADATA, MODULES, SITE, Directories, RepoId
from tests.values import DUMMY, MYAPP, A, layout_in

_LAYOUT = Layout(
    Path("/j/bare"), Path("/j/clone"), Path("/j/cache"), Path("/j/environments"), ("common.yaml", "hardware")
)


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
    assert links_of(_LAYOUT, repo) == expected


@pytest.mark.parametrize("source", [None, SITE, HIERADATA], ids=str)
def test_one_common_repository_may_bring_the_hierarchy(source: RepoId | None) -> None:
    layout = _LAYOUT._replace(environment_hiera=source)
    for repo in (SITE, HIERADATA, DUMMY, RepoId(MODULES, "site")):
        optional = {"hiera.yaml": "hiera.yaml"} if repo == source else {}
        assert optional_links_of(layout, repo) == optional
        assert links_of(layout, repo) == links_of(_LAYOUT, repo)
        for directories in (Directories(), Directories("."), Directories("puppet", "."), Directories("a/b", None)):
            links = all_links_of(layout, repo, directories)
            assert links == {**links_of(_LAYOUT, repo, directories), **optional}
            # It is always at the top, and tells nothing of where code and data are.
            assert directories_shown(repo, links) == directories_shown(repo, links_of(_LAYOUT, repo, directories))


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("site", Target(SITE, "master", "code"), "../../clone/common/site/master/code"),
        ("hiera.yaml", Target(SITE, "master", "hiera.yaml"), "../../clone/common/site/master/hiera.yaml"),
        ("modules/dummy", Target(DUMMY, "feature~x", "code"), "../../../clone/modules/dummy/feature~x/code"),
        (
            "hieradata/fqdns/myapp",
            Target(MYAPP, f".{A}", "data/fqdns"),
            f"../../../../clone/hostgroups/myapp/.{A}/data/fqdns",
        ),
    ],
)
def test_links_are_relative_and_come_back(link: str, target: Target, expected: str) -> None:
    assert link_text(_LAYOUT, link, target) == expected
    assert parse_target(_LAYOUT, "production", link, expected) == target


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
    assert link_text(layout, "site", Target(SITE, "master", "code")) == expected


_DUMMY_TARGET = Target(DUMMY, "master", "code")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("../../../clone/modules/dummy/master/code", _DUMMY_TARGET, id="relative"),
        pytest.param("../../.././clone//modules/dummy/master/code/", _DUMMY_TARGET, id="relative, untidy"),
        pytest.param("../../../../j/clone/modules/dummy/master/code", _DUMMY_TARGET, id="relative, through the root"),
        pytest.param("/j/clone/modules/dummy/master/code", _DUMMY_TARGET, id="absolute"),
        pytest.param("../../../clone/modules/dummy/master/data/a/b", Target(DUMMY, "master", "data/a/b"), id="deep"),
        pytest.param("../../../clone/modules/dummy/master", Target(DUMMY, "master", ""), id="an entry itself"),
        pytest.param("../../../clone/modules/dummy/master/", Target(DUMMY, "master", ""), id="an entry itself, untidy"),
        pytest.param("../../../clone/modules/dummy", None, id="a repository itself"),
        pytest.param("../../../clone", None, id="clonedir itself"),
        pytest.param("../../../clone/other/dummy/master/code", None, id="no partition"),
        pytest.param("../../../clone-2/modules/dummy/master/code", None, id="a directory with a longer name"),
        pytest.param("../../../clone-modules/dummy/master/code", None, id="a directory beside clonedir"),
        pytest.param("../../../clone/modules/dummy/master/../../../../x", None, id="out again"),
        pytest.param("/etc/passwd", None, id="elsewhere, absolute"),
        pytest.param("x", None, id="within the environment"),
        pytest.param("../../clone/modules/dummy/master/code", None, id="one directory too few"),
    ],
)
def test_what_a_link_points_to(text: str, expected: Target | None) -> None:
    assert parse_target(_LAYOUT, "production", "modules/dummy", text) == expected


def test_very_many_links_are_read_as_each_of_them_is() -> None:
    tails = ["modules/dummy/master/code", "modules/dummy/master", "hostgroups/a/b/c/d", "other/a/b/c", "modules", ""]
    tails += ["../clone/modules/dummy/qa/code", "./modules/dummy/qa/code", "/modules/dummy/qa/code", ".x/a/b/c"]
    tails += ["modules/../modules/dummy/qa/code", "modules//dummy/qa/code", "modules/dummy/qa/code/", "../../etc/a/b"]
    prefixes = ["../../clone/", "../../../clone/", "../../elsewhere/", "../../../claim/", "/j/clone/", "/etc/", ""]
    reader = LinkReader(_LAYOUT)
    links = [("production", "site"), ("qa", "modules/dummy"), ("qa", "hieradata/a/b")]
    for environment, link in links * 2:
        for text in [prefix + tail for prefix in prefixes for tail in tails]:
            assert reader.target(environment, link, text) == parse_target(_LAYOUT, environment, link, text), text


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
    link.symlink_to(link_text(layout, "site", target))
    assert not os.path.isabs(os.readlink(link))
    assert (link / "site.pp").read_text() == "node default {}\n"
    assert parse_target(layout, "x", "site", os.readlink(link)) == target
    assert parse_target(layout, "x", "site", f"{layout.clonedir}/common/site/.{A}/code") == target
    assert parse_target(layout, "x", "site", f"{os.path.realpath(layout.clonedir)}/common/site/.{A}/code") == target


def test_the_pair_of_directories_can_be_mounted_elsewhere(tmp_path: Path) -> None:
    layout = layout_in(tmp_path / "here")
    (layout.checkout(SITE, A) / "code").mkdir(parents=True)
    layout.environment("x").mkdir()
    (layout.environment("x") / "site").symlink_to(link_text(layout, "site", Target(SITE, f".{A}", "code")))
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "environments" / "x" / "site").is_dir()
