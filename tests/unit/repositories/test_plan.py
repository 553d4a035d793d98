"""Plans of repositories and refs: each rule is a row of a table. No disk, no Git."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import pytest

from jens.model import (
    COMMON,
    HIERADATA,
    HOSTGROUPS,
    MODULES,
    PARTITIONS,
    SITE,
    Branch,
    Commit,
    Definition,
    Directories,
    Library,
    Ref,
    RepoId,
    Tag,
    Usage,
)
from jens.purgeguard import PurgeGuard
from jens.repositories.model import Needs, OnDisk, RefsPlan
from jens.repositories.plan import plan_needs, plan_repositories
from jens.repositories.refs import (
    commits_to_check_out,
    describe,
    entries_to_remove,
    links_to_put,
    missing_mandatory,
    plan_refs,
    plan_without_changes,
    resolve,
    settle,
)
from tests.values import DUMMY, MASTER, MYAPP, QA, STDLIB, A, B, C, D, dynamic, modules, ref, snapshot

_GUARD = PurgeGuard(50)


def _library(*repos: RepoId, unusable: Iterable[RepoId] = ()) -> Library:
    return Library({repo: f"/srv/git/{repo}" for repo in repos}, dict.fromkeys(unusable, "bad URL"))


def _numbered(partition: str, count: int) -> list[RepoId]:
    return [RepoId(partition, f"r{number:03}") for number in range(count)]


# Which repositories


def test_the_library_is_compared_with_what_is_known() -> None:
    new, old, gone = modules("new", "old", "gone")
    plan = plan_repositories(_library(new, old, SITE), [old, gone, SITE], _GUARD)
    assert (plan.new, plan.existing, plan.kept, plan.deleted) == ((new,), (SITE, old), (), (gone,))
    assert plan.refusals == ()


def test_what_is_on_disk_of_an_unusable_entry_is_kept() -> None:
    old, never = modules("old", "never")
    plan = plan_repositories(_library(unusable=[old, never]), [old], _GUARD)
    assert (plan.new, plan.existing, plan.kept, plan.deleted) == ((), (), (old,), ())


def test_the_same_name_in_another_partition_is_another_repository() -> None:
    plan = plan_repositories(_library(RepoId(MODULES, "x")), [RepoId(HOSTGROUPS, "x")], _GUARD)
    assert (plan.new, plan.deleted) == ((RepoId(MODULES, "x"),), (RepoId(HOSTGROUPS, "x"),))


def test_work_is_done_in_the_order_of_the_partitions_then_of_names() -> None:
    plan = plan_repositories(
        _library(SITE, MYAPP, *modules("b", "z"), unusable=modules("a")), modules("a", "z", "gone"), _GUARD
    )
    assert plan.remaining == [*modules("a", "b", "z"), MYAPP, SITE]


@pytest.mark.parametrize("partition", [MODULES, HOSTGROUPS])
@pytest.mark.parametrize(
    ("known", "gone", "limit", "is_refused"),
    [
        pytest.param(20, 11, 50, True, id="eleven of twenty"),
        pytest.param(22, 11, 50, False, id="half is not more than half"),
        pytest.param(21, 11, 50, True, id="a little more than half"),
        pytest.param(10, 10, 50, False, id="all of ten"),
        pytest.param(11, 11, 50, True, id="all of eleven"),
        pytest.param(100, 10, 0, False, id="ten pass whatever the limit"),
        pytest.param(100, 11, 0, True, id="limit 0"),
        pytest.param(100, 11, 10, True, id="limit 10"),
        pytest.param(100, 11, 11, False, id="limit 11"),
        pytest.param(100, 100, 99, True, id="limit 99"),
        pytest.param(100, 100, 100, False, id="limit 100 switches the guard off"),
    ],
)
def test_the_guard_counts_each_partition(partition: str, known: int, gone: int, limit: int, is_refused: bool) -> None:
    repos = _numbered(partition, known)
    plan = plan_repositories(_library(*repos[gone:]), repos, PurgeGuard(limit))
    expected = tuple(repos[:gone])
    assert (plan.kept, plan.deleted) == ((expected, ()) if is_refused else ((), expected))
    assert len(plan.refusals) == is_refused
    assert all(f"{gone} of the {partition}" in text and "--allow-purge" in text for text in plan.refusals)


def test_removals_of_two_partitions_are_not_added_up() -> None:
    repos = [*_numbered(MODULES, 8), *_numbered(HOSTGROUPS, 8)]
    assert plan_repositories(_library(), repos, _GUARD).deleted == tuple(sorted(repos))


def test_a_refusal_holds_for_its_partition_alone() -> None:
    many, few = _numbered(MODULES, 20), _numbered(HOSTGROUPS, 2)
    plan = plan_repositories(_library(), [*many, *few], _GUARD)
    assert (plan.kept, plan.deleted) == (tuple(many), tuple(few))


def test_new_ones_do_not_outweigh_removals() -> None:
    before, after = _numbered(MODULES, 20), [RepoId(MODULES, f"new{number}") for number in range(40)]
    plan = plan_repositories(_library(*after), before, _GUARD)
    assert (plan.new, plan.kept, plan.deleted) == (tuple(sorted(after)), tuple(before), ())


def test_unusable_entries_are_no_removals() -> None:
    repos = _numbered(MODULES, 20)
    plan = plan_repositories(_library(unusable=repos), repos, _GUARD)
    assert (plan.kept, plan.deleted, plan.refusals) == (tuple(repos), (), ())


@pytest.mark.parametrize("repo", [SITE, HIERADATA], ids=str)
@pytest.mark.parametrize(
    ("guard", "is_refused"),
    [
        pytest.param(PurgeGuard(50), True, id="as configured"),
        pytest.param(PurgeGuard(99), True, id="limit 99"),
        pytest.param(PurgeGuard(100), False, id="limit 100"),
        pytest.param(PurgeGuard(50, allowed=True), False, id="allowed"),
    ],
)
def test_site_and_hieradata_are_guarded_always(repo: RepoId, guard: PurgeGuard, is_refused: bool) -> None:
    plan = plan_repositories(_library(*modules("a")), [SITE, HIERADATA, *modules("a")], guard)
    assert (repo in plan.kept, repo in plan.deleted) == (is_refused, not is_refused)
    one = plan_repositories(_library(*({SITE, HIERADATA} - {repo})), [SITE, HIERADATA], guard)
    assert (one.kept, one.deleted) == (((repo,), ()) if is_refused else ((), (repo,)))
    assert len(one.refusals) == is_refused


def test_another_common_repository_may_go() -> None:
    other = RepoId(COMMON, "other")
    assert plan_repositories(_library(SITE), [SITE, other], _GUARD).deleted == (other,)


def test_allow_purge_lets_everything_pass() -> None:
    repos = [*_numbered(MODULES, 30), *_numbered(HOSTGROUPS, 30), SITE]
    plan = plan_repositories(_library(), repos, PurgeGuard(50, allowed=True))
    assert (plan.kept, plan.deleted, plan.refusals) == ((), tuple(sorted(repos)), ())


@pytest.mark.parametrize(
    ("held", "shown", "is_refused"),
    [
        pytest.param(11, 11, True, id="others have all of them"),
        pytest.param(20, 11, True, id="what has left the others before counts nowhere"),
        pytest.param(11, 10, False, id="others have few"),
        pytest.param(11, 0, False, id="others have none any more"),
    ],
)
def test_what_only_snapshots_keep_is_a_removal_for_the_others(held: int, shown: int, is_refused: bool) -> None:
    repos = _numbered(MODULES, held + 2)
    plan = plan_repositories(_library(*repos[held:]), repos, _GUARD, repos[:held], repos[:shown])
    kept = repos[:shown] if is_refused else []
    assert (plan.kept, plan.pinned) == (tuple(kept), tuple(repo for repo in repos[:held] if repo not in kept))
    assert (plan.deleted, len(plan.refusals)) == ((), is_refused)


def test_removals_of_both_kinds_are_added_up() -> None:
    repos = _numbered(MODULES, 13)
    plan = plan_repositories(_library(*repos[12:]), repos, _GUARD, repos[:6], repos[:6])
    assert (plan.kept, plan.pinned, plan.deleted) == (tuple(repos[:12]), (), ())


# Refs that a repository needs


_TEST_OF_DUMMY = dynamic("test", overrides={DUMMY: "test"})


@pytest.mark.parametrize(
    ("repo", "mandatory", "definitions", "expected"),
    [
        pytest.param(DUMMY, ["master", "qa"], [], ["master", "qa"], id="mandatory branches"),
        pytest.param(DUMMY, [], [], [], id="nothing else"),
        pytest.param(DUMMY, [], [_TEST_OF_DUMMY], ["master", "test"], id="an override, and the default"),
        pytest.param(MYAPP, [], [_TEST_OF_DUMMY], ["master"], id="of another repository only the default"),
        pytest.param(DUMMY, [], [dynamic("a", "qa"), dynamic("b", "dev")], ["dev", "qa"], id="every default"),
        pytest.param(
            DUMMY,
            [],
            [snapshot("a", {DUMMY: "test"}), snapshot("b", {DUMMY: ":4f0c"})],
            ["test", ":4f0c"],
            id="overrides of snapshots",
        ),
        pytest.param(DUMMY, [], [snapshot("a", {MYAPP: "test"})], [], id="what a snapshot does not hold"),
        pytest.param(SITE, [], [snapshot("a")], ["master"], id="a snapshot's site"),
        pytest.param(HIERADATA, [], [snapshot("a")], ["master"], id="a snapshot's Hiera data"),
        pytest.param(SITE, [], [dynamic("a", "qa")], ["qa"], id="a dynamic environment's site"),
        pytest.param(
            SITE, [], [snapshot("a", {SITE: ":4f0c", HIERADATA: "x"})], [":4f0c"], id="a snapshot's own site, no master"
        ),
        pytest.param(
            SITE, [], [snapshot("a", {SITE: ":4f0c"}), snapshot("b")], ["master", ":4f0c"], id="two snapshots' site"
        ),
        pytest.param(DUMMY, ["master"], [_TEST_OF_DUMMY, dynamic("b")], ["master", "test"], id="each once"),
    ],
)
def test_refs_that_a_repository_needs(
    repo: RepoId, mandatory: Sequence[str], definitions: Iterable[Definition], expected: Sequence[str]
) -> None:
    needs = plan_needs([repo], mandatory, definitions)
    assert list(needs) == [repo]
    assert needs[repo].refs == [ref(text) for text in expected]
    assert needs[repo].mandatory == {Branch(name) for name in mandatory}


_V9, _MAIN, _TICKET = Tag("v9"), Branch("main"), Branch("ticket42")
_LIST = Definition("list", _TICKET, {}, others=(QA,))


@pytest.mark.parametrize(
    ("usage", "definitions", "implied", "incidental"),
    [
        pytest.param(Usage(), [_LIST], [QA, _TICKET], [QA, _TICKET], id="a list of defaults is no reason to ask"),
        pytest.param(Usage(), [_LIST, dynamic("a", "qa")], [QA, _TICKET], [_TICKET], id="a default alone is one"),
        pytest.param(
            Usage(),
            [_LIST, dynamic("a", "x", {DUMMY: "qa"})],
            [QA, _TICKET, Branch("x")],
            [_TICKET],
            id="so is an override",
        ),
        pytest.param(Usage(fallback=_MAIN), [_LIST], [_MAIN, QA, _TICKET], [QA, _TICKET], id="and a fallback"),
        pytest.param(Usage(fallback=_MAIN), [], [], [], id="a fallback that nobody falls back to"),
        pytest.param(Usage(fallback=_MAIN), [dynamic("a", "qa")], [_MAIN, QA], [], id="a default with a fallback"),
        pytest.param(Usage(ref=_V9), [_LIST, dynamic("a", "qa")], [_V9], [], id="a ref, whatever the defaults are"),
        pytest.param(Usage(ref=_V9, fallback=_MAIN), [_LIST], [_V9], [], id="a ref, and no fallback"),
        pytest.param(Usage(ref=_V9), [snapshot("a", {DUMMY: "x"})], [], [], id="a ref that no environment uses"),
        pytest.param(
            Usage(),
            [Definition("a", _V9, {}, others=(QA,))],
            [QA, _V9],
            [QA],
            id="a tag must be asked for: no mirror has it",
        ),
    ],
)
def test_refs_that_the_library_and_lists_of_defaults_name(
    usage: Usage, definitions: Sequence[Definition], implied: Sequence[Ref], incidental: Sequence[Ref]
) -> None:
    needs = plan_needs([DUMMY], ["master"], definitions, usages={DUMMY: usage})[DUMMY]
    assert (needs.implied, needs.incidental) == (frozenset(implied), frozenset(incidental))
    is_free = usage.ref is not None or usage.fallback is not None
    assert needs.mandatory == (frozenset() if is_free else {MASTER})


def test_a_snapshots_site_without_mandatory_branches_needs_all_that_it_may_have() -> None:
    needs = plan_needs([SITE, HIERADATA], ["qa"], [snapshot("a")], usages={SITE: Usage(fallback=_MAIN)})
    assert needs[SITE].refs == [_MAIN, MASTER, QA]
    assert needs[HIERADATA].mandatory == {QA}


def test_a_held_environment_needs_what_the_definition_says_that_repositories_follow() -> None:
    held = Definition("x", None, {}, is_held=True, follow=dict.fromkeys((DUMMY, MYAPP, SITE), _LIST))
    needs = plan_needs([DUMMY, SITE, STDLIB], (), [held], usages={SITE: Usage(ref=_V9)})
    assert (needs[DUMMY].refs, needs[SITE].refs, needs[STDLIB].refs) == ([QA, _TICKET], [_V9], [])


def test_each_ref_is_used_with_the_directories_that_environments_use_of_it() -> None:
    mine = snapshot("a", {DUMMY: "x"})._replace(directories={DUMMY: {"code": "src"}})
    definitions = [mine, snapshot("b", {DUMMY: "x"}), snapshot("c", {DUMMY: "y"}), dynamic("d", "qa")]
    usage = Usage(Directories(".", None))
    needs = plan_needs([DUMMY, STDLIB], (), definitions, usages={DUMMY: usage})
    assert needs[DUMMY].directories_of(Branch("x")) == {Directories(".", None), Directories("src", None)}
    assert needs[DUMMY].directories_of(Branch("y")) == needs[DUMMY].directories_of(QA) == {Directories(".", None)}
    assert plan_needs([DUMMY], (), [mine])[DUMMY].directories_of(Branch("x")) == {Directories("src", "data")}
    assert needs[STDLIB].directories_of(QA) == {Directories()}


def test_only_existing_repositories_have_needs() -> None:
    assert set(plan_needs([MYAPP], ["master"], [_TEST_OF_DUMMY])) == {MYAPP}


def test_refs_that_only_replaced_definitions_need_are_former_ones() -> None:
    before = snapshot("x", {DUMMY: "test", MYAPP: "master"})
    needs = plan_needs([DUMMY, MYAPP, SITE], ["qa"], [dynamic("x")], [before])
    assert all(needs[repo].refs == [MASTER, QA] for repo in (DUMMY, MYAPP, SITE))
    assert needs[DUMMY].former == {Branch("test")}
    assert needs[MYAPP].former == needs[SITE].former == frozenset()


# What becomes of each ref


_NEEDS = Needs(mandatory=frozenset([MASTER]), overrides=frozenset([Branch("test"), Commit(C)]), implied=frozenset([QA]))
_HEADS = {"master": A, "qa": B, "test": D}


def test_what_the_mirror_has_is_expanded_there() -> None:
    plan = plan_refs(DUMMY, _NEEDS, {**_HEADS, "other": C}, {Commit(C): C}, OnDisk(), has_replied=True)
    assert plan == RefsPlan({MASTER: A, QA: B, Branch("test"): D, Commit(C): C})


def test_what_is_on_disk_moves_to_what_the_mirror_has() -> None:
    disk = OnDisk({"master": B}, frozenset([B]))
    assert plan_refs(DUMMY, Needs(frozenset([MASTER])), {"master": A}, {}, disk, has_replied=True).targets == {
        MASTER: A
    }


@pytest.mark.parametrize("has_replied", [True, False])
def test_an_abbreviated_commit_is_expanded_at_its_full_id(has_replied: bool) -> None:
    needs = Needs(overrides=frozenset([Commit("cccc")]))
    plan = plan_refs(DUMMY, needs, {}, {Commit("cccc"): C}, OnDisk(), has_replied=has_replied)
    assert plan == RefsPlan({Commit("cccc"): C})


@pytest.mark.parametrize(
    ("disk", "has_replied", "expected"),
    [
        pytest.param(OnDisk(), True, RefsPlan({}, missing=frozenset([QA])), id="reply, nothing on disk"),
        pytest.param(
            OnDisk({"qa": B}, frozenset([B])),
            True,
            RefsPlan({}, missing=frozenset([QA])),
            id="reply: gone, though on disk",
        ),
        pytest.param(OnDisk({"qa": B}, frozenset([B])), False, RefsPlan({QA: B}), id="no reply: nothing is taken away"),
        pytest.param(
            OnDisk(),
            False,
            RefsPlan({}, undetermined=frozenset([QA])),
            id="no reply, nothing on disk: nobody knows",
        ),
        pytest.param(
            OnDisk({"qa": None}, frozenset([B])),
            False,
            RefsPlan({}, undetermined=frozenset([QA])),
            id="no reply, a bent link: nobody knows",
        ),
    ],
)
@pytest.mark.parametrize("why", ["overrides", "implied"])
def test_a_branch_that_the_mirror_lacks_is_gone_only_when_the_remote_said_so(
    why: str, disk: OnDisk, has_replied: bool, expected: RefsPlan
) -> None:
    needs = Needs(overrides=frozenset([QA])) if why == "overrides" else Needs(implied=frozenset([QA]))
    assert plan_refs(DUMMY, needs, {"master": A}, {}, disk, has_replied=has_replied) == expected


@pytest.mark.parametrize("has_replied", [True, False])
def test_a_mandatory_branch_that_vanished_is_an_error_and_its_last_checkout_stays(has_replied: bool) -> None:
    disk = OnDisk({"master": A}, frozenset([A]))
    plan = plan_refs(DUMMY, Needs(frozenset([MASTER])), {"qa": B}, {}, disk, has_replied=has_replied)
    assert (plan.targets, plan.missing, plan.undetermined) == ({MASTER: A}, frozenset(), frozenset())
    (event,) = plan.events
    assert event.level == logging.ERROR
    assert event.is_failure
    assert "modules/dummy" in event.text
    assert "'master'" in event.text


def test_a_mandatory_branch_that_is_nowhere_is_missing() -> None:
    plan = plan_refs(DUMMY, Needs(frozenset([MASTER])), {"qa": B}, {}, OnDisk(), has_replied=True)
    assert plan.targets == {}
    assert plan.missing == {MASTER}
    assert len(plan.events) == 1


def test_a_mandatory_branch_that_is_there_makes_no_event() -> None:
    assert plan_refs(DUMMY, _NEEDS, _HEADS, {Commit(C): C}, OnDisk(), has_replied=True).events == ()


@pytest.mark.parametrize("commits", [{}, {Commit(C): None}], ids=["not looked for", "not found"])
def test_a_commit_that_nobody_has_is_missing_when_the_remote_replied(commits: dict[Commit, str | None]) -> None:
    needs = Needs(overrides=frozenset([Commit(C)]))
    assert plan_refs(DUMMY, needs, {}, commits, OnDisk(), has_replied=True).missing == {Commit(C)}
    assert plan_refs(DUMMY, needs, {}, commits, OnDisk(), has_replied=False).undetermined == {Commit(C)}


def test_a_branch_named_like_a_commit_is_no_commit() -> None:
    needs = Needs(overrides=frozenset([Commit("cccc")]))
    assert plan_refs(DUMMY, needs, {"cccc": A}, {}, OnDisk(), has_replied=True).missing == {Commit("cccc")}


def test_standing_still_keeps_what_is_expanded_and_knows_nothing_of_the_rest() -> None:
    disk = OnDisk({"master": A, "feature~x": B, "bent": None}, frozenset([A, B, C]))
    overrides: list[Ref] = [Branch("feature/x"), Branch("bent"), Commit(C), Commit(D), Commit("cccc"), Commit("dddd")]
    needs = Needs(frozenset([MASTER]), frozenset(overrides), frozenset([QA]), former=frozenset([Branch("former")]))
    assert plan_without_changes(needs, {Commit("cccc"): C, Commit("dddd"): D}, disk) == RefsPlan(
        {MASTER: A, Branch("feature/x"): B, Commit(C): C, Commit("cccc"): C},
        undetermined=frozenset([Branch("bent"), QA, Commit(D), Commit("dddd")]),
    )


def test_standing_still_keeps_what_environments_are_leaving() -> None:
    disk = OnDisk({"former": A}, frozenset([A]))
    needs = Needs(former=frozenset([Branch("former"), Branch("gone")]))
    assert plan_without_changes(needs, {}, disk) == RefsPlan({Branch("former"): A})


@pytest.mark.parametrize("has_replied", [True, False])
@pytest.mark.parametrize(
    ("disk", "targets"),
    [
        pytest.param(OnDisk({"former": A}, frozenset([A])), {Branch("former"): A}, id="stays as it is"),
        pytest.param(OnDisk(), {}, id="is not made for the moment"),
    ],
)
def test_what_environments_are_leaving_is_not_brought_up_to_date(
    disk: OnDisk, targets: dict[Ref, str], has_replied: bool
) -> None:
    needs = Needs(former=frozenset([Branch("former")]))
    assert needs.refs == []
    assert plan_refs(DUMMY, needs, {"former": B}, {}, disk, has_replied=has_replied) == RefsPlan(targets)


@pytest.mark.parametrize(
    ("failed", "targets", "undetermined"),
    [
        pytest.param([], {MASTER: B, QA: B, Commit(C): C}, set(), id="nothing failed"),
        pytest.param([C], {MASTER: B, QA: B}, {Commit(C)}, id="a commit waits"),
        pytest.param([B], {MASTER: A, Commit(C): C}, {QA}, id="a branch stays where it is, a new one waits"),
        pytest.param([B, C], {MASTER: A}, {QA, Commit(C)}, id="everything failed"),
        pytest.param([D], {MASTER: B, QA: B, Commit(C): C}, set(), id="a commit that nobody needs"),
    ],
)
def test_checkouts_that_could_not_be_made(failed: list[str], targets: dict[Ref, str], undetermined: set[Ref]) -> None:
    plan = RefsPlan({MASTER: B, QA: B, Commit(C): C}, missing=frozenset([Branch("gone")]))
    settled = settle(plan, OnDisk({"master": A}, frozenset([A])), failed)
    assert settled.targets == targets
    assert settled.undetermined == undetermined
    assert settled.missing == {Branch("gone")}


def test_what_was_undetermined_stays_so() -> None:
    plan = RefsPlan({}, undetermined=frozenset([QA]))
    assert settle(plan, OnDisk(), []).undetermined == {QA}


# What changes on disk


_PLAN = RefsPlan({MASTER: A, QA: A, Branch("feature/x"): B, Commit(C): C})


def test_a_commit_is_checked_out_once_and_only_when_it_is_not_there() -> None:
    assert commits_to_check_out(_PLAN, OnDisk()) == [A, B, C]
    assert commits_to_check_out(_PLAN, OnDisk(checkouts=frozenset([A, D]))) == [B, C]


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        pytest.param({}, {"feature~x": B, "master": A, "qa": A}, id="all of them"),
        pytest.param({"master": A, "qa": A, "feature~x": B}, {}, id="none"),
        pytest.param({"master": B, "qa": A, "feature~x": B}, {"master": A}, id="one that moved"),
        pytest.param({"master": None, "qa": A, "feature~x": B}, {"master": A}, id="one that was bent"),
        pytest.param({"master": A, "qa": A, "feature/x": B}, {"feature~x": B}, id="a slash is a tilde on disk"),
        pytest.param({"master": A, "qa": A, "feature~x": B, "old": D}, {}, id="others are left alone"),
    ],
)
def test_links_are_put_where_they_are_not_what_they_should_be(
    links: dict[str, str | None], expected: dict[str, str]
) -> None:
    assert links_to_put(_PLAN, OnDisk(links)) == expected


@pytest.mark.parametrize(
    ("disk", "kept", "expected"),
    [
        pytest.param(OnDisk({"master": A, "old": B}), [MASTER], ["old"], id="a branch that nobody needs"),
        pytest.param(OnDisk({"feature~x": A}), [Branch("feature/x")], [], id="a slash is a tilde on disk"),
        pytest.param(OnDisk({"bent": None}), [], ["bent"], id="a bent link"),
        pytest.param(OnDisk(clones=frozenset(["old", "qa"])), [QA], ["old"], id="a clone of 1.x"),
        pytest.param(OnDisk(strays=frozenset(["notes"])), [], [], id="a directory that Jens did not make stays"),
        pytest.param(OnDisk(checkouts=frozenset([A])), [], [], id="a checkout has its own time"),
        pytest.param(OnDisk({A: B}), [Commit(A)], [A], id="a commit keeps no link"),
        pytest.param(OnDisk({"b": A, "a": A}), [], ["a", "b"], id="sorted"),
    ],
)
def test_entries_go_when_they_stand_for_no_ref_that_is_kept(disk: OnDisk, kept: list[Ref], expected: list[str]) -> None:
    assert entries_to_remove(disk, kept) == expected


def test_a_plan_is_described_entry_by_entry_with_before_and_after() -> None:
    disk = OnDisk({"master": B, "qa": A}, frozenset([A, B]))
    assert list(describe(disk, _PLAN)) == [("feature~x", None, B), ("master", B, A), (f".{C}", None, C)]


# Names and commits


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        ({"master": A, "qa": B}, []),
        ({"master": A}, ["qa"]),
        ({"feature/master": A}, ["master", "qa"]),
        ({}, ["master", "qa"]),
    ],
)
def test_mandatory_branches_that_a_repository_lacks(heads: dict[str, str], expected: list[str]) -> None:
    assert missing_mandatory([QA, MASTER], heads) == expected


_OTHER_A = "a" * 39 + "0"


@pytest.mark.parametrize(
    ("digits", "candidates", "checkouts", "expected"),
    [
        pytest.param("aaaa", [A], [], (A, ""), id="one in the mirror"),
        pytest.param("aaaa", [A], [B], (A, ""), id="other checkouts do not matter"),
        pytest.param("aaaa", [], [], (None, "is unknown"), id="unknown"),
        pytest.param("aaaa", [A, _OTHER_A], [], (None, "is ambiguous"), id="ambiguous"),
        pytest.param("aaaa", [A, _OTHER_A], [A], (A, ""), id="ambiguous, but one is on disk"),
        pytest.param("aaaa", [A, _OTHER_A], [A, _OTHER_A], (None, "is ambiguous"), id="ambiguous on disk as well"),
        pytest.param("aaaa", [], [A, B], (A, ""), id="a checkout outranks a mirror that lacks it"),
        pytest.param("aaaa", [], [A, _OTHER_A], (None, "is unknown"), id="unknown, two on disk"),
        pytest.param("aaaa", [], ["b" * 36 + "aaaa"], (None, "is unknown"), id="digits are the first ones"),
        pytest.param(A, [], [A], (A, ""), id="a full id on disk"),
        pytest.param(A, [], [_OTHER_A], (None, "is unknown"), id="a full id that is not on disk"),
    ],
)
def test_the_mirror_decides_then_complete_checkouts(
    digits: str, candidates: list[str], checkouts: list[str], expected: tuple[str | None, str]
) -> None:
    assert resolve(Commit(digits), candidates, checkouts) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(MASTER, A), (Branch("feature/x"), B), (QA, None), (Branch("bent"), None), (Commit(C), C), (Commit("cccc"), None)],
    ids=str,
)
def test_where_a_ref_is_expanded_on_disk(wanted: Ref, expected: str | None) -> None:
    disk = OnDisk({"master": A, "feature~x": B, "bent": None}, frozenset([C]))
    assert disk.commit_of(wanted) == expected


def test_the_order_of_partitions_is_that_of_the_log() -> None:
    assert PARTITIONS == (MODULES, HOSTGROUPS, COMMON)
