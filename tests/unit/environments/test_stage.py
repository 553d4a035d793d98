"""Which environments there must be, and what each one is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from jens.environments import tree as environments_tree
from jens.environments.model import EnvironmentsPlan, Previous
from jens.environments.plan import plan_environments, refuse_losses
from jens.environments.previous import former_definitions, infer, look, resolved_before
from jens.environments.stage import EnvironmentsStage, bypass
from jens.environments.wanted import Found, Tree, conf
from jens.layout import Layout
from jens.model import (
    HIERADATA,
    MODULES,
    SITE,
    Branch,
    Commit,
    Declared,
    Definition,
    Expansion,
    IllFormed,
    Inventory,
    Prefixes,
    RepoId,
)
from jens.purgeguard import PurgeGuard
from tests.unit.environments.samples import expansion, of_dummy, of_myapp, planner_of
from tests.values import DUMMY, MASTER, MYAPP, QA, STDLIB, A, B, dynamic, snapshot

_GUARD = PurgeGuard(50)


def _previous(*remembered: Definition, lost: tuple[str, ...] = (), inferred: tuple[Definition, ...] = ()) -> Previous:
    """Environments that are all on disk."""
    known = {definition.name: definition for definition in remembered}
    names = {*known, *lost, *(definition.name for definition in inferred)}
    return Previous({**known, **dict.fromkeys(lost)}, names, {definition.name: definition for definition in inferred})


def _plan(
    *declared: Declared, previous: Previous, protected: tuple[str, ...] = (), guard: PurgeGuard = _GUARD
) -> EnvironmentsPlan:
    return plan_environments({definition.name: definition for definition in declared}, previous, protected, guard)


_X = dynamic("x")
_X_CHANGED = dynamic("x", "qa")
_BAD_X = IllFormed("x", "x.yaml: empty")
_INFERRED_X = Definition("x", None, {SITE: MASTER})


# Which environments


@pytest.mark.parametrize(
    ("declared", "previous", "expected"),
    [
        pytest.param([_X], _previous(), EnvironmentsPlan((_X,), (), (), ()), id="new"),
        pytest.param([_X], _previous(_X), EnvironmentsPlan((), (), (_X,), ()), id="unchanged"),
        pytest.param([_X_CHANGED], _previous(_X), EnvironmentsPlan((), (_X_CHANGED,), (), ()), id="changed"),
        pytest.param([], _previous(_X), EnvironmentsPlan((), (), (), ("x",)), id="retired"),
        pytest.param([], _previous(), EnvironmentsPlan((), (), (), ()), id="nothing at all"),
        pytest.param(
            [_X],
            _previous(_X)._replace(existing=()),
            EnvironmentsPlan((_X,), (), (), ()),
            id="removed by hand: new again",
        ),
        pytest.param(
            [_X._replace(source=_X.source + b"# a comment\n")],
            _previous(_X),
            EnvironmentsPlan((), (_X._replace(source=_X.source + b"# a comment\n"),), (), ()),
            id="a changed comment is a change",
        ),
        pytest.param(
            [_BAD_X],
            _previous(),
            EnvironmentsPlan((), (), (), (), ill_formed=(_BAD_X,)),
            id="ill-formed and new: not made",
        ),
        pytest.param(
            [_BAD_X],
            _previous(_X),
            EnvironmentsPlan((), (), (_X,), (), ill_formed=(_BAD_X,)),
            id="ill-formed and known: stays as it was",
        ),
        pytest.param(
            [_BAD_X],
            _previous(_X)._replace(existing=()),
            EnvironmentsPlan((_X,), (), (), (), ill_formed=(_BAD_X,)),
            id="ill-formed, known, removed by hand: made as it was",
        ),
        pytest.param(
            [_BAD_X],
            _previous(inferred=(_INFERRED_X,)),
            EnvironmentsPlan((), (), (_INFERRED_X,), (), ill_formed=(_BAD_X,)),
            id="ill-formed, what it was is lost: stays as its links are",
        ),
        pytest.param(
            [_X],
            _previous(lost=("x",), inferred=(_INFERRED_X,)),
            EnvironmentsPlan((), (_X,), (), ()),
            id="what it was is lost: rebuilt",
        ),
        pytest.param(
            [_X],
            _previous(inferred=(_INFERRED_X,)),
            EnvironmentsPlan((), (_X,), (), ()),
            id="never remembered: rebuilt",
        ),
        pytest.param(
            [], _previous(lost=("x",)), EnvironmentsPlan((), (), (), ("x",)), id="retired, what it was is lost"
        ),
        pytest.param(
            [],
            _previous(inferred=(_INFERRED_X,)),
            EnvironmentsPlan((), (), (), ("x",)),
            id="retired, known by its links",
        ),
        pytest.param(
            [_X],
            Previous({}, ["x", "strange"], {}),
            EnvironmentsPlan((), (_X,), (), ()),
            id="a directory that Jens did not make is left alone until it is declared",
        ),
    ],
)
def test_definitions_are_compared_with_what_is_there(
    declared: list[Declared], previous: Previous, expected: EnvironmentsPlan
) -> None:
    assert _plan(*declared, previous=previous) == expected


@pytest.mark.parametrize(
    ("declared", "existing", "most", "made", "refused"),
    [
        ("abc", "", 3, "abc", ""),
        ("abc", "", 2, "ab", "c"),
        ("abc", "c", 2, "a", "b"),
        ("abc", "abc", 1, "", ""),
        ("abcd", "bc", 1, "", "ad"),
        ("ab", "yz", 1, "a", "b"),
    ],
)
def test_more_environments_than_allowed_are_not_made(
    declared: str, existing: str, most: int, made: str, refused: str
) -> None:
    """Those that are removed leave room for others; those that stay do so even if they are too many."""
    definitions = {name: dynamic(name) for name in declared}
    plan = plan_environments(definitions, _previous(*map(dynamic, existing)), (), _GUARD, most)
    assert "".join(definition.name for definition in plan.new) == made
    assert len(plan.unchanged) == len(set(declared) & set(existing))
    assert (f"{[*refused]}" in plan.excess) == bool(refused)
    assert bool(plan.excess) == bool(refused)


def test_environments_come_sorted() -> None:
    new = [dynamic(name) for name in ("c", "a", "b")]
    plan = _plan(*new, previous=_previous(dynamic("z"), dynamic("y")))
    assert [definition.name for definition in plan.new] == ["a", "b", "c"]
    assert plan.deleted == ("y", "z")


def test_one_ill_formed_definition_leaves_the_others_alone() -> None:
    plan = _plan(
        _BAD_X,
        dynamic("new"),
        dynamic("changed", "qa"),
        dynamic("same"),
        previous=_previous(dynamic("changed"), dynamic("same"), dynamic("old")),
    )
    assert (plan.new, plan.changed, plan.unchanged) == (
        (dynamic("new"),),
        (dynamic("changed", "qa"),),
        (dynamic("same"),),
    )
    assert (plan.deleted, plan.ill_formed) == (("old",), (_BAD_X,))


@pytest.mark.parametrize(
    ("previous", "unchanged"),
    [
        pytest.param(_previous(_X), (_X,), id="as remembered"),
        pytest.param(_previous(inferred=(_INFERRED_X,)), (_INFERRED_X,), id="as inferred"),
        pytest.param(
            _previous(lost=("x",), inferred=(_INFERRED_X,)),
            (_INFERRED_X,),
            id="as inferred, remembered definition damaged",
        ),
    ],
)
def test_a_protected_environment_stays_though_it_is_not_declared(
    previous: Previous, unchanged: tuple[Definition, ...]
) -> None:
    plan = _plan(previous=previous, protected=("x", "never"))
    assert (plan.unchanged, plan.deleted, plan.protected) == (unchanged, (), ("x",))
    assert plan.definitions == unchanged


def test_a_protected_environment_that_is_declared_is_like_any_other() -> None:
    plan = _plan(_X_CHANGED, previous=_previous(_X), protected=("x",))
    assert (plan.changed, plan.protected) == ((_X_CHANGED,), ())


def _many(count: int) -> list[Definition]:
    return [dynamic(f"e{number:03}") for number in range(count)]


@pytest.mark.parametrize(
    ("known", "gone", "guard", "is_refused"),
    [
        pytest.param(10, 10, _GUARD, False, id="all of ten"),
        pytest.param(11, 11, _GUARD, True, id="all of eleven"),
        pytest.param(22, 11, _GUARD, False, id="half"),
        pytest.param(21, 11, _GUARD, True, id="more than half"),
        pytest.param(30, 30, PurgeGuard(100), False, id="switched off"),
        pytest.param(30, 30, PurgeGuard(50, allowed=True), False, id="allowed"),
    ],
)
def test_the_guard_refuses_removals(known: int, gone: int, guard: PurgeGuard, is_refused: bool) -> None:
    before = _many(known)
    plan = _plan(*before[gone:], previous=_previous(*before), guard=guard)
    assert plan.deleted == (() if is_refused else tuple(definition.name for definition in before[:gone]))
    assert plan.unchanged == tuple(before if is_refused else before[gone:])
    assert len(plan.refusals) == is_refused
    assert all(f"{gone} of the environments" in text and "--allow-purge" in text for text in plan.refusals)


def test_the_guard_does_not_count_protected_ones() -> None:
    before = _many(12)
    plan = _plan(previous=_previous(*before), protected=("e000", "e001"))
    assert (len(plan.deleted), plan.protected, plan.refusals) == (10, ("e000", "e001"), ())


def test_the_guard_counts_those_known_by_their_links() -> None:
    before = [Definition(definition.name, None, {SITE: MASTER}) for definition in _many(11)]
    plan = _plan(previous=_previous(inferred=tuple(before)))
    assert (plan.deleted, plan.unchanged, len(plan.refusals)) == ((), tuple(before), 1)


def test_ill_formed_ones_are_no_removals() -> None:
    before = _many(30)
    plan = _plan(*(IllFormed(definition.name, "x") for definition in before), previous=_previous(*before))
    assert (plan.unchanged, plan.deleted, plan.refusals) == (tuple(before), (), ())


def test_the_old_definition_is_needed_until_an_environment_has_changed(layout: Layout) -> None:
    previous = _previous(_X, dynamic("same"), dynamic("old"), inferred=(Definition("lost", None, {SITE: QA}),))
    plan = _plan(_X_CHANGED, dynamic("same"), dynamic("new"), dynamic("lost"), previous=previous)
    former = former_definitions(layout, plan, previous)
    assert _X in former
    assert Definition("lost", None, {SITE: QA}) in former
    assert {definition.name for definition in former} == {"x", "lost"}


def test_what_links_use_is_needed_until_an_environment_has_changed(layout: Layout) -> None:
    _environment(layout, "x", {"modules/dummy": "../../../clone/modules/dummy/half~way/code"})
    previous = _previous(_X)
    used = [
        former.overrides.get(DUMMY)
        for former in former_definitions(layout, _plan(_X_CHANGED, previous=previous), previous)
    ]
    assert Branch("half/way") in used


def test_links_tell_an_abbreviated_commit_that_the_inventory_lost(layout: Layout) -> None:
    _environment(layout, "x", {"modules/dummy": f"../../../clone/modules/dummy/.{A}/code"})
    definition = Definition("x", None, {DUMMY: Commit(A[:4])})
    assert resolved_before(layout, [definition], {DUMMY: {}}) == {DUMMY: {Commit(A[:4]): A}}
    other = "b" if A[0] != "b" else "c"
    assert resolved_before(layout, [Definition("x", None, {DUMMY: Commit(other * 4)})], {DUMMY: {}}) == {DUMMY: {}}
    assert resolved_before(layout, [definition], {DUMMY: {Commit(A[:4]): B}}) == {DUMMY: {Commit(A[:4]): B}}


# What earlier runs left


_SOURCE = b"default: qa\nnotifications: x\n"


def _environment(layout: Layout, name: str, links: Mapping[str, str]) -> None:
    for link, text in links.items():
        path = layout.environment(name) / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text)


_SITE_LINK = {"site": "../../clone/common/site/master/code"}


def test_definitions_are_remembered_as_files(layout: Layout) -> None:
    (layout.definitions / "x").write_bytes(_SOURCE)
    _environment(layout, "x", _SITE_LINK)
    previous = look(layout, {}, Prefixes())
    assert previous == Previous({"x": Definition("x", QA, {}, ("x",), source=_SOURCE)}, ["x"], {})


def test_what_is_declared_as_it_was_remembered_is_the_same_value(layout: Layout) -> None:
    (layout.definitions / "x").write_bytes(_X.source)
    assert look(layout, {"x": _X}, Prefixes()).remembered == {"x": _X}


@pytest.mark.parametrize(
    "content",
    [b"", b"- a\n", b"\xff", b"4f0c2ab1" * 5, b"cposix\nsystem\n(S'id'\ntR."],
    ids=["empty", "a list", "not UTF-8", "a blob id of Jens 1.x", "a pickle"],
)
def test_a_damaged_definition_is_replaced_by_one_from_the_links(layout: Layout, content: bytes) -> None:
    (layout.definitions / "x").write_bytes(content)
    _environment(layout, "x", {**_SITE_LINK, "modules/dummy": "../../../clone/modules/dummy/feature~x/code"})
    previous = look(layout, {"x": _X}, Prefixes())
    assert previous.remembered == {"x": None}
    found = previous.definition("x")
    assert found is not None
    assert found._replace(directories={}) == Definition("x", None, {SITE: MASTER, DUMMY: Branch("feature/x")})


_INFERRED = Definition("x", None, {SITE: MASTER}, directories={SITE: {"code": "code"}})


def test_a_lost_definition_is_replaced_by_one_from_the_links(layout: Layout) -> None:
    _environment(layout, "x", _SITE_LINK)
    previous = look(layout, {}, Prefixes())
    assert previous == Previous({}, ["x"], {"x": _INFERRED})
    assert _plan(previous=previous).deleted == ("x",)


@pytest.mark.parametrize(
    "links",
    [
        pytest.param({}, id="without links"),
        pytest.param({"site": "/srv/elsewhere/code"}, id="with a site from elsewhere"),
        pytest.param({"data": "../../clone/modules/dummy/master/data"}, id="with a link to a checkout of ours"),
    ],
)
def test_a_directory_that_jens_did_not_make_is_left_alone(layout: Layout, links: dict[str, str]) -> None:
    layout.environment("strange").mkdir()
    _environment(layout, "strange", links)
    previous = look(layout, {}, Prefixes())
    assert previous.inferred == {}
    plan = _plan(previous=previous)
    assert (plan.deleted, plan.definitions) == ((), ())


def test_only_directories_with_an_environments_name_exist(layout: Layout) -> None:
    for name in ("x", ".new-1", "a-b"):
        _environment(layout, name, _SITE_LINK)
    layout.environment("link").symlink_to("x")
    layout.environment("file").write_text("x")
    (layout.definitions / ".new-1").write_bytes(_SOURCE)
    assert look(layout, {}, Prefixes()) == Previous({}, ["x"], {"x": _INFERRED})


# What links tell


@pytest.mark.parametrize(
    ("links", "overrides"),
    [
        pytest.param({"modules/dummy": "../../../clone/modules/dummy/master/code"}, {DUMMY: MASTER}, id="a module"),
        pytest.param(
            {"hieradata/module_names/dummy": "../../../../clone/modules/dummy/qa/data"}, {DUMMY: QA}, id="its data"
        ),
        pytest.param(
            {"hostgroups/hg_myapp": "../../../clone/hostgroups/myapp/a~b~c/code"},
            {MYAPP: Branch("a/b/c")},
            id="a branch with slashes",
        ),
        pytest.param({"site": f"../../clone/common/site/.{A}/code"}, {SITE: Commit(A)}, id="a commit"),
        pytest.param({"site": "../../clone/common/site/.4f0c/code"}, {SITE: Commit("4f0c")}, id="a commit unresolved"),
        pytest.param(
            {"hieradata/common.yaml": "../../../clone/common/hieradata/master/data/common.yaml"},
            {HIERADATA: MASTER},
            id="common Hiera data",
        ),
        pytest.param({"modules/dummy": "../../../elsewhere/modules/dummy/master/code"}, {}, id="elsewhere"),
        pytest.param({"modules/dummy": "/etc"}, {}, id="elsewhere, absolute"),
        pytest.param({"modules/dummy": "../../../clone/other/dummy/master/code"}, {}, id="no partition"),
        pytest.param({"modules/dummy": "../../../clone/modules/dummy/.new-1/code"}, {}, id="no ref"),
        pytest.param({"modules/dummy": "../../../clone/modules/dummy"}, {}, id="not into a checkout"),
    ],
)
def test_a_definition_is_inferred_from_links(layout: Layout, links: dict[str, str], overrides: object) -> None:
    found = infer(layout, "x", Found(links))
    assert found._replace(directories={}) == Definition("x", None, overrides)  # type: ignore[arg-type]
    assert found.directories.keys() == found.overrides.keys()


_STDLIB = "clone/modules/stdlib/~v9"


@pytest.mark.parametrize(
    ("repo", "links", "said"),
    [
        (STDLIB, {"modules/stdlib": f"../../../{_STDLIB}"}, {"code": "."}),
        (STDLIB, {"modules/stdlib": f"../../../{_STDLIB}/src/x"}, {"code": "src/x"}),
        (STDLIB, {"hieradata/module_names/stdlib": f"../../../../{_STDLIB}/a/b"}, {"data": "a/b"}),
        (STDLIB, {"hieradata/module_names/stdlib": f"../../../../{_STDLIB}"}, {"data": "."}),
        (
            MYAPP,
            {
                "hieradata/hostgroups/myapp": "../../../../clone/hostgroups/myapp/qa/hiera/hostgroup",
                "hieradata/fqdns/myapp": "../../../../clone/hostgroups/myapp/qa/hiera/fqdns",
            },
            {"data": "hiera"},
        ),
        (MYAPP, {"hieradata/fqdns/myapp": "../../../../clone/hostgroups/myapp/qa/fqdns"}, {"data": "."}),
        (MYAPP, {"hieradata/fqdns/myapp": "../../../../clone/hostgroups/myapp/qa/elsewhere"}, {}),
        (SITE, {"site": "../../clone/common/site/qa"}, {"code": "."}),
        (HIERADATA, {"hieradata/common.yaml": "../../../clone/common/hieradata/qa/common.yaml"}, {"data": "."}),
        (HIERADATA, {"hieradata/common.yaml": "../../../clone/common/hieradata/qa/x/common.yaml"}, {"data": "x"}),
    ],
)
def test_links_tell_where_a_repository_has_code_and_data(
    layout: Layout, repo: RepoId, links: dict[str, str], said: dict[str, str]
) -> None:
    assert infer(layout, "x", Found(links)).directories == {repo: said}


def test_the_parser_is_inferred_from_the_environments_conf(layout: Layout) -> None:
    assert infer(layout, "x", Found(conf=conf("future"))).parser == "future"
    assert infer(layout, "x", Found(conf=conf(None))).parser is None
    assert infer(layout, "x", Found(conf=b"parser = future\n")).parser is None


def test_what_was_built_can_be_inferred(layout: Layout) -> None:
    definition = snapshot("x", {DUMMY: "feature/x", MYAPP: f":{A}", SITE: "qa"})
    environments_tree.create(layout.environment("x"), planner_of(layout).tree(definition))
    inferred = infer(layout, "x", environments_tree.read(layout.environment("x")))
    assert inferred.overrides == {**definition.overrides, HIERADATA: MASTER}


_MODULES = [RepoId(MODULES, f"m{number:02}") for number in range(14)]
_ALL_AT_MASTER: Inventory = {**{repo: {MASTER: A} for repo in _MODULES}, SITE: {MASTER: A, QA: A}}
_ONE_AT_QA: Inventory = {**_ALL_AT_MASTER, _MODULES[0]: {MASTER: A, QA: B}}
_AT_QA = frozenset((repo, QA) for repo in _MODULES)


@pytest.mark.parametrize(
    ("before", "after", "expansion", "guard", "lost"),
    [
        pytest.param(dynamic("x"), snapshot("x", {_MODULES[0]: "master"}), Expansion(_ALL_AT_MASTER), _GUARD, 13),
        pytest.param(dynamic("x"), dynamic("x", "qa"), Expansion(_ALL_AT_MASTER, _AT_QA), _GUARD, 14),
        pytest.param(dynamic("x"), dynamic("x", "qa"), Expansion(_ONE_AT_QA), _GUARD, 13),
        pytest.param(dynamic("x"), dynamic("x", "qa"), Expansion(_ONE_AT_QA), PurgeGuard(95), 0, id="within limit"),
        pytest.param(
            dynamic("x"), dynamic("x", "qa"), Expansion(_ONE_AT_QA), PurgeGuard(50, allowed=True), 0, id="allowed"
        ),
        pytest.param(
            dynamic("x"), dynamic("x", "qa"), Expansion(_ALL_AT_MASTER, undetermined=_AT_QA), _GUARD, 0, id="unknown"
        ),
        pytest.param(dynamic("x", "qa"), dynamic("x"), Expansion(_ALL_AT_MASTER, _AT_QA), _GUARD, 0, id="a cure"),
        pytest.param(
            dynamic("x"), snapshot("x", dict.fromkeys(_MODULES[:9], "master")), Expansion(_ALL_AT_MASTER), _GUARD, 0
        ),
        pytest.param(None, dynamic("x", "qa"), Expansion(_ALL_AT_MASTER, _AT_QA), _GUARD, 0, id="nothing to compare"),
    ],
)
def test_a_change_that_takes_too_much_away_is_refused(
    before: Definition | None, after: Definition, expansion: Expansion, guard: PurgeGuard, lost: int
) -> None:
    previous = _previous(before) if before is not None else _previous(lost=("x",))
    plan = refuse_losses(_plan(after, previous=previous), previous, expansion, guard)
    assert [text.split(" of ")[0] for text in plan.refused_changes.values()] == [f"Refusing to take {lost}"] * bool(
        lost
    )
    assert (plan.changed, plan.unchanged) == (((), (before,)) if lost else ((after,), ()))


# Doing it


def _apply(layout: Layout, *declared: Declared, reached: Expansion | None = None) -> tuple[str, ...]:
    previous = look(layout, {definition.name: definition for definition in declared}, Prefixes())
    plan = _plan(*declared, previous=previous)
    return EnvironmentsStage(layout, previous, reached or expansion(), with_conf=False).apply(plan).failures


def test_one_environment_that_fails_leaves_the_others_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    create = environments_tree.create

    def fail(path: Path, tree: Tree) -> None:
        if path.name == "b":
            raise OSError(28, "No space left on device")
        create(path, tree)

    monkeypatch.setattr(environments_tree, "create", fail)
    (failure,) = _apply(layout, dynamic("a"), dynamic("b"), dynamic("c"))
    assert "'b'" in failure
    assert "No space left" in failure
    assert sorted(os.listdir(layout.environmentsdir)) == ["a", "c"]
    assert sorted(os.listdir(layout.definitions)) == ["a", "c"]


def test_an_ill_formed_definition_is_a_failure_that_names_environment_and_file(layout: Layout) -> None:
    assert _apply(layout, _BAD_X) == ("Environment 'x' is ill-formed: x.yaml: empty",)


def test_an_environment_that_waits_is_not_remembered_as_built(layout: Layout) -> None:
    _apply(layout, _X)
    assert (layout.definitions / "x").read_bytes() == _X.source
    changed = dynamic("x", overrides={DUMMY: "dev"})
    assert _apply(layout, changed, reached=expansion((DUMMY, Branch("dev")))) == ()
    assert (layout.definitions / "x").read_bytes() == _X.source
    assert environments_tree.read(layout.environment("x")).links["modules/dummy"] == of_dummy("master")["modules/dummy"]
    assert _apply(layout, changed) == ()
    assert (layout.definitions / "x").read_bytes() == changed.source
    assert environments_tree.read(layout.environment("x")).links["modules/dummy"] == of_dummy("dev")["modules/dummy"]


def test_a_retired_environment_goes_and_is_forgotten(layout: Layout) -> None:
    _apply(layout, _X, dynamic("y"))
    assert _apply(layout, dynamic("y")) == ()
    assert os.listdir(layout.environmentsdir) == ["y"]
    assert os.listdir(layout.definitions) == ["y"]


def test_links_lead_around_a_directory_that_is_about_to_be_replaced(layout: Layout) -> None:
    _apply(layout, _X)
    assert bypass(layout, ["x"], {(DUMMY, "master"): B, (MYAPP, "qa"): B}) == []
    links = environments_tree.read(layout.environment("x")).links
    assert {link: links[link] for link in of_dummy("")} == of_dummy(f".{B}")
    assert {link: links[link] for link in of_myapp("")} == of_myapp("master")
