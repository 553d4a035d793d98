"""Which links an environment should have, and what that changes."""

from __future__ import annotations

import pytest

from jens.environments.wanted import Changes, Found, Planner, Tree, conf, keep_waiting, plan_changes
from jens.layout import Layout
from jens.model import (
    HIERADATA,
    HOSTGROUPS,
    MODULES,
    SITE,
    Branch,
    Definition,
    Directories,
    Expansion,
    RepoId,
    Usage,
)
from tests.unit.environments.samples import INVENTORY, of_dummy, of_myapp, planner_of
from tests.values import DUMMY, MASTER, MYAPP, QA, A, C, dynamic, snapshot


def _common(site: str = "master", hieradata: str = "master") -> dict[str, str]:
    return {
        "site": f"../../clone/common/site/{site}/code",
        "hieradata/common.yaml": f"../../../clone/common/hieradata/{hieradata}/data/common.yaml",
    }


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param(
            dynamic("x"),
            {**of_dummy("master"), **of_myapp("master"), **_common()},
            id="a dynamic environment holds every repository",
        ),
        pytest.param(
            dynamic("x", "qa"),
            {**of_dummy("qa"), **of_myapp("qa"), **_common("qa", "qa")},
            id="a dynamic environment links to its default, there or not",
        ),
        pytest.param(
            dynamic("x", overrides={DUMMY: "feature/x", SITE: ":cccc"}),
            {**of_dummy("feature~x"), **of_myapp("master"), **_common(".cccc")},
            id="overrides",
        ),
        pytest.param(
            dynamic("x", overrides={DUMMY: ":cccc"}),
            {**of_dummy(f".{C}"), **of_myapp("master"), **_common()},
            id="on disk a commit is full",
        ),
        pytest.param(snapshot("x"), _common(), id="a snapshot of nothing has site and Hiera data from master"),
        pytest.param(
            snapshot("x", {MYAPP: f":{A}"}), {**of_myapp(f".{A}"), **_common()}, id="a snapshot holds what it overrides"
        ),
        pytest.param(snapshot("x", {SITE: "qa", HIERADATA: "dev"}), _common("qa", "dev"), id="a snapshot's own common"),
        pytest.param(
            snapshot("x", {RepoId(MODULES, "unknown"): "master", RepoId(HOSTGROUPS, "dummy"): "qa"}),
            _common(),
            id="overrides of what the inventory does not have make nothing",
        ),
        pytest.param(
            snapshot("x", {RepoId(MODULES, "../../x"): "master"}),
            _common(),
            id="overrides with hostile names make nothing",
        ),
    ],
)
def test_the_links_of_an_environment(layout: Layout, definition: Definition, expected: dict[str, str]) -> None:
    assert planner_of(layout).tree(definition) == Tree(expected)


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        (Directories(), {**of_dummy("master")}),
        (Directories(".", None), {"modules/dummy": "../../../clone/modules/dummy/master"}),
        (
            Directories("puppet/src", "."),
            {
                "modules/dummy": "../../../clone/modules/dummy/master/puppet/src",
                "hieradata/module_names/dummy": "../../../../clone/modules/dummy/master",
            },
        ),
    ],
)
def test_the_links_to_a_module_lead_where_the_library_says(
    layout: Layout, directories: Directories, expected: dict[str, str]
) -> None:
    expansion = Expansion(INVENTORY, usages={DUMMY: Usage(directories)})
    links = Planner(layout, expansion, with_conf=False).tree(dynamic("x")).links
    assert links == {**of_myapp("master"), **_common(), **expected}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("hiera", {"hostgroups": "/hiera/hostgroup", "fqdns": "/hiera/fqdns"}),
        (".", {"hostgroups": "/hostgroup", "fqdns": "/fqdns"}),
        (None, {}),
    ],
)
def test_the_data_of_a_hostgroup_are_where_the_library_says(
    layout: Layout, data: str | None, expected: dict[str, str]
) -> None:
    expansion = Expansion(INVENTORY, usages={MYAPP: Usage(Directories(".", data))})
    links = Planner(layout, expansion, with_conf=False).tree(snapshot("x", {MYAPP: "qa"})).links
    assert {link: text for link, text in links.items() if "myapp" in text} == {
        "hostgroups/hg_myapp": "../../../clone/hostgroups/myapp/qa",
        **{
            f"hieradata/{name}/myapp": f"../../../../clone/hostgroups/myapp/qa{below}"
            for name, below in expected.items()
        },
    }


def test_site_and_hiera_data_are_where_the_library_says(layout: Layout) -> None:
    usages = {SITE: Usage(Directories(".", None)), HIERADATA: Usage(Directories("code", "."))}
    found = Planner(layout, Expansion(INVENTORY, usages=usages), with_conf=False).tree(snapshot("x"))
    assert found.links == {
        "site": "../../clone/common/site/master",
        "hieradata/common.yaml": "../../../clone/common/hieradata/master/common.yaml",
    }


def test_an_override_with_directories_of_its_own_changes_no_other_environment(layout: Layout) -> None:
    planner = Planner(layout, Expansion(INVENTORY, usages={DUMMY: Usage(Directories(".", None))}), with_conf=False)
    mine = snapshot("x", {DUMMY: "master"})._replace(directories={DUMMY: {"code": "src", "data": "data"}})
    assert planner.tree(mine).links["modules/dummy"].endswith("/dummy/master/src")
    assert "modules/dummy" in planner.tree(dynamic("y")).links
    assert planner.tree(dynamic("y")).links["modules/dummy"].endswith("/dummy/master")


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param(snapshot("x"), _common("qa"), id="the branch that every repository has"),
        pytest.param(snapshot("x", {SITE: "master"}), _common(), id="an override means what it says"),
        pytest.param(
            dynamic("x", overrides={DUMMY: ":cccc", MYAPP: f":{A}"}),
            {**of_dummy(f".{C}"), **of_myapp(f".{A}"), **_common()},
            id="a default, too",
        ),
    ],
)
def test_a_snapshot_of_a_site_without_master(layout: Layout, definition: Definition, expected: dict[str, str]) -> None:
    without_master = Expansion(INVENTORY, frozenset({(SITE, MASTER)}), common=QA)
    assert Planner(layout, without_master, with_conf=False).tree(definition) == Tree(expected)


@pytest.mark.parametrize(
    ("parser", "expected"),
    [
        (None, "modulepath = modules:hostgroups\nmanifest = site/site.pp\n"),
        ("future", "modulepath = modules:hostgroups\nmanifest = site/site.pp\nparser = future\n"),
        ("current", "modulepath = modules:hostgroups\nmanifest = site/site.pp\nparser = current\n"),
    ],
)
def test_the_environments_conf_names_the_parser_when_the_definition_does(
    layout: Layout, parser: str | None, expected: str
) -> None:
    definition = dynamic("x")._replace(parser=parser)
    assert planner_of(layout, with_conf=True).tree(definition).conf == expected.encode()
    assert planner_of(layout).tree(definition).conf is None


# What has to wait


def test_links_to_undetermined_refs_wait(layout: Layout) -> None:
    planner = planner_of(layout, undetermined=((DUMMY, QA), (MYAPP, Branch("dev"))))
    assert set(planner.waiting(dynamic("x", "qa"))) == set(of_dummy(""))
    assert set(planner.waiting(dynamic("x", overrides={MYAPP: "dev"}))) == set(of_myapp(""))
    assert planner.waiting(dynamic("x")) == {}
    assert planner.waiting(snapshot("x")) == {}


def test_a_repository_outside_the_inventory_has_no_links_that_wait(layout: Layout) -> None:
    planner = planner_of(layout, undetermined=((RepoId(MODULES, "new"), MASTER),))
    assert planner.waiting(dynamic("x")) == {}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({"a": "old", "b": "old"}, {"a": "old", "b": "new"}, id="a link that waits stays"),
        pytest.param({"b": "old"}, {"a": "new", "b": "new"}, id="one that is not there yet is made"),
        pytest.param({"a": "new"}, {"a": "new", "b": "new"}, id="one that is right already"),
    ],
)
def test_a_link_that_waits_keeps_its_old_text(found: dict[str, str], expected: dict[str, str]) -> None:
    assert keep_waiting(Tree({"a": "new", "b": "new"}, b"x"), Found(found), ["a"]) == Tree(expected, b"x")


# What changes


_CONF = conf(None)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        pytest.param(Tree({"a": "1"}), Found({"a": "1"}), Changes((), {}, None, ()), id="nothing"),
        pytest.param(Tree({"a": "1", "b": "2"}), Found({"a": "1"}), Changes((), {"b": "2"}, None, ()), id="a new link"),
        pytest.param(Tree({"a": "2"}), Found({"a": "1"}), Changes((), {"a": "2"}, None, ()), id="a bent link"),
        pytest.param(Tree({}), Found({"a": "1"}), Changes((), {}, None, ("a",)), id="a link too many"),
        pytest.param(Tree({}), Found(litter=(".new-1",)), Changes((), {}, None, (".new-1",)), id="litter"),
        pytest.param(Tree({}), Found(missing=("a", "a/b")), Changes(("a", "a/b"), {}, None, ()), id="a directory"),
        pytest.param(Tree({}, _CONF), Found(), Changes((), {}, _CONF, ()), id="a conf"),
        pytest.param(Tree({}, _CONF), Found(conf=_CONF), Changes((), {}, None, ()), id="the same conf"),
        pytest.param(Tree({}, _CONF), Found(conf=b"x"), Changes((), {}, _CONF, ()), id="another conf"),
        pytest.param(
            Tree({}), Found(conf=_CONF), Changes((), {}, None, ("environment.conf",)), id="a conf of ours too many"
        ),
        pytest.param(
            Tree({}),
            Found(conf=conf("future")),
            Changes((), {}, None, ("environment.conf",)),
            id="a conf of ours with a parser",
        ),
        pytest.param(Tree({}), Found(conf=b"mine"), Changes((), {}, None, ()), id="a conf of somebody else stays"),
    ],
)
def test_what_should_be_is_compared_with_what_is_there(wanted: Tree, found: Found, expected: Changes) -> None:
    assert plan_changes(wanted, found) == expected
