"""Measure Jens with a site of realistic size, beside the floor: plain Git commands that do the same work.

Jens and its floor run in turn, several times; the ratio is the median of the pairs. Compare ratios, not seconds of
different runs: the speed of machines changes. Prints a table for each part, and with --json writes all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.site import Site
from jens.messaging.queue import Queue
from jens.model import RepoId

TREE = Path(__file__).resolve().parent.parent
_AT_ONCE = 8
_PUSHED = 20
_DELAY = 0.05
#: A Python that takes a millisecond to make a link, and is a tool otherwise.
_SLOW_LINKS = """
import os, runpy, sys, time
make = os.symlink
def slowly(*arguments, **named):
    time.sleep(0.001)
    make(*arguments, **named)
os.symlink = slowly
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: Two environments with versions that follow master.
_VERSIONED = "production, dev0"
#: The most that a run on demand may take longer (a factor) when the site is larger by the second factor.
_GROWTH, _LARGEST = 1.5, 3.0
#: Without the module site: an editable installation makes it slow at each start of Python, and sites have none.
PYTHON = (sys.executable, "-S")
_PATHS = (str(TREE), *dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(_PATHS), "PYTHONDONTWRITEBYTECODE": ""}
_IMPORTS = "import git, yaml, configobj, dirq.queue"


@dataclass
class Row:
    """Pairs of seconds (floor, Jens) for one piece of work; ``reach`` is the upper limit of the ratio, ``peak`` KiB."""

    work: str
    reach: float
    pairs: list[tuple[float, float]] = field(default_factory=list)
    peak: int = 0

    @property
    def ratio(self) -> float:
        """The median ratio of Jens to the floor."""
        return statistics.median(ours / floor for floor, ours in self.pairs)

    @property
    def seconds(self) -> tuple[float, float]:
        """The medians of the floor and of Jens."""
        return statistics.median(floor for floor, _ in self.pairs), statistics.median(ours for _, ours in self.pairs)


@dataclass(frozen=True)
class Ran:
    """A completed command: its seconds, and the peak memory (KiB) of all its processes together."""

    seconds: float
    peak: int


def run(*command: str, stdin: bytes = b"", watched: bool = False, cwd: Path | None = None) -> Ran:
    """Sync the disks, and run a command; ``watched`` measures its memory."""
    os.sync()
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT, cwd=cwd
    ) as process:
        peak = _Peak(process.pid) if watched else None
        process.communicate(stdin)
        seconds = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}")
    return Ran(seconds, peak.end() if peak else 0)


class _Peak:
    """Samples the memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def end(self) -> int:
        self._done.set()
        self._thread.join()
        return self._most

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, sum(map(_memory, _tree(self._pid))))


def _tree(pid: int) -> Iterable[int]:
    """A process and its descendants, except those that still have their parent's memory, between vfork(2) and exec."""
    yield pid
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                if Path(f"/proc/{child}/cmdline").read_bytes() != command:
                    yield from _tree(child)
    except OSError:
        return


def _memory(pid: int) -> int:
    """The memory of a process in KiB; its part of shared pages counts (PSS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


class Bench:
    """One site, and the rows that are measured on it."""

    def __init__(self, top: Path, scale: float) -> None:
        self.site = Site(top / "site", scale)
        self._scratch = top / "floor"
        self._configs = {mode: str(self.site.config(mode, mode=mode)) for mode in ("POLL", "ONDEMAND")}
        settings = {"mode": "ONDEMAND", "directory_environments": "True", "versionedenvironments": _VERSIONED}
        self._configs["VERSIONS"] = str(self.site.config("versions", **settings))
        self._urls = "".join(f"{self.site.url(name)}\n" for name in self.site.repositories).encode()
        self._turn = 0
        self.rows: list[Row] = []
        self.slow_links = 0.0

    def jens(self, mode: str, *, watched: bool = False) -> Ran:
        """Do one run of jens-update, which must succeed."""
        tool = str(TREE / "bin" / "jens-update")
        return run(*PYTHON, tool, "--strict", "-c", self._configs[mode], watched=watched)

    def measure(
        self, work: str, reach: float, times: int, before: Callable[[], object], floor: Callable[[], Ran], mode: str
    ) -> None:
        """Measure a row: so many pairs of a run of Jens and its floor, with ``before`` done before each pair."""
        row = Row(work, reach)
        for number in range(times):
            before()
            ours = self.jens(mode, watched=number == 0)
            row.pairs.append((floor().seconds, ours.seconds))
            row.peak = max(row.peak, ours.peak)
        self.rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)

    def cold(self, times: int) -> None:
        """Measure a first run. Call it last: afterwards the disk is busy and has a million names more."""
        self.measure("cold", 1.5, times, self.empty, self._clone_and_lay_out, "POLL")
        self.rows.insert(0, self.rows.pop())

    def warm(self, times: int) -> None:
        """Make an up-to-date instance, and measure the rows that need one."""
        self.empty()
        self.jens("POLL")
        self.jens("POLL")
        self.measure("POLL, nothing new", 1.3, times, _nothing, self._ask, "POLL")
        self.measure(f"POLL, {_PUSHED} pushed", 1.5, times, lambda: self._push(_PUSHED), self._ask_and_sync, "POLL")
        self.jens("ONDEMAND")
        self.jens("ONDEMAND")
        self.measure("on demand, idle", 2.0, 2 * times, _nothing, _import, "ONDEMAND")
        self.measure("on demand, one hint", 2.0, 2 * times, self.push_with_a_hint, self._import_and_sync, "ONDEMAND")

    def versions(self, times: int) -> None:
        """Measure one hint when two environments have versions, which both show what was pushed. Call it after warm."""
        for _ in range(2):
            self.jens("VERSIONS")
        one_hint = next(row for row in self.rows if row.work == "on demand, one hint").seconds[1]
        work = "on demand, one hint, two versioned environments"
        self.measure(work, 3.0, times, self.push_with_a_hint, lambda: Ran(one_hint, 0), "VERSIONS")
        self.slow_links = statistics.median(self._with_slow_links() for _ in range(times))
        for _ in range(2):
            self.jens("ONDEMAND")

    def _with_slow_links(self) -> float:
        """The seconds of the same on a file system that takes a millisecond to make a link."""
        self.push_with_a_hint()
        tool = str(TREE / "bin" / "jens-update")
        return run(*PYTHON, "-c", _SLOW_LINKS, tool, "--strict", "-c", self._configs["VERSIONS"]).seconds

    def latency(self, times: int) -> dict[str, float]:
        """Measure a POLL of remotes that reply after 50 ms: its seconds, the floor, and the allowed seconds."""
        wrapper = self.site.root / "slow-ssh"
        detected = 'for command; do [ "$command" = -G ] && exit; done'  # Git asks with -G which ssh it is
        wrapper.write_text(f'#!/bin/sh\n{detected}\nsleep {_DELAY}\nexec sh -c "$command"\n')
        wrapper.chmod(0o755)
        path = self.site.root / "metadata" / "repository" / "repositories.yaml"
        path.write_text(path.read_text().replace("file://", "ssh://git.example.org"))
        commands = (("commit", "-q", "-a", "-m", "by ssh"), ("push", "-q"))
        for command in commands:
            identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
            subprocess.run(["git", *identity, *command], cwd=path.parent, check=True)
        self._configs["POLL"] = str(self.site.config("slow", mode="POLL", git_ssh_cmd_path=str(wrapper)))
        self.jens("POLL")
        self.jens("POLL")
        ours = statistics.median(self.jens("POLL").seconds for _ in range(times))
        floor = statistics.median(self._ask().seconds for _ in range(times))
        count = len(self.site.repositories)
        return {"seconds": ours, "floor": floor, "allowed": count * _DELAY / _AT_ONCE + floor, "repositories": count}

    def size(self) -> dict[str, int]:
        """Bytes on disk that Jens and the floor of ``cold`` have made, and the numbers of files and links of Jens."""
        floor, ours = self._scratch / "checkouts", self.site.root / "clone"
        return {
            "checkouts, floor": _bytes(floor),
            "checkouts": _bytes(ours),
            "mirrors, floor": _bytes(self._scratch / "mirrors"),
            "mirrors": _bytes(self.site.root / "bare"),
            "files": sum(len(names) for _, _, names in os.walk(ours)),
            "links": sum(path.is_symlink() for path in (self.site.root / "environments").rglob("*")),
        }

    def empty(self) -> None:
        """Empty the instance, as if Jens had never run."""
        for part in ("bare", "clone", "cache", "environments"):
            _put_aside(self.site.root / part)
            (self.site.root / part).mkdir()

    # Floors

    def _ask(self) -> Ran:
        return run("xargs", f"-P{_AT_ONCE}", "-n1", "git", "ls-remote", "--heads", stdin=self._urls)

    def _ask_and_sync(self) -> Ran:
        command = f"xargs -P{_AT_ONCE} -n1 git ls-remote --heads && sync -f {self.site.root}"
        return run("sh", "-c", command, stdin=self._urls)

    def _import_and_sync(self) -> Ran:
        return run("sh", "-c", f'{" ".join(PYTHON)} -c "{_IMPORTS}" && sync -f {self.site.root}')

    def _clone_and_lay_out(self) -> Ran:
        """Clone all mirrors, then lay out each commit that has a checkout of Jens."""
        if self._scratch.exists():
            _put_aside(self._scratch)
        mirrors, checkouts = self._scratch / "mirrors", self._scratch / "checkouts"
        checkouts.mkdir(parents=True)
        clones = "".join(f"{self.site.url(name)} {mirrors}/{name}\n" for name in self.site.repositories)
        trees = "".join(
            f"{mirrors}/{path.parent.parent.name}/{path.parent.name} {path.name[1:]} {checkouts}/{path.name[1:]}\n"
            for path in (self.site.root / "clone").glob("*/*/.*")
        )
        (self._scratch / "clones").write_text(clones)
        (self._scratch / "trees").write_text(trees)
        lay_out = (
            'mkdir "$2" && GIT_INDEX_FILE="$2.index" git --git-dir="$0" --work-tree="$2" read-tree -u --reset "$1" '
            '&& rm "$2.index"'
        )
        script = (
            f"xargs -P{_AT_ONCE} -n2 git clone -q --mirror <clones && "
            f"xargs -P{_AT_ONCE} -n3 sh -c '{lay_out}' <trees && sync -f ."
        )
        return run("sh", "-c", script, cwd=self._scratch)

    # Work of teams

    def push_with_a_hint(self) -> None:
        """Push to a repository, and add its hint."""
        partition, _, name = self._push(1)[0].partition("/")
        Queue(self.site.root / "spool").add({RepoId(partition, name)})

    def _names(self, count: int) -> list[str]:
        names = [name for name in self.site.repositories if not name.startswith("common/")]
        self._turn += count
        return [names[(self._turn + number) % len(names)] for number in range(count)]

    def _push(self, count: int) -> list[str]:
        names = self._names(count)
        self.site.push(names, f"pushed {time.time_ns()}")
        return names


def grow(benches: Mapping[float, Bench], times: int) -> dict[str, dict[float, list[float]]]:
    """Measure runs on demand at sites of several scales, in turn; return their seconds by kind and scale."""
    kinds: dict[str, Callable[[Bench], object]] = {"idle": _nothing, "one hint": Bench.push_with_a_hint}
    found: dict[str, dict[float, list[float]]] = {}
    for kind, before in kinds.items():
        seconds = found[f"on demand, {kind}"] = {scale: [] for scale in benches}
        for number in range(-1, times):
            for scale, bench in benches.items():
                before(bench)
                ran = bench.jens("ONDEMAND")
                if number >= 0:  # the first one may have had checkouts to remove
                    seconds[scale].append(ran.seconds)
        print(".", end="", file=sys.stderr, flush=True)
    return found


def _put_aside(path: Path) -> None:
    """Rename a directory, which is deleted at the end: ext4 makes new files slowly after many deletions."""
    path.rename(path.with_name(f"{path.name}-{time.time_ns()}"))


def _nothing(*_: object) -> None:
    pass


def _import() -> Ran:
    return run(*PYTHON, "-c", _IMPORTS)


def _bytes(top: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", str(top)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def show(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n\n{'work':24}{'floor, s':>10}{'Jens, s':>10}{'ratio':>8}{'reach':>8}{'memory, MB':>12}")
    for row in rows:
        floor, ours = row.seconds
        missed = "" if row.ratio <= row.reach else "  missed"
        print(f"{row.work:24}{floor:10.2f}{ours:10.2f}{row.ratio:8.2f}{row.reach:8.1f}{row.peak / 1024:12.0f}{missed}")


def show_growth(rows: Mapping[float, Sequence[Row]], grown: Mapping[str, Mapping[float, Sequence[float]]]) -> None:
    """Print the ratios at each scale, and the growth; growth compares only seconds that were measured in turn."""
    scales = "".join(f"{f'scale {scale:.2g}':>12}" for scale in rows)
    print(f"\nHow many times the floor at the same scale\n\n{'work':24}{scales}")
    for index, row in enumerate(rows[1.0]):
        print(f"{row.work:24}" + "".join(f"{found[index].ratio:12.2f}" for found in rows.values()))
    print(f"\nGrowth: how many times as long as at scale 1, in turn\n\n{'work':24}{scales}{'reach':>8}")
    for work, seconds in grown.items():
        ratios = {
            scale: statistics.median(one / other for one, other in zip(measured, seconds[1.0]))
            for scale, measured in sorted(seconds.items())
        }
        missed = "  missed" if any(ratio > _GROWTH for ratio in ratios.values()) else ""
        print(f"{work:24}" + "".join(f"{ratio:12.2f}" for ratio in ratios.values()) + f"{_GROWTH:8.1f}{missed}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the reference site (default: 1)")
    parser.add_argument("--times", type=int, default=5, help="pairs of each row (default: 5)")
    parser.add_argument("--cold", type=int, default=3, help="pairs of the row that begins with nothing (default: 3)")
    parser.add_argument("--growth", action="store_true", help="measure at a third and at three times the scale as well")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--directory", type=Path, help="where to work (default: the directory for temporary files)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        bench = Bench(Path(scratch, "1"), arguments.scale)
        bench.warm(arguments.times)
        bench.versions(arguments.times)
        benches = {1.0: bench}
        for factor in (1 / _LARGEST, _LARGEST) if arguments.growth else ():
            benches[factor] = Bench(Path(scratch, f"{factor:.2f}"), arguments.scale * factor)
            benches[factor].warm(arguments.times)
        grown = grow(benches, 3 * arguments.times) if arguments.growth else {}
        for factor, each in benches.items():
            each.cold(arguments.cold if factor == 1.0 else 1)
        size = bench.size()
        slow = bench.latency(arguments.times)
    found = {factor: benches[factor].rows for factor in sorted(benches)}
    print(file=sys.stderr)
    show(f"{slow['repositories']:.0f} repositories, {size['links']} links", bench.rows)
    print("\nOn disk, MB\n")
    for what in ("checkouts", "mirrors"):
        floor, ours = size[f"{what}, floor"], size[what]
        print(f"{what:24}{floor / 1e6:10.0f}{ours / 1e6:10.0f}{ours / floor:8.2f}")
    print(f"\nPOLL of remotes that take 50 ms: {slow['seconds']:.2f} s, allowed {slow['allowed']:.2f} s")
    print(f"One hint, two versioned environments, a link takes 1 ms: {bench.slow_links:.2f} s")
    if arguments.growth:
        show_growth(found, grown)
    if arguments.json:
        rows = {f"{scale * arguments.scale:g}": [asdict(row) for row in measured] for scale, measured in found.items()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"rows": rows, "growth": grown, "size": size, "latency": slow}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
