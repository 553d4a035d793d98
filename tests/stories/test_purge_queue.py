"""jens-purge-queue removes what crashed writers and readers left, and nothing that may still be needed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jens.commands import purge_queue
from jens.config import load_config
from jens.locking import run_lock
from tests.conftest import Outcome, Site, assert_complaint

_DAY = 86400
DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"


@pytest.fixture
def site(bare_site: Site) -> Site:
    """A site without repositories; hints may still name some."""
    return bare_site


def purge(site: Site) -> Outcome:
    """Run jens-purge-queue."""
    log = site.root / "log" / "jens-purge-queue.log"
    begin = log.stat().st_size if log.exists() else 0
    site.capture.readouterr()
    code = purge_queue.main(["-c", str(site.config)])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, log.read_text()[begin:] if log.exists() else "")


def left(site: Site, name: str, age: float = _DAY) -> Path:
    """Make a directory of this age in the queue, with a file unless it is a lock or an intermediate directory."""
    path = site.root / "spool" / name
    path.mkdir(parents=True)
    if name.startswith(("temporary/", "obsolete/")):
        (path / "data").write_bytes(b"half of a mess")
    grow_old(path, age)
    return path


def grow_old(path: Path, age: float = _DAY) -> None:
    moment = time.time() - age
    os.utime(path, (moment, moment))


def assert_silent(outcome: Outcome) -> None:
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


def test_old_left_overs_go_while_young_ones_and_good_hints_stay(site: Site) -> None:
    hint = site.hint(DUMMY)
    locked = site.hint(MYAPP)
    held = site.hint(DUMMY)
    assert site.queue.lock(locked)
    assert site.queue.lock(held)
    grow_old(site.root / "spool" / locked / "locked")
    grow_old(site.root / "spool" / hint)
    old = [left(site, name) for name in ("temporary/0123456789abcd", "obsolete/0123456789abcd", "00000005")]
    young = [left(site, name, 10) for name in ("temporary/ffffffffffffff", "obsolete/ffffffffffffff", "00000006")]
    young.append(left(site, "00000007"))  # writers use the last one
    messages = sorted(site.queue.names())

    outcome = purge(site)
    assert_silent(outcome)
    assert [path for path in old if path.exists()] == []
    assert [path for path in young if not path.exists()] == []
    assert not (site.root / "spool" / locked / "locked").exists()
    assert (site.root / "spool" / held / "locked").exists()
    assert site.hinted() == [MYAPP, DUMMY, DUMMY]
    assert sorted(site.queue.names()) == messages
    for path in (*old, site.root / "spool" / locked / "locked"):
        assert outcome.has(f"Removed '{path}'")
    assert outcome.lines()[-1] == "INFO Done"
    assert not [path for path in young if outcome.has(str(path))]


def test_the_log_has_the_usual_form(site: Site) -> None:
    left(site, "temporary/0123456789abcd")
    lines = purge(site).log.splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} \[{os.getpid()}\] (INFO|WARNING) .+", line)


def test_a_clean_queue_stays_as_it_is(site: Site) -> None:
    for repo in (DUMMY, MYAPP):
        site.hint(repo)
    before = site.listing("spool")
    assert_silent(purge(site))
    assert_silent(purge(site))
    assert site.listing("spool") == before


def test_an_empty_queue_stays_empty(site: Site) -> None:
    assert_silent(purge(site))
    assert site.listing("spool") == {}


def test_files_that_do_not_belong_to_the_queue_are_left_alone(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data").write_text("precious")
    foreign = [left(site, name) for name in ("lost+found", "temporary/notes", "0000000")]
    link = site.root / "spool" / "temporary" / "0123456789abcd"
    link.symlink_to(outside)
    os.utime(link, (0, 0), follow_symlinks=False)
    assert_silent(purge(site))
    assert [path for path in foreign if not path.exists()] == []
    assert (outside / "data").read_text() == "precious"


def test_exit_3_there_is_no_queue(site: Site) -> None:
    spool = site.root / "spool"
    spool.rmdir()
    assert_complaint(purge(site), 3, "queuedir", str(spool))
    assert not spool.exists()


def test_exit_10_something_else_is_in_the_place_of_the_queue(site: Site) -> None:
    spool = site.root / "spool"
    spool.rmdir()
    spool.write_text("precious")
    assert_complaint(purge(site), 10, str(spool))
    assert spool.read_text() == "precious"


def test_exit_10_one_left_over_stays_and_the_others_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (site.hint(repo) for repo in (DUMMY, MYAPP, DUMMY))
    locks = [site.root / "spool" / name / "locked" for name in (first, second, third)]
    for lock in locks:
        lock.mkdir()
        grow_old(lock)
    rest = left(site, "temporary/0123456789abcd")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", _refusing(os.rmdir, locks[1]))
        outcome = purge(site)
    assert_complaint(outcome, 10, str(locks[1]), "Permission denied")
    assert [lock.exists() for lock in locks] == [False, True, False]
    assert not rest.exists()
    assert any(str(locks[1]) in line for line in outcome.lines("ERROR"))
    assert site.hinted() == [MYAPP, DUMMY, DUMMY]
    assert_silent(purge(site))
    assert not locks[1].exists()


def _refusing(rmdir: Callable[..., None], refused: Path) -> Callable[..., None]:
    def instead(path: Path | str, *, dir_fd: int | None = None) -> None:
        above = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
        if above / path == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        rmdir(path, dir_fd=dir_fd)

    return instead


def test_exit_2_the_configuration_cannot_be_used(site: Site) -> None:
    site.settings["main.debuglevel"] = "LOUD"
    assert_complaint(purge(site), 2, "debuglevel")


def test_exit_3_the_log_cannot_be_written(site: Site) -> None:
    shutil.rmtree(site.root / "log")
    assert_complaint(purge(site), 3, "logdir")


def test_it_takes_no_lock(site: Site) -> None:
    old = left(site, "temporary/0123456789abcd")
    with run_lock(load_config(site.config)):
        assert site.update().code == 50
        assert_silent(purge(site))
    assert not old.exists()


def test_it_knows_its_version_and_its_options(site: Site) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            purge_queue.main([option])
        assert caught.value.code == 0
    assert "--config" in site.capture.readouterr().out
    with pytest.raises(SystemExit) as caught:
        purge_queue.main(["--force"])
    assert caught.value.code == 2
