"""A clock that is set a year ahead or back: nothing goes before its time, and nothing stays for a year."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from jens.commands import gc
from tests import TREE
from tests.conftest import Site, let_pass

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
YEAR = 31_536_000

#: Python runs this file before any program: the clock of the whole process is wrong.
WRONG_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {seconds}
"""


@pytest.fixture
def replaced(site: Site) -> str:
    """A commit of a module whose checkout was replaced just now."""
    assert site.update("--strict").code == 0
    old = site.expanded(DUMMY)["master"]
    site.remotes[DUMMY].push({INIT: "# new\n"})
    assert site.update("--strict").code == 0
    assert old in site.checkouts(DUMMY)
    return old


@pytest.mark.parametrize("jump", [0, YEAR, -YEAR])
@pytest.mark.parametrize("full", [False, True])
def test_a_checkout_stays_as_long_as_retention_says_whatever_the_clock_says(
    site: Site, replaced: str, jump: int, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, stays in ((10, True), (290, True), (310, False)):
        let_pass(monkeypatch, seconds, jump=jump)
        if full:
            (site.root / "cache" / "baseline.json").unlink(missing_ok=True)
        assert site.update("--strict").code == 0
        assert (replaced in site.checkouts(DUMMY)) == stays, seconds


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_gc_follows_the_same_time(site: Site, replaced: str, jump: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, stays in ((10, True), (310, False)):
        let_pass(monkeypatch, seconds, jump=jump)
        assert gc.main(["-c", str(site.config), "--clones"]) == 0
        assert (replaced in site.checkouts(DUMMY)) == stays, seconds


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_clock_that_jumps_and_is_put_right_costs_no_more_time(
    site: Site, replaced: str, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, ahead, stays in ((100, jump, True), (200, 0, True), (250, jump, True), (310, 0, False)):
        let_pass(monkeypatch, seconds, jump=ahead)
        site.hint(DUMMY)
        assert site.update("--strict").code == 0
        assert (replaced in site.checkouts(DUMMY)) == stays, seconds


@pytest.mark.parametrize(("seconds", "narrow"), [(590, True), (610, False)])
def test_a_run_looks_at_everything_every_ten_minutes_whatever_the_clock_says(
    site: Site, seconds: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settings["main.debuglevel"] = "DEBUG"  # else a run with nothing to do does not tell
    assert site.update("--strict").code == 0
    for jump in (YEAR, -YEAR):
        let_pass(monkeypatch, seconds, jump=jump)
        outcome = site.update("--strict")
        assert outcome.has("Only repositories that were pushed to are looked at") == narrow
        monkeypatch.undo()
        (site.root / "cache" / "baseline.json").unlink()
        assert site.update("--strict").code == 0


def update_with_clock(site: Site, seconds: int) -> None:
    wrong = site.root / "wrong"
    wrong.mkdir(exist_ok=True)
    (wrong / "sitecustomize.py").write_text(WRONG_CLOCK.format(seconds=seconds))
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), "--strict"]
    environment = {**os.environ, "PYTHONPATH": f"{wrong}:{TREE}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_real_run_with_a_wrong_clock_deletes_nothing_too_early_and_keeps_nothing_for_a_year(
    site: Site, replaced: str
) -> None:
    update_with_clock(site, YEAR)
    assert replaced in site.checkouts(DUMMY)
    update_with_clock(site, -YEAR)
    assert replaced in site.checkouts(DUMMY)
    site.settings["main.retention"] = "1"
    update_with_clock(site, YEAR)
    time.sleep(1.1)
    update_with_clock(site, 0)
    assert replaced not in site.checkouts(DUMMY)
