"""What may happen to the history: no run fails for it, one WARNING says what it lost, and the next run goes on."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jens.commands import history
from jens.history import queries, store
from jens.history.queries import Change, Filter
from jens.history.store import Reader, Store
from tests import TREE
from tests.conftest import Outcome, Site
from tests.faults.samples import IS_SOAK
from tests.faults.users import NOBODY, as_user, needs_root

DUMMY = "modules/dummy"


@pytest.fixture
def known(site: Site) -> Site:
    """A site with a history."""
    assert site.update("--strict").code == 0
    return site


def path_of(site: Site) -> Path:
    return site.root / "cache" / "history.sqlite"


def pushed(site: Site, text: str = "1\n") -> str:
    return site.remotes[DUMMY].push({"code/a": text})


def warnings(outcome: Outcome) -> list[str]:
    return [line for line in outcome.lines("WARNING") if "history" in line]


def updated(site: Site, *commits: str) -> list[str]:
    """Run; nothing fails, and the last commit is visible. Returns the warnings about the history."""
    outcome = site.update("--strict")
    assert (outcome.code, outcome.stderr) == (0, ""), outcome.log
    if commits:
        assert site.expanded(DUMMY)["master"] == commits[-1]
    return warnings(outcome)


def recorded(site: Site) -> list[str | None]:
    """The commits that the module has had, as the history knows, the newest first."""
    with Reader(path_of(site)) as reader:
        found = [*queries.entries(reader, Filter(repository=DUMMY))]
    return [entry.now for entry in found if isinstance(entry, Change)]


def has_now(site: Site) -> str | None:
    """The commit that production has, as the history knows."""
    with Reader(path_of(site)) as reader:
        return {held.repository: held.commit for held in queries.held_by(reader, "production")}.get(DUMMY)


# It cannot be written now


@pytest.fixture
def reading(known: Site) -> Iterator[sqlite3.Connection]:
    """A reader that does not end."""
    with closing(sqlite3.connect(f"file:{path_of(known)}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM change").fetchone()
        yield connection


def test_a_reader_that_does_not_end_holds_up_no_run(
    known: Site, reading: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WRITER_PATIENCE", 0.1)
    first = known.remotes[DUMMY].commit()
    second = pushed(known)
    [warning] = updated(known, second)
    assert "What changed is not in the history" in warning
    assert "database is locked" in warning
    assert updated(known) == []  # a run with nothing else to do tries again, and says nothing new
    third = pushed(known, "2\n")
    assert updated(known, third) == []
    reading.rollback()
    assert updated(known) == []
    assert recorded(known) == [third, first]  # what was between was never seen by anybody who recorded
    before = path_of(known).stat()
    assert updated(known) == []
    assert path_of(known).stat().st_ctime_ns == before.st_ctime_ns


def _fill(_: Site) -> Callable[[], None]:
    """Let SQLite find the disk full."""
    real = Store._set_up

    def set_up(self: Store) -> None:
        real(self)
        self._connection.execute("PRAGMA max_page_count = 1")

    def forget(self: Store, *_: object) -> None:
        self._connection.execute("INSERT INTO meta VALUES ('large', zeroblob(1000000))")

    patched = pytest.MonkeyPatch()
    patched.setattr(Store, "_set_up", set_up)
    patched.setattr(Store, "_forget", forget)
    return patched.undo


def _block_journal(site: Site) -> Callable[[], None]:
    """Let SQLite make no file beside the database."""
    path = store.journal(path_of(site))
    path.mkdir()
    return path.rmdir


def _make_newer(site: Site) -> Callable[[], None]:
    def set_version(version: int) -> None:
        with closing(sqlite3.connect(path_of(site))) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    set_version(99)
    return lambda: set_version(1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_fill, "full", id="a full disk"),
        pytest.param(_block_journal, "disk I/O error", id="no file can be made beside it"),
        pytest.param(_make_newer, "it has version 99, expected 1", id="a newer version"),
    ],
)
def test_what_cannot_be_recorded_now_is_recorded_later(
    known: Site, spoil: Callable[[Site], Callable[[], None]], reason: str
) -> None:
    first = known.remotes[DUMMY].commit()
    repair = spoil(known)
    try:
        second = pushed(known)
        [warning] = updated(known, second)
        assert reason in warning
        assert "the next run records it" in warning
        assert updated(known) == []
    finally:
        repair()
    assert updated(known) == []
    assert recorded(known) == [second, first]
    assert not store.aside(path_of(known)).exists()


def test_it_is_removed_while_it_is_open(known: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    second = pushed(known)
    real = Store.write

    def write(self: Store, *arguments: object) -> int | None:
        path_of(known).unlink()
        return real(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", write)
        [lost] = updated(known, second)
    assert "What changed is not in the history" in lost
    [begun] = updated(known)
    assert "nothing is known of what was before" in begun
    third = pushed(known, "2\n")
    assert updated(known, third) == []
    assert recorded(known) == [third]


# It is no history any more


def _scribble(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def _shorten(path: Path) -> None:
    os.truncate(path, 5000)


def _clear_a_page(path: Path) -> None:
    """Clear all but the first page, which says that it is one."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


def _of_somebody_else(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE x (y)")
        connection.commit()


def _without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE holding")
        connection.commit()


def _be_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def _be_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _be_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        *(_scribble, _shorten, _clear_a_page, _of_somebody_else, _without_tables),
        *(_be_a_directory, _be_a_link, _be_a_pipe),
    ],
)
def test_a_damaged_history_begins_anew(known: Site, spoil: Callable[[Path], None]) -> None:
    path = path_of(known)
    with Reader(path) as reader:
        id_before = reader.id
    spoil(path)
    code, out, err = _read(known)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    elsewhere = path.with_name("elsewhere")
    target = elsewhere.read_bytes() if elsewhere.exists() else b""
    second = pushed(known)
    found = updated(known, second)
    assert "begins anew" in found[0]
    assert str(store.aside(path)) in found[0]
    assert "nothing is known of what was before" in found[1]
    assert len(found) == 2
    assert has_now(known) == second
    with Reader(path) as reader:
        assert reader.id != id_before
    assert os.path.lexists(store.aside(path))
    assert target == (elsewhere.read_bytes() if elsewhere.exists() else b"")
    third = pushed(known, "2\n")
    assert updated(known, third) == []
    assert recorded(known) == [third]


def _read(site: Site) -> tuple[int, str, str]:
    site.capture.readouterr()
    code = history.main(["-c", str(site.config)])
    captured = site.capture.readouterr()
    return code, captured.out, captured.err


def test_a_lost_history_begins_anew_and_says_so(known: Site) -> None:
    path_of(known).unlink()
    assert updated(known) == []  # a run with nothing to do does not look
    second = pushed(known)
    [warning] = updated(known, second)
    assert "nothing is known of what was before" in warning
    assert has_now(known) == second


# Readers


@needs_root
def test_who_may_only_read_reads_also_while_somebody_writes(known: Site) -> None:
    for path in (known.root, *known.root.parents):
        if os.stat(path).st_mode & 0o005 != 0o005 and path.owner() == "root":
            path.chmod(path.stat().st_mode | 0o055)
    pushed(known)
    assert updated(known) == []
    config = str(known.config)
    assert as_user(NOBODY, lambda: history.main(["-c", config])) == 0
    with closing(sqlite3.connect(path_of(known), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE change SET time = 0")
        assert store.journal(path_of(known)).exists()
        assert as_user(NOBODY, lambda: history.main(["-c", config])) == 0
        writer.execute("ROLLBACK")
    assert path_of(known).stat().st_uid == 0


def _opened(path: Path) -> Store:
    with Store(path) as opened:
        return opened


@needs_root
def test_what_root_has_made_is_taken_over() -> None:
    """Root may write with --as-root; other files of state are replaced as a whole, this one is changed in place."""
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        path = top / "history.sqlite"
        assert _opened(path).is_new
        with Reader(path) as reader:
            id_before = reader.id
        os.chown(top, NOBODY, NOBODY)
        top.chmod(0o755)
        assert as_user(NOBODY, lambda: int(_opened(path).is_new)) == 0
        assert (path.stat().st_uid, sorted(os.listdir(top))) == (NOBODY, ["history.sqlite"])
        with Reader(path) as reader:
            assert reader.id == id_before
    finally:
        shutil.rmtree(top)


@needs_root
def test_what_was_written_halfway_is_taken_back(known: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer is killed while it writes; readers may not take it back, and the next run does."""
    for path in (known.root, *known.root.parents):
        if os.stat(path).st_mode & 0o005 != 0o005 and path.owner() == "root":
            path.chmod(path.stat().st_mode | 0o055)
    before = _read(known)
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE'); "
        "[c.execute('UPDATE ' + name + ' SET ' + column + ' = 0') for name, column in "
        "[('change', 'time'), ('holding', 'since'), ('environment_change', 'time'), ('deployment', 'visible')]]; "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path_of(known))], check=False)
    assert store.journal(path_of(known)).stat().st_size > 512
    with (
        pytest.raises(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{path_of(known)}?mode=ro", uri=True)) as connection,
    ):
        connection.execute("SELECT count(*) FROM change")
    assert _read(known) == before
    config = str(known.config)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # the directory of the tests may be closed to others
    assert as_user(NOBODY, lambda: history.main(["-c", config])) == 0
    second = pushed(known)
    assert updated(known, second) == []
    assert not store.journal(path_of(known)).exists()
    assert _read(known)[1].splitlines()[1:] == before[1].splitlines()


def test_a_reader_waits_for_a_transaction_that_ends(known: Site) -> None:
    writer = sqlite3.connect(path_of(known), isolation_level=None, check_same_thread=False)
    with closing(writer):
        writer.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.5, lambda: writer.execute("COMMIT")).start()
        code, out, err = _read(known)
    assert (code, err) == (0, "")
    assert out


def test_a_reader_that_gives_up_says_so_in_a_line(known: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "READER_PATIENCE", 0.1)
    with closing(sqlite3.connect(path_of(known), isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        code, out, err = _read(known)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "database is locked" in err


def test_a_slow_reader_of_what_it_prints_holds_up_nobody(known: Site) -> None:
    for number in range(3):
        updated(known, pushed(known, f"{number}\n"))
    program = (
        "import sys; from jens.history import queries; queries._PAGE = 1; "
        "from jens.commands.history import main; sys.exit(main(sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program, "-c", str(known.config)],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it has begun, and its pipe may fill up
        assert updated(known, pushed(known, "last\n")) == []
        process.stdout.read()
    assert process.returncode == 0


# Any damage


@pytest.mark.parametrize("number", range(100 if IS_SOAK else 5))
def test_whatever_bytes_it_has_no_run_fails(known: Site, number: int) -> None:
    """Bytes are changed at random, which SQLite may notice or not."""
    seed = random.SystemRandom().randrange(2**32) + number
    chance = random.Random(seed)
    path = path_of(known)
    for step in range(4):
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 10, 200))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        site_has = pushed(known, f"{step}\n")
        outcome = known.update()
        assert (outcome.code, outcome.stderr) == (0, ""), (seed, outcome.log)
        assert known.expanded(DUMMY)["master"] == site_has
        assert len(warnings(outcome)) <= 2, (seed, outcome.log)
