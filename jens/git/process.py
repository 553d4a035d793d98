"""One Git process from start to end: environment, locks, time limits and errors in one place.

GitPython starts none of these processes: its import would take half the time of a run after a push. It only makes the
repositories of ``jens-init --example`` (``jens.git.clones``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jens import deferred
from jens.errors import GitError, GitTimeoutError
from jens.system.processes import end, end_of, has_ended, signal_group
from jens.text import one_line
from jens.urls import redact, user_of

#: Variables of Git that carry the traffic are kept, by prefix. All others change results and are dropped.
_KEPT = ("GIT_SSH", "GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_")


#: Seconds to wait for output after the process ended, when a detached helper keeps the pipe open.
_DRAIN = 0.5
#: Bytes of Git's complaints that are kept.
ENOUGH = 1 << 16
#: Bytes of memory for the list of a remote's branches, enough for millions of them.
_LONG_LIST = 1 << 30

_ALWAYS = {
    "LC_ALL": "C",  # Jens reads Git's complaints
    "LANGUAGE": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",  # if it is unset, Git tries core.askPass and SSH_ASKPASS
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_ATTR_NOSYSTEM": "1",
}
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.fsmonitor": "false",
    "core.logAllRefUpdates": "false",
    "core.sharedRepository": "umask",
    "fetch.fsckObjects": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "init.defaultRefFormat": "files",
    "maintenance.auto": "false",
    "pack.indexVersion": "2",
    "submodule.recurse": "false",
    "transfer.fsckObjects": "false",
}


def _as_environment(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables for settings that override all files, like ``-c``, but keep commands short: git-config(1)."""
    yield "GIT_CONFIG_COUNT", str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        yield f"GIT_CONFIG_KEY_{number}", key
        yield f"GIT_CONFIG_VALUE_{number}", value


_SET = dict(_as_environment(_SETTINGS))

#: For a Git that speaks to no remote: only the configuration of the repository and of Jens counts.
LOCAL = {**_SET, **_ALWAYS, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


class GitOptions(NamedTuple):
    """How remotes are spoken to; time limits in seconds, 0 for none."""

    ssh_command: str = ""
    timeout: int = 120
    clonetimeout: int = 1800


def dropped_variables() -> list[str]:
    """The variables of this program's environment that Git must not see: they would change results."""
    return [name for name in os.environ if name.startswith("GIT_") and not name.startswith(_KEPT)]


def inherited_environment() -> dict[str, str]:
    """This program's environment without the variables that Git must not see."""
    environment = dict(os.environ)
    for name in dropped_variables():
        environment.pop(name, None)
    return environment


def run(
    arguments: Sequence[str],
    *,
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    lock_dir: Path | None = None,
    shared: bool = False,
    remote: GitOptions | None = None,
    limit: float = 0,
    stdin: bytes = b"",
    settings: Sequence[str] = (),
) -> bytes:
    """Run Git to its end and return what it printed.

    ``shared`` is for commands that only read; others hold the lock of ``lock_dir`` (or ``git_dir``). The user's
    configuration counts only for commands that speak to a remote. Raises GitError, GitTimeoutError.
    """
    command = ["git", *settings]
    command += [f"--git-dir={git_dir}"] if git_dir else []
    command += [f"--work-tree={work_tree}"] if work_tree else []
    environment = LOCAL if remote is None else {**_SET, **remote_environment(remote)}
    with contextlib.ExitStack() as stack:
        descriptors: tuple[int, ...] = ()
        if git_dir and not shared:
            descriptors = (stack.enter_context(deferred.git_lock.repository_lock(lock_dir or git_dir)),)
        source = stack.enter_context(_input(stdin))
        return _finish(arguments[0], [*command, *arguments], environment, descriptors, source, limit)


def remote_environment(options: GitOptions) -> dict[str, str]:
    """The variables for a Git that speaks to a remote, besides the inherited environment."""
    return {**_ALWAYS, **_ssh_environment(options.ssh_command)}


def _ssh_environment(configured: str) -> dict[str, str]:
    if configured:
        # GIT_SSH_COMMAND too: core.sshCommand in the user's configuration would override GIT_SSH.
        return {"GIT_SSH": configured, "GIT_SSH_COMMAND": shlex.quote(configured)}
    if os.environ.get("GIT_SSH") or os.environ.get("GIT_SSH_COMMAND") or _user_ssh_command():
        return {}
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}


@functools.cache
def _user_ssh_command() -> bool:
    command = ["git", "config", "--get", "core.sshCommand"]
    environment = {**inherited_environment(), **_ALWAYS}
    done = subprocess.run(command, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return bool(done.stdout)


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
) -> bytes:
    try:
        process = start(command, source or subprocess.DEVNULL, {**inherited_environment(), **environment}, descriptors)
    except OSError as error:
        raise GitError(verb, f"could not be started: {one_line(str(error))}") from error
    with watched(process):
        output, complaints = _communicate(verb, process, limit)
    if process.returncode != 0:
        raise GitError(verb, summary(complaints, process.returncode, command), process.returncode)
    return output


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
    """Limit the memory of a Git: it collects the whole list of a remote before it prints, and a list may be endless."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
        if most == resource.RLIM_INFINITY or most > _LONG_LIST:
            resource.prlimit(pid, resource.RLIMIT_DATA, (_LONG_LIST, most))


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


def _communicate(verb: str, process: subprocess.Popen[bytes], limit: float) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + (limit or float("inf"))
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
            _read_or_wait(pipes, process, min(_DRAIN, left))
            del complaints[ENOUGH:]  # a remote may complain without end
        if end_of_process is not None:
            pipes.unregister(end_of_process)
        last = time.monotonic() + _DRAIN
        while pipes.get_map() and time.monotonic() < last:
            _read_or_wait(pipes, process, _DRAIN)
    return bytes(output), bytes(complaints)


def _read_or_wait(pipes: selectors.BaseSelector, process: subprocess.Popen[bytes], seconds: float) -> None:
    if not pipes.get_map():
        has_ended(process, seconds)
    for key, _ in pipes.select(seconds) if pipes.get_map() else ():
        if key.data is None:
            continue
        chunk = os.read(key.fd, 1 << 16)
        key.data.extend(chunk)
        if not chunk:
            pipes.unregister(key.fileobj)


def summary(complaints: bytes, status: int, command: Sequence[str]) -> str:
    """Git's complaint in one line, without hints, and without the user names and passwords of the command's URLs."""
    lines = [line.strip() for line in complaints.decode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("hint:", "warning:"))] or lines
    text = "; ".join(lines[_reason(lines) :][:6]) or f"ended with status {status}"
    for user in filter(None, map(user_of, command)):
        text = text.replace(user, "")
    return one_line(redact(text))


def _reason(lines: Sequence[str]) -> int:
    """Where the reason begins: ssh prints it just before Git's "fatal:", sometimes below a banner of many lines."""
    fatal = next((number for number, line in enumerate(lines) if line.startswith("fatal:")), 0)
    return fatal - 3 if fatal > 5 else 0
