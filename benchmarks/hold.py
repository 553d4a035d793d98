"""Measure how long it takes to go back at night, at a site of realistic size.

Twelve modules were pushed to, and their old checkouts are gone. ``jens-hold production --at`` goes back to before: it
lays out twelve commits and moves the links of 412 repositories. ``jens-release`` comes back in one run. Exits 1 when
going back takes longer than it may.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.site import Site
from benchmarks.site_scale import ENVIRONMENT, PYTHON, TREE
from jens.history import queries
from jens.history.store import Reader

_PUSHED = 12
#: Seconds from the command to the last link.
_MOST = 1.0
#: Seconds between two looks at a link.
_LOOK = 0.001


@dataclass(frozen=True)
class Turn:
    """Seconds from the start of jens-hold to the last link, and to its end; and those that jens-release took."""

    visible: float
    held: float
    released: float


def _is_pinned(link: Path) -> bool:
    """Whether a link leads to a commit, and not through the link of a branch."""
    return os.readlink(link).split("/")[-2].startswith(".")


class _Bench:
    def __init__(self, top: Path, scale: float) -> None:
        self._site = Site(top / "site", scale)
        self._config = str(self._site.config("hold", retention="0", directory_environments="True"))
        self._names = [name for name in self._site.repositories if name.startswith("modules/")][:_PUSHED]

    def _start(self, tool: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = (*PYTHON, str(TREE / "bin" / tool), "-c", self._config, *arguments)
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)

    def _run(self, tool: str, *arguments: str) -> float:
        begin = time.perf_counter()
        with self._start(tool, *arguments) as process:
            process.wait()
        if process.returncode:
            raise RuntimeError(f"{tool} ended with {process.returncode}")
        return time.perf_counter() - begin

    def prepare(self) -> None:
        """Make the instance, as of before the pushes."""
        self._run("jens-update")
        self._run("jens-update")

    def turn(self) -> Turn:
        """Push, let the old checkouts go, go back, and come back."""
        with Reader(self._site.root / "cache" / "history.sqlite") as reader:
            before = queries.deployments(reader, count=1)[0].number
        self._site.push(self._names, f"pushed {time.time_ns()}")
        for _ in range(2):
            self._run("jens-update")
        os.sync()
        visible, held = self._go_back(str(before))
        return Turn(visible, held, self._run("jens-release", "production"))

    def _go_back(self, at: str) -> tuple[float, float]:
        """The seconds until all links have moved, and until the command has ended."""
        environment = self._site.root / "environments" / "production"
        waiting = [environment / "modules" / name.rpartition("/")[2] for name in self._site.repositories]
        waiting = [link for link in waiting if link.is_symlink()]
        begin = time.perf_counter()
        with self._start("jens-hold", "production", "--at", at, "--reason", "a benchmark") as process:
            while waiting and process.poll() is None:
                time.sleep(_LOOK)
                while waiting and _is_pinned(waiting[-1]):
                    waiting.pop()
            visible = time.perf_counter() - begin
            process.wait()
        if process.returncode:
            raise RuntimeError(f"jens-hold ended with {process.returncode}")
        return visible, time.perf_counter() - begin


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when it takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the size of the site (default: 1)")
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as top:
        bench = _Bench(Path(top), arguments.scale)
        bench.prepare()
        turns = [bench.turn() for _ in range(arguments.times)]
    visible = statistics.median(turn.visible for turn in turns)
    is_well = visible <= _MOST
    most = f"(at most {_MOST:g}){'' if is_well else '  TOO MUCH'}"
    print(f"jens-hold --at, until all links lead back  {visible:6.3f} s {most}")
    print(f"jens-hold --at, until it ends              {statistics.median(turn.held for turn in turns):6.3f} s")
    print(f"jens-release, one run                      {statistics.median(turn.released for turn in turns):6.3f} s")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
