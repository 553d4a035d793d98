"""The database of the history: made, written by who holds the run lock, and read by anybody who may read the file.

It keeps to SQLite's rollback journal: readers of a write-ahead log would have to write. A writer's transaction is
short, and so are those of readers, who fetch all rows of a query before they do anything with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import string
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jens.errors import HistoryError
from jens.history.model import (
    Author,
    Believed,
    Deployment,
    EnvironmentBelieved,
    EnvironmentChange,
    FaultRows,
    Fingerprints,
    Holding,
    Rows,
    Visible,
)
from jens.model import Fault, OpenFault
from jens.names import is_environment_name, parse_repository
from jens.statefile import HISTORY
from jens.system import files
from jens.text import one_line

#: Marks a database as one of ours: "Jens".
_APPLICATION = 0x4A656E73
#: Seconds that a writer waits for readers, and readers for a writer.
WRITER_PATIENCE, READER_PATIENCE = 0.5, 5.0
#: KiB of changes that are kept in memory until they are written: else they would lock out readers too early.
_CACHE = 65_536
#: So many rows that are too old go at once, of each kind, at most every so many seconds.
_MOST_OLD, _OLD_INTERVAL = 500, 300
_DAY = 86_400

#: A commit is a blob of its 20 bytes, a time is in milliseconds. `until` is the deployment that ended it. Everything
#: that has a name has a number, as names are repeated very often. Faults have texts: they are few.
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE host (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE ref (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint INTEGER);
CREATE TABLE environment (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint INTEGER, conf INTEGER,
    is_there INTEGER NOT NULL DEFAULT 0);
CREATE TABLE deployment (number INTEGER PRIMARY KEY, host INTEGER NOT NULL, began INTEGER, visible INTEGER NOT NULL,
    seconds REAL, status INTEGER, mode TEXT);
CREATE INDEX deployment_visible ON deployment (visible);
CREATE TABLE change (deployment INTEGER NOT NULL, repository INTEGER NOT NULL, ref INTEGER NOT NULL, before BLOB,
    now BLOB, time INTEGER NOT NULL, until INTEGER, hinted INTEGER, author INTEGER, subject TEXT, date INTEGER,
    commits INTEGER, lost INTEGER, PRIMARY KEY (deployment, repository, ref)) WITHOUT ROWID;
CREATE INDEX change_repository ON change (repository, ref);
CREATE INDEX change_now ON change (now);
CREATE INDEX change_open ON change (repository, ref) WHERE until IS NULL;
CREATE TABLE environment_change (deployment INTEGER NOT NULL, environment INTEGER NOT NULL, change TEXT NOT NULL,
    time INTEGER NOT NULL, metadata BLOB, author INTEGER, PRIMARY KEY (deployment, environment)) WITHOUT ROWID;
CREATE TABLE holding (environment INTEGER NOT NULL, repository INTEGER NOT NULL, since INTEGER NOT NULL,
    ref INTEGER NOT NULL, until INTEGER, PRIMARY KEY (environment, repository, since)) WITHOUT ROWID;
CREATE INDEX holding_repository ON holding (repository, ref);
CREATE INDEX holding_ref ON holding (ref);
CREATE INDEX holding_open ON holding (environment) WHERE until IS NULL;
CREATE INDEX holding_until ON holding (until) WHERE until IS NOT NULL;
CREATE TABLE fault (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, environment TEXT NOT NULL, repository TEXT NOT NULL,
    ref TEXT NOT NULL, text TEXT NOT NULL, addresses TEXT NOT NULL, since TEXT NOT NULL, until TEXT);
CREATE INDEX fault_open ON fault (kind, environment, repository, ref) WHERE until IS NULL;
CREATE INDEX fault_until ON fault (until) WHERE until IS NOT NULL;
"""
_TABLES = 11

#: Which deployment made a version of an environment. Only a site that has versions has this table.
_VERSIONS = """
CREATE TABLE IF NOT EXISTS version (environment INTEGER NOT NULL, number INTEGER NOT NULL, deployment INTEGER NOT NULL,
    PRIMARY KEY (environment, number)) WITHOUT ROWID
"""
_HAS_VERSIONS = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'version'"


class HistoryDamagedError(HistoryError):
    """What is in the place of the history is damaged, or no history at all."""


def milliseconds(time: float) -> int:
    """A time in seconds since the epoch, as the database has it."""
    return int(time * 1000)


def split_addresses(text: str) -> tuple[str, ...]:
    """The addresses of a fault, of which the database has one a line."""
    return tuple(text.split("\n")) if text else ()


def aside(path: Path) -> Path:
    """Where a damaged history goes."""
    return path.with_name(f"{path.name}.damaged")


def journal(path: Path) -> Path:
    """The file with which SQLite takes back what a transaction began that has not ended."""
    return path.with_name(f"{path.name}-journal")


# Opening


#: Characters of a path that a URI may have as they are.
_PLAIN = f"{string.ascii_letters}{string.digits}/._-".encode()


def _uri(path: Path, mode: str) -> str:
    plain = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in os.fsencode(path))
    return f"file:{plain}?mode={mode}"


def _connect(path: Path, mode: str, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(_uri(path, mode), uri=True, timeout=patience, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return connection


#: What SQLite says when it cannot work now. Whatever else it says of our statements means damage.
_PASSING = (
    *("database is locked", "database table is locked", "database or disk is full", "disk I/O error", "interrupted"),
    *("attempt to write a readonly database", "unable to open database file", "access permission denied"),
    *("locking protocol", "out of memory"),
)


@contextlib.contextmanager
def _failing(path: Path, action: str) -> Iterator[None]:
    """Turn errors into ours. Only what was found to be damaged is damaged: nobody may be able to look now.

    A damaged database may have any value at any place.
    """
    try:
        yield
    except (OSError, MemoryError, OverflowError) as error:
        raise HistoryError(path, _problem(error), action) from error
    except sqlite3.OperationalError as error:
        kind = HistoryError if str(error).startswith(_PASSING) else HistoryDamagedError
        raise kind(path, _problem(error), action) from error
    except (sqlite3.Error, AttributeError, TypeError, ValueError) as error:
        raise HistoryDamagedError(path, _problem(error), action) from error


def _problem(error: BaseException) -> str:
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error) or "no memory is left"
    return one_line(text)


def _exists(path: Path) -> bool:
    """Whether there is a file. Raises HistoryDamagedError when something else is in its place, OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        what = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory"}.get(stat.S_IFMT(mode), "no file")
        raise HistoryDamagedError(path, f"it is {what}, expected a file")
    return True


def _check(connection: sqlite3.Connection, path: Path, action: str) -> bool:
    """Whether the database has tables. Raises HistoryError, HistoryDamagedError."""
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    [(application,)] = connection.execute("PRAGMA application_id").fetchall()
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchall()
    if not (version or application or tables):
        return False
    if application != _APPLICATION or (version <= HISTORY.version and tables < _TABLES):
        raise HistoryDamagedError(path, "it is no history of Jens", action)
    if version != HISTORY.version:
        problem = f"it has version {version}, expected {HISTORY.version}: a newer Jens has made it"
        raise HistoryError(path, problem, action)
    return True


class Store:
    """The history, open for its only writer. ``is_new``: it has nothing yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._failing():
            is_there = _exists(path)
            if is_there and not os.access(path, os.W_OK):
                _copy(path)  # root has made it; all other files of state are replaced and not changed
            mode = "rw" if is_there else "rwc"
            self._connection = _connect(path, mode, WRITER_PATIENCE)
        try:
            with self._failing():
                self._set_up()
        except BaseException:
            self._connection.close()
            raise

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return _failing(self._path, "written")

    def _set_up(self) -> None:
        execute = self._connection.execute
        for pragma in (
            f"cache_size = -{_CACHE}",
            "journal_mode = DELETE",
            "synchronous = NORMAL",
            "temp_store = MEMORY",
        ):
            execute(f"PRAGMA {pragma}")
        self.is_new = not _check(self._connection, self._path, "written")
        if self.is_new:
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    execute(statement)
                execute("INSERT INTO meta VALUES ('id', ?)", (os.urandom(8).hex(),))
                execute(f"PRAGMA application_id = {_APPLICATION}")
                execute(f"PRAGMA user_version = {HISTORY.version}")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have done so itself
                self._connection.execute("ROLLBACK")
            raise

    # What the history believes

    def fingerprints(self) -> Fingerprints:
        """The fingerprints of all that is believed to be there. Raises HistoryError."""
        with self._failing():
            found = Fingerprints(
                dict(self._rows("SELECT name, fingerprint FROM repository WHERE fingerprint IS NOT NULL")),
                dict(self._rows("SELECT name, fingerprint FROM environment WHERE is_there")),
            )
            for name in found.repositories:
                parse_repository(name)
            if not all(map(is_environment_name, found.environments)):
                raise ValueError("a name of an environment")
            return found

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(query, values).fetchall()

    def believed(self, visible: Visible) -> Believed:
        """What is believed of what was looked at. Raises HistoryError."""
        with self._failing():
            return Believed(
                {
                    name: {ref: commit.hex() for ref, commit in self._rows(_LINKS, (name,))}
                    for name in (*visible.repositories, *visible.gone_repositories)
                },
                {
                    name: EnvironmentBelieved(int(conf or 0), dict(self._rows(_HOLDS, (number,))))
                    for name in (*visible.environments, *visible.gone_environments)
                    for number, conf in self._rows(
                        "SELECT id, conf FROM environment WHERE name = ? AND is_there", (name,)
                    )
                },
            )

    def told_metadata(self, environments: Iterable[str]) -> dict[str, str]:
        """The commit of the metadata behind the last change of each environment that had one. Raises HistoryError."""
        with self._failing():
            found = {name: self._rows(_LAST_METADATA, (name,)) for name in environments}
            return {name: commit.hex() for name, rows in found.items() for (commit,) in rows}

    def open_faults(self) -> list[OpenFault]:
        """The faults that are open. Raises HistoryError."""
        with self._failing():
            rows = self._rows(
                "SELECT kind, text, environment, repository, ref, addresses, since FROM fault WHERE until IS NULL"
            )
            return [
                OpenFault(Fault(kind, text, environment, repository, ref, split_addresses(addresses)), since)
                for kind, text, environment, repository, ref, addresses, since in rows
            ]

    # Writing

    def write(
        self,
        deployment: Deployment,
        rows: Rows,
        faults: FaultRows,
        visible: Visible,
        now: float,
        until: str,
        days: int,
    ) -> int | None:
        """Write a deployment with all that it changed, in one transaction. Returns its number, None when there is none.

        Faults are mended ``until`` this time. What is older than so many ``days`` goes, a little at a time. Raises
        HistoryError: nothing is written then.
        """
        with self._failing(), self._transaction():
            number = self._add_deployment(deployment) if rows else None
            if number is not None:
                self._add_changes(number, rows)
                self._add_environments(number, rows)
                self._add_holdings(number, rows)
            self._see(visible)
            if visible.versions:
                self._add_versions(number, visible.versions)
            self._add_faults(faults, until)
            self._forget(now, days)
        return number

    def finish(self, number: int, status: int, seconds: float) -> None:
        """Note how a run ended that made a deployment. Raises HistoryError."""
        with self._failing(), self._transaction():
            self._connection.execute(
                "UPDATE deployment SET status = ?, seconds = ? WHERE number = ?", (status, seconds, number)
            )

    def _number(self, table: str, name: str) -> int:
        """The number of a name, which gets one when it has none."""
        values = (name.encode("utf-8", "surrogateescape"),)  # names of branches may be any bytes
        for (number,) in self._rows(f"SELECT id FROM {table} WHERE name = CAST(? AS TEXT)", values):
            return int(number)
        query = f"INSERT INTO {table} (name) VALUES (CAST(? AS TEXT))"
        return int(self._connection.execute(query, values).lastrowid or 0)

    def _numbers(self, table: str, names: Iterable[str]) -> dict[str, int]:
        return {name: self._number(table, name) for name in sorted({*names})}

    def _add_deployment(self, made: Deployment) -> int:
        cursor = self._connection.execute(
            "INSERT INTO deployment (host, began, visible, seconds, status, mode) VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._number("host", made.host),
                None if made.began is None else milliseconds(made.began),
                milliseconds(made.visible),
                made.seconds,
                made.status,
                made.mode,
            ),
        )
        return int(cursor.lastrowid or 0)

    def _add_changes(self, deployment: int, rows: Rows) -> None:
        repositories = self._numbers("repository", (each.repository for each in rows.changes))
        refs = self._numbers("ref", (each.ref for each in rows.changes))
        self._connection.executemany(
            "UPDATE change INDEXED BY change_open SET until = ? WHERE repository = ? AND ref = ? AND until IS NULL",
            [(deployment, repositories[each.repository], refs[each.ref]) for each in rows.changes if each.before],
        )
        self._connection.executemany(
            "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    deployment,
                    repositories[each.repository],
                    refs[each.ref],
                    each.before and bytes.fromhex(each.before),
                    each.now and bytes.fromhex(each.now),
                    milliseconds(each.time),
                    None if each.now else deployment,
                    None if each.hinted is None else milliseconds(each.hinted),
                    *self._author(each.author),
                    each.commits,
                    each.lost,
                )
                for each in rows.changes
            ],
        )

    def _author(self, author: Author | None) -> tuple[int | None, str | None, int | None]:
        return (self._number("author", author.name), author.subject, author.date) if author else (None, None, None)

    def _add_environments(self, deployment: int, rows: Rows) -> None:
        self._connection.executemany(
            "INSERT INTO environment_change VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    deployment,
                    self._environment(each),
                    each.change,
                    milliseconds(each.time),
                    each.commit and bytes.fromhex(each.commit),
                    None if each.author is None else self._number("author", each.author),
                )
                for each in rows.environments
            ],
        )

    def _environment(self, change: EnvironmentChange) -> int:
        return 0 if change.environment is None else self._number("environment", change.environment)

    def _add_holdings(self, deployment: int, rows: Rows) -> None:
        held: list[Holding] = [*rows.closed, *rows.opened]
        environments = self._numbers("environment", (each.environment for each in held))
        repositories = self._numbers("repository", (each.repository for each in held))
        refs = self._numbers("ref", (each.ref for each in held))
        self._connection.executemany(
            "UPDATE holding SET until = ? WHERE environment = ? AND repository = ? AND until IS NULL",
            [(deployment, environments[each.environment], repositories[each.repository]) for each in rows.closed],
        )
        self._connection.executemany(
            "INSERT INTO holding VALUES (?, ?, ?, ?, NULL)",
            [
                (environments[each.environment], repositories[each.repository], deployment, refs[each.ref])
                for each in rows.opened
            ],
        )

    def _see(self, visible: Visible) -> None:
        """Remember the fingerprints of what was looked at."""
        seen: Mapping[str, int | None] = {
            **{name: seen.fingerprint for name, seen in visible.repositories.items()},
            **dict.fromkeys(visible.gone_repositories),
        }
        numbers = self._numbers("repository", seen)
        self._connection.executemany(
            "UPDATE repository SET fingerprint = ? WHERE id = ?",
            [(fingerprint, numbers[name]) for name, fingerprint in seen.items()],
        )
        numbers = self._numbers("environment", [*visible.environments, *visible.gone_environments])
        self._connection.executemany(
            "UPDATE environment SET fingerprint = ?, conf = ?, is_there = ? WHERE id = ?",
            [
                *((seen.fingerprint, seen.conf, 1, numbers[name]) for name, seen in visible.environments.items()),
                *((None, None, 0, numbers[name]) for name in visible.gone_environments),
            ],
        )

    def _add_versions(self, deployment: int | None, versions: Mapping[str, int]) -> None:
        """Remember which deployment has made the current versions; one that changed nothing else is the last one."""
        self._connection.execute(_VERSIONS)
        [(last,)] = self._rows("SELECT coalesce(max(number), 0) FROM deployment")
        numbers = self._numbers("environment", versions)
        for name, number in versions.items():
            query = "SELECT number FROM version WHERE environment = ? ORDER BY deployment DESC, number DESC LIMIT 1"
            if self._rows(query, (numbers[name],)) != [(number,)]:
                values = (numbers[name], number, deployment or last)
                self._connection.execute("INSERT OR REPLACE INTO version VALUES (?, ?, ?)", values)

    def _add_faults(self, faults: FaultRows, until: str) -> None:
        of_identity = "kind = ? AND environment = ? AND repository = ? AND ref = ? AND until IS NULL"
        self._connection.executemany(
            f"UPDATE fault SET until = ? WHERE {of_identity}",
            [(until, *identity) for identity in faults.closed],
        )
        self._connection.executemany(
            f"UPDATE fault SET text = ?, addresses = ? WHERE {of_identity}",
            [(fault.text, "\n".join(fault.addresses), *fault.identity) for fault, _ in faults.reworded],
        )
        self._connection.executemany(
            "INSERT INTO fault VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, NULL)",
            [(*fault.identity, fault.text, "\n".join(fault.addresses), since) for fault, since in faults.opened],
        )

    def _forget(self, now: float, days: int) -> None:
        """Delete some of what is too old. What is still so stays, however old."""
        [(last,)] = self._rows("SELECT coalesce((SELECT value FROM meta WHERE name = 'forgot'), 0)")
        if 0 <= now - last < _OLD_INTERVAL:
            return
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('forgot', ?)", (now,))
        oldest = milliseconds(now - days * _DAY)
        [(cut,)] = self._rows("SELECT coalesce(max(number), 0) FROM deployment WHERE visible < ?", (oldest,))
        [(has_versions,)] = self._rows(_HAS_VERSIONS)
        for query in (*([_OLD_VERSIONS] if has_versions else []), *_OLD):
            values = {"cut": cut, "oldest": oldest // 1000, "most": _MOST_OLD}
            self._connection.execute(query, values)


#: The commits of the branches of a repository.
_LINKS = """
SELECT ref.name, change.now FROM repository
    JOIN change INDEXED BY change_open ON change.repository = repository.id AND change.until IS NULL
    JOIN ref ON ref.id = change.ref
    WHERE repository.name = ?
"""

#: What an environment, given by its number, holds: repositories and refs.
_HOLDS = """
SELECT repository.name, ref.name FROM holding INDEXED BY holding_open
    JOIN repository ON repository.id = holding.repository
    JOIN ref ON ref.id = holding.ref
    WHERE holding.environment = ? AND holding.until IS NULL
"""

#: The commit of the metadata behind the last change of an environment that has one.
_LAST_METADATA = """
SELECT metadata FROM environment_change JOIN environment ON environment.id = environment_change.environment
    WHERE environment.name = ? AND metadata IS NOT NULL ORDER BY deployment DESC LIMIT 1
"""

#: Delete what ended before deployment :cut. Of what is older only little is left, as it goes all the time. The last
#: numbers stay, or SQLite would give them again, and those who were told up to a number would miss something.
_OLD = (
    """
DELETE FROM change WHERE (deployment, repository, ref) IN
    (SELECT deployment, repository, ref FROM change WHERE deployment <= :cut AND until <= :cut LIMIT :most)
    """,
    """
DELETE FROM environment_change WHERE (deployment, environment) IN
    (SELECT deployment, environment FROM environment_change WHERE deployment <= :cut LIMIT :most)
    """,
    """
DELETE FROM holding WHERE (environment, repository, since) IN
    (SELECT environment, repository, since FROM holding INDEXED BY holding_until
        WHERE until IS NOT NULL AND until <= :cut LIMIT :most)
    """,
    """
DELETE FROM fault WHERE id IN
    (SELECT id FROM fault INDEXED BY fault_until
        WHERE until IS NOT NULL AND id < (SELECT max(id) FROM fault)
            AND until < strftime('%Y-%m-%dT%H:%M:%S+00:00', :oldest, 'unixepoch') LIMIT :most)
    """,
    """
DELETE FROM deployment WHERE number IN
    (SELECT number FROM deployment WHERE number <= :cut
        AND number < (SELECT max(number) FROM deployment)
        AND NOT EXISTS (SELECT 1 FROM change WHERE deployment = number)
        AND number NOT IN (SELECT since FROM holding)
        AND number NOT IN (SELECT until FROM holding WHERE until IS NOT NULL) LIMIT :most)
    """,
)


#: The last version of each environment stays.
_OLD_VERSIONS = """
DELETE FROM version WHERE (environment, number) IN
    (SELECT environment, number FROM version WHERE deployment <= :cut AND EXISTS
        (SELECT 1 FROM version AS later
            WHERE later.environment = version.environment AND later.deployment > version.deployment) LIMIT :most)
"""


def _copy(path: Path) -> None:
    """Put a copy in the place of a file that only others may write. Raises OSError."""
    copy = files.staging_name(path.parent)
    try:
        shutil.copyfile(path, copy)
        os.replace(copy, path)
    finally:
        files.remove_tree(copy)


def set_aside(path: Path) -> Path:
    """Move what is in the place of the history aside, over what was there. Returns its new path. Raises OSError."""
    files.discard(aside(path))
    os.rename(path, aside(path))
    files.discard(journal(path))  # it would be applied to the next database of this name
    return aside(path)


# Reading


#: So many instructions of SQLite are between two looks at the clock.
_STEPS = 10_000

#: What SQLite says to a reader when there is something to be taken back.
_HALFWAY = "attempt to write a readonly database"


class Reader:
    """The history, open for reading. No query holds up a writer longer than it takes to fetch its rows.

    What a run that was killed has written halfway, the next run takes back; until then readers, who may not write, take
    it back in a copy.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._patience = self._until = float("inf")
        with self._failing():
            if not _exists(path):
                raise HistoryError(path, "it does not exist: no run has recorded anything yet")
        try:
            self._connection = self._opened(path, "ro")
        except HistoryError as error:
            if error.problem != _HALFWAY or not os.path.exists(journal(path)):
                raise
            with self._failing(), tempfile.TemporaryDirectory() as top:
                copy = Path(top) / path.name
                shutil.copyfile(journal(path), journal(copy))
                shutil.copyfile(path, copy)
                self._connection = self._opened(copy, "rw")

    def _opened(self, path: Path, mode: str) -> sqlite3.Connection:
        with self._failing():
            connection = _connect(path, mode, READER_PATIENCE)
            try:
                if not _check(connection, self._path, "read"):
                    raise HistoryError(self._path, "no run has recorded anything yet")
            except BaseException:
                connection.close()
                raise
            return connection

    def _failing(self) -> contextlib.AbstractContextManager[None]:
        return _failing(self._path, "read")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def end_after(self, seconds: float) -> None:
        """From now on, end each query that takes longer than so many seconds. It raises HistoryError then."""
        self._patience = seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """All rows of a query. Raises HistoryError."""
        self._until = time.monotonic() + self._patience
        with self._failing():
            return self._connection.execute(query, values).fetchall()

    @property
    def has_versions(self) -> bool:
        """Whether an environment ever had versions. Raises HistoryError."""
        [(count,)] = self.rows(_HAS_VERSIONS)
        return bool(count)

    @property
    def id(self) -> str:
        """What tells this history from one that began anew. Raises HistoryError."""
        [(found,)] = self.rows("SELECT value FROM meta WHERE name = 'id'")
        return str(found)
