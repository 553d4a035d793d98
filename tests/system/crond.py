"""Debian's cron in the foreground, with its own crontabs in place of the machine's, and a sendmail that keeps mails."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests import TREE
from tests.system.services import documented, end, find

#: The programs that it needs, and their Debian packages.
PROGRAMS = {"cron": "cron", "unshare": "util-linux", "setpriv": "util-linux"}
ADMINISTRATORS, CONTROL = "puppet-admins@example.org", "control@example.org"

#: Runs in its own namespaces: the machine's /etc, /run and /var stay untouched, and no process outlives the first one.
_START = """\
set -e
exec >{directory}/output 2>&1
{jens_init} {directory}/instance --example
mkdir {directory}/sbin {directory}/spool
mount --bind /usr/sbin {directory}/sbin
mount --bind {directory}/bin /usr/sbin
mount --bind {directory}/cron.d /etc/cron.d
mount --bind /dev/null /etc/crontab
mount --bind {directory}/spool /var/spool/cron/crontabs
mount -t tmpfs tmpfs /run
exec {directory}/sbin/cron -f
"""
_SENDMAIL = "#!/bin/sh\ncat >{directory}/mails/$$.part && mv {directory}/mails/$$.part {directory}/mails/$$.mail\n"


def missing() -> str:
    """The reason why cron cannot run here; '' if it can."""
    for name, package in PROGRAMS.items():
        if find(name) is None:
            return f"{name} is not installed (Debian has it in the package {package})"
    return "" if os.geteuid() == 0 else "only root can run cron"


@dataclass
class Crond:
    """A cron with the documented crontab for an instance of Jens, and another with a command that must fail."""

    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="jens-cron-")))

    def __post_init__(self) -> None:
        for name in ("bin", "cron.d", "home", "mails"):
            (self.directory / name).mkdir()
        sendmail = self.directory / "bin" / "sendmail"
        sendmail.write_text(_SENDMAIL.format(directory=self.directory))
        sendmail.chmod(0o755)
        config, nowhere = self.directory / "instance" / "main.conf", self.directory / "nowhere.conf"
        self._write_crontab(
            "jens", crontab().replace("/opt/jens/bin/jens-update", f"{_tool('jens-update')} -c {config}")
        )
        self._write_crontab("control", f"MAILTO={CONTROL}\n* * * * * jens {_tool('jens-update')} -c {nowhere}\n")
        script = _START.format(directory=self.directory, jens_init=_tool("jens-init"))
        command = ["setpriv", "--pdeathsig", "KILL"]  # in case the tests are killed
        command += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=self._environment(), cwd=self.directory, start_new_session=True
        )

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.directory / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(TREE)}

    def _write_crontab(self, name: str, text: str) -> None:
        variables = "".join(f"{key}={value}\n" for key, value in self._environment().items())
        text = re.sub(r"^(\S+ \S+ \S+ \S+ \S+) jens ", rf"\1 {getpass.getuser()} ", text, flags=re.MULTILINE)
        path = self.directory / "cron.d" / name
        path.write_text(variables + text)
        path.chmod(0o644)

    def log(self) -> str:
        """The log of the instance of Jens."""
        path = self.directory / "instance" / "log" / "jens-update.log"
        return path.read_text() if path.exists() else ""

    def mails_to(self, address: str) -> list[str]:
        mails = [path.read_text() for path in (self.directory / "mails").glob("*.mail")]
        return [mail for mail in mails if f"\nTo: {address}\n" in mail]

    def output(self) -> str:
        path = self.directory / "output"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        self.process.kill()  # the first process of a namespace ignores other signals; all others end with it
        end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)


def crontab() -> str:
    """The first crontab in docs/installation.md."""
    section = documented("installation.md", "## Every minute")
    block = re.search(r"^    MAILTO=.*\n(?:^    \S.*\n)+", section, re.MULTILINE)
    assert block
    text = "".join(line[4:] + "\n" for line in block[0].splitlines())
    assert text == f"MAILTO={ADMINISTRATORS}\n* * * * * jens /opt/jens/bin/jens-update\n"
    return text


def _tool(name: str) -> str:
    return shlex.join([sys.executable, str(TREE / "bin" / name)])
