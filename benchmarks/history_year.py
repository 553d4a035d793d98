"""Measure a history of a year with a push a minute, at a site of realistic size: how large it is, how fast it answers.

The history is generated: 412 repositories, 160 environments, 525,600 pushes to branches that most environments follow.
Exits 1 when it is larger or slower than it may be.
"""

# ruff: noqa: SLF001 - a year of transactions would take hours

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.site_scale import PYTHON, TREE, run
from jens.history import queries, record
from jens.history.model import (
    Author,
    Believed,
    Change,
    Deployment,
    EnvironmentSeen,
    FaultRows,
    Link,
    RepositorySeen,
    Rows,
    Visible,
)
from jens.history.since import since
from jens.history.spans import Span, plan_spans
from jens.history.store import Reader, Store

MINUTES = 365 * 24 * 60
_REPOSITORIES = [*(f"modules/m{number}" for number in range(260)), *(f"hostgroups/h{number}" for number in range(150))]
_REPOSITORIES += ["common/hieradata", "common/site"]
_ENVIRONMENTS = [
    "production",
    "qa",
    *(f"e{number}" for number in range(148)),
    *(f"snap{number}" for number in range(10)),
]
_WORDS = ("add", "remove", "fix", "update", "class", "for", "nodes", "of", "the", "new", "cluster", "certificates")
#: So many transactions are one while the history is generated.
_AT_ONCE = 5000
_TIMES = 5


@dataclass(frozen=True)
class Row:
    """One measurement, and what it may be at most (0: anything)."""

    what: str
    measured: float
    unit: str
    most: float = 0.0

    @property
    def is_well(self) -> bool:
        """Whether it is not more than it may be."""
        return not self.most or self.measured <= self.most


class Pushes:
    """What was pushed so far."""

    def __init__(self, chance: random.Random, environments: Sequence[str] = _ENVIRONMENTS) -> None:
        self._chance = chance
        self._environments = environments
        self._authors = [f"Author {number}" for number in range(200)]
        self.commits = {(repo, ref): self._commit() for repo in _REPOSITORIES for ref in ("master", "qa")}

    def _commit(self) -> str:
        return f"{self._chance.getrandbits(160):040x}"

    def visible(self, time: float) -> Visible:
        """Everything, as a first recording finds it."""
        return Visible(
            {
                repo: RepositorySeen(1, {ref: Link(self.commits[repo, ref], time) for ref in ("master", "qa")}, time)
                for repo in _REPOSITORIES
            },
            {name: EnvironmentSeen(1, 0, self._holds(name), time) for name in self._environments},
        )

    def _holds(self, name: str) -> dict[str, str]:
        if name.startswith("snap"):
            return {repo: f".{self._commit()}" for repo in self._chance.sample(_REPOSITORIES, 80)}
        default = "qa" if name == "qa" else "master"
        return dict.fromkeys(_REPOSITORIES, default)

    def push(self, time: float) -> Rows:
        """One push to one repository; some have far more pushes than others."""
        repo = _REPOSITORIES[min(int(self._chance.paretovariate(1.0) * 5), len(_REPOSITORIES)) - 1]
        ref = "master" if self._chance.random() < 0.8 else "qa"
        before, now = self.commits[repo, ref], self._commit()
        self.commits[repo, ref] = now
        author = Author(self._chance.choice(self._authors), " ".join(self._chance.sample(_WORDS, 7)), int(time))
        return Rows([Change(repo, ref, before, now, time, author, 1, 0, time - 2.5)])


def generate(path: Path, site: Pushes, pushes: int) -> float:
    """Make a history that ends now; the seconds that writing the first recording took."""
    begin, now = time.time() - pushes * 60, time.time()
    with Store(path) as store:
        seen = site.visible(begin)
        start = time.perf_counter()
        rows = record.plan(Believed(), seen)
        store.write(Deployment("jens.example.org", begin), rows, FaultRows(), seen, now, "", 3650)
        first = time.perf_counter() - start
        for at in range(0, pushes, _AT_ONCE):
            with store._transaction():
                for minute in range(at, min(at + _AT_ONCE, pushes)):
                    when = begin + 60 * (minute + 1)
                    made = Deployment("jens.example.org", when, when - 0.2, 0.25, 0, "hints")
                    store._add_changes(store._add_deployment(made), site.push(when))
    return first


def _write(path: Path, site: Pushes) -> float:
    """The seconds that recording one more push takes, from opening the history to its being on disk."""
    start, now = time.perf_counter(), time.time()
    with Store(path) as store:
        store.fingerprints()
        rows = site.push(now)
        seen = Visible({rows.changes[0].repository: RepositorySeen(2, {}, now)})
        store.believed(seen)
        store.open_faults()
        store.write(Deployment("jens.example.org", now), rows, FaultRows(), seen, now, "", 3650)
    return time.perf_counter() - start


def _median(work: Callable[[], float]) -> float:
    return statistics.median(work() for _ in range(_TIMES))


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return timed


def _spans(reader: Reader, commit: str) -> list[Span]:
    """What jens-show asks the history about a commit."""
    moves, holdings = queries.moves_of(reader, "modules/m7"), queries.holdings_of(reader, "modules/m7")
    return plan_spans(moves, holdings, {commit})


def _measure(top: Path, pushes: int) -> list[Row]:
    (top / "cache").mkdir()
    path, config = top / "cache" / "history.sqlite", top / "main.conf"
    config.write_text(f"[main]\ncachedir = {top}/cache\n")
    site = Pushes(random.Random(1))
    first = generate(path, site, pushes)
    some = site.commits["modules/m7", "master"]
    ask = (*PYTHON, str(TREE / "bin" / "jens-history"), "-c", str(config))

    def tool(*arguments: str) -> float:
        return _median(lambda: run(*ask, *arguments).seconds)

    with Reader(path) as reader:
        return [
            Row(f"a history of {pushes} pushes", path.stat().st_size / 1e6, "MB", 500),
            Row("the rows of a first recording", first, "s", 2),
            Row("recording a push", _median(lambda: _write(path, site)) * 1000, "ms", 30),
            Row("jens-history production --since 1h", tool("production", "--since", "1h"), "s", 0.3),
            Row("jens-history production --since 1d", tool("production", "--since", "1d"), "s"),
            Row("jens-history -r modules/m7 -n 20", tool("-r", "modules/m7", "-n", "20"), "s"),
            Row("jens-history --faults", tool("--faults"), "s"),
            Row("what production holds", _median(_timed(lambda: queries.held_by(reader, "production"))) * 1000, "ms"),
            Row(
                "what production held in the middle",
                _median(_timed(lambda: queries.held_by(reader, "production", pushes // 2))) * 1000,
                "ms",
            ),
            Row("when a commit was visible where", _median(_timed(lambda: _spans(reader, some))) * 1000, "ms"),
            Row("what the last push changed", _median(_timed(lambda: since(reader, pushes))) * 1000, "ms", 100),
            Row("what the pushes of a day changed", _median(_timed(lambda: since(reader, pushes - 1439))) * 1000, "ms"),
            Row("where a commit is visible", _median(_timed(lambda: queries.shown(reader, some[:9]))) * 1000, "ms"),
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when something is more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=MINUTES, help="default: one a minute for a year")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as top:
        rows = _measure(Path(top), arguments.pushes)
    for row in rows:
        most = f"  (at most {row.most:g})" if row.most else ""
        print(f"{row.what:40} {row.measured:9.3f} {row.unit}{most}{'' if row.is_well else '  TOO MUCH'}")
    return 0 if all(row.is_well for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
