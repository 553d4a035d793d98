"""Which refs an environment may have of a repository, and which of them it has: each rule is a row."""

from __future__ import annotations

import pytest

from jens.model import (
    HIERADATA,
    PLAIN,
    SITE,
    Branch,
    Definition,
    Directories,
    Expansion,
    Ref,
    RepoId,
    Tag,
    Usage,
)
from tests.values import DUMMY, MASTER, MYAPP, QA, STDLIB, A, B, dynamic, ref, snapshot

TICKET, MAIN, V9 = Branch("ticket42"), Branch("main"), Tag("v9")


def following(*defaults: Branch | Tag) -> Definition:
    """A dynamic environment with several defaults."""
    return Definition("x", defaults[0], {}, others=defaults[1:])


@pytest.mark.parametrize(
    ("definition", "repo", "usage", "refs"),
    [
        pytest.param(dynamic("x", "qa"), DUMMY, PLAIN, [QA], id="the default"),
        pytest.param(dynamic("x", "qa", {DUMMY: "dev"}), DUMMY, PLAIN, ["dev"], id="an override comes first"),
        pytest.param(following(TICKET, QA), DUMMY, PLAIN, [TICKET, QA], id="a list, in its order"),
        pytest.param(following(TICKET, QA), DUMMY, Usage(fallback=MAIN), [TICKET, QA, MAIN], id="then the fallback"),
        pytest.param(
            following(TICKET, QA), DUMMY, Usage(ref=V9), [V9], id="the entry's ref, whatever the defaults are"
        ),
        pytest.param(dynamic("x"), DUMMY, Usage(ref=V9, fallback=MAIN), [V9], id="the entry's ref, and no fallback"),
        pytest.param(
            dynamic("x", "qa", {DUMMY: "dev"}), DUMMY, Usage(ref=V9), ["dev"], id="an override comes before all"
        ),
        pytest.param(snapshot("x", {DUMMY: "dev"}), MYAPP, Usage(ref=V9), [], id="a snapshot holds what it overrides"),
        pytest.param(snapshot("x"), SITE, PLAIN, [MASTER, QA], id="a snapshot's site"),
        pytest.param(snapshot("x"), HIERADATA, Usage(fallback=MAIN), [MASTER, QA, MAIN], id="a snapshot's data"),
        pytest.param(snapshot("x"), SITE, Usage(ref=V9), [V9], id="a snapshot's site that stays at a tag"),
    ],
)
def test_the_refs_that_an_environment_may_have(
    definition: Definition, repo: RepoId, usage: Usage, refs: list[Ref | str]
) -> None:
    expected = tuple(ref(each) if isinstance(each, str) else each for each in refs)
    assert definition.refs_of(repo, usage, QA) == expected


@pytest.mark.parametrize(
    ("there", "missing", "undetermined", "shown"),
    [
        pytest.param([TICKET, QA], [MAIN], [], TICKET, id="the first"),
        pytest.param([QA, MAIN], [TICKET], [], QA, id="the first that there is"),
        pytest.param([MAIN], [TICKET, QA], [], MAIN, id="the fallback"),
        pytest.param([], [TICKET, QA, MAIN], [], MAIN, id="the last dangles"),
        pytest.param([QA], [MAIN], [TICKET], TICKET, id="one that nobody could ask for is waited for"),
    ],
)
def test_an_environment_has_the_first_ref_that_there_is(
    there: list[Ref], missing: list[Ref], undetermined: list[Ref], shown: Ref
) -> None:
    expansion = Expansion(
        {DUMMY: dict.fromkeys(there, A)},
        frozenset((DUMMY, each) for each in missing),
        frozenset((DUMMY, each) for each in undetermined),
        usages={DUMMY: Usage(fallback=MAIN)},
    )
    assert expansion.ref_of(following(TICKET, QA), DUMMY) == shown


def test_an_override_dangles_beside_any_fallback() -> None:
    expansion = Expansion({DUMMY: {QA: A}}, frozenset({(DUMMY, Branch("gone"))}), usages={DUMMY: Usage(fallback=QA)})
    assert expansion.ref_of(dynamic("x", "qa", {DUMMY: "gone"}), DUMMY) == Branch("gone")


def test_what_the_inventory_lacks_of_repositories_that_a_run_did_not_look_at_is_missing() -> None:
    expansion = Expansion({DUMMY: {QA: A}, STDLIB: {V9: B}}, usages={STDLIB: Usage(ref=V9)})
    whole = expansion.with_missing([following(TICKET, QA), snapshot("y")], [DUMMY, STDLIB, SITE])
    assert whole.missing == {(DUMMY, TICKET), (SITE, TICKET), (SITE, QA), (SITE, MASTER)}
    assert (whole.ref_of(following(TICKET, QA), DUMMY), whole.ref_of(following(TICKET, QA), STDLIB)) == (QA, V9)


@pytest.mark.parametrize(
    ("said", "usage", "expected"),
    [
        ({}, PLAIN, Directories()),
        ({}, Usage(Directories(".", None)), Directories(".", None)),
        ({"code": "src"}, Usage(Directories(".", None)), Directories("src", None)),
        ({"data": None}, PLAIN, Directories("code", None)),
        ({"code": "code", "data": "data"}, Usage(Directories(".", None)), Directories()),
    ],
)
def test_an_override_says_where_code_and_data_are_and_else_the_library(
    said: dict[str, str | None], usage: Usage, expected: Directories
) -> None:
    definition = snapshot("x", {DUMMY: "qa"})._replace(directories={DUMMY: said})
    assert definition.directories_of(DUMMY, usage) == expected
