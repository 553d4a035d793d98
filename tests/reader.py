"""Plays a Puppet server: reads every link of every environment again and again.

Run as ``reader.py ENVIRONMENTSDIR STOPFILE``; prints what was missing or wrong, then how often it read everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def look(top: Path) -> list[str]:
    """Read everything once; return what was missing, and where two files of one commit did not agree."""
    wrong = []
    for environment in sorted(os.listdir(top)):
        if environment.startswith("."):
            continue
        for directory, directories, names in os.walk(top / environment):
            for name in (*directories, *names):
                path = Path(directory, name)
                try:
                    wrong += _follow(path)
                except FileNotFoundError as error:
                    if not name.startswith("."):
                        wrong.append(f"{path}: {error}")
    return wrong


def _follow(path: Path) -> list[str]:
    os.stat(path)
    if not path.is_symlink() or path.parent.name not in ("modules", "hostgroups") or "hieradata" in path.parts:
        return []
    torn = read_tree(str(path))
    return [f"{path}: {torn}"] if torn else []


def read_tree(path: str) -> str:
    """What is wrong with the commit that a link leads to, or ''; resolves the link only once.

    The files ``one`` and ``two`` must have the same content. Its second word, if any, is how many entries the
    directory must have. Raises FileNotFoundError when the link dangles.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        one, two = (_read(name, descriptor) for name in ("one", "two"))
        count = len(os.listdir(descriptor))
    except FileNotFoundError as error:
        return f"torn tree, {error}"
    finally:
        os.close(descriptor)
    if one != two:
        return f"one commit says {[one, two]}"
    declared = one.split()[1:]
    return f"torn tree, {count} entries where {one!r} has more or less" if declared not in ([], [str(count)]) else ""


def _read(name: str, directory: int) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 1 << 16).decode()
    finally:
        os.close(descriptor)


@contextmanager
def reading(environments: Path, scratch: Path) -> Iterator[list[str]]:
    """Read all the time in another process; afterwards the list has what was wrong, then the number of rounds."""
    stop = scratch / "stop-reading"
    stop.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, str(environments), str(stop)], stdout=subprocess.PIPE, text=True
    )
    met: list[str] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        yield met
        stop.touch()
        met += process.communicate(timeout=60)[0].splitlines()
    finally:
        process.kill()
        process.wait()


def main() -> None:
    top, stop = Path(sys.argv[1]), Path(sys.argv[2])
    wrong = look(top)
    print("reading", flush=True)  # noqa: T201 - its output is its result
    looks, end = 1, time.monotonic() + 300
    while not stop.exists() and time.monotonic() < end:
        wrong += look(top)
        looks += 1
    print("\n".join([*wrong, str(looks)]))  # noqa: T201


if __name__ == "__main__":
    main()
