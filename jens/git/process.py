"""One Git process from start to end: locks, limits of time and memory, and errors in one place.

GitPython starts none of these processes: its import would take half the time of a run after a push. It only makes the
repositories of ``jens-init --example`` (``jens.git.creation``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Callable, NamedTuple

from jens import deferred
from jens.errors import GitBusyError, GitError, GitLimitError, GitTimeoutError, GitUnreachedError
from jens.git.environment import ALWAYS, LARGE_FILE, SETTINGS, of_remote
from jens.git.environment import LOCAL as LOCAL  # noqa: PLC0414 - git/trees.py takes it from here
from jens.git.environment import inherited_environment as inherited_environment  # noqa: PLC0414 - the same
from jens.system.files import is_verdict, read_file
from jens.system.processes import end, end_of, has_ended, is_stopping, signal_group
from jens.text import one_line
from jens.urls import public_url

#: Seconds to wait for output after the process ended, when a detached helper keeps the pipe open.
_DRAIN = 0.5
#: The problem of a conversation that is ended because of what its server or repository has cost the run already.
NO_TIME_LEFT = "no answer in the time that was left"
#: Bytes of Git's complaints that are kept.
ENOUGH = 1 << 16
#: Bytes that Jens takes of what a Git prints. The list of a large tree, or of what a mirror lacks, is far shorter.
_LONGEST_OUTPUT = 1 << 28

_GIT_DIR = "--git-dir="
_USER_IN_CONFIG = re.compile(rb"url *= *\"?https?://[^/\s]*@", re.IGNORECASE)


class Limits(NamedTuple):
    """What a Git may take: ``seconds`` when it speaks to no remote, and ``mebibytes`` of memory; 0 is no limit."""

    seconds: float = 1800
    mebibytes: int = 1024


_limits = Limits()


def set_limits(limits: Limits) -> None:
    """Set the limits for each Git that this program starts from now on.

    They are a property of the program, like the limits that the kernel keeps for it: no Git may be forgotten.
    """
    global _limits  # noqa: PLW0603
    _limits = limits


def limits() -> Limits:
    """The limits for each Git that this program starts now."""
    return _limits


class GitOptions(NamedTuple):
    """How remotes are spoken to; time limits in seconds, 0 for none.

    Who ``is_patient`` gives a fetch the time of a clone, as long as it is not silent. ``left`` tells during a
    conversation how many seconds it may still take; it is asked twice a second. ``patience``: the seconds that all
    conversations about one repository may take together. ``share``: many questions to a server share connections.
    ``master`` is the socket of such a one for ssh, '' for none.
    """

    ssh_command: str = ""
    timeout: int = 120
    clonetimeout: int = 1800
    is_patient: bool = False
    patience: int = 0
    left: Callable[[], float] | None = None
    share: bool = False
    master: str = ""


def run(
    arguments: Sequence[str],
    *,
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    lock_dir: Path | None = None,
    held: int | None = None,
    shared: bool = False,
    remote: GitOptions | None = None,
    limit: float | None = None,
    silence: float = 0,
    stdin: bytes = b"",
    settings: Sequence[str] = (),
) -> bytes:
    """Run Git to its end and return what it printed.

    ``shared`` is for commands that only read; others hold the lock of ``lock_dir`` (or ``git_dir``), whose descriptor
    is ``held`` if the caller has taken it. The user's configuration counts only for commands that speak to a remote.
    ``limit`` in seconds, 0 for none; without it, that of ``set_limits``. ``silence``: seconds in which it may print
    nothing, 0 for no limit. Raises GitError, GitTimeoutError, GitLimitError.
    """
    command = ["git", *settings]
    command += [f"--git-dir={git_dir}"] if git_dir else []
    command += [f"--work-tree={work_tree}"] if work_tree else []
    environment = LOCAL if remote is None else {**SETTINGS, **remote_environment(remote)}
    with contextlib.ExitStack() as stack:
        descriptors: tuple[int, ...] = () if held is None else (held,)
        if git_dir and held is None and not shared:
            descriptors = (stack.enter_context(deferred.git_lock.repository_lock(lock_dir or git_dir)),)
        try:
            source = stack.enter_context(_input(stdin))
        except OSError as error:
            raise GitBusyError(arguments[0], f"could not be started: {one_line(str(error))}") from error
        seconds = _limits.seconds if limit is None else limit
        command += arguments
        output, complaints = _finish(arguments[0], command, environment, descriptors, source, seconds, remote, silence)
    if (
        remote is None and complaints and deferred.git_complaints.could_not_look(complaints)
    ):  # it may end with success, and say that objects are missing
        raise failure(arguments[0], complaints, 0, command)
    return output


def transfer(arguments: Sequence[str], git_dir: Path, remote: GitOptions) -> str:
    """Run a Git that fetches to its end. Returns what it complained of although it ended with success, '' for nothing.

    Raises GitError, GitTimeoutError.
    """
    # Only index-pack, which usually works on large packs, tells of progress.
    command = ["git", *(["-c", "fetch.unpackLimit=1"] if remote.is_patient else []), f"--git-dir={git_dir}", *arguments]
    limit, silence = remote.timeout, 0
    if remote.is_patient:
        limit, silence, remote = remote.clonetimeout, remote.timeout, remote._replace(left=None)
    environment = {**SETTINGS, **remote_environment(remote)}
    with deferred.git_lock.repository_lock(git_dir) as descriptor:
        _, complaints = _finish(arguments[0], command, environment, (descriptor,), None, limit, remote, silence)
    return deferred.git_complaints.remarks(complaints, command) if complaints else ""


def server_of_path(url: str) -> list[str]:
    """Options for a remote on this host, whose Git runs beside ours: large files go through it piece by piece, too."""
    is_here = url.startswith(("/", "file://"))
    return [f"--upload-pack=git -c core.bigFileThreshold={LARGE_FILE} upload-pack"] if is_here else []


def concealed(command: Sequence[str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """A Git command without users and passwords of URLs, which every user of the host could read.

    Returns the variables that give them to Git, too.
    """
    if any(public_url(word) != word for word in command):
        return deferred.credentials.conceal(command)
    git_dir = next((word[len(_GIT_DIR) :] for word in command if word.startswith(_GIT_DIR)), "")
    if git_dir.endswith("/.git") and has_user(git_dir):
        return deferred.credentials.conceal_remote(git_dir, command)
    return command, {}


def has_user(git_dir: str) -> bool:
    """Whether the configuration of a clone has an HTTP URL with a user."""
    try:
        return _USER_IN_CONFIG.search(read_file(f"{git_dir}/config")) is not None
    except OSError:
        return False


def remote_environment(options: GitOptions) -> dict[str, str]:
    """The variables for a Git that speaks to a remote, besides the inherited environment."""
    return of_remote(options.ssh_command, _user_ssh_command, options.master)


@functools.cache
def _user_ssh_command() -> bool:
    command = ["git", "config", "--get", "core.sshCommand"]
    try:
        return bool(_finish("config", command, ALWAYS, (), None, _limits.seconds)[0])
    except GitError:  # it is not set
        return False


@contextlib.contextmanager
def _input(content: bytes) -> Iterator[BinaryIO | None]:
    if not content:
        yield None
        return
    with open(os.memfd_create("input"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file


def _finish(
    verb: str,
    command: list[str],
    environment: Mapping[str, str],
    descriptors: tuple[int, ...],
    source: BinaryIO | None,
    limit: float,
    remote: GitOptions | None = None,
    silence: float = 0,
) -> tuple[bytes, bytes]:
    """Run a command to its end. Returns what it printed on stdout and, no more than ``ENOUGH`` of it, on stderr."""
    if is_stopping():
        raise GitBusyError(verb, "not started, as this program is about to end")
    started, secrets = concealed(command) if remote else (command, {})
    variables = {**inherited_environment(), **environment, **secrets}
    try:
        process = start(started, source or subprocess.DEVNULL, variables, descriptors)
    except OSError as error:
        kind = GitError if is_verdict(error) else GitBusyError
        raise kind(verb, f"could not be started: {one_line(str(error))}") from error
    with watched(process):
        bound_memory(process.pid)
        output, complaints = _communicate(verb, process, limit, remote.left if remote else None, silence)
    if process.returncode != 0:
        raise failure(verb, complaints, process.returncode, command)
    return output, complaints


def failure(verb: str, complaints: bytes, status: int, command: Sequence[str]) -> GitError:
    """The error of a Git that ended with this status; GitUnreachedError when its server was not reached."""
    said = deferred.git_complaints
    text = said.summary(complaints, status, command)
    if said.is_out_of_memory(text) and _limits.mebibytes:
        return GitLimitError(verb, f"{text} (the limit is {_limits.mebibytes} MiB)", status)
    if said.is_unreached(complaints):
        return GitUnreachedError(verb, text, status)
    return (GitBusyError if said.could_not_look(complaints) else GitError)(verb, text, status)


def start(
    command: Sequence[str],
    source: BinaryIO | int,
    environment: Mapping[str, str],
    descriptors: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that reads ``source``, in a session of its own; it inherits ``descriptors``. Raises OSError."""
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment,
        start_new_session=True,
        pass_fds=descriptors,
    )


def bound_memory(pid: int) -> None:
    """Limit the memory of a Git that was just started, and of each process that it starts.

    A commit may unpack to any size, and the list of a remote's branches may be endless.
    """
    most = _limits.mebibytes << 20
    if not most:
        return
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY or soft > most:
            resource.prlimit(pid, resource.RLIMIT_DATA, (most, hard))
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
        for child in file.read().split():  # started while nobody gave this thread a processor
            bound_memory(int(child))


_running: dict[int, subprocess.Popen[bytes]] = {}
_running_lock = threading.Lock()


@contextlib.contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Register a process for ``stop_all``, and end it when the block raises an exception."""
    with _running_lock:
        _running[process.pid] = process
    try:
        yield
    except BaseException:
        end(process)
        raise
    finally:
        with _running_lock:
            del _running[process.pid]
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def stop_all() -> None:
    """Kill every Git process that this program runs, children included."""
    with _running_lock:
        processes = list(_running.values())
    for process in processes:
        signal_group(process.pid, signal.SIGKILL)


def _communicate(
    verb: str,
    process: subprocess.Popen[bytes],
    limit: float,
    of_server: Callable[[], float] | None = None,
    silence: float = 0,
) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + (limit or float("inf"))
    heard = time.monotonic()
    output, complaints = bytearray(), bytearray()
    with selectors.PollSelector() as pipes, end_of(process) as end_of_process:
        for stream, content in ((process.stdout, output), (process.stderr, complaints)):
            if stream:
                pipes.register(stream, selectors.EVENT_READ, content)
        if end_of_process is not None:
            pipes.register(end_of_process, selectors.EVENT_READ)
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GitTimeoutError(verb, f"no answer within {limit:g} seconds")
            _expect_time(verb, of_server, heard, silence)
            if _read_or_wait(pipes, process, min(_DRAIN, left)):
                heard = time.monotonic()
            bound(complaints)
            if len(output) > _LONGEST_OUTPUT:
                raise GitLimitError(verb, f"printed more than {_LONGEST_OUTPUT >> 20} MiB")
        if end_of_process is not None:
            pipes.unregister(end_of_process)
        last = time.monotonic() + _DRAIN
        while pipes.get_map() and time.monotonic() < last:
            _read_or_wait(pipes, process, _DRAIN)
    return bytes(output), bytes(complaints)


def _expect_time(verb: str, of_server: Callable[[], float] | None, heard: float, silence: float) -> None:
    """Raise GitTimeoutError when the server has used up its time, or was last ``heard`` ``silence`` seconds ago."""
    if of_server and of_server() <= 0:
        raise GitTimeoutError(verb, NO_TIME_LEFT)
    if silence and time.monotonic() - heard >= silence:
        raise GitTimeoutError(verb, f"no answer within {silence:g} seconds")


def bound(complaints: bytearray) -> None:
    """Keep the first and the last complaints: a remote may complain without end, and the reason comes last."""
    if len(complaints) > ENOUGH:
        del complaints[ENOUGH // 2 : -(ENOUGH // 2)]


def _read_or_wait(pipes: selectors.BaseSelector, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until something was printed, or the process has ended, but no longer. Returns whether there was anything."""
    has_read = False
    if not pipes.get_map():
        has_ended(process, seconds)
    for key, _ in pipes.select(seconds) if pipes.get_map() else ():
        if key.data is None:
            continue
        chunk = os.read(key.fd, 1 << 16)
        key.data.extend(chunk)
        has_read = has_read or bool(chunk)
        if not chunk:
            pipes.unregister(key.fileobj)
    return has_read
