"""Which links an environment should have, and what that changes."""

from __future__ import annotations

import pytest

from jens.environments.wanted import (
    Changes,
    Found,
    Planner,
    Tree,
    conf,
    keep_waiting,
    parser_of,
    plan_changes,
    without_version,
)
from jens.layout import Layout
from jens.links import Target
from jens.model import (
    HIERADATA,
    HOSTGROUPS,
    MODULES,
    SITE,
    Branch,
    Commit,
    Definition,
    Directories,
    Expansion,
    Ref,
    RepoId,
    Usage,
)
from tests.unit.environments.samples import INVENTORY, of_dummy, of_myapp, planner_of
from tests.values import DUMMY, MASTER, MYAPP, QA, A, B, C, dynamic, snapshot


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


_LINES = ("environment_timeout = 0", "config_version = /bin/true")


@pytest.mark.parametrize(
    ("parser", "version", "expected"),
    [
        (None, "", "environment_timeout = 0\nconfig_version = /bin/true\n"),
        ("future", "", "parser = future\nenvironment_timeout = 0\nconfig_version = /bin/true\n"),
        # What tells the version takes the place of what is configured for all.
        (None, "x_3", "environment_timeout = 0\nconfig_version = /bin/echo x_3\n"),
    ],
)
def test_configured_lines_are_added_to_environment_conf(
    layout: Layout, parser: str | None, version: str, expected: str
) -> None:
    planner = Planner(layout, Expansion(INVENTORY), with_conf=True, versions=bool(version), conf_lines=_LINES)
    content = planner.tree(dynamic("x")._replace(parser=parser), version).conf
    assert content == conf(None) + expected.encode()
    assert parser_of(content) == parser


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"modulepath = x\nconfig_version = /bin/echo x_1\n", b"modulepath = x\n"),
        (b"config_version = /bin/true\n", b"config_version = /bin/true\n"),
        (b"config_version = /bin/echo x\n", b"config_version = /bin/echo x\n"),
        (b"", b""),
    ],
)
def test_only_the_line_that_tells_a_version_is_left_out(content: bytes, expected: bytes) -> None:
    assert without_version(content) == expected


# The hierarchy that comes with an environment


_HIERA = "hiera.yaml"


def _has(layout: Layout, repo: RepoId, entry: str, what: str = "file") -> None:
    """Let an entry of a repository have a hiera.yaml: a file, a directory, or a link to somewhere."""
    path = layout.clone(repo) / entry / _HIERA
    path.parent.mkdir(parents=True)
    if what == "file":
        path.write_text("version: 5\n")
    elif what == "directory":
        path.mkdir()
    else:
        (path.parent / "real.yaml").write_text("version: 5\n")
        path.symlink_to(what)


def _hiera(layout: Layout, definition: Definition, expansion: Expansion, *, versions: bool = False) -> str | None:
    return Planner(layout, expansion, with_conf=False, versions=versions).tree(definition).links.get(_HIERA)


@pytest.mark.parametrize("source", [SITE, HIERADATA], ids=str)
@pytest.mark.parametrize(
    ("definition", "there", "versions", "expected"),
    [
        pytest.param(dynamic("x"), "master", False, "../../clone/{}/master/hiera.yaml", id="of its branch"),
        pytest.param(dynamic("x"), "qa", False, None, id="only another branch has it"),
        pytest.param(dynamic("x", "qa"), "qa", False, "../../clone/{}/qa/hiera.yaml", id="of another default"),
        pytest.param(snapshot("x"), "master", False, "../../clone/{}/master/hiera.yaml", id="of a snapshot"),
        pytest.param(
            dynamic("x", overrides={SITE: ":cccc", HIERADATA: ":cccc"}),
            f".{C}",
            False,
            f"../../clone/{{}}/.{C}/hiera.yaml",
            id="of a commit",
        ),
        pytest.param(dynamic("x"), f".{A}", True, f"../../../clone/{{}}/.{A}/hiera.yaml", id="of a version"),
        pytest.param(dynamic("x", "qa"), f".{A}", True, None, id="a version of a commit without"),
        pytest.param(dynamic("x", "gone"), "master", False, "../../clone/{}/gone/hiera.yaml", id="dangles with all"),
    ],
)
def test_an_environment_has_the_hierarchy_of_its_refs(
    layout: Layout, source: RepoId, definition: Definition, there: str, versions: bool, expected: str | None
) -> None:
    refs: dict[Ref, str] = {MASTER: A, QA: B, Commit("cccc"): C}
    expansion = Expansion({DUMMY: refs, SITE: refs, HIERADATA: refs})
    for repo in (SITE, HIERADATA):
        _has(layout, repo, there)
    layout = layout._replace(environment_hiera=source)
    assert _hiera(layout, definition, expansion, versions=versions) == (expected and expected.format(source))
    assert _hiera(layout._replace(environment_hiera=None), definition, expansion, versions=versions) is None


@pytest.mark.parametrize(
    ("what", "is_linked", "is_refused"),
    [
        ("file", True, False),
        ("real.yaml", True, False),
        ("directory", False, False),
        ("nowhere.yaml", False, False),
        ("../../../../etc/hiera.yaml", False, True),
        ("/etc/puppetlabs/puppet/hiera.yaml", False, True),
    ],
)
def test_only_a_file_of_the_repository_is_a_hierarchy(
    layout: Layout, what: str, is_linked: bool, is_refused: bool
) -> None:
    layout = layout._replace(environment_hiera=SITE)
    _has(layout, SITE, "master", what)
    planner = planner_of(layout)
    links = planner.tree(dynamic("x")).links
    assert (_HIERA in links) is is_linked
    expected = {_HIERA: Target(SITE, "master", _HIERA)} if is_refused else {}
    assert planner.refused(dynamic("x"), Found(), "x") == expected
    assert "site" in links


def test_a_hierarchy_waits_like_all_other_links(layout: Layout) -> None:
    layout = layout._replace(environment_hiera=SITE)
    _has(layout, SITE, "master")
    planner = planner_of(layout, undetermined=((SITE, QA),))
    definition = dynamic("x", overrides={SITE: "qa"})
    assert set(planner.waiting(definition)) == {"site", _HIERA}
    wanted = planner.tree(definition)
    assert _HIERA not in wanted.links  # nobody knows whether there is one
    found = Found({_HIERA: "old", "site": "old"})
    assert keep_waiting(wanted, found, planner.waiting(definition)).links[_HIERA] == "old"
    assert _HIERA not in keep_waiting(wanted, Found({"site": "old"}), planner.waiting(definition)).links


def test_a_dry_run_knows_it_from_elsewhere(layout: Layout) -> None:
    layout = layout._replace(environment_hiera=SITE)
    _has(layout, SITE, "qa")
    for has in (True, False):
        planner = Planner(layout, Expansion({SITE: {MASTER: A, QA: B}}), with_conf=False, has_hiera={MASTER: has})
        assert (_HIERA in planner.tree(dynamic("x")).links) is has
        assert _HIERA in planner.tree(dynamic("x", "qa")).links


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
    assert keep_waiting(Tree({"a": "new", "b": "new"}, b"x"), Found(found), {"a": DUMMY}) == Tree(expected, b"x")


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
        pytest.param(
            Tree({}, None, _LINES),
            Found(conf=conf("future", more=_LINES)),
            Changes((), {}, None, ("environment.conf",)),
            id="a conf of ours with configured lines",
        ),
        pytest.param(
            Tree({}),
            Found(conf=conf(None, more=_LINES)),
            Changes((), {}, None, ()),
            id="a conf with other lines may be somebody else's",
        ),
        pytest.param(
            Tree({"hiera.yaml": "1"}),
            Found(strange=("hiera.yaml",)),
            Changes((), {"hiera.yaml": "1"}, None, ()),
            id="a link in the place of somebody else's file",
        ),
        pytest.param(
            Tree({}), Found(strange=("hiera.yaml",)), Changes((), {}, None, ()), id="a file of somebody else stays"
        ),
    ],
)
def test_what_should_be_is_compared_with_what_is_there(wanted: Tree, found: Found, expected: Changes) -> None:
    assert plan_changes(wanted, found) == expected
