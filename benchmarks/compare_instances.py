"""Measure jens-compare with two instances of a site, beside a program that only reads every link of both.

The roots have only links: 260 modules, 150 hostgroups, the common repositories, 160 environments. Both programs are
measured in turn, three times. Compare the ratio, not the seconds.
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
from pathlib import Path

_TREE = Path(__file__).resolve().parent.parent
_COMMIT = "4f0c" * 10
_FLOOR = """
import os, sys
waiting = sys.argv[1:]
while waiting:
    for entry in os.scandir(waiting.pop()):
        if entry.is_symlink():
            os.readlink(entry.path)
        else:
            waiting.append(entry.path)
"""
_LINKS = {
    "modules": (("modules/{}", "code"), ("hieradata/module_names/{}", "data")),
    "hostgroups": (
        ("hostgroups/hg_{}", "code"),
        ("hieradata/hostgroups/{}", "data/hostgroup"),
        ("hieradata/fqdns/{}", "data/fqdns"),
    ),
    "common": (("site", "code"),),
}


def _make(root: Path, environments: int) -> int:
    """Make an instance as Puppet servers see it; return the number of links in its environments."""
    links = {}
    for partition, count in (("modules", 260), ("hostgroups", 150), ("common", 1)):
        for number in range(count):
            name = f"{partition[0]}{number}" if partition != "common" else "site"
            clone = root / "clone" / partition / name
            for below in ("code", "data/hostgroup", "data/fqdns"):
                (clone / f".{_COMMIT}" / below).mkdir(parents=True)
            (clone / "master").symlink_to(f".{_COMMIT}")
            for link, below in _LINKS[partition]:
                path = link.format(name)
                links[path] = f"{'../' * (path.count('/') + 2)}clone/{partition}/{name}/master/{below}"
    for number in range(environments):
        top = root / "environments" / f"env{number}"
        for directory in {os.path.dirname(path) for path in links}:
            (top / directory).mkdir(parents=True, exist_ok=True)
        for path, text in links.items():
            os.symlink(text, top / path)
    return len(links) * environments


def _seconds(*command: str) -> float:
    environment = {**os.environ, "PYTHONPATH": str(_TREE)}
    begin = time.monotonic()
    subprocess.run([sys.executable, *command], env=environment, check=True)
    return time.monotonic() - begin


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=int, default=160, help="how many (default: 160)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        roots = [Path(scratch, name) for name in ("a", "b")]
        count = sum(_make(root, arguments.environments) for root in roots)
        tool, tops = str(_TREE / "bin" / "jens-compare"), [str(root / "environments") for root in roots]
        pairs = [(_seconds("-c", _FLOOR, *tops), _seconds(tool, *map(str, roots))) for _ in range(3)]
        print(f"{count} links in two instances\n\n{'read, s':>12}{'compare, s':>12}{'ratio':>8}")
        for floor, ours in pairs:
            print(f"{floor:12.2f}{ours:12.2f}{ours / floor:8.1f}")
        print(f"\nmedian ratio {statistics.median(ours / floor for floor, ours in pairs):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
