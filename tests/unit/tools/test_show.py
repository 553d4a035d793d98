"""The decisions of jens-show, from values alone."""

from __future__ import annotations

import pytest

from jens.events import CHECKOUT, COMMIT, DANGLING_LINK, NOT_FETCHED, REFUSED
from jens.history.spans import BRANCH_GONE, LEFT, Span
from jens.lastrun import LastRun
from jens.model import HIERADATA, SITE, Branch, Commit, Definition, Fault, OpenFault, Ref, RepoId
from jens.tools import show_commit
from jens.tools.show import Contact, Shown, Use, plan_answered, plan_trouble, since_of
from jens.tools.show_commit import ENVIRONMENT_GONE, Lacking, Visible, plan_places
from jens.tools.show_environment import DEFAULT, OVERRIDE, SNAPSHOT, WAITING, plan_faults, plan_gap, plan_why
from jens.tools.show_repository import Expanded, RefShown, plan_refs

DUMMY, OTHER = RepoId("modules", "dummy"), RepoId("modules", "other")
A, B, C = "a" * 40, "b" * 40, "c" * 40
MASTER, QA = Branch("master"), Branch("qa")
SINCE = "2026-03-03T14:05:37+00:00"


def fault(
    kind: str, repository: str = "modules/dummy", text: str = "why", environment: str = "", ref: str = ""
) -> OpenFault:
    return OpenFault(Fault(kind, text, environment, repository, ref), SINCE)


# Remotes


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([], None),
        ([fault(NOT_FETCHED)], NOT_FETCHED),
        ([fault(REFUSED)], REFUSED),
        ([fault(REFUSED), fault(NOT_FETCHED)], NOT_FETCHED),
        ([fault(NOT_FETCHED, "modules/other"), fault(CHECKOUT)], None),
        ([fault(NOT_FETCHED, environment="test")], None),
    ],
)
def test_why_a_repository_is_not_fetched(faults: list[OpenFault], expected: str | None) -> None:
    trouble = plan_trouble(DUMMY, faults)
    assert (trouble.fault and trouble.fault.fault.kind) == expected


@pytest.mark.parametrize(
    ("trouble", "status", "is_poll", "has_mirror", "expected"),
    [
        (Contact(), 0, True, True, 7.0),
        (Contact(), 60, True, True, 7.0),
        (Contact(), 20, True, True, None),  # no repository was asked
        (Contact(), None, True, True, None),
        (Contact(), 0, False, True, None),  # only those with a hint are asked
        (Contact(), 0, True, False, None),
        (Contact(fault(NOT_FETCHED)), 0, True, True, None),
        (Contact(transfer=1.0), 0, True, True, None),
        (Contact(under_way=1.0), 0, True, True, None),
    ],
)
def test_when_a_remote_gave_an_answer(
    trouble: Contact, status: int | None, is_poll: bool, has_mirror: bool, expected: float | None
) -> None:
    last = None if status is None else LastRun(7.0, 1.0, status, ())
    assert plan_answered(trouble, last, is_poll=is_poll, has_mirror=has_mirror) == expected


# Environments


DYNAMIC = Definition("e", MASTER, {DUMMY: Branch("idea"), OTHER: Commit("aaaa")})
PINNED = Definition("e", None, {DUMMY: Commit(A)})


@pytest.mark.parametrize(
    ("definition", "repo", "ref", "expected"),
    [
        (DYNAMIC, SITE, MASTER, (DEFAULT, None)),
        (DYNAMIC, DUMMY, Branch("idea"), (OVERRIDE, None)),
        (DYNAMIC, OTHER, Commit(A), (OVERRIDE, None)),
        (DYNAMIC, DUMMY, MASTER, (WAITING, Branch("idea"))),
        (DYNAMIC, OTHER, Commit(B), (WAITING, Commit("aaaa"))),
        (DYNAMIC, SITE, QA, (WAITING, MASTER)),
        (PINNED, DUMMY, Commit(A), (OVERRIDE, None)),
        (PINNED, SITE, MASTER, (SNAPSHOT, None)),
        (PINNED, HIERADATA, Branch("main"), (SNAPSHOT, None)),  # where there is no master
        (PINNED, OTHER, MASTER, (WAITING, None)),
        (None, DUMMY, MASTER, (None, None)),
    ],
)
def test_why_an_environment_has_a_ref(
    definition: Definition | None, repo: RepoId, ref: Ref, expected: tuple[str | None, Ref | None]
) -> None:
    assert plan_why(definition, repo, ref) == expected


REFUSAL = fault(CHECKOUT, text="it has too many files")
UNKNOWN = fault(COMMIT, text="modules/dummy: commit aaaa is unknown", ref="aaaa")
AWAY = Contact(fault(NOT_FETCHED, text="no answer"))


@pytest.mark.parametrize(
    ("ref", "lacks", "heads", "has_mirror", "trouble", "faults", "expected"),
    [
        (MASTER, ["data/x"], {}, True, Contact(), [], "branch 'master' of modules/dummy has no 'data/x'"),
        (MASTER, [], {}, True, Contact(), [], "there is no branch 'master' in modules/dummy"),
        (MASTER, [], {}, True, AWAY, [], "there is no branch 'master' in modules/dummy: no answer"),
        (
            MASTER,
            [],
            {"master": A},
            True,
            Contact(),
            [REFUSAL],
            "branch 'master' is in the mirror, and is not laid out: it has too many files",
        ),
        (
            MASTER,
            [],
            {"master": A},
            True,
            Contact(),
            [],
            "branch 'master' is in the mirror, and is not laid out: the next run does it",
        ),
        (MASTER, [], {}, False, AWAY, [], "modules/dummy is not there: no answer"),
        (MASTER, [], {}, False, Contact(), [], "modules/dummy is not there, and nothing tells why"),
        (Commit(A), [], {}, True, Contact(), [UNKNOWN], "modules/dummy: commit aaaa is unknown"),
        (Commit(B), [], {}, True, Contact(), [UNKNOWN], f"there are no files of commit {B} of modules/dummy"),
    ],
)
def test_why_links_lead_nowhere(
    ref: Ref,
    lacks: list[str],
    heads: dict[str, str],
    has_mirror: bool,
    trouble: Contact,
    faults: list[OpenFault],
    expected: str,
) -> None:
    assert plan_gap(DUMMY, ref, lacks, heads, has_mirror, trouble, faults) == expected


def test_which_faults_concern_an_environment() -> None:
    mine, foreign = fault(DANGLING_LINK, environment="e"), fault(DANGLING_LINK, environment="f")
    held, other, all_of_it = fault(NOT_FETCHED), fault(NOT_FETCHED, "modules/other"), fault("metadata", "")
    assert plan_faults([mine, foreign, held, other, all_of_it], "e", [DUMMY]) == (mine, held, all_of_it)


def test_since_when_a_link_shows_something() -> None:
    assert since_of(Shown(MASTER, A, 5.0), 3.0) == 5.0  # the branch moved later
    assert since_of(Shown(MASTER, A, 5.0), 7.0) == 7.0  # the environment was made later
    assert since_of(Shown(Commit(A), A, None), 3.0) == 3.0
    assert since_of(Shown(MASTER, None, None), 3.0) is None


# Repositories


def test_refs_of_a_repository() -> None:
    uses = [
        Use("z", MASTER, A, 5.0),
        Use("a", MASTER, A, 4.0),
        Use("gone", Branch("gone"), None, None),
        Use("snap", Commit(B), B, 9.0),
        Use("snap2", Commit(B), B, 8.0),
    ]
    branches: dict[Ref, Expanded] = {MASTER: Expanded(A, 3.0), QA: Expanded(C, 1.0)}
    assert plan_refs(branches, uses, {}) == (
        RefShown(Branch("gone"), None, None, None, ("gone",)),
        RefShown(MASTER, A, 3.0, None, ("a", "z")),
        RefShown(QA, C, 1.0, None, ()),
        RefShown(Commit(B), B, 8.0, None, ("snap", "snap2")),
    )


# Commits


def test_the_disk_outranks_the_history() -> None:
    uses = [
        Use("both", MASTER, B, 20.0),
        Use("disk", MASTER, B, 20.0),
        Use("none", MASTER, A, 5.0),
        Use("undone", QA, A, 30.0),
    ]
    spans = [
        Span("both", "master", B, 10.0),
        Span("gone", "master", B, 1.0, 2.0, LEFT),
        Span("none", "master", B, 1.0, 2.0, BRANCH_GONE),
        Span("undone", "qa", B, 10.0),
    ]
    places = plan_places(uses, spans, {B}, {"qa": B}, ["both", "disk", "none", "undone"])
    assert places.visible == (Visible("both", MASTER, B, 10.0), Visible("disk", MASTER, B, 20.0))
    assert places.lacking == (
        Lacking("none", MASTER, A, show_commit.WITHOUT),
        Lacking("undone", QA, A, show_commit.NOT_LAID_OUT),
    )
    assert places.past == (
        Span("gone", "master", B, 1.0, 2.0, ENVIRONMENT_GONE),
        Span("none", "master", B, 1.0, 2.0, BRANCH_GONE),
        Span("undone", "qa", B, 10.0),
    )


@pytest.mark.parametrize(
    ("use", "heads", "reason"),
    [
        (Use("e", MASTER, A, 1.0), {}, show_commit.WITHOUT),
        (Use("e", MASTER, A, 1.0), {"master": A}, show_commit.WITHOUT),
        (Use("e", MASTER, A, 1.0), {"master": C}, show_commit.NOT_LAID_OUT),
        (Use("e", MASTER, None, None), {"master": C}, show_commit.NOT_LAID_OUT),
        (Use("e", MASTER, None, None), {}, show_commit.DANGLES),
        (Use("e", Commit(A), A, 1.0), {"master": C}, show_commit.WITHOUT),
        (Use("e", Commit(A), None, None), {"master": C}, show_commit.DANGLES),
    ],
)
def test_why_an_environment_has_not_got_it(use: Use, heads: dict[str, str], reason: str) -> None:
    [lacking] = plan_places([use], [], {B, C}, heads, ["e"]).lacking
    assert lacking.reason == reason


def test_one_environment_is_asked_for() -> None:
    uses = [Use("a", MASTER, B, 1.0), Use("b", QA, A, 1.0)]
    spans = [Span("a", "master", B, 1.0), Span("b", "qa", B, 1.0, 2.0, BRANCH_GONE)]
    assert plan_places(uses, spans, {B}, {}, ["a", "b"], "a").lacking == ()
    narrow = plan_places(uses, spans, {B}, {}, ["a", "b"], "b")
    assert narrow.visible == ()
    assert [span.environment for span in narrow.past] == ["b"]
