"""Processes, identified with certainty although the kernel reuses their ids: proc(5).

Where /proc is missing or shows too little, nothing is certain, and no process counts as gone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_SIGNATURE = re.compile(r"(?P<pid>[1-9]\d{0,8}) (?P<start>\d{1,18}) (?P<namespace>\S+ \S+)(?: (?P<purpose>[a-z]+))?\n")
_LONGEST = 200
_HELD = re.compile(r"^lock:\s+\d+: FLOCK +ADVISORY +WRITE (?P<taker>\d+) ", re.MULTILINE)
_ENDED = ("Z", "X")  # it has ended, and only its entry in the process table is left


class Process(NamedTuple):
    """A process as it was a moment ago; ``start`` is in clock ticks since the system booted."""

    pid: int
    state: str
    group: int
    session: int
    start: int
    user: int


class Holder(NamedTuple):
    """A process that holds a lock; ``taker`` is the id of the process that took it, 0 when that is no longer known."""

    process: Process
    taker: int


def look(pid: int) -> Process | None:
    """What /proc says about a process; None when it says nothing."""
    try:
        user = os.stat(_PROC / str(pid)).st_uid
        fields = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Process(pid, fields[0], int(fields[2]), int(fields[3]), int(fields[19]), user)


def all_processes() -> list[Process]:
    """Every process that /proc shows."""
    try:
        names = os.listdir(_PROC)
    except OSError:
        return []
    return [process for process in map(look, map(int, filter(str.isdecimal, names))) if process]


def words_like(prefix: str, pid: int) -> list[str]:
    """The words of a process's command whose file names begin like this, without their directories."""
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:  # it has just ended, or belongs to another user
        return []
    names = [Path(os.fsdecode(word)).name for word in command.split(b"\0")]
    return [name for name in names if name.startswith(prefix)]


def sign(descriptor: int, purpose: str = "") -> None:
    """Write into a locked file which process holds the lock, and what for (a word), if the file may be written."""
    signature = _signature(os.getpid(), purpose).encode("ascii")
    with contextlib.suppress(OSError):
        if os.pread(descriptor, _LONGEST, 0) == signature:
            return
        writable = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(writable, os.pwrite(writable, signature, 0))
        finally:
            os.close(writable)


@functools.cache
def _signature(pid: int, purpose: str) -> str:
    process, namespace = look(pid), _namespace(pid)
    signature = f"{pid} {process.start} {namespace}" if process and namespace else ""
    return signature and f"{signature} {purpose}".rstrip() + "\n"


def _namespace(pid: int) -> str:
    """The PID namespace and the boot in which a process id is valid; '' when /proc does not tell them."""
    try:
        if os.readlink(_PROC / "self") != str(pid):
            return ""
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{os.readlink(_PROC / 'self/ns/pid')} {boot}"
    except OSError:
        return ""


class Signer(NamedTuple):
    """The process that signed a file, and what for. When it is gone, the processes that it started are orphans."""

    pid: int
    start: int
    purpose: str = ""

    def is_gone(self) -> bool:
        """Whether it has certainly ended."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's process, which /proc may show or hide
        process = look(self.pid)
        return process is not None and (process.start != self.start or process.state in _ENDED)

    def is_alive(self) -> bool:
        """Whether it has certainly not ended."""
        process = look(self.pid)
        return process is not None and process.start == self.start and process.state not in _ENDED


def signer(descriptor: int) -> Signer | None:
    """The process that signed a file last; None when there is none, or it is of another PID namespace or boot."""
    try:
        match = _SIGNATURE.fullmatch(os.pread(descriptor, _LONGEST, 0).decode("ascii", "replace"))
    except OSError:
        return None
    if match is None or match["namespace"] != _namespace(os.getpid()):
        return None
    return Signer(int(match["pid"]), int(match["start"]), match["purpose"] or "")


def holders(descriptor: int) -> Iterator[Holder]:
    """The processes that hold the flock(2) of a file, taken or inherited. Having the file open is not enough."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return
    for process in all_processes():
        taker = _taker(process.pid, path)
        if taker is not None:
            yield Holder(process, taker)


def _taker(pid: int, path: str) -> int | None:
    """The id of the process that took the lock of a file, if ``pid`` holds that lock; None if not."""
    top = _PROC / str(pid)
    with contextlib.suppress(OSError):  # another user's process, or one that ends just now
        for name in os.listdir(top / "fd"):
            if os.readlink(top / "fd" / name) == path:
                match = _HELD.search((top / "fdinfo" / name).read_text("ascii", "replace"))
                if match:
                    return int(match["taker"])
    return None


#: Seconds between SIGTERM and SIGKILL: of a Git, and of a process that has to end several. A run that is told to end
#: does so within two seconds.
_GRACE, _PATIENCE = 1.0, 10.0

_stopping = threading.Event()


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Have this program's other threads wait for no lock, and start no process; they fail instead."""
    _stopping.set()
    try:
        yield
    finally:
        _stopping.clear()


def is_stopping() -> bool:
    """Whether another thread is about to end what this one does."""
    return _stopping.is_set()


@contextlib.contextmanager
def end_of(process: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """A descriptor that becomes readable when a process has ended; None before Linux 5.3, which has none.

    Without it, a wait with a time limit must look again and again, and sees the end a millisecond late.
    """
    descriptor = None
    with contextlib.suppress(AttributeError, OSError):  # a Python that was built on an older Linux has no pidfd_open
        descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process has ended, or ends within ``seconds``."""
    with end_of(process) as descriptor:
        if descriptor is not None:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(seconds * 1000)
            return process.poll() is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its whole group: SIGTERM first, then SIGKILL."""
    signal_group(process.pid, signal.SIGTERM)  # lets Git remove its lock files
    has_ended(process, _GRACE)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_holder(path: Path) -> None:
    """End the process that has signed a lock file and lives: SIGTERM first, then SIGKILL."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        holder = signer(descriptor)
    finally:
        os.close(descriptor)
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + _PATIENCE
        while holder is not None and holder.is_alive() and time.monotonic() < end:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(holder.pid, number)
            time.sleep(0.05)


def kill_marked(name: str, value: str, *, is_prefix: bool = False) -> None:
    """Kill all other processes that were started with this variable in their environment.

    ``value`` is its value, or only the beginning of that.
    """
    mark = os.fsencode(f"{name}={value}")
    for process in all_processes():
        with contextlib.suppress(OSError):  # another user's process, or one that ends just now
            variables = (_PROC / str(process.pid) / "environ").read_bytes().split(b"\0")
            is_marked = any(each.startswith(mark) for each in variables) if is_prefix else mark in variables
            if is_marked and process.pid != os.getpid() and look(process.pid) is not None:
                os.kill(process.pid, signal.SIGKILL)


def start_detached(command: list[str]) -> None:
    """Start a process that goes on when this one has ended, with nothing to read or write. Raises OSError."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd="/", stdin=null, stdout=null, stderr=null, start_new_session=True)
    process.returncode = 0  # nobody waits for it, and that is no reason for a warning
