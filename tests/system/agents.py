"""A real agent, which asks the Puppet Server of the tests and only looks what it would do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.system.puppetserver import AGENT, MACHINE, PuppetServer


def agent(
    server: PuppetServer, top: Path, wants: str = "production", named: str = "", *, is_strict: bool = False
) -> tuple[int, str]:
    """The exit code and the output of a run that wants an environment, by its configuration, or ``named``."""
    top.mkdir()
    settings = {"server": MACHINE, "serverport": server.port, "certname": AGENT}
    settings |= {"confdir": top, "vardir": top / "var", "ssldir": server.certificates.top / "ssl"}
    mode = str(is_strict).lower()
    (top / "puppet.conf").write_text(f"[agent]\nenvironment = {wants}\nstrict_environment_mode = {mode}\n")
    settings |= {"environment": named} if named else {}
    command = ["puppet", "agent", "--test", "--noop", "--color", "false"]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr
