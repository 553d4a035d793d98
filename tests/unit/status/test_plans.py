"""The decisions of the status page, from values alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jens.config import load_config
from jens.events import DANGLING_LINK
from jens.history.queries import EnvironmentChange
from jens.history.summaries import LastMove
from jens.lastrun import LastRun
from jens.model import Branch, Commit, Definition, Fault, Inventory, OpenFault, RepoId
from jens.status import commits, environments, metrics, repositories, words
from jens.status.links import Links
from jens.status.memory import Memory
from jens.status.overview import LATE, MANY_HINTS, UNKNOWN, WELL, WRONG, plan_spread, plan_state
from jens.status.page import RefusedError, number, slice_of
from jens.status.templating import finalize
from jens.status.words import Redaction, clean, lasting

NOW = 1_800_000_000.0
SINCE = "2026-03-03T14:05:37+00:00"
DUMMY = RepoId("modules", "dummy")


def fault(kind: str = DANGLING_LINK, environment: str = "", repository: str = "") -> OpenFault:
    return OpenFault(Fault(kind, "why", environment, repository), SINCE)


GOOD = LastRun(NOW - 40, 1.0, 0, ())


@pytest.mark.parametrize(
    ("last_run", "faults", "hints", "state", "reasons"),
    [
        (GOOD, [], None, WELL, []),
        (GOOD, [], MANY_HINTS - 1, WELL, []),
        (None, [], None, UNKNOWN, ["No run has ended yet"]),
        (GOOD, [fault()], None, WRONG, ["1 fault is open."]),
        (GOOD, [fault(), fault()], None, WRONG, ["2 faults are open."]),
        (GOOD._replace(status=20), [], None, WRONG, ["exit status 20"]),
        (GOOD._replace(failures=("a",)), [], None, WRONG, ["The last run had 1 failure."]),
        (GOOD._replace(begin=NOW - LATE), [], None, WELL, []),
        (GOOD._replace(begin=NOW - LATE - 1), [], None, WRONG, ["The last run began 10 min ago."]),
        (GOOD, [], MANY_HINTS, WRONG, ["100 hints wait."]),
        (GOOD._replace(status=60), [fault()], 200, WRONG, ["1 fault", "exit status 60", "200 hints"]),
    ],
)
def test_all_is_well_exactly_when_nothing_is_wrong(
    last_run: LastRun | None, faults: list[OpenFault], hints: int | None, state: str, reasons: list[str]
) -> None:
    found, why = plan_state(last_run, faults, hints, NOW)
    assert found == state
    assert len(why) == len(reasons)
    assert all(part in text for part, text in zip(reasons, why))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], None),
        ([2.0], (1, 2.0, 2.0)),
        ([1.0, 2.0, 3.0, 4.0], (4, 2.0, 4.0)),
        ([float(each) for each in range(1, 101)], (100, 50.0, 95.0)),
    ],
)
def test_the_spread_of_times(seconds: list[float], expected: tuple[int, float, float] | None) -> None:
    found = plan_spread(seconds)
    assert (found and (found["pushes"], found["median"], found["p95"])) == expected


def test_environments_with_faults_come_first_and_those_that_are_not_there_are_told() -> None:
    definitions = {"a": Definition("a", Branch("qa"), {DUMMY: Branch("x")}), "b": Definition("b", None, {}), "c": None}
    faults = [fault(environment="c"), fault("definition", environment="gone"), fault(environment="no name")]
    changed = {"a": EnvironmentChange(10.0, 1, "h", "a", "created", None, None)}
    rows = environments.plan_rows(["a", "b", "c"], definitions, faults, changed, {"a": 20.0}, {})
    assert [(row["environment"], row["state"]) for row in rows] == [
        ("c", "faulty"),
        ("gone", "missing"),
        ("a", "well"),
        ("b", "well"),
    ]
    row = rows[2]
    assert (row["default"], row["overrides"], row["snapshot"]) == ("qa", 1, False)
    assert (row["last_change"], rows[3]["last_change"]) == ("1970-01-01T00:00:20+00:00", None)
    assert rows[3]["snapshot"] is True


def test_repositories_with_faults_come_first() -> None:
    inventory: Inventory = {
        DUMMY: {Branch("master"): "a" * 40, Commit("b" * 40): "b" * 40},
        RepoId("modules", "well"): {},
    }
    faults = [
        fault("x", repository="modules/dummy"),
        fault("y", repository="modules/new"),
        fault("z", "e", "modules/well"),
    ]
    moves = {"modules/dummy": LastMove(5.0, 3, ".abc", "a" * 40, "Ann", "Add foo")}
    rows = repositories.plan_rows(inventory, faults, moves, {"modules/dummy": 7}, {DUMMY}, {".abc": "commit/abc"})
    assert [(row["repository"], row["state"], row["environments"]) for row in rows] == [
        ("modules/dummy", "faulty", 7),
        ("modules/new", "missing", 0),
        ("modules/well", "well", 0),
    ]
    assert (rows[0]["branches"], rows[0]["commits"], rows[0]["left_to_transfer"]) == (1, 1, True)
    assert rows[0]["last_change"]["ref"] == "commit/abc"


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ([], [], []),
        ([("m/a", "master", "1")], [("m/a", "qa", "1")], []),  # the same files
        ([("m/a", "master", "1")], [("m/a", "master", "2")], ["m/a"]),
        ([("m/a", "master", "1")], [], ["m/a"]),
        ([("m/a", "gone", None)], [("m/a", "gone", None)], []),
        ([("m/a", "gone", None)], [("m/a", "lost", None)], ["m/a"]),
        ([("m/b", "x", "1"), ("m/a", "x", "1")], [("m/c", "x", "1")], ["m/a", "m/b", "m/c"]),
    ],
)
def test_how_two_environments_differ(
    here: list[tuple[str, str, str | None]], there: list[tuple[str, str, str | None]], expected: list[str]
) -> None:
    sides: list[list[dict[str, Any]]] = [
        [{"repository": repo, "ref": ref, "commit": commit} for repo, ref, commit in side] for side in (here, there)
    ]
    assert [each["repository"] for each in environments.plan_difference(*sides)] == expected


def test_what_is_most_like_the_name_comes_first() -> None:
    names = ["modules/xdummy", "modules/dummy2", "modules/Dummy", "hostgroups/other", "hostgroups/dummy"]
    assert commits.plan_names(names, "dummy") == [
        *("hostgroups/dummy", "modules/Dummy", "modules/dummy2", "modules/xdummy")
    ]
    assert commits.plan_names(names, "modules/dummy2") == ["modules/dummy2"]
    assert commits.plan_names(names, "m", most=2) == ["hostgroups/dummy", "modules/Dummy"]


def test_buckets_count_all_that_is_not_longer() -> None:
    buckets = dict(metrics.plan_buckets([0.25, 0.3, 4.0, 5000.0]))
    assert (buckets["0.25"], buckets["0.5"], buckets["5.0"], buckets["900.0"], buckets["+Inf"]) == (1, 2, 3, 3, 4)


# Pages and their arguments


@pytest.mark.parametrize(
    ("wanted", "rows", "page", "pages"), [(None, 2, 1, 3), (3, 1, 3, 3), (9, 1, 3, 3), (0, 2, 1, 3)]
)
def test_a_list_has_pages(wanted: int | None, rows: int, page: int, pages: int) -> None:
    found = slice_of([*range(5)], wanted, 2)
    assert (len(found.rows), found.page, found.pages, found.total) == (rows, page, pages, 5)
    assert slice_of([], wanted).encode() == {"page": 1, "pages": 1, "total": 0}


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "9" * 17, "\u0661"])
def test_only_numbers_are_numbers(text: str) -> None:
    with pytest.raises(RefusedError, match="expected a number for page"):
        number({"page": text}, "page")


def test_links_lead_only_to_what_has_a_page() -> None:
    to = Links("/jens")
    assert to.environment("production", compare="qa") == "/jens/environments/production?compare=qa"
    assert to.environment("../x") == to.environment(None) == to.repository("modules/../x") == to.repository("x") == ""
    assert to.repository("modules/a.json") == "/jens/repositories/modules/a.json.html"
    assert to.history(author="A & B", before=None, since="") == "/jens/history?author=A+%26+B"
    assert to.json("/", {}) == "/jens/index.json"


# Texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\u202eb\nc\udcff\x1b", r"a\u202eb\nc\udcff\x1b"),
        ("x" * 2000, "x" * words.LONGEST + "…"),
    ],
)
def test_nothing_changes_how_other_texts_look(text: str, expected: str) -> None:
    assert clean(text) == finalize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'{top}/clone/modules/a/.9d' is damaged", "'clonedir/modules/a/.9d' is damaged"),
        ("fatal: '/srv/git/a.git' does not appear", "fatal: '…/a.git' does not appear"),
        ("from file:///srv/git/a.git: gone", "from …/a.git: gone"),
        ("https://ann:secret@git.example.org/x/y.git?token=1 failed", "https://git.example.org/x/y.git failed"),
        ("git@git.example.org:/x/y.git", "git.example.org:/x/y.git"),
        ("modules/dummy, hieradata/common.yaml and/or 3/4", "modules/dummy, hieradata/common.yaml and/or 3/4"),
        ("x" * 10_000, "x" * words.LONGEST),
    ],
)
def test_no_path_of_this_host_is_told(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "main.conf"
    path.write_text(f"[main]\nclonedir = {tmp_path}/clone\n")
    assert Redaction(load_config(path)).text(text.format(top=tmp_path)) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, None),
        ("https://u:p@git.example.org/a.git", "https://git.example.org/a.git"),
        ("file:///srv/secret/a.git", "…/a.git"),
        ("/srv/secret/a.git/", "…/a.git"),
    ],
)
def test_where_a_repository_is_cloned_from(tmp_path: Path, url: str | None, expected: str | None) -> None:
    path = tmp_path / "main.conf"
    path.write_text("")
    assert Redaction(load_config(path)).url(url) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (1.9, "1 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


@pytest.mark.parametrize("moment", [None, "never", "9999999-01-01", ""])
def test_a_time_that_is_none_is_unknown(moment: str | None) -> None:
    assert words.local(moment) == words.ago(moment) == "unknown"


# Memory


def test_what_is_remembered_counts_for_a_time_and_while_its_stamp_is_the_same() -> None:
    made = iter(range(100))
    memory = Memory[int](1000, 10)
    assert [memory.get("a", lambda: next(made)) for _ in range(3)] == [0, 0, 0]
    assert [memory.get("a", lambda: next(made), stamp) for stamp in (1, 1, 2)] == [1, 1, 2]
    assert [Memory[int](0, 10).get("a", lambda: next(made)) for _ in range(2)] == [3, 4]
    assert memory.look("b") is None
    memory.put("b", 7)
    assert memory.look("b") == 7


def test_memory_is_bounded_by_number_and_size() -> None:
    memory = Memory[str](1000, 3, 100)
    for key in "abcd":
        memory.get(key, lambda: "x", size=len)
    assert [key for key in "abcd" if memory.look(key)] == [*"bcd"]
    memory.get("e", lambda: "x" * 99, size=len)
    assert [key for key in "abcde" if memory.look(key)] == [*"de"]
    memory.get("f", lambda: "x" * 1000, size=len)
    assert [key for key in "abcdef" if memory.look(key)] == []


def test_what_many_ask_for_is_made_once() -> None:
    memory, made = Memory[int](1000, 3), []

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return len(made)

    readers = [threading.Thread(target=memory.get, args=("a", make)) for _ in range(10)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert made == [1]


def test_what_cannot_be_made_is_tried_again() -> None:
    memory = Memory[int](1000, 3)
    with pytest.raises(ZeroDivisionError):
        memory.get("a", lambda: 1 // 0)
    assert memory.get("a", lambda: 1) == 1
