"""Hints in the queue, with python-dirq and pickle themselves on the other side."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Callable
from unittest.mock import Mock

import pytest
from dirq.queue import Queue as DirectoryQueue

from jens.errors import QueueError
from jens.events import Event
from jens.messaging import elements, message
from jens.messaging import queue as messaging_queue
from jens.messaging.elements import LARGEST_MESSAGE, SCHEMA
from jens.messaging.message import MOST_MOVES, Move, encode, timestamp
from jens.messaging.queue import Hints, Push, Queue
from jens.model import COMMON, HOSTGROUPS, MODULES, RepoId
from tests import TREE
from tests.values import DUMMY, MYAPP, modules

_PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
_HIERADATA = RepoId(COMMON, "hieradata")
_M1, _M2, _M3 = modules("m1", "m2", "m3")
_DAY = 86400


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir()
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory outside the queue, with a hint in it."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    _fill(path, encode([DUMMY]))
    return path


def _others(spool: Path) -> Any:
    """The queue as any other program opens it, with python-dirq."""
    return DirectoryQueue(str(spool), schema={"time": "string", "data": "binary"})


def _hint(spool: Path, content: object, protocol: int | None = None) -> str:
    """Add a hint as any other program does. Returns its name."""
    data = pickle.dumps(content, protocol)
    return str(_others(spool).add({"time": datetime.now().isoformat(), "data": data}))


def _fill(element: Path, data: bytes) -> None:
    (element / "time").write_text("2015-12-10T14:06:35.339550")
    (element / "data").write_bytes(data)


def _element(spool: Path, number: int, data: bytes) -> Path:
    """Make an element by hand; ``number`` is its place in the order."""
    path = spool / "00000000" / f"{number:014x}"
    path.mkdir(parents=True)
    _fill(path, data)
    return path


def _name(element: Path) -> str:
    return f"{element.parent.name}/{element.name}"


def _listing(top: Path) -> dict[str, object]:
    """Everything below a directory, itself included: kind, mode, time of change, content."""
    found: dict[str, object] = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        content = path.read_bytes().hex() if stat.S_ISREG(status.st_mode) else content
        found[str(path.relative_to(top))] = (stat.filemode(status.st_mode), status.st_mtime_ns, content)
    return found


def _names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def _failures(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if event.level >= logging.ERROR]


def _ok(hints: Hints) -> Hints:
    """Hints that nothing is wrong with, without their times."""
    assert hints.events == ()
    assert hints.times.keys() == hints.repos
    return hints._replace(times=Hints().times)


# Moves of branches


_OLD, _NEW = "1" * 40, "a" * 40
_MOVE = Move("feature/x", _OLD, _NEW)


def test_a_message_tells_where_branches_are_and_others_need_not_know(spool: Path) -> None:
    name = Queue(spool).add([_M1, MYAPP], moves={_M1: [_MOVE, Move("gone", _OLD, "")], MYAPP: []})
    pushes = Queue(spool).look().pushes
    assert pushes == (Push(name, _M1, _MOVE), Push(name, _M1, Move("gone", _OLD, "")))
    assert abs(pushes[0].added - time.time()) < 60
    others = _others(spool)
    assert others.lock(name)
    assert pickle.loads(others.get(name)["data"]) == {"modules": ["m1"], "hostgroups": ["myapp"]}  # noqa: S301
    others.remove(name)
    assert Queue(spool).names() == []


def test_without_moves_a_message_is_as_ever(spool: Path) -> None:
    nothing: list[dict[RepoId, list[Move]] | None] = [None, {}, {_M1: []}]
    for moves in nothing:
        assert sorted(os.listdir(spool / Queue(spool).add([_M1], moves=moves))) == ["data", "time"]


@pytest.mark.parametrize(
    "after",
    [
        "",
        "{",
        "[]",
        "5",
        '{"modules/m1": 5}',
        '{"modules/m1": [5]}',
        '{"modules/m1": [["x", "", "", ""]]}',
        '{"../m1": []}',
        '{"modules/m1": [["-x", "", ""]]}',
        '{"modules/m1": [["x", "", "HEAD"]]}',
        json.dumps({"modules/m1": [_MOVE] * (MOST_MOVES + 1)}),
        " " * 70_000,
        "[" * 60_000,
    ],
    ids=lambda text: text[:30],
)
def test_ill_formed_moves_spoil_nothing_else(spool: Path, after: str) -> None:
    name = Queue(spool).add([_M1])
    (spool / name / "after").write_text(after)
    hints = Queue(spool).take()
    assert (hints.messages, hints.repos, hints.pushes) == ((name,), frozenset({_M1}), ())
    problem = "after is ignored, expected moves of branches"
    assert hints.events == ((Event(logging.WARNING, f"Message '{name}': {problem}"),) if after else ())


def test_moves_of_repositories_that_the_message_does_not_name_are_none(spool: Path) -> None:
    Queue(spool).add([_M1], moves={_M2: [_MOVE]})
    assert Queue(spool).take().pushes == ()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_moves_that_are_no_file_are_ignored(spool: Path, elsewhere: Path, kind: str) -> None:
    name = Queue(spool).add([_M1])
    path = spool / name / "after"
    if kind == "link":
        path.symlink_to(elsewhere / "data")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    hints = Queue(spool).take()
    assert (hints.messages, hints.pushes, len(hints.events)) == ((name,), (), 1)
    assert Queue(spool).acknowledge([name]) == []
    assert os.listdir(spool / "obsolete") == []


# Adding


def test_python_dirq_reads_what_was_added(spool: Path) -> None:
    name = Queue(spool).add([_M1, MYAPP])
    others = _others(spool)
    assert list(others.names()) == [name]
    assert others.lock(name)
    message = others.get(name)
    assert pickle.loads(message["data"]) == {"modules": ["m1"], "hostgroups": ["myapp"]}  # noqa: S301 - our own
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", message["time"])
    assert abs((datetime.now() - datetime.fromisoformat(message["time"])).total_seconds()) < 60
    others.remove(name)
    assert Queue(spool).names() == []


def test_the_time_has_microseconds_even_when_there_are_none(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2015, 12, 10, 14, 6, 35)

    monkeypatch.setattr(message, "datetime", Clock)
    name = Queue(spool).add([_M1])
    assert (spool / name / "time").read_text() == "2015-12-10T14:06:35.000000"


def _place(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def test_what_was_added_is_on_stable_storage_up_to_the_queue_itself(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(_place(descriptor)))
    name = Queue(spool).add([_M1], moves={_M1: [_MOVE]})
    aside, directory = spool / "temporary" / name[9:], spool / name[:8]
    # The first element made its intermediate directory. If that entry is lost, so is the hint.
    assert flushed == [aside / "time", aside / "data", aside / "after", aside, directory, spool]


def test_what_is_taken_before_it_is_flushed_is_no_failure(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def take_and_flush(descriptor: int) -> None:
        queue = Queue(spool)
        assert _failures(queue.acknowledge(queue.take().messages)) == []
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", take_and_flush)
    assert Queue(spool).add([_M1])
    assert Queue(spool).names() == []


@pytest.mark.parametrize("kind", ["missing", "file", "link to nowhere"])
def test_without_a_queue_nothing_is_added_and_nothing_made(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mount" / "spool"
    path.parent.mkdir()
    if kind == "file":
        path.write_text("x")
    elif kind == "link to nowhere":
        path.symlink_to("nowhere")
    before = _listing(tmp_path)
    with pytest.raises(QueueError, match=re.escape(str(path))):
        Queue(path).add([_M1])
    assert _listing(tmp_path) == before


def test_without_permission_nothing_is_added(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    with pytest.raises(QueueError, match="could not be written: there is no permission"):
        Queue(spool).add([_M1])
    assert _names(spool) == []


def _purging(
    monkeypatch: pytest.MonkeyPatch, at: str, remove: Callable[[int, str], object], times: float = 1
) -> list[str]:
    """Have somebody else purge, a number of times, just before a file or directory is opened whose name matches."""
    purged: list[str] = []
    real_open = os.open

    def purge_and_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and re.fullmatch(at, str(path)) and len(purged) < times:
            purged.append(str(path))
            remove(dir_fd, str(path))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", purge_and_open)
    return purged


def _remove_above(directory: int, _name: str) -> None:
    shutil.rmtree(_place(directory))


def _remove_it(directory: int, name: str) -> None:
    os.rmdir(name, dir_fd=directory)


@pytest.mark.parametrize(
    ("at", "remove"),
    [
        pytest.param("time", _remove_above, id="a fresh element"),
        pytest.param("data", _remove_above, id="an element between its fields"),
        pytest.param("[0-9a-f]{14}", _remove_it, id="an empty element"),
        pytest.param("[0-9a-f]{8}", _remove_it, id="an intermediate directory"),
        pytest.param("temporary", _remove_it, id="the directory of elements"),
    ],
)
def test_what_is_purged_is_made_anew(
    spool: Path, monkeypatch: pytest.MonkeyPatch, at: str, remove: Callable[[int, str], object]
) -> None:
    with monkeypatch.context() as patched:
        purged = _purging(patched, at, remove)
        name = Queue(spool).add([_M1])
    assert len(purged) == 1
    assert _ok(Queue(spool).take()) == Hints(1, (name,), frozenset({_M1}))
    assert os.listdir(spool / "temporary") == []


def test_who_is_purged_all_the_time_gives_up(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        purged = _purging(patched, "data", _remove_above, math.inf)
        with pytest.raises(QueueError, match="could not be written: No such file or directory"):
            Queue(spool).add([_M1])
    assert 10 < len(purged) < 1000
    assert Queue(spool).names() == []


def test_an_element_of_the_same_name_is_not_replaced(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "_new_name", iter(["0" * 14, "0" * 14, "1" * 14]).__next__)
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2)]
    assert names == ["00000000/" + "0" * 14, "00000000/" + "1" * 14]
    assert _ok(Queue(spool).take()).repos == {_M1, _M2}


def test_a_full_directory_gets_no_more_elements(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "_FULL", 2)
    names = [Queue(spool).add([_M1]) for _ in range(5)]
    assert [name[:8] for name in names] == ["00000000"] * 2 + ["00000001"] * 2 + ["00000002"]
    assert _others(spool).add({"time": "", "data": b""}).startswith("00000002/")


def _no_space(*_arguments: object, **_more: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["mkdir", "rename", "fsync"])
def test_a_real_failure_is_said_as_the_system_says_it(
    spool: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    _others(spool)
    with monkeypatch.context() as patched:
        patched.setattr(os, function, _no_space)
        with pytest.raises(QueueError) as caught:
            Queue(spool).add([_M1])
    problem = "could not be written: No space left on device (queuedir in [messaging])"
    assert str(caught.value) == f"The queue of hints '{spool}' {problem}"
    assert Queue(spool).names() == []
    assert os.listdir(spool / "temporary") == []


# Listing


def test_names_tells_hints_and_nothing_else(spool: Path) -> None:
    assert Queue(spool).names() == []
    first, second = _hint(spool, {"modules": ["m1"]}), Queue(spool).add([_M2])
    assert _others(spool).lock(first)
    foreign = (
        "temporary/0123456789abcd",
        "obsolete/0123456789abcd",
        "other/0123456789abcd",
        "0000000/0123456789abcd",
        "0000000A/0123456789abcd",
        "000000000/0123456789abcd",
        "00000000/0123456789abc",
        "00000000/0123456789ABCD",
        "00000000/0123456789abcde",
        "00000000/.nfs0123456789",
        "00000000/0123456789abcd\n",
        "00000007",
    )
    for name in foreign:
        (spool / name).mkdir(parents=True)
    (spool / "README").write_text("x")
    assert Queue(spool).names() == [first, second]
    assert Queue(spool).take().messages == (first, second)
    assert all((spool / name).is_dir() for name in foreign)


def test_hints_come_in_the_order_they_were_added(spool: Path) -> None:
    names = [f"{directory}/{element}" for directory in ("00000000", "0000000a", "000000ff") for element in ("1", "9")]
    names = [name.replace("/", f"/{'0' * 13}") for name in names]
    for name in reversed(names):
        (spool / name).mkdir(parents=True)
        _fill(spool / name, encode([_M1]))
    assert Queue(spool).names() == list(Queue(spool).take().messages) == names


_ACTIONS: dict[str, Callable[[Queue], object]] = {
    "names": Queue.names,
    "look": Queue.look,
    "take": Queue.take,
    "purge": Queue.purge,
}


@pytest.mark.parametrize("action", _ACTIONS.values(), ids=_ACTIONS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param("missing", "No such file or directory", id="missing"),
        pytest.param("file", "Not a directory", id="a file"),
        pytest.param("no permission", "Permission denied", id="unreadable"),
        pytest.param("intermediate file", "Not a directory", id="an intermediate directory that is a file"),
    ],
)
def test_a_queue_that_cannot_be_read_is_not_an_empty_one(
    spool: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str, action: Callable[[Queue], object]
) -> None:
    if kind in ("missing", "file"):
        spool.rmdir()
    if kind == "file":
        spool.write_text("x")
    if kind == "intermediate file":
        (spool / "00000000").write_text("x")
    if kind == "no permission":
        monkeypatch.setattr(os, "listdir", _no_permission)  # the tests may be run by root
    with pytest.raises(QueueError, match=f"could not be read: {reason}"):
        action(Queue(spool))
    monkeypatch.undo()
    assert spool.exists() == (kind != "missing")


def _no_permission(*_arguments: object, **_more: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("action", _ACTIONS.values(), ids=_ACTIONS)
def test_an_intermediate_directory_that_leads_elsewhere_is_not_followed(
    spool: Path, tmp_path: Path, action: Callable[[Queue], object]
) -> None:
    other = tmp_path / "other"
    theirs = other / _hint(other, {"modules": ["m2"]})
    mine = _hint(spool, {"modules": ["m1"]})
    (spool / "00000001").symlink_to(theirs.parent)
    (spool / "00000002").symlink_to("nowhere")
    os.utime(theirs.parent, (0, 0))
    before = _listing(other)
    action(Queue(spool))
    assert _listing(other) == before
    assert Queue(spool).names() == [mine]
    assert Queue(spool).look().repos == {_M1}


def test_nothing_is_added_unnoticed_where_a_link_leads(spool: Path, elsewhere: Path) -> None:
    (spool / "00000009").symlink_to(elsewhere)
    with pytest.raises(QueueError):
        Queue(spool).add([_M1])


# Looking


def test_looking_tells_what_taking_would_and_changes_nothing(spool: Path) -> None:
    names = [_hint(spool, {"modules": ["m1"], "x": []}), Queue(spool).add([MYAPP]), _hint(spool, ["m1"])]
    assert _others(spool).lock(names[1])
    _element(spool, 1, b"damaged")
    os.mkfifo(_element(spool, 2, b"") / "more")
    (spool / "temporary" / "0123456789abcd").mkdir()
    before = _listing(spool)
    looked = Queue(spool).look()
    assert _listing(spool) == before
    assert (looked.found, looked.messages, looked.repos) == (5, tuple(names[:2]), frozenset({_M1, MYAPP}))
    assert looked.dropped == ("00000000/00000000000001", "00000000/00000000000002", names[2])
    assert looked == Queue(spool).take()


# Taking


def test_messages_merge(spool: Path) -> None:
    names = [
        _hint(spool, {"modules": ["m1", "m2"]}),
        _hint(spool, {"modules": ["m2"], "hostgroups": ["myapp"]}),
        Queue(spool).add([_M1, _HIERADATA]),
    ]
    assert _ok(Queue(spool).take()) == Hints(3, tuple(names), frozenset({_M1, _M2, MYAPP, _HIERADATA}))


def test_an_empty_queue_has_no_hints(spool: Path) -> None:
    assert Queue(spool).take() == Queue(spool).look() == Hints()


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_a_message_that_another_program_wrote_is_taken(spool: Path, protocol: int) -> None:
    name = _hint(spool, {"modules": ["m1"], "hostgroups": ["myapp"]}, protocol)
    assert _ok(Queue(spool).take()) == Hints(1, (name,), frozenset({_M1, MYAPP}))


def test_what_is_acknowledged_is_gone_and_nothing_else(spool: Path) -> None:
    first, second = Queue(spool).add([_M1]), Queue(spool).add([_M2])
    assert Queue(spool).take().messages == (first, second)
    third = Queue(spool).add([_M3])
    assert Queue(spool).acknowledge([first]) == []
    assert _ok(Queue(spool).take()) == Hints(2, (second, third), frozenset({_M2, _M3}))
    assert Queue(spool).acknowledge([second, third]) == []
    assert Queue(spool).take() == Hints()
    assert os.listdir(spool / "temporary") == os.listdir(spool / "obsolete") == []


def test_what_is_taken_is_locked_for_others(spool: Path) -> None:
    name = Queue(spool).add([_M1])
    Queue(spool).take()
    assert not _others(spool).lock(name)


def test_what_a_dead_reader_locked_is_taken_at_once(spool: Path) -> None:
    name = Queue(spool).add([_M1])
    assert _others(spool).lock(name)
    assert _ok(Queue(spool).take()) == Hints(1, (name,), frozenset({_M1}))
    assert Queue(spool).acknowledge([name]) == []
    assert Queue(spool).names() == []


def test_what_is_ill_formed_in_a_message_is_told_in_its_place(spool: Path) -> None:
    name = _hint(spool, {"modules": ["m1", "../secret"], "hostgroups": 5})
    hints = Queue(spool).take()
    assert (hints.messages, hints.repos, hints.dropped) == ((name,), frozenset({_M1}), ())
    assert hints.events == (
        Event(logging.WARNING, f"Message '{name}': modules has bad names (1)"),
        Event(logging.WARNING, f"Message '{name}': hostgroups is expected to be a list of names"),
    )


def test_a_message_without_its_time_still_counts(spool: Path) -> None:
    name = _hint(spool, {"modules": ["m1"]})
    (spool / name / "time").unlink()
    assert _ok(Queue(spool).take()) == Hints(1, (name,), frozenset({_M1}))
    assert Queue(spool).acknowledge([name]) == []
    assert Queue(spool).names() == []


def test_a_message_with_other_files_in_it_is_taken_and_goes(spool: Path) -> None:
    name = _hint(spool, {"modules": ["m1"]})
    (spool / name / ".nfs-0").write_text("x")
    (spool / name / "locked").mkdir()
    (spool / name / "locked" / "more").write_text("x")
    assert _ok(Queue(spool).take()).messages == (name,)
    assert Queue(spool).acknowledge([name]) == []
    assert Queue(spool).names() == os.listdir(spool / "obsolete") == []


def _sized(size: int) -> bytes:
    """A message of so many bytes."""
    empty = len(pickle.dumps({"modules": ["m2"], "common": ["x" * 300]}, 2)) - 300
    return pickle.dumps({"modules": ["m2"], "common": ["x" * (size - empty)]}, 2)


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


_Spoil = Callable[[Path, Path], object]


def _replaced(make: _Spoil) -> _Spoil:
    """Replace the data by something else."""

    def spoil(element: Path, elsewhere: Path) -> None:
        (element / "data").unlink()
        make(element / "data", elsewhere)

    return spoil


def _all_replaced(make: _Spoil) -> _Spoil:
    """Replace the whole element by something else."""

    def spoil(element: Path, elsewhere: Path) -> None:
        shutil.rmtree(element)
        make(element, elsewhere)

    return spoil


def _written(data: bytes) -> _Spoil:
    return lambda element, _elsewhere: (element / "data").write_bytes(data)


_ILL_FORMED: dict[str, _Spoil] = {
    "no data": _replaced(lambda _path, _elsewhere: None),
    "data elsewhere": _replaced(lambda path, elsewhere: path.symlink_to(elsewhere / "data")),
    "data nowhere": _replaced(lambda path, _elsewhere: path.symlink_to("nowhere")),
    "data that is a pipe": _replaced(lambda path, _elsewhere: os.mkfifo(path)),
    "data that is a directory": _replaced(lambda path, _elsewhere: path.mkdir()),
    "data that is a socket": _replaced(lambda path, _elsewhere: os.mknod(path, stat.S_IFSOCK | 0o600)),
    "a byte too much": _written(_sized(LARGEST_MESSAGE + 1)),
    "far too much": lambda element, _elsewhere: os.truncate(element / "data", 2**40),
    "a file": _all_replaced(lambda path, _elsewhere: path.write_bytes(encode([_M2]))),
    "an element elsewhere": _all_replaced(lambda path, elsewhere: path.symlink_to(elsewhere)),
    "an element nowhere": _all_replaced(lambda path, _elsewhere: path.symlink_to("nowhere")),
    "a pipe": _all_replaced(lambda path, _elsewhere: os.mkfifo(path)),
    "empty": _all_replaced(lambda path, _elsewhere: path.mkdir()),
    "empty data": _written(b""),
    "half a pickle": _written(encode([_M2])[:-3]),
    "no pickle": _written(b"s3cret\nERROR a line of its own\n"),
    "no mapping": _written(pickle.dumps(["m2", "s3cret"])),
    "an evil pickle": lambda element, elsewhere: (element / "data").write_bytes(
        pickle.dumps({"modules": ["m2", _Evil(elsewhere / "canary")]})
    ),
}


@pytest.mark.parametrize("spoil", _ILL_FORMED.values(), ids=_ILL_FORMED)
def test_an_ill_formed_message_is_dropped_with_one_error_and_its_neighbours_are_taken(
    spool: Path, elsewhere: Path, spoil: _Spoil
) -> None:
    before, bad, after = (_element(spool, number, encode([repo])) for number, repo in enumerate((_M1, _M2, _M3)))
    spoil(bad, elsewhere)
    hints = Queue(spool).take()
    assert (hints.found, hints.messages) == (3, (_name(before), _name(after)))
    assert hints.repos == {_M1, _M3}
    assert hints.dropped == (_name(bad),)
    [event] = hints.events
    assert event.level == logging.ERROR
    assert event.text.startswith(f"Message '{_name(bad)}' is dropped: ")
    assert event.text.isprintable()
    assert "s3cret" not in event.text
    assert Queue(spool).names() == [_name(before), _name(after)]
    assert not (elsewhere / "canary").exists()
    assert (elsewhere / "data").exists()


@pytest.mark.parametrize("action", _ACTIONS.values(), ids=_ACTIONS)
def test_nothing_is_changed_where_an_element_leads(
    spool: Path, elsewhere: Path, action: Callable[[Queue], object]
) -> None:
    if action is Queue.purge:
        (elsewhere / "locked").mkdir()
        os.utime(elsewhere / "locked", (0, 0))
    (spool / "00000000").mkdir()
    (spool / "00000000" / f"{1:014x}").symlink_to(elsewhere)
    before = _listing(elsewhere)
    action(Queue(spool))
    assert _listing(elsewhere) == before


@pytest.mark.parametrize("spoil", _ILL_FORMED.values(), ids=_ILL_FORMED)
def test_no_file_stays_open_for_an_ill_formed_message(spool: Path, elsewhere: Path, spoil: _Spoil) -> None:
    spoil(_element(spool, 1, encode([_M2])), elsewhere)
    before = len(os.listdir("/proc/self/fd"))
    Queue(spool).take()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_largest_message_is_read(spool: Path) -> None:
    element = _element(spool, 1, _sized(LARGEST_MESSAGE))
    assert (element / "data").stat().st_size == LARGEST_MESSAGE == 2**20
    hints = Queue(spool).take()
    assert (hints.messages, hints.repos, hints.dropped) == ((_name(element),), frozenset({_M2}), ())


@pytest.mark.parametrize("at", ["element", "data"])
def test_a_message_that_vanishes_while_it_is_taken_is_none(
    spool: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2, _M3)]
    if at == "element":
        purged = _purging(monkeypatch, names[1][9:], lambda _directory, _name: shutil.rmtree(spool / names[1]))
    else:
        purged = _purging(monkeypatch, "data", _remove_above)
    hints = _ok(Queue(spool).take())
    assert len(purged) == 1
    gone = 1 if at == "element" else 0
    assert hints.messages == tuple(name for number, name in enumerate(names) if number != gone)


def test_an_intermediate_directory_that_vanishes_while_it_is_listed_is_empty(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Queue(spool).add([_M1])
    (spool / "00000001").mkdir()
    assert _purging(monkeypatch, "00000001", _remove_it) == []
    assert _ok(Queue(spool).take()).messages == (name,)
    assert not (spool / "00000001").exists()


def _failing_to_read(monkeypatch: pytest.MonkeyPatch, element: Path) -> None:
    real_open = os.open

    def fail_or_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "data" and dir_fd is not None and _place(dir_fd) == element:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", fail_or_open)


def test_a_message_that_cannot_be_read_now_stays(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2, _M3)]
    with monkeypatch.context() as patched:
        _failing_to_read(patched, spool / names[1])
        hints = Queue(spool).take()
    assert (hints.messages, hints.repos, hints.dropped) == ((names[0], names[2]), frozenset({_M1, _M3}), ())
    assert hints.events == (Event(logging.ERROR, f"Message '{names[1]}' cannot be read: Input/output error"),)
    assert Queue(spool).take().messages == tuple(names)


def test_a_message_that_cannot_be_locked_is_taken_all_the_same(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Queue(spool).add([_M1])
    monkeypatch.setattr(os, "mkdir", _no_space)
    assert _ok(Queue(spool).take()) == Hints(1, (name,), frozenset({_M1}))


@pytest.mark.parametrize(
    ("limit", "most"),
    [("_MOST_BYTES", 2 * len(encode([_M1]))), ("_MOST_REPOSITORIES", 2), ("_MOST_MESSAGES", 2)],
    ids=["bytes", "repositories", "messages"],
)
def test_what_is_too_much_for_one_run_waits_for_the_next(
    spool: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    names = [Queue(spool).add([repo]) for repo in modules("m1", "m2", "m3", "m4", "m5")]
    monkeypatch.setattr(messaging_queue, limit, most)
    left = {5: "3 messages are left for the next run", 3: "1 messages are left for the next run"}
    for found in (5, 3):
        hints = Queue(spool).take()
        assert (hints.found, hints.messages) == (found, tuple(names[:2]))
        assert hints.events == (Event(logging.WARNING, left[found]),)
        assert Queue(spool).acknowledge(hints.messages) == []
        del names[:2]
        assert Queue(spool).names() == names
    assert _ok(Queue(spool).take()).messages == tuple(names)


def test_what_takes_too_long_waits_for_the_next_run(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Queue(spool).add([_M1]) for _ in range(3)]
    ticks = iter([0.0, 1.0, 4.0, 5.5])
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", ticks.__next__)
        hints = Queue(spool).look()
    assert hints.messages == tuple(names[:2])
    assert hints.events == (Event(logging.WARNING, "1 messages are left for the next run"),)


def test_of_many_bad_messages_the_first_are_told_and_the_number_of_the_others(spool: Path) -> None:
    for number in range(25):
        _element(spool, number, b"")
    good = _element(spool, 99, pickle.dumps({"modules": ["m1"], "x": []}))
    hints = Queue(spool).take()
    assert (len(hints.dropped), hints.messages) == (25, (_name(good),))
    assert len(hints.events) == 22
    assert hints.events[-1] == Event(logging.ERROR, "5 more messages are dropped")
    assert Queue(spool).names() == [_name(good)]


def test_what_cannot_be_read_does_not_keep_the_rest_from_being_read(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2)]
    _failing_to_read(monkeypatch, spool / names[0])
    monkeypatch.setattr(messaging_queue, "_MOST_MESSAGES", 1)
    assert Queue(spool).take().messages == (names[1],)


def test_a_repository_hinted_often_is_not_too_much(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging_queue, "_MOST_REPOSITORIES", 2)
    for _ in range(20):
        Queue(spool).add([_M1])
    assert len(_ok(Queue(spool).take()).messages) == 20


# Acknowledging


def test_a_message_that_somebody_else_removed_is_done_with(spool: Path) -> None:
    first, second = Queue(spool).add([_M1]), Queue(spool).add([_M2])
    Queue(spool).take()
    _others(spool).remove(first)
    assert Queue(spool).acknowledge([first, second]) == []
    assert Queue(spool).acknowledge([first, second]) == []
    assert Queue(spool).names() == []


def test_a_message_that_cannot_be_removed_is_one_error_and_the_others_go(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2, _M3)]
    rename = os.rename

    def refuse_or_rename(source: Any, target: Any, **more: Any) -> None:
        if source == names[1][9:]:
            _no_permission()
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", refuse_or_rename)
    [event] = Queue(spool).acknowledge(Queue(spool).take().messages)
    assert event == Event(logging.ERROR, f"Unable to remove message '{names[1]}': Permission denied")
    monkeypatch.undo()
    assert _ok(Queue(spool).take()).messages == (names[1],)


def test_a_dropped_message_that_cannot_be_removed_is_told_and_spoils_nothing(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = Queue(spool).add([_M1]), _hint(spool, ["m1"])
    monkeypatch.setattr(os, "rename", _no_permission)
    hints = Queue(spool).take()
    assert (hints.messages, hints.dropped) == ((good,), (bad,))
    assert [text.split(":")[0] for text in _failures(hints.events)] == [
        f"Message '{bad}' is dropped",
        f"Unable to remove message '{bad}'",
    ]


# Purging


@pytest.mark.parametrize(
    ("made", "path", "age", "goes"),
    [
        pytest.param([], "temporary/0123456789abcd/", 400, True, id="old temporary, empty"),
        pytest.param([], "temporary/0123456789abcd/data", 400, True, id="old temporary, with files"),
        pytest.param([], "temporary/0123456789abcd/locked/", 400, True, id="old temporary, with a directory"),
        pytest.param([], "temporary/0123456789abcd/", 200, False, id="young temporary, empty"),
        pytest.param([], "temporary/0123456789abcd/data", 200, False, id="young temporary, with files"),
        pytest.param([], "temporary/0123456789abcd/", -400, False, id="temporary of the future"),
        pytest.param([], "temporary/0123456789abc/", _DAY, False, id="foreign name in temporary"),
        pytest.param([], "obsolete/0123456789abcd/", 400, True, id="old obsolete, empty"),
        pytest.param([], "obsolete/0123456789abcd/data", 400, True, id="old obsolete, with files"),
        pytest.param([], "obsolete/0123456789abcd/.nfs0/more/", 400, True, id="old obsolete, with anything"),
        pytest.param([], "obsolete/0123456789abcd/", 200, False, id="young obsolete, empty"),
        pytest.param([], "obsolete/0123456789abcd/data", 200, False, id="young obsolete, with files"),
        pytest.param([], "obsolete/0123456789abcd/", -_DAY, False, id="obsolete of the future"),
        pytest.param([], "obsolete/README/", _DAY, False, id="foreign name in obsolete"),
        pytest.param(["00000000/0123456789abcd/data"], "00000000/0123456789abcd/locked/", 700, True, id="old lock"),
        pytest.param(["00000000/0123456789abcd/data"], "00000000/0123456789abcd/locked/", 500, False, id="young lock"),
        pytest.param(
            ["00000000/0123456789abcd/data"], "00000000/0123456789abcd/locked/", -700, False, id="future lock"
        ),
        pytest.param(
            ["00000000/0123456789abcd/locked/x"], "00000000/0123456789abcd/locked/", _DAY, False, id="full lock"
        ),
        pytest.param(
            ["00000000/foreign/data"], "00000000/foreign/locked/", _DAY, False, id="lock of something foreign"
        ),
        pytest.param(["00000002/"], "00000001/", 400, True, id="old intermediate, empty"),
        pytest.param(["00000002/"], "00000001/", 200, False, id="young intermediate, empty"),
        pytest.param(["00000002/"], "00000001/", -400, False, id="intermediate of the future, empty"),
        pytest.param(["00000002/"], "00000001/0123456789abcd/", _DAY, False, id="old intermediate with a hint"),
        pytest.param(["00000002/"], "00000001/foreign", _DAY, False, id="old intermediate with a foreign file"),
        pytest.param(["00000000/"], "00000001/", _DAY, False, id="the last intermediate"),
        pytest.param([], "00000001/", _DAY, False, id="the only intermediate"),
        pytest.param(["00000002/"], "0000000A/", _DAY, False, id="foreign directory"),
        pytest.param(["00000002/"], "README", _DAY, False, id="foreign file"),
    ],
)
def test_what_a_purge_clears_away(spool: Path, made: list[str], path: str, age: float, goes: bool) -> None:
    for name in (*made, path):
        directory, _, file = name.rpartition("/")
        (spool / directory).mkdir(parents=True, exist_ok=True)
        if file:
            (spool / name).write_bytes(encode([_M1]))
    parts = path.rstrip("/").split("/")
    unit = spool / "/".join(parts[: 2 if parts[0] in ("temporary", "obsolete") else 3])
    aged = unit if unit.is_dir() or unit == spool / "README" else unit.parent
    then = time.time() - age
    for changed in (*aged.rglob("*"), aged):
        os.utime(changed, (then, then))
    expected = [Event(logging.INFO, f"Removed '{aged}'")] if goes else []
    before = _names(spool)
    assert Queue(spool).purge() == expected
    assert aged.exists() != goes
    gone = [name for name in before if goes and (spool / name == aged or aged in (spool / name).parents)]
    assert _names(spool) == [name for name in before if name not in gone]


def test_good_hints_survive_a_purge_however_old_they_are(spool: Path) -> None:
    names = [Queue(spool).add([repo]) for repo in (_M1, _M2)]
    assert _others(spool).lock(names[1])
    long_ago = time.time() - 10 * _DAY
    for path in (*spool.rglob("*"), spool):
        os.utime(path, (long_ago, long_ago))
    assert Queue(spool).purge() == [Event(logging.INFO, f"Removed '{spool / names[1] / 'locked'}'")]
    assert _names(spool / "00000000") == sorted(
        name for element in names for name in (element[9:], f"{element[9:]}/data", f"{element[9:]}/time")
    )
    assert _others(spool).lock(names[1])
    assert _ok(Queue(spool).take()) == Hints(2, tuple(names), frozenset({_M1, _M2}))


def test_an_empty_queue_and_one_never_used_need_no_purge(spool: Path) -> None:
    assert Queue(spool).purge() == []
    assert _names(spool) == []
    _others(spool)
    assert Queue(spool).purge() == []
    assert _names(spool) == ["obsolete", "temporary"]


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "empty", "a locked that is no directory"])
def test_a_damaged_element_does_not_keep_a_purge_from_the_rest(spool: Path, kind: str) -> None:
    bad = _element(spool, 1, b"")
    if kind == "a locked that is no directory":
        (bad / "locked").write_text("x")
    else:
        shutil.rmtree(bad)
    if kind == "a file":
        bad.write_text("x")
    elif kind == "a link to nowhere":
        bad.symlink_to("nowhere")
    elif kind == "empty":
        bad.mkdir()
    lock = _element(spool, 2, encode([_M1])) / "locked"
    lock.mkdir()
    os.utime(lock, (0, 0))
    assert _failures(Queue(spool).purge()) == []
    assert not lock.exists()


@pytest.mark.parametrize("top", ["temporary", "obsolete"])
def test_links_among_the_left_overs_go_and_what_they_lead_to_stays(spool: Path, elsewhere: Path, top: str) -> None:
    (spool / top).mkdir()
    link = spool / top / "0123456789abcd"
    link.symlink_to(elsewhere)
    os.utime(link, (0, 0), follow_symlinks=False)
    before = _listing(elsewhere)
    assert Queue(spool).purge() == [Event(logging.INFO, f"Removed '{link}'")]
    assert not link.is_symlink()
    assert _listing(elsewhere) == before


def test_what_cannot_be_cleared_away_is_an_error_each_and_the_rest_goes(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, temporary = _element(spool, 1, encode([_M1])) / "locked", spool / "temporary" / "0123456789abcd"
    obsolete, directory = spool / "obsolete" / "0123456789abcd", spool / "00000001"
    for path in (lock, temporary, obsolete, directory, spool / "00000002"):
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    rmdir = os.rmdir

    def refuse_or_remove(name: str, *, dir_fd: int) -> None:
        if _place(dir_fd) / name in (lock, temporary):
            _no_permission()
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refuse_or_remove)
    events = Queue(spool).purge()
    assert _failures(events) == [
        f"Unable to remove '{temporary}': {os.strerror(errno.EACCES)}",
        f"Unable to remove '{lock}': {os.strerror(errno.EACCES)}",
    ]
    assert not obsolete.exists()
    assert not directory.exists()


def test_what_somebody_else_clears_away_first_is_no_failure(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("00000000", "00000001", "00000002"):
        (spool / name).mkdir()
        os.utime(spool / name, (0, 0))
    rmdir = os.rmdir

    def lose_the_race(name: str, *, dir_fd: int) -> None:
        if name == "00000000":
            (spool / name / "0123456789abcd").mkdir()  # a hint was added just now
        else:
            rmdir(name, dir_fd=dir_fd)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", lose_the_race)
    assert Queue(spool).purge() == []
    assert Queue(spool).names() == ["00000000/0123456789abcd"]


# All at the same time


_ADDER = """
import sys
from pathlib import Path
from jens.messaging.queue import Queue
from jens.model import RepoId
for number in range(100):
    Queue(Path(sys.argv[1])).add([RepoId("modules", f"m{sys.argv[2]}_{number}")])
"""
_THEIR_PURGER = """
import contextlib, select, sys
from dirq.queue import Queue
while not select.select([sys.stdin], [], [], 0)[0]:
    with contextlib.suppress(OSError):
        Queue(sys.argv[1]).purge()
"""
_OUR_PURGER = """
import select, sys
from pathlib import Path
from jens.messaging.queue import Queue
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for event in Queue(Path(sys.argv[1])).purge():
        print(event, flush=True)
    rounds += 1
print("purged" if rounds else "never purged")
"""


def _start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_no_hint_is_lost_or_taken_twice_while_all_add_take_and_purge(spool: Path) -> None:
    queue = Queue(spool)
    purgers = [_start(script, str(spool)) for script in (_THEIR_PURGER, _OUR_PURGER)]
    adders = [_start(_ADDER, str(spool), str(number)) for number in range(4)]
    taken: list[str] = []
    repos: set[RepoId] = set()
    deadline = time.monotonic() + 60
    try:
        running = True
        while running and time.monotonic() < deadline:
            running = any(adder.poll() is None for adder in adders)
            hints = _ok(queue.take())
            assert queue.acknowledge(hints.messages) == []
            taken += hints.messages
            assert repos.isdisjoint(hints.repos)
            repos |= hints.repos
        said = [process.communicate(timeout=10)[0] for process in (*adders, *purgers)]
    finally:
        for process in (*adders, *purgers):
            process.kill()
            process.wait()
    assert said == ["", "", "", "", "", "purged\n"]
    assert [process.returncode for process in (*adders, *purgers)] == [0] * 6
    assert len(taken) == len(set(taken)) == 400
    assert repos == {RepoId(MODULES, f"m{adder}_{number}") for adder in range(4) for number in range(100)}
    assert queue.names() == []
    assert list(_others(spool).names()) == []


def test_the_schema_is_the_one_that_others_have() -> None:
    assert SCHEMA == {"time": "string", "data": "binary"}
    assert (MODULES, HOSTGROUPS, COMMON) == ("modules", "hostgroups", "common")


def test_a_queue_that_the_file_server_has_lost_is_reported(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", Mock(side_effect=OSError(errno.ESTALE, os.strerror(errno.ESTALE))))
    with pytest.raises(QueueError, match="Stale file handle"):
        Queue(spool).check()


# Whoever may write to the queue can change the queue alone


def test_a_name_that_only_ends_like_an_element_is_none(spool: Path) -> None:
    for top in ("temporary", "obsolete"):
        path = spool / top / f".{'4f0c' * 10}"
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    assert Queue(spool).purge() == []
    assert len(os.listdir(spool / "temporary")) == len(os.listdir(spool / "obsolete")) == 1


_SWAPPED: dict[str, tuple[str, Callable[[Queue, str], object]]] = {
    "temporary": ("temporary", lambda queue, _name: queue.add([_M2])),
    "obsolete": ("obsolete", lambda queue, name: queue.acknowledge([name])),
    "an intermediate directory to take from": ("00000000", lambda queue, _name: queue.take()),
    "an intermediate directory to add to": ("00000000", lambda queue, _name: queue.add([_M2])),
    "an intermediate directory to remove from": ("00000000", lambda queue, name: queue.acknowledge([name])),
    "temporary to purge": ("temporary", lambda queue, _name: queue.purge()),
    "an intermediate directory to purge": ("00000000", lambda queue, _name: queue.purge()),
}


@pytest.mark.parametrize("case", _SWAPPED)
def test_a_directory_that_becomes_a_link_between_two_steps_leads_nowhere(
    spool: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Each time just before the directory is opened: later it makes no difference."""
    at, act = _SWAPPED[case]
    name = Queue(spool).add([_M1])
    (spool / "obsolete").mkdir()
    precious = elsewhere / name[9:]
    precious.mkdir()
    (precious / "locked").mkdir()
    _fill(precious, encode([_M3]))
    for path in (precious / "locked", precious, *(spool / top for top in ("temporary", "obsolete", "00000000"))):
        os.utime(path, (0, 0))

    def swap(_directory: int, found: str) -> None:
        (spool / found).rename(spool / "aside")
        (spool / found).symlink_to(elsewhere)

    before = _listing(elsewhere)
    with monkeypatch.context() as patched:
        swapped = _purging(patched, at, swap)
        with contextlib.suppress(QueueError):
            act(Queue(spool), name)
    assert swapped
    assert _listing(elsewhere) == before


def test_an_element_is_deleted_whatever_its_depth(spool: Path) -> None:
    deep = spool / "obsolete" / "0123456789abcd"
    deep.mkdir(parents=True)
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(12_000):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    os.utime(deep, (0, 0))
    assert Queue(spool).purge() == [Event(logging.INFO, f"Removed '{deep}'")]
    assert os.listdir(spool / "obsolete") == []


def test_what_takes_long_to_delete_is_left_to_the_purge(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Queue(spool).add([_M1])
    monkeypatch.setattr(messaging_queue, "_MOST_SECONDS", -1.0)
    assert Queue(spool).acknowledge([name]) == []
    assert Queue(spool).names() == []
    [left] = os.listdir(spool / "obsolete")
    os.utime(spool / "obsolete" / left, (0, 0))
    assert len(Queue(spool).purge()) == 1
    assert os.listdir(spool / "obsolete") == []


def test_the_oldest_message_of_a_repository_tells_its_time(spool: Path) -> None:
    queue, now = Queue(spool), time.time()
    for repos, ago in (([_M1], 100), ([_M1, _M2], 300), ([_M2], 10)):
        queue.add(repos, timestamp(now - ago))
    (spool / queue.add([_M3]) / "time").write_bytes(b"x" * 1000)
    times = queue.take().times
    assert times[_M1] == times[_M2] == pytest.approx(now - 300)
    assert times[_M3] == pytest.approx(now, abs=60)
