"""The queue of hints in the hands of somebody who may write to it, and no more."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens.commands import purge_queue
from jens.messaging import elements
from jens.messaging import queue as messaging_queue
from tests.conftest import Site
from tests.everything import everything_below
from tests.faults.samples import IS_SOAK

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
LEVELS = 12_000

#: Good hints, and as many ill-formed ones, and how many of all a run takes: a tenth of what runs at a site take.
#: Good hints, and as many that are none; and how many of these a run takes.
HINTS, MOST = (100_000, 10_000) if IS_SOAK else (1000, 1000)

_SWAPPER = """
import os, sys
spool, target = sys.argv[1:]
real, link, aside = (os.path.join(spool, name) for name in ("real", "link", "temporary"))
os.symlink(target, link)
os.rename(aside, real)
print("swapping", flush=True)
while True:
    os.rename(link, aside)
    os.rename(aside, link)
    os.rename(real, aside)
    os.rename(aside, real)
"""


def purge(site: Site) -> int:
    return purge_queue.main(["-c", str(site.config)])


def grow_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (0, 0), follow_symlinks=False)


def test_a_purge_deletes_no_checkout_whatever_becomes_a_link_meanwhile(site: Site) -> None:
    assert site.update("--strict").code == 0
    clone = site.path(DUMMY)
    grow_old(*(clone / f".{commit}" for commit in site.checkouts(DUMMY)))
    for name in ("temporary", "obsolete"):
        (site.root / "spool" / name).mkdir()
    before = everything_below(clone)
    command = [sys.executable, "-c", _SWAPPER, str(site.root / "spool"), str(clone)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as swapper:
        assert swapper.stdout
        assert swapper.stdout.readline() == b"swapping\n"
        try:
            for _ in range(100):
                assert purge(site) in (0, 10)
            assert swapper.poll() is None
        finally:
            swapper.send_signal(signal.SIGKILL)
    assert everything_below(clone) == before


def test_a_left_over_with_the_name_of_a_checkout_is_none(site: Site) -> None:
    left = site.root / "spool" / "temporary" / f".{'4f0c' * 10}"
    left.mkdir(parents=True)
    grow_old(left)
    assert purge(site) == 0
    assert left.is_dir()


def deepen(path: Path) -> None:
    """Make directories in each other, far deeper than a path can name."""
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def test_a_deep_hint_is_a_hint_and_goes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging_queue, "_MOST_SECONDS", 300.0)  # the machine may be busy
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update("--strict").code == 0
    commit = site.remotes[DUMMY].push({INIT: "# new\n"})
    deepen(site.root / "spool" / site.hint(DUMMY))
    left = site.root / "spool" / "temporary" / "0123456789abcd"
    left.mkdir()
    deepen(left)
    grow_old(left)
    assert site.update("--strict").code == 0
    assert site.expanded(DUMMY)["master"] == commit
    assert purge(site) == 0
    spool = site.root / "spool"
    assert [os.listdir(spool / name) for name in ("temporary", "obsolete")] == [[], []]
    assert site.hinted() == []


def write_hints(site: Site) -> None:
    good = pickle.dumps({"modules": ["dummy"]})
    for number in range(2 * HINTS):
        element = site.root / "spool" / f"{number // 1000:08x}" / f"{number:014x}"
        if number % 1000 == 0:
            element.parent.mkdir()
        element.mkdir()
        (element / "data").write_bytes(good if number % 2 else b"no hint")


def test_very_many_hints_take_no_run_long_and_none_is_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging_queue, "_MOST_SECONDS", 300.0)  # the machine may be busy
    assert messaging_queue._MOST_MESSAGES == 10_000
    monkeypatch.setattr(messaging_queue, "_MOST_MESSAGES", MOST)
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update("--strict").code == 0
    commit = site.remotes[DUMMY].push({INIT: "# new\n"})
    write_hints(site)
    first = site.update()
    assert first.has(f"{2 * HINTS - MOST} messages are left for the next run")
    assert site.expanded(DUMMY)["master"] == commit
    assert len(first.lines("ERROR")) < 50
    assert first.has(f"{MOST // 2 - 20} more messages are dropped")
    commit = site.remotes[DUMMY].push({INIT: "# newer\n"})
    for number in range(2, 2 * HINTS // MOST + 1):
        assert site.update().has("are left for the next run") == (number < 2 * HINTS // MOST)
    assert site.expanded(DUMMY)["master"] == commit
    assert site.hinted() == []


def test_a_run_reads_hints_for_a_limited_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update("--strict").code == 0
    for _ in range(3):
        site.hint(DUMMY)
    monkeypatch.setattr(messaging_queue, "_MOST_SECONDS", 0.2)
    take = elements.take

    def take_slowly(top: int, name: str, *, lock: bool) -> tuple[bytes, bytes, bytes]:
        time.sleep(0.3)
        return take(top, name, lock=lock)

    monkeypatch.setattr(elements, "take", take_slowly)
    for left in (2, 1, 0):
        site.update()
        assert len(site.hinted()) == left
