"""One run at a time: a context manager around flock(2). It does not know what it protects."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from jens.config import Config
from jens.errors import LockFailedError, LockHeldError
from jens.system import files, processes

log = logging.getLogger(__name__)

#: Seconds to wait for the children of a killed run: between fork and exec, a child holds the run's lock, too.
_GRACE = 0.9
#: Seconds for which somebody may look whether a lock is held.
_MOMENT = 0.2


@contextlib.contextmanager
def run_lock(config: Config, attempts: int = 1, pause: float = 10, wait: float = 0) -> Iterator[None]:
    """Hold the lock; try ``attempts`` times, ``pause`` seconds apart, or until ``wait`` seconds are over.

    Raises LockHeldError when somebody else holds it at the last attempt, LockFailedError when it cannot be tried.
    """
    name = config.lock.name
    if config.lock.type == "DISABLED":
        yield
        return
    path = config.filelock.lockdir / name
    descriptor = _obtain(path, name, attempts, pause, wait)
    try:
        yield
    finally:
        log.info("Releasing lock '%s'...", name)
        os.close(descriptor)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Hold a lock, signed with this process, until the block ends. Yields False when somebody else holds it.

    The file goes with the lock; its time of change tells since when it is held. Raises OSError.
    """
    descriptor = _lock_soon(path)
    if descriptor is None:
        yield False
        return
    try:
        os.utime(path)
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock_soon(path: Path) -> int | None:
    """Lock a file; None when it is held for more than a moment, as ``is_held`` does."""
    end = time.monotonic() + _MOMENT
    while True:
        try:
            return _lock(path)
        except BlockingIOError:
            if time.monotonic() > end:
                return None
        time.sleep(0.01)


def last_holder(path: Path) -> int:
    """The id of the process that has left a lock without letting it go, because it was killed; 0 for none."""
    holder = _signer(path)
    return holder.pid if holder is not None and holder.is_gone() else 0


def is_held(path: Path) -> bool:
    """Whether somebody holds this lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _obtain(path: Path, name: str, attempts: int, pause: float, wait: float) -> int:
    for attempt in range(1, attempts + 1):
        log.info("Obtaining lock '%s' (attempt: %d)...", name, attempt)
        try:
            return _lock_with_grace(path, wait)
        except BlockingIOError:
            if attempt < attempts:
                time.sleep(pause)
        except OSError as error:
            raise LockFailedError(path, error.strerror or str(error)) from error
    raise LockHeldError(path, _holder_of(path))


def _lock_with_grace(path: Path, wait: float) -> int:
    """Lock the file. Wait for a holder so many seconds, or a moment when the process that took it is certainly dead."""
    begin = time.monotonic()
    while True:
        try:
            return _lock(path)
        except BlockingIOError:
            waited = time.monotonic() - begin
            if waited >= wait and (waited > _GRACE or not _taker_is_dead(path)):
                raise
        time.sleep(0.01)


def _taker_is_dead(path: Path) -> bool:
    holder = _signer(path)
    return holder is not None and holder.is_gone()


def _holder_of(path: Path) -> str:
    """Who holds a lock: the name of the tool and the process id; '' when that is not certain."""
    holder = _signer(path)
    if holder is None or not holder.is_alive():
        return ""
    return " ".join([*processes.words_like("jens-", holder.pid)[:1], str(holder.pid)])


def _signer(path: Path) -> processes.Signer | None:
    """The process that signed a lock; None when nobody can tell."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return processes.signer(descriptor)
        finally:
            os.close(descriptor)
    return None


def _lock(path: Path) -> int:
    """Lock the file that ``path`` names at the moment the lock is held.

    Somebody may remove the file between open and flock; a lock on a file without a name protects nothing.
    It is opened for reading only: flock needs no more, and root may have made the file. Opening does not block: it may
    be a FIFO. Nobody else may open the file: who can open it can lock it, and would stop all runs.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, files.PRIVATE)
        try:
            files.keep_private(descriptor, path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    processes.sign(descriptor)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
