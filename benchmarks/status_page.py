"""Measure the status page at the reference site with a history of a year, while runs work and ten readers look at once.

For each kind of page: the median and the longest time until an answer was read, the processor time of the server for a
page, and the size of the largest page. Each reader asks for the next page after a short pause. Of a kind with many
pages, the readers look at different ones. The last row is a load of 200 requests a second, beside readers that never
read what they asked for. Exits 1 when a page is slower or larger than it may be, or an answer is an error.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.history_year import MINUTES, Pushes, generate
from benchmarks.producer_load import started
from benchmarks.site import Site
from benchmarks.site_scale import PYTHON, TREE, run
from jens.messaging.queue import Queue
from jens.model import RepoId

#: Readers at once, the seconds that they look at each kind of page, and those that they pause in the mean.
_READERS, _SECONDS, _PAUSE = 10, 6.0, 0.5
#: What a page may take, in milliseconds: the median, and the longest; and its size in bytes.
_MEDIAN, _LONGEST, _LARGEST = 100, 300, 500_000
#: Seconds between two pushes.
_PUSHES = 2.0


def _pages(site: Site, chance: random.Random) -> dict[str, list[str]]:
    """Addresses of each kind of page."""
    environments = ["production", "qa", *(f"dev{number}" for number in range(140)), *(f"snap{n}" for n in range(10))]
    repositories = [*site.repositories.values()]
    chance.shuffle(repositories)
    commits = [repository.commits[-1] for repository in repositories[:60]]
    return {
        "/": ["/"],
        "/environments": ["/environments"],
        "/environments/production": ["/environments/production"],
        "/environments/NAME": [f"/environments/{name}" for name in environments],
        "?compare=OTHER": [f"/environments/production?compare={name}" for name in environments[1:20]],
        "/repositories": ["/repositories"],
        "/repositories/P/NAME": [f"/repositories/{repository.name}" for repository in repositories],
        "/history": ["/history", "/history?since=1d", "/history?before=100000", "/history?before=400000"],
        "/history, filtered": [
            *(f"/history?environment={name}" for name in ("production", "dev7", "snap1")),
            *(f"/history?repository={name}" for name in ("modules/m0", "modules/m99", "common/site")),
            *(f"/history?author={name}" for name in ("Author+7", "nobody")),
        ],
        "/history/NUMBER": [f"/history/{number}" for number in range(1000, 1200)],
        "/search?q=": ["/search?q=dev", "/search?q=m12", *(f"/search?q={commit[:7]}" for commit in commits)],
        "/commits/ID": [f"/commits/{commit}" for commit in commits],
        "JSON of the largest": ["/environments/production.json", "/repositories.json"],
        "/metrics": ["/metrics"],
    }


class _Reading:
    """What readers saw of some addresses."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.sizes: list[int] = []
        self.statuses: dict[int, int] = {}
        self._guard = threading.Lock()

    def read(self, port: int, addresses: Iterator[str], until: float) -> None:
        """Read one page after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        chance = random.Random(threading.get_ident())
        while time.monotonic() < until:
            time.sleep(chance.uniform(0, 2 * _PAUSE))
            with self._guard:
                address = next(addresses)
            self._read_one(connection, address, time.monotonic())
        connection.close()

    def _read_one(self, connection: http.client.HTTPConnection, address: str, since: float) -> None:
        connection.request("GET", address)
        answer = connection.getresponse()
        size = len(answer.read())
        with self._guard:
            self.times.append((time.monotonic() - since) * 1000)
            self.sizes.append(size)
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1

    def load(self, port: int, rate: int, seconds: int) -> None:
        """Ask for the first page at a steady rate; a late answer counts from when it was due."""
        begin, numbers = time.monotonic() + 0.1, iter(range(rate * seconds))

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while True:
                with self._guard:
                    number = next(numbers, None)
                if number is None:
                    return connection.close()
                due = begin + number / rate
                time.sleep(max(0, due - time.monotonic()))
                self._read_one(connection, "/", due)

        _together([client] * 16)

    def row(self, name: str, used: float, *, is_bounded: bool) -> tuple[str, bool]:
        """A line of the table, and whether all is as it should be."""
        median, longest, largest = statistics.median(self.times), max(self.times), max(self.sizes)
        is_good = set(self.statuses) == {200} and largest <= _LARGEST
        is_quick = not is_bounded or (median <= _MEDIAN and longest <= _LONGEST)
        note = "" if is_good and is_quick else "  TOO MUCH"
        line = f"{name:26}{len(self.times):8}{median:10.1f}{longest:10.1f}{used * 1000 / len(self.times):8.1f}"
        line += f"{largest / 1000:8.1f}  {self.statuses}{note}"
        return line, is_good and is_quick


def _together(works: Sequence[object]) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _runs(site: Site, config: Path) -> Iterator[list[float]]:
    """Pushes every few seconds, each with a run that makes it visible; the seconds that the runs took."""
    stop, took, queue = threading.Event(), list[float](), Queue(site.root / "spool")

    def work() -> None:
        for number in itertools.count():
            if stop.wait(_PUSHES):
                return
            repository = RepoId("modules", f"m{number % 50}")
            site.push([str(repository)], f"note {number}")
            queue.add([repository])
            took.append(run(*PYTHON, str(TREE / "bin" / "jens-update"), "-c", str(config)).seconds)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield took
    finally:
        stop.set()
        worker.join()


def _prepare(top: Path, pushes: int) -> tuple[Site, Path]:
    """A site after a run, whose history begins a year ago."""
    site = Site(top)
    config = site.config(mode="ONDEMAND")
    names = [path.stem for path in (top / "metadata" / "environments").glob("*.yaml")]
    generate(top / "cache" / "history.sqlite", Pushes(random.Random(1), names), pushes)
    run(*PYTHON, str(TREE / "bin" / "jens-update"), "-c", str(config), "--poll")
    return site, config


def _measure(site: Site, config: Path, seconds: float) -> bool:
    is_good = True
    print(f"{'':26}{'pages':>8}{'median ms':>10}{'longest':>10}{'cpu ms':>8}{'kB':>8}  statuses")
    runner = str(TREE / "bin" / "jens-status-runner")
    with started(runner, "-c", str(config), "-p", "0") as (port, server), _runs(site, config) as took:
        for name, addresses in _pages(site, random.Random(1)).items():
            reading, left, until = _Reading(), itertools.cycle(addresses), time.monotonic() + seconds
            before = _used(server)
            _together([lambda r=reading, a=left, u=until: r.read(port, a, u)] * _READERS)
            line, is_well = reading.row(name, _used(server) - before, is_bounded=True)
            is_good = is_good and is_well
            print(line, flush=True)
        is_good = _overload(port, server) and is_good
    print(f"\n{len(took)} runs meanwhile, {statistics.median(took):.2f} s in the median")
    return is_good


def _used(process: int) -> float:
    """The seconds of processor time that a process has used, without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _overload(port: int, server: int) -> bool:
    """200 requests a second for ten seconds, while fifty readers never read the page that they asked for."""
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"GET /environments/production HTTP/1.1\r\nHost: x\r\n\r\n")
    reading = _Reading()
    before = _used(server)
    reading.load(port, 200, 10)
    line, is_well = reading.row("200 requests a second", _used(server) - before, is_bounded=False)
    print(line)
    for connection in slow:
        connection.close()
    return is_well


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when something is more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=MINUTES, help="default: one a minute for a year")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for each kind of page")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        site, config = _prepare(Path(scratch), arguments.pushes)
        return 0 if _measure(site, config, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
