"""A real sshd on loopback, a user whose known_hosts has it, and a site behind it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Site, git
from tests.system.services import LOOPBACK, Server, required, serving

HOST = "git.example.org"


@dataclass
class Sshd:
    """An sshd with its own keys, and a user whose known_hosts has it."""

    server: Server
    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def url(self, path: Path) -> str:
        return f"ssh://{HOST}{path}"

    def configure(self, line: str) -> None:
        """Add a line to the server's configuration; it counts for connections from now on."""
        with open(self.directory / "sshd_config", "a", encoding="ascii") as file:
            file.write(f"{line}\n")
        begun = self.server.said().count("Server listening on")
        self.server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while self.server.said().count("Server listening on") == begun and time.monotonic() < end:
            time.sleep(0.02)

    def limit_logins(self, most: int) -> None:
        """Have the server close all connections beyond so many that have not logged in yet."""
        self.configure(f"MaxStartups {most}:100:{most}")

    def note_calls(self) -> Path:
        """Have each ssh note its arguments, a line for each, in a file."""
        wrapper, calls = self.directory / "bin" / "ssh", self.directory / "calls"
        wrapper.write_text(wrapper.read_text().replace("exec ", f'echo "$*" >>{calls}\nexec ', 1))
        calls.touch()
        return calls

    def logins(self) -> int:
        return self.server.said().count("Accepted publickey")


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Run a server on loopback; for each ssh that the test starts, its name is ``git.example.org``."""
    program, ssh, keygen = (required(*each) for each in (SERVER, CLIENT, KEYGEN))
    directory = tmp_path / "ssh"
    directory.mkdir(mode=0o700)
    for name in ("host_key", "id_ed25519", "other_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / name], check=True)
    shutil.copy(directory / "id_ed25519.pub", directory / "authorized_keys")
    (directory / "known_hosts").write_text(f"{HOST} {(directory / 'host_key.pub').read_text()}")
    (directory / "sshd_config").write_text(
        f"HostKey {directory}/host_key\nAuthorizedKeysFile {directory}/authorized_keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv HOME={directory}\n"  # the login shell must not read the user's files
    )
    command = [program, "-D", "-e", "-f", str(directory / "sshd_config"), "-o", f"ListenAddress={LOOPBACK}"]
    with serving(lambda port: _on_its_own([*command, "-p", str(port)]), directory / "output") as server:
        made = Sshd(server, directory)
        (directory / "config").write_text(
            f"Host {HOST}\n  HostName {LOOPBACK}\n  Port {server.port}\n  HostKeyAlias {HOST}\n"
            f"  IdentityFile {made.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {made.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        # ssh finds ~/.ssh by the password file and not by $HOME, so a wrapper names another configuration.
        (directory / "bin").mkdir()
        wrapper = directory / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {directory}/config "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}/bin{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.delenv("SSH_ASKPASS", raising=False)
        yield made


SERVER = ("sshd", "openssh-server")
CLIENT = ("ssh", "openssh-client")
KEYGEN = ("ssh-keygen", "openssh-client")


def _on_its_own(command: list[str]) -> list[str]:
    """The command with its own /run for root: sshd then needs a directory there, and the machine's must not change."""
    if os.geteuid() != 0:
        return command
    script = 'mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && exec "$@"'
    unshare = required("unshare", "util-linux")
    return [unshare, "--mount", "sh", "-c", script, "sh", *command]


@pytest.fixture
def ssh_site(site: Site, sshd: Sshd) -> Site:
    """The small site, with the library and both metadata repositories behind sshd."""
    for number, (repo, remote) in enumerate(sorted(site.remotes.items())):
        site.urls[repo] = f"{HOST}:{remote.path}" if number % 2 else sshd.url(remote.path)
    site.publish()
    clone_metadata(site, sshd)
    return site


def clone_metadata(site: Site, sshd: Sshd) -> None:
    """Clone the two metadata repositories over ssh."""
    shutil.rmtree(site.root / "metadata")
    for url, name in (
        (f"{HOST}:{site.definitions.path}", "environments"),
        (sshd.url(site.library.path), "repository"),
    ):
        git("clone", "-q", url, str(site.root / "metadata" / name), directory=site.root)


def processes_of(directory: Path) -> list[str]:
    """The command lines that name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it has just ended
        if f"{directory}/config" in line:
            found.append(line)
    return found


@pytest.fixture
def silent(sshd: Sshd) -> Iterator[str]:
    """Run a server that accepts connections and sends nothing; yield the beginning of its URLs, before the path."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        with open(sshd.directory / "config", "a") as config:
            config.write(f"Host silent.example.org\n  HostName {LOOPBACK}\n  Port {listener.getsockname()[1]}\n")
        yield "ssh://silent.example.org"
