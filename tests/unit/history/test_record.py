"""What is recorded, as a table: what the history believes, what is visible, and the rows that tell the difference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from jens.history.model import (
    CHANGED,
    CREATED,
    DELETED,
    HELD,
    RELEASED,
    Believed,
    Change,
    EnvironmentBelieved,
    EnvironmentChange,
    EnvironmentSeen,
    FaultRows,
    Holding,
    Link,
    RepositorySeen,
    Rows,
    Visible,
    conf_number,
    name_of_ref,
    pinned_commit,
    ref_of_name,
)
from jens.history.record import MOST_ADDRESSES, hint_for, plan, plan_faults
from jens.model import Branch, Commit, Fault, OpenFault

A, B, C = "a" * 40, "b" * 40, "c" * 40
DUMMY, SSSD = "modules/dummy", "modules/sssd"

#: When a link was made, when an entry of a repository was last made or removed, and the same for an environment.
LINKED, REMOVED, BUILT, GONE = 10.0, 11.0, 12.0, 13.0
#: When a hold was last made or removed, and the number of a held environment.
HELD_AT, HELD_CONF = 14.0, conf_number(0, 1000.5)


def _repository(links: Mapping[str, str]) -> RepositorySeen:
    return RepositorySeen(1, {ref: Link(commit, LINKED) for ref, commit in links.items()}, REMOVED)


def _environment(holds: Mapping[str, str], conf: int = 0) -> EnvironmentSeen:
    return EnvironmentSeen(1, conf, holds, BUILT)


#: The history knows production, which holds dummy, and test, which holds dummy at a branch of its own.
KNOWN = Believed(
    {DUMMY: {"master": A, "test": B}},
    {
        "production": EnvironmentBelieved(0, {DUMMY: "master"}),
        "test": EnvironmentBelieved(0, {DUMMY: "test"}),
    },
)
_PIN = f".{A}"


@pytest.mark.parametrize(
    ("believed", "visible", "rows"),
    [
        pytest.param(KNOWN, Visible(), Rows(), id="nothing looks as if it had changed"),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": A, "test": B})}, {"production": _environment({DUMMY: "master"})}),
            Rows(),
            id="something was mended",
        ),
        pytest.param(
            Believed(),
            Visible({DUMMY: _repository({"master": A})}, {"production": _environment({DUMMY: "master"})}),
            Rows(
                [Change(DUMMY, "master", None, A, LINKED)],
                [EnvironmentChange("production", CREATED, BUILT)],
                [Holding("production", DUMMY, "master")],
            ),
            id="the first run",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": C, "test": B})}),
            Rows([Change(DUMMY, "master", A, C, LINKED)]),
            id="a push, two pushes in one run, a force push or a rollback",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": A})}),
            Rows([Change(DUMMY, "test", B, None, REMOVED)]),
            id="a branch is gone, and its environment dangles",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": A, "test": B, "new": C})}, {"new": _environment({DUMMY: "new"})}),
            Rows(
                [Change(DUMMY, "new", None, C, LINKED)],
                [EnvironmentChange("new", CREATED, BUILT)],
                [Holding("new", DUMMY, "new")],
            ),
            id="a new environment with a branch of its own",
        ),
        pytest.param(
            KNOWN,
            Visible(environments={"test": _environment({DUMMY: "master"})}),
            Rows(
                [],
                [EnvironmentChange("test", CHANGED, BUILT)],
                [Holding("test", DUMMY, "master")],
                [Holding("test", DUMMY, "test")],
            ),
            id="an environment moves to another ref",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": A})}, {"test": _environment({DUMMY: "master"})}),
            Rows(
                [Change(DUMMY, "test", B, None, REMOVED)],
                [EnvironmentChange("test", CHANGED, BUILT)],
                [Holding("test", DUMMY, "master")],
                [Holding("test", DUMMY, "test")],
            ),
            id="an environment leaves a branch, which goes",
        ),
        pytest.param(
            KNOWN,
            Visible(environments={"production": _environment({DUMMY: "master"}, conf=1)}),
            Rows([], [EnvironmentChange("production", CHANGED, BUILT)]),
            id="another parser",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": A})}, gone_environments={"test": GONE}),
            Rows(
                [Change(DUMMY, "test", B, None, REMOVED)],
                [EnvironmentChange("test", DELETED, GONE)],
                [],
                [Holding("test", DUMMY, "test")],
            ),
            id="an environment is deleted",
        ),
        pytest.param(Believed(), Visible(gone_environments={"x": GONE}), Rows(), id="one goes that nobody knew"),
        pytest.param(
            KNOWN,
            Visible(
                {SSSD: _repository({"master": C})},
                {"production": _environment({DUMMY: "master", SSSD: "master"})},
            ),
            Rows([Change(SSSD, "master", None, C, LINKED)], [], [Holding("production", SSSD, "master")]),
            id="a new repository is no change of the environments that follow branches",
        ),
        pytest.param(
            KNOWN,
            Visible(gone_repositories={DUMMY: GONE}, environments={"production": _environment({})}),
            Rows(
                [Change(DUMMY, "master", A, None, GONE), Change(DUMMY, "test", B, None, GONE)],
                [],
                [],
                [Holding("production", DUMMY, "master")],
            ),
            id="a repository is gone",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(0, {})}),
            Visible({DUMMY: _repository({"master": A})}, {"production": _environment({DUMMY: "master"})}),
            Rows([Change(DUMMY, "master", None, A, LINKED)], [], [Holding("production", DUMMY, "master")]),
            id="and back",
        ),
        pytest.param(
            KNOWN,
            Visible(environments={"production": _environment({})}),
            Rows([], [EnvironmentChange("production", CHANGED, BUILT)], [], [Holding("production", DUMMY, "master")]),
            id="an environment that no longer holds what is there",
        ),
        pytest.param(
            KNOWN,
            Visible(environments={"snapshot": _environment({DUMMY: _PIN})}),
            Rows([], [EnvironmentChange("snapshot", CREATED, BUILT)], [Holding("snapshot", DUMMY, _PIN)]),
            id="a pin is a ref of its own",
        ),
        pytest.param(
            Believed({}, {"snapshot": EnvironmentBelieved(0, {DUMMY: f"?{A}"})}),
            Visible(environments={"snapshot": _environment({DUMMY: _PIN})}),
            Rows([], [], [Holding("snapshot", DUMMY, _PIN)], [Holding("snapshot", DUMMY, f"?{A}")]),
            id="the files of a pinned commit come",
        ),
        pytest.param(
            Believed({}, {"snapshot": EnvironmentBelieved(0, {DUMMY: f"?{A}"})}),
            Visible(environments={"snapshot": _environment({DUMMY: f".{B}"})}),
            Rows(
                [],
                [EnvironmentChange("snapshot", CHANGED, BUILT)],
                [Holding("snapshot", DUMMY, f".{B}")],
                [Holding("snapshot", DUMMY, f"?{A}")],
            ),
            id="another commit is pinned",
        ),
        pytest.param(
            KNOWN,
            Visible({DUMMY: _repository({"master": C, "test": C})}, {"production": _environment({DUMMY: "test"})}),
            Rows(
                [Change(DUMMY, "master", A, C, LINKED), Change(DUMMY, "test", B, C, LINKED)],
                [EnvironmentChange("production", CHANGED, BUILT)],
                [Holding("production", DUMMY, "test")],
                [Holding("production", DUMMY, "master")],
            ),
            id="a run was killed, and the next has more to do: everything once",
        ),
        pytest.param(
            KNOWN,
            Visible(environments={"production": _environment({DUMMY: _PIN}, HELD_CONF)}, holds_changed=HELD_AT),
            Rows(
                [],
                [EnvironmentChange("production", HELD, HELD_AT)],
                [Holding("production", DUMMY, _PIN)],
                [Holding("production", DUMMY, "master")],
            ),
            id="an environment is held",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(HELD_CONF, {DUMMY: _PIN})}),
            Visible(environments={"production": _environment({DUMMY: _PIN}, HELD_CONF)}, holds_changed=HELD_AT),
            Rows(),
            id="it is still held",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(HELD_CONF, {DUMMY: _PIN})}),
            Visible(
                environments={"production": _environment({DUMMY: _PIN}, conf_number(0, 1000.6))}, holds_changed=HELD_AT
            ),
            Rows([], [EnvironmentChange("production", HELD, HELD_AT)]),
            id="another hold takes its place",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(HELD_CONF, {DUMMY: _PIN})}),
            Visible(
                environments={"production": _environment({DUMMY: _PIN}, conf_number(0, 0.0))}, holds_changed=HELD_AT
            ),
            Rows(),
            id="its hold is damaged",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(HELD_CONF, {DUMMY: _PIN})}),
            Visible(environments={"production": _environment({DUMMY: _PIN}, conf_number(7, 1000.5))}),
            Rows([], [EnvironmentChange("production", CHANGED, BUILT)]),
            id="the configuration changes while it is held",
        ),
        pytest.param(
            Believed({}, {"production": EnvironmentBelieved(HELD_CONF, {DUMMY: _PIN})}),
            Visible(environments={"production": _environment({DUMMY: _PIN})}, holds_changed=HELD_AT),
            Rows([], [EnvironmentChange("production", RELEASED, HELD_AT)]),
            id="a snapshot is released, and has the same commits",
        ),
    ],
)
def test_what_differs_is_recorded(believed: Believed, visible: Visible, rows: Rows) -> None:
    found = plan(believed, visible)
    assert _parts(found) == _parts(rows)
    assert bool(found) == any(_parts(rows))
    assert not plan(_after(believed, found, visible), visible)


def _parts(rows: Rows | FaultRows) -> list[list[object]]:
    return [[*part] for part in rows]


def _after(believed: Believed, rows: Rows, visible: Visible) -> Believed:
    """What the history believes after it was told."""
    links = {repository: dict(refs) for repository, refs in believed.links.items()}
    for change in rows.changes:
        if change.now is None:
            del links[change.repository][change.ref]
        else:
            links.setdefault(change.repository, {})[change.ref] = change.now
    holds = {name: dict(known.holds) for name, known in believed.environments.items()}
    confs = {name: known.conf for name, known in believed.environments.items()}
    confs.update((name, seen.conf) for name, seen in visible.environments.items())
    for held in rows.closed:
        del holds[held.environment][held.repository]
    for held in rows.opened:
        holds.setdefault(held.environment, {})[held.repository] = held.ref
    there = {name for name in confs if name not in visible.gone_environments}
    return Believed(links, {name: EnvironmentBelieved(confs[name], holds.get(name, {})) for name in there})


def test_rows_have_the_time_of_the_last_one() -> None:
    rows = plan(
        Believed(), Visible({DUMMY: _repository({"master": A})}, {"production": _environment({DUMMY: "master"})})
    )
    assert rows.time == BUILT
    assert Rows().time is None


@pytest.mark.parametrize(
    ("ref", "name", "commit"),
    [
        (Branch("feature/x"), "feature/x", None),
        (Branch("deadbeef"), "deadbeef", None),
        (Commit(A), f".{A}", A),
    ],
)
def test_a_ref_has_a_name(ref: Branch | Commit, name: str, commit: str | None) -> None:
    assert name_of_ref(ref) == name
    assert ref_of_name(name) == ref
    assert pinned_commit(name) == commit


def test_a_pin_without_files_has_a_name_of_its_own() -> None:
    name = name_of_ref(Commit("abcd"), is_there=False)
    assert (ref_of_name(name), pinned_commit(name)) == (Commit("abcd"), None)


@pytest.mark.parametrize(
    ("hinted", "expected"),
    [(9.5, 9.5), (10.0, 10.0), (10.5, None), (None, None)],
    ids=["before", "now", "later", "none"],
)
def test_a_hint_that_came_later_led_to_nothing(hinted: float | None, expected: float | None) -> None:
    assert hint_for(10.0, hinted) == expected


# Faults

_FIRST, _LATER = "2026-03-03T14:00:00+00:00", "2026-03-03T14:05:00+00:00"


def _fault(text: str = "bad", ref: str = "") -> Fault:
    return Fault("definition", text, "test", ref=ref)


@pytest.mark.parametrize(
    ("known", "found", "rows"),
    [
        pytest.param([], [], FaultRows(), id="all is well"),
        pytest.param(
            [], [OpenFault(_fault(), _FIRST)], FaultRows([OpenFault(_fault(), _FIRST)]), id="a fault is opened"
        ),
        pytest.param([OpenFault(_fault(), _FIRST)], [OpenFault(_fault(), _FIRST)], FaultRows(), id="it stays"),
        pytest.param(
            [OpenFault(_fault(), _FIRST)],
            [OpenFault(_fault("worse"), _LATER)],
            FaultRows([], [OpenFault(_fault("worse"), _LATER)]),
            id="it has another text",
        ),
        pytest.param(
            [OpenFault(_fault(), _FIRST)],
            [],
            FaultRows([], [], [("definition", "test", "", "")]),
            id="it is mended",
        ),
        pytest.param(
            [OpenFault(_fault(ref="a"), _FIRST)],
            [OpenFault(_fault(ref="b"), _LATER)],
            FaultRows([OpenFault(_fault(ref="b"), _LATER)], [], [("definition", "test", "", "a")]),
            id="another ref is another fault",
        ),
    ],
)
def test_faults_open_and_close(known: list[OpenFault], found: list[OpenFault], rows: FaultRows) -> None:
    assert _parts(plan_faults(known, found)) == _parts(rows)


def test_texts_of_faults_are_bounded_and_one_line() -> None:
    hostile = Fault("definition", "x\n" * 5000, "test", ref="\udcff", addresses=("a\nb",) * 1000)
    [kept] = plan_faults([], [OpenFault(hostile, _FIRST)]).opened
    assert kept.fault.text.startswith("x\\nx\\n")
    assert len(kept.fault.text) < 3000
    assert kept.fault.addresses == ("a\\nb",) * MOST_ADDRESSES
    assert kept.fault.ref == "\\udcff"
    assert not plan_faults([kept], [OpenFault(hostile, _FIRST)])
