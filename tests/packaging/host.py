"""A host to install the RPM on: a Debian root whose systemd is process 1 of its own namespaces.

It has only the loopback network, and its own file systems, processes and control groups. All of them end when the
processes in the control group are killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}

_BOOT = """
set -eu
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for directory in run tmp mnt; do mount -t tmpfs -o mode=0755 tmpfs "$root/$directory"; done
chmod 1777 "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
"""


class Host:
    """A running host, and commands of an administrator on it."""

    def __init__(self, root: Path, init: int) -> None:
        self.root = root
        self._init = init

    def try_(self, *command: str, user: str = "root", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there, which may fail; stderr is part of stdout."""
        enter = ["nsenter", "--target", str(self._init), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        home = {"HOME": "/var/lib/jens"} if user == "jens" else {}
        become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user != "root" else []
        return subprocess.run(
            [*enter, "--root", "--wd", *become, *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
            env={**ENVIRONMENT, **home},
        )

    def run(self, *command: str, user: str = "root", stdin: str = "") -> str:
        """Run a command there that must succeed; return its output."""
        done = self.try_(*command, user=user, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as ``systemctl show`` prints them."""
        text = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
        return dict(line.split("=", 1) for line in text.splitlines())

    def start(self, service: str) -> None:
        """Run a oneshot service; if it fails, fail with its journal."""
        done = self.try_("systemctl", "start", service)
        assert done.returncode == 0, done.stdout + self.run("journalctl", "--no-pager", "-n", "40", "-u", service)

    def write(self, path: str, text: str) -> None:
        """Write a file as root."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, stdin=text)

    def read(self, path: str) -> str:
        return self.run("cat", path)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until a condition is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.1)


@contextlib.contextmanager
def running(template: Path, directory: Path) -> Iterator[Host]:
    """Run a host that is a copy of ``template`` in ``directory``."""
    root = directory / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(template), str(root)], check=True)
    with _control_group() as group, (directory / "console").open("wb") as console:
        boot = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]
        script = f'echo $$ >"{group}/cgroup.procs"; exec "$@"'
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", *boot, "--propagation", "private", "sh", "-c", _BOOT, "sh", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        try:
            yield _booted(root, process)
        finally:
            (group / "cgroup.kill").write_text("1")
            process.wait(30)
    shutil.rmtree(root)


def _booted(root: Path, process: subprocess.Popen[bytes]) -> Host:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: process.poll() is not None or bool(children.read_text()))
    assert process.poll() is None, (root.parent / "console").read_text()
    host = Host(root, int(children.read_text()))
    wait_for(lambda: "active" in host.try_("systemctl", "is-active", "multi-user.target").stdout.split(), 60)
    return host


@contextlib.contextmanager
def _control_group() -> Iterator[Path]:
    """Make a control group (version 2) for all processes of the host."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next(Path(mount[1]) for mount in mounts if mount[2] == "cgroup2")
    group = top / f"jens-host-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_for(lambda: "populated 0" in (group / "cgroup.events").read_text())
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
