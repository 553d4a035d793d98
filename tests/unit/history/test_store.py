"""The database: what goes when it is too old, and what does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jens.history import queries, store
from jens.history.model import (
    Change,
    Deployment,
    EnvironmentSeen,
    FaultRows,
    Holding,
    Link,
    RepositorySeen,
    Rows,
    Visible,
)
from jens.history.record import plan
from jens.history.store import Reader, Store

DAY = 86_400.0
NOW = 1_800_000_000.0
REPO = "modules/dummy"


def _commit(number: int) -> str:
    return f"{number:040x}"


def _seen(number: int, time: float, environments: int) -> Visible:
    return Visible(
        {REPO: RepositorySeen(number, {"master": Link(_commit(number), time)}, time)},
        {f"e{each}": EnvironmentSeen(number, 0, {REPO: "master"}, time) for each in range(environments)},
    )


def _write(history: Store, seen: Visible, time: float, now: float, days: int = 90) -> Rows:
    rows = plan(history.believed(seen), seen)
    history.write(Deployment("host", time), rows, FaultRows(), seen, now, "2026-03-03T14:25:37+00:00", days)
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a b%?#ä" / "history.sqlite"


def test_what_ended_long_ago_goes_a_little_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST_OLD", 20)
    path.parent.mkdir()
    with Store(path) as history:
        for number in range(1, 101):
            _write(history, _seen(number, NOW + number, 30), NOW + number, NOW + number)
        gone = Visible(gone_environments={f"e{number}": NOW + 200 for number in range(1, 30)})
        _write(history, gone, NOW + 200, NOW + 200)
        sizes = []
        later = NOW + 200 * DAY
        for step in range(12):
            later += store._OLD_INTERVAL
            _write(history, _seen(1000 + step, later, 1), later, later)
            with Reader(path) as reader:
                [(changes,)] = reader.rows("SELECT count(*) FROM change")
                [(holdings,)] = reader.rows("SELECT count(*) FROM holding")
                # As long as it tells of a time, it tells when that ended.
                assert {shown.environment for shown in queries.shown(reader, _commit(1)) if not shown.until} == set()
                assert {held.environment for held in queries.holders_of(reader, REPO)} == {"e0"}
                sizes.append((changes, holdings))
    assert sizes[0] == (81, 10)
    assert all(before[0] - after[0] <= 20 for before, after in zip(sizes, sizes[1:]))
    assert sizes[-1] == (13, 1)  # the last one before ended only now
    with Reader(path) as reader:
        assert len(queries.deployments(reader)) == 14  # that one, and the one since which e0 holds it


def test_what_is_old_goes_only_now_and_then(path: Path) -> None:
    path.parent.mkdir()
    with Store(path) as history:
        _write(history, _seen(1, NOW, 1), NOW, NOW)
        _write(history, _seen(2, NOW + 1, 1), NOW + 1, NOW + 100 * DAY)
        _write(history, _seen(3, NOW + 2, 1), NOW + 2, NOW + 100 * DAY + 10)
        with Reader(path) as reader:
            assert len([*queries.entries(reader, queries.Filter(repository=REPO))]) == 2
        _write(history, _seen(4, NOW + 3, 1), NOW + 3, NOW + 100 * DAY + 400)
        with Reader(path) as reader:
            assert len([*queries.entries(reader, queries.Filter(repository=REPO))]) == 1


def test_a_transaction_is_whole_or_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    with Store(path) as history:
        _write(history, _seen(1, NOW, 3), NOW, NOW)
        before = path.read_bytes()

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Store, "_see", fail)
            with pytest.raises(KeyboardInterrupt):
                _write(history, _seen(2, NOW + 1, 2), NOW + 1, NOW + 1)
        assert path.read_bytes() == before
        assert _write(history, _seen(2, NOW + 1, 3), NOW + 1, NOW + 1).changes[0].before == _commit(1)


def test_pages_have_everything_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    repositories = [f"modules/m{number}" for number in range(7)]
    with Store(path) as history:
        for number in range(1, 6):
            seen = Visible(
                {
                    name: RepositorySeen(number, {ref: Link(_commit(number), NOW) for ref in ("a", "b")}, NOW)
                    for name in repositories
                },
                {f"e{each}": EnvironmentSeen(number, number, {}, NOW) for each in range(4)},
            )
            _write(history, seen, NOW, NOW)
    with Reader(path) as reader:
        everything = [*queries.entries(reader)]
        assert len(everything) == 5 * (2 * len(repositories) + 4)
        assert len({(type(entry), entry[1:6]) for entry in everything}) == len(everything)
        assert [entry.deployment for entry in everything] == sorted((e.deployment for e in everything), reverse=True)
        for size in (1, 3, 14, 15):
            monkeypatch.setattr(queries, "_PAGE", size)
            assert [*queries.entries(reader)] == everything


def test_names_are_numbered_once(path: Path) -> None:
    path.parent.mkdir()
    with Store(path) as history:
        change = Change(REPO, "master", None, _commit(1), NOW)
        held = [Holding(f"e{number}", REPO, "master") for number in range(50)]
        rows = Rows([change], (), held)
        history.write(Deployment("host", NOW), rows, FaultRows(), Visible(), NOW, "", 90)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM repository").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM ref").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM environment").fetchone() == (50,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
