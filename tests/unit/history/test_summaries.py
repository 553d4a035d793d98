"""Questions for pages of many lines, and questions that find few among many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.errors import HistoryError
from jens.history import queries, summaries
from jens.history.model import (
    CHANGED,
    CREATED,
    DELETED,
    Author,
    Change,
    Deployment,
    EnvironmentChange,
    FaultRows,
    Holding,
    Rows,
    Visible,
)
from jens.history.queries import Filter
from jens.history.store import Reader, Store
from jens.history.summaries import LastMove, Size

NOW = 1_800_000_000.0
#: Which branch of which repository moves in each deployment, one after the other.
MOVES = [("modules/a", "master"), ("modules/b", "master"), ("modules/a", "qa"), ("modules/a", "master")] * 5


def _commit(number: int) -> str:
    return f"{number:040x}"


def _history() -> Iterator[tuple[Rows, float]]:
    """A first deployment with three environments, then moves; prod holds master until it is deleted, qa holds qa."""
    held = [Holding(name, f"modules/{repo}", ref) for name, ref in (("prod", "master"), ("qa", "qa")) for repo in "ab"]
    held.append(Holding("pinned", "modules/a", f".{_commit(1)}"))
    made = [EnvironmentChange(name, CREATED, NOW, _commit(77), "Ann") for name in ("prod", "qa", "pinned")]
    yield Rows([], made, held), NOW
    at: dict[tuple[str, str], str] = {}
    for number, (repo, ref) in enumerate(MOVES, 1):
        before, now = at.get((repo, ref)), _commit(number)
        at[repo, ref] = now
        author = Author(f"Author {number % 3}", f"Change {number}", int(NOW))
        yield Rows([Change(repo, ref, before, now, NOW + number, author, 1, 0, NOW + number - 2)]), NOW + number
    yield Rows([], [EnvironmentChange("qa", CHANGED, NOW + 50, _commit(78), "Bob")]), NOW + 50
    gone = [each for each in held if each.environment == "prod"]
    yield Rows([], [EnvironmentChange("prod", DELETED, NOW + 60)], [], gone), NOW + 60


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("history") / "history.sqlite"
    with Store(made) as store:
        for rows, time in _history():
            deployment = Deployment("host", time, time - 1, 1.0, 0 if rows.changes else 60, "hints")
            store.write(deployment, rows, FaultRows(), Visible(), time, "", 3650)
    return made


def test_the_last_move_of_each_repository(path: Path) -> None:
    with Reader(path) as reader:
        found = summaries.last_moves(reader)
    assert found.keys() == {"modules/a", "modules/b"}
    assert found["modules/a"] == LastMove(NOW + 20, 21, "master", _commit(20), "Author 2", "Change 20")
    assert found["modules/b"].time == NOW + 18


def test_how_many_environments_hold_a_repository(path: Path) -> None:
    with Reader(path) as reader:
        assert summaries.users(reader) == {"modules/a": 2, "modules/b": 1}


def test_what_last_became_of_each_environment(path: Path) -> None:
    with Reader(path) as reader:
        found = summaries.last_changes(reader)
    assert {name: (each.change, each.time, each.author) for name, each in found.items()} == {
        "pinned": (CREATED, NOW, "Ann"),
        "prod": (DELETED, NOW + 60, None),
        "qa": (CHANGED, NOW + 50, "Bob"),
    }


@pytest.mark.parametrize("newest", [1, 2, 40])
def test_when_environments_last_showed_something_new(path: Path, monkeypatch: pytest.MonkeyPatch, newest: int) -> None:
    monkeypatch.setattr(summaries, "_NEWEST", newest)
    with Reader(path) as reader:
        assert summaries.last_shown(reader, ["qa", "pinned", "unknown"]) == {"qa": NOW + 19}


def test_how_large_deployments_are_and_how_they_ended(path: Path) -> None:
    with Reader(path) as reader:
        assert summaries.sizes(reader, [1, 2, 99]) == {1: Size(0, 3), 2: Size(1, 0), 99: Size(0, 0)}
        assert summaries.endings(reader, NOW + 1) == {("hints", 0): 20, ("hints", 60): 2}


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(("prod",)),
        Filter(("qa",)),
        Filter(("pinned",)),
        Filter(("prod", "qa")),
        Filter(repository="modules/b"),
        Filter(("qa",), "modules/a"),
        Filter(("prod",), since=NOW + 5, until=NOW + 9),
        Filter(("qa",), author="author 1"),
        Filter(repository="modules/a", before=9),
        Filter(("nothing",)),
    ],
)
def test_few_and_many_changes_are_found_alike(path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Filter) -> None:
    found = []
    for few in (0, 3, 1000):
        monkeypatch.setattr(queries, "_FEW", few)
        for page in (1, 2, 500):
            with Reader(path) as reader:
                found.append([*queries.entries(reader, wanted, page)])
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(author="AUTHOR 2"), [21, 18, 15, 12, 9, 6, 3]),
        (Filter(author="bob"), [22]),
        (Filter(before=4), [3, 2, 1, 1, 1]),
        (Filter(deployment=3), [3]),
        (Filter(deployment=1 << 70), []),
        (Filter(before=1 << 70, until=NOW), [1, 1, 1]),
    ],
)
def test_entries_by_author_and_deployment(path: Path, wanted: Filter, numbers: list[int]) -> None:
    with Reader(path) as reader:
        assert [entry.deployment for entry in queries.entries(reader, wanted)] == numbers


def test_the_newest_moves_and_those_to_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader(path) as reader:
        everything = queries.moves_of(reader, "modules/a")
        assert len(everything) == 15
        assert queries.moves_of(reader, "modules/a", 5, _commit(1)) == everything  # the repository is not busy
        monkeypatch.setattr(queries, "_FEW", 1)
        assert queries.moves_of(reader, "modules/a", 5) == everything[-5:]
        assert queries.moves_of(reader, "modules/a", 5, _commit(1)) == [everything[0], *everything[-5:]]
        assert queries.moves_of(reader, "modules/a", 5, _commit(20)) == everything[-5:]
        assert queries.moves_of(reader, "modules/a", 99, _commit(1)) == everything


def test_times_until_pushes_were_visible(path: Path) -> None:
    with Reader(path) as reader:
        assert queries.seconds_to_visible(reader, NOW + 10.5) == [2.0] * 10


def test_a_question_that_takes_too_long_is_ended(path: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with Reader(path) as reader:
        reader.end_after(0.05)
        with pytest.raises(HistoryError, match="interrupted"):
            reader.rows(endless)
        assert len([*itertools.islice(queries.entries(reader), 3)]) == 3  # the next one has its own time
