"""Holds: what they make of an environment, what is in their files, and that a plan takes them first."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest

from jens.environments import hold
from jens.environments.hold import Hold, Holds, Kept, Moment
from jens.environments.model import Previous
from jens.environments.plan import plan_environments
from jens.model import HIERADATA, PLAIN, SITE, Commit, Definition, Directories, IllFormed, Ref, Tag, ref_order
from jens.purgeguard import PurgeGuard
from jens.repositories.plan import held_by_snapshots, plan_needs
from jens.statefile import StateError
from tests.values import DUMMY, MASTER, MYAPP, QA, A, B, dynamic, layout_in, snapshot

HELD = Hold("production", {DUMMY: Kept(MASTER, A), MYAPP: Kept(QA, B), SITE: Kept(MASTER, None)}, "ann", 1000.5)
FULL = HELD._replace(
    reason="dummy broke DNS",
    until=2000.0,
    moving=(MYAPP,),
    then=Moment(4711, 900.0),
    notifications=("ann@example.org",),
    parser="future",
)
GUARD = PurgeGuard(50)


def test_a_held_environment_has_these_commits_and_nothing_else() -> None:
    made = HELD.definition(dynamic("production"))
    assert made.overrides == {DUMMY: Commit(A), MYAPP: Commit(B)}
    assert [made.refs_of(repo, PLAIN, MASTER) for repo in (SITE, HIERADATA)] == [(), ()]  # its links dangled
    assert (made.default, made.notifications) == (None, ("ann@example.org",))
    assert held_by_snapshots([made]) == {DUMMY, MYAPP}
    needs = plan_needs([DUMMY, SITE], ["master"], [made])
    assert needs[DUMMY].overrides == {Commit(A)}
    assert not needs[SITE].implied


@pytest.mark.parametrize(
    ("basis", "refs"),
    [
        (dynamic("production", "qa"), (QA,)),
        (dynamic("production", "qa")._replace(others=(MASTER,)), (QA, MASTER)),
        (dynamic("production", "qa", {MYAPP: "master"}), (MASTER,)),
        (snapshot("production", {MYAPP: f":{A}"}), (Commit(A),)),
        (snapshot("production", {DUMMY: "qa"}), ()),
        (None, (QA,)),
    ],
)
def test_what_keeps_moving_follows_the_definition(basis: Definition | None, refs: tuple[Ref, ...]) -> None:
    made = FULL.definition(basis)
    assert (made.refs_of(MYAPP, PLAIN, MASTER), made.overrides[DUMMY], made.parser) == (refs, Commit(A), "future")
    assert plan_needs([MYAPP], (), [made])[MYAPP].refs == sorted(refs, key=ref_order)


def test_a_file_tells_the_same(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    assert (hold.load_all(layout), hold.names(layout), hold.load(layout, "production")) == (Holds(), [], None)
    for wanted in (FULL, HELD):
        hold.save(layout, wanted)
        assert hold.load(layout, "production") == wanted
    hold.save(layout, FULL._replace(environment="qa", until=1.0))
    (layout.holds / "bad.json").write_text("{}")
    (layout.holds / "no name.json").write_text("{}")
    (layout.holds / "README").write_text("")
    found = hold.load_all(layout)
    assert (found.there, [*found.over], [*found.damaged]) == ({"production": HELD}, ["qa"], ["bad"])
    assert found.next_end == math.inf
    assert found._replace(there={"production": FULL}).next_end == 2000.0
    assert hold.commits([FULL, HELD]) == {DUMMY: {A}, MYAPP: {B}}
    assert hold.end(layout, "production") == HELD
    assert hold.load_all(layout).over.keys() == {"production", "qa"}
    assert hold.end(layout, "bad") is None
    assert hold.names(layout) == ["production", "qa"]


def test_a_hold_that_cannot_be_written_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_in(tmp_path)
    hold.save(layout, FULL)
    monkeypatch.setattr("jens.system.files.write_file", _no_room)
    assert hold.end(layout, "production") == FULL
    assert hold.load_all(layout) == Holds()


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def changed(**values: Any) -> str:
    return json.dumps({"version": hold.VERSION, "content": {**HELD.encode(), **values}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        json.dumps({"version": 99, "content": HELD.encode()}),
        changed(repositories={"modules/..": {"ref": "master", "commit": A}}),
        changed(repositories={"modules/dummy": {"ref": "-x", "commit": A}}),
        changed(repositories={"modules/dummy": {"ref": "master", "commit": "../.."}}),
        changed(repositories=[]),
        changed(until="tomorrow"),
        changed(then={"deployment": "x", "time": "2026-03-03"}),
        changed(parser="../x"),
        changed(**{"except": ["dummy"]}),
    ],
)
def test_nothing_else_is_taken_from_a_file(tmp_path: Path, text: str) -> None:
    layout = layout_in(tmp_path)
    layout.holds.mkdir()
    (layout.holds / "production.json").write_text(text)
    with pytest.raises(StateError):
        hold.load(layout, "production")


def test_later_versions_may_add_to_a_repository(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    layout.holds.mkdir()
    repositories = {"modules/dummy": {"ref": "master", "commit": A, "code": "code", "data": "data", "colour": "red"}}
    (layout.holds / "production.json").write_text(changed(repositories=repositories, more=1))
    found = hold.load(layout, "production")
    assert found is not None
    assert found.repositories == {DUMMY: Kept(MASTER, A)}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Directories()),
        ({"code": ".", "data": None}, Directories(".", None)),
        ({"code": "src/x", "data": "hiera"}, Directories("src/x", "hiera")),
        ({"code": "../x"}, None),
        ({"code": "/etc"}, None),
        ({"data": ""}, None),
        ({"data": 7}, None),
    ],
)
def test_a_hold_has_where_code_and_data_are(
    tmp_path: Path, said: dict[str, object], expected: Directories | None
) -> None:
    layout = layout_in(tmp_path)
    layout.holds.mkdir()
    text = changed(repositories={"modules/dummy": {"ref": "~v1", "commit": A, **said}})
    (layout.holds / "production.json").write_text(text)
    if expected is None:
        with pytest.raises(StateError):
            hold.load(layout, "production")
        return
    found = hold.load(layout, "production")
    assert found is not None
    assert found.repositories == {DUMMY: Kept(Tag("v1"), A, expected)}
    assert found.definition(None).directories_of(DUMMY, PLAIN) == expected


HELD_DEFINITION = HELD.definition(None)


@pytest.mark.parametrize(
    ("declared", "existing"),
    [
        ({"production": dynamic("production", "qa")}, True),
        ({"production": IllFormed("production", "no mapping")}, True),
        ({}, True),
        ({}, False),
        ({"production": dynamic("production")}, False),
    ],
)
def test_a_hold_comes_before_all_else(declared: dict[str, Any], *, existing: bool) -> None:
    previous = Previous(
        {"production": dynamic("production")}, ["production"] if existing else [], {}, {"production": HELD_DEFINITION}
    )
    plan = plan_environments(declared, previous, ["production"], GUARD, most=0)
    assert plan.definitions == (HELD_DEFINITION,)
    assert (plan.new == (HELD_DEFINITION,)) is not existing
    assert (plan.deleted, plan.protected, plan.refusals, plan.excess, plan.not_done) == ((), (), (), "", ())


def test_neither_guard_nor_limit_counts_it() -> None:
    names = [f"e{number:02}" for number in range(22)]
    remembered: dict[str, Definition | None] = {name: dynamic(name) for name in ["production", *names]}
    previous = Previous(remembered, list(remembered), {}, {"production": HELD_DEFINITION})
    # Eleven of 22 are not more than half, and eleven of 21 would be.
    kept = {name: dynamic(name) for name in names[11:]}
    assert len(plan_environments(kept, previous, [], GUARD).deleted) == 11
    plan = plan_environments({"new": dynamic("new"), **kept}, previous, [], GUARD, most=12)
    assert [definition.name for definition in plan.new] == ["new"]


def test_an_environment_with_a_damaged_hold_that_is_gone_is_not_made() -> None:
    previous = Previous({}, [], {}, {}, Holds(damaged={"production": "no hold"}))
    plan = plan_environments({"production": dynamic("production")}, previous, [], GUARD)
    assert (plan.definitions, plan.damaged) == ((), {"production": "no hold"})
