"""Remotes behind a real sshd, reached with the real ssh."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from tests.conftest import Site, assert_complaint, git
from tests.system.services import LOOPBACK, Server, commands, documented, required, serving

HOST = "git.example.org"
REPOSITORIES = 50


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

    def limit_logins(self, most: int) -> None:
        """Have the server close all connections beyond so many that have not logged in yet."""
        with open(self.directory / "sshd_config", "a", encoding="ascii") as file:
            file.write(f"MaxStartups {most}:100:{most}\n")
        self.server.process.send_signal(signal.SIGHUP)

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
    shutil.rmtree(site.root / "metadata")
    for url, name in (
        (f"{HOST}:{site.definitions.path}", "environments"),
        (sshd.url(site.library.path), "repository"),
    ):
        git("clone", "-q", url, str(site.root / "metadata" / name), directory=site.root)
    return site


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


def test_library_and_metadata_in_both_forms_of_urls(ssh_site: Site, sshd: Sshd) -> None:
    urls = {url.partition(":")[0] for url in ssh_site.urls.values()}
    assert urls == {"ssh", HOST}
    assert ssh_site.update("--strict").code == 0
    logins = sshd.logins()
    assert logins >= 6
    remote = ssh_site.remotes["modules/dummy"]
    remote.push({"code/manifests/init.pp": "class dummy { notice('over ssh') }\n"})
    remote.push({"code/manifests/foo.pp": "class dummy::foo {}\n"}, "feature/x", onto="master")
    ssh_site.define(
        "test", "default: master\nnotifications: ann@example.org\noverrides: {modules: {dummy: feature/x}}\n"
    )
    outcome = ssh_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert "over ssh" in ssh_site.read("production/modules/dummy/manifests/init.pp")
    assert ssh_site.exists("test/modules/dummy/manifests/foo.pp")
    assert sshd.logins() > logins


def test_a_commit_by_its_id_is_fetched(ssh_site: Site) -> None:
    remote = ssh_site.remotes["modules/dummy"]
    forgotten = remote.push({"code/manifests/init.pp": "class dummy { notice('forgotten') }\n"})
    remote.push({"code/manifests/init.pp": "class dummy {}\n"}, rewrite=True)
    overrides = f"overrides: {{modules: {{dummy: commit/{forgotten}}}}}\n"
    ssh_site.define("old", f"default: master\nnotifications: ann@example.org\n{overrides}")
    assert ssh_site.update("--strict").code == 0
    assert "forgotten" in ssh_site.read("old/modules/dummy/manifests/init.pp")


def _forget(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")


def _distrust(sshd: Sshd) -> None:
    sshd.known_hosts.write_text(f"{HOST} {(sshd.directory / 'other_key.pub').read_text()}")


def _lock_out(sshd: Sshd) -> None:
    shutil.copy(sshd.directory / "other_key.pub", sshd.directory / "authorized_keys")


REFUSALS = pytest.mark.parametrize(
    ("refuse", "why"),
    [
        (_forget, "Host key verification failed."),
        (_distrust, "Host key verification failed."),
        (_lock_out, "Permission denied (publickey)."),
    ],
    ids=["unknown host", "changed host key", "unknown key"],
)


@REFUSALS
def test_a_refusal_is_one_line_and_one_repository(
    site: Site, sshd: Sshd, refuse: Callable[[Sshd], None], why: str
) -> None:
    remote = site.add("modules/away", {"code/manifests/init.pp": "class away {}\n"})
    site.urls["modules/away"] = sshd.url(remote.path)
    site.publish()
    assert site.update("--strict").code == 0
    remote.push({"code/manifests/init.pp": "class away { notice('news') }\n"})
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "class dummy { notice('news') }\n"})
    refuse(sshd)
    outcome = site.update()
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    [line] = outcome.lines("ERROR")
    assert line.startswith("ERROR Unable to fetch 'away' from remote (")
    assert why in line
    assert site.read("production/modules/away/manifests/init.pp") == "class away {}\n"
    assert "news" in site.read("production/modules/dummy/manifests/init.pp")


@REFUSALS
def test_metadata_behind_a_refusal_ends_the_run_with_one_line(
    ssh_site: Site, sshd: Sshd, refuse: Callable[[Sshd], None], why: str
) -> None:
    assert ssh_site.update("--strict").code == 0
    refuse(sshd)
    assert_complaint(ssh_site.update(), 20, why)


def documented_wrapper(sshd: Sshd, seconds: int = 10) -> Path:
    """The script for ``ssh_cmd_path`` of docs/installation.md, with the test's key and another timeout in seconds."""
    text = commands(documented("installation.md", "## SSH"), "exec ssh")
    assert "ConnectTimeout=10 " in text
    assert "/etc/jens/id_ed25519" in text
    path = sshd.directory / "jens-ssh"
    path.write_text(
        text.replace("ConnectTimeout=10 ", f"ConnectTimeout={seconds} ").replace("/etc/jens/id_ed25519", str(sshd.key))
    )
    path.chmod(0o755)
    return path


def test_the_documented_wrapper_as_ssh_cmd_path(ssh_site: Site, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (sshd.directory / "config").read_text()
    (sshd.directory / "config").write_text(text.replace(f"IdentityFile {sshd.key}", "IdentityFile none"))
    assert "Permission denied" in ssh_site.update().stderr
    ssh_site.settings["git.ssh_cmd_path"] = str(documented_wrapper(sshd))
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")  # ssh_cmd_path takes precedence
    assert ssh_site.update("--strict").code == 0
    assert ssh_site.exists("production/modules/dummy/manifests/init.pp")


@pytest.fixture
def silent(sshd: Sshd) -> Iterator[str]:
    """Run a server that accepts connections and sends nothing; yield the beginning of its URLs, before the path."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        with open(sshd.directory / "config", "a") as config:
            config.write(f"Host silent.example.org\n  HostName {LOOPBACK}\n  Port {listener.getsockname()[1]}\n")
        yield "ssh://silent.example.org"


@pytest.mark.parametrize(
    ("wrapper", "timeout", "says"),
    [(True, 60, "Connection timed out during banner exchange"), (False, 2, "no answer within 2 seconds")],
    ids=["the wrapper's limit", "the limit of Jens"],
)
def test_a_silent_server_holds_nobody_up(
    ssh_site: Site, sshd: Sshd, silent: str, wrapper: bool, timeout: int, says: str
) -> None:
    for name in ("modules/silent", "modules/mute"):
        ssh_site.urls[name] = f"{silent}/{name}.git"
    ssh_site.publish()
    ssh_site.settings.update({"git.timeout": str(timeout), "git.clonetimeout": str(timeout)})
    if wrapper:
        ssh_site.settings["git.ssh_cmd_path"] = str(documented_wrapper(sshd, 2))
    began = time.monotonic()
    outcome = ssh_site.update()
    assert time.monotonic() - began < 20
    assert outcome.code == 0
    lines = outcome.lines("ERROR")
    assert [line for line in lines if says in line]
    assert len(lines) == 2
    assert ssh_site.exists("production/modules/dummy/manifests/init.pp")
    assert processes_of(sshd.directory) == []


def test_a_server_that_takes_few_logins_at_a_time(ssh_site: Site, sshd: Sshd) -> None:
    # Half of the connections of Jens would be too many: sshd closes those beyond the second before their login.
    for number in range(12):
        remote = ssh_site.add(f"modules/m{number}")
        ssh_site.urls[f"modules/m{number}"] = sshd.url(remote.path)
    ssh_site.publish()
    sshd.limit_logins(2)
    outcome = ssh_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert "beginning MaxStartups throttling" in sshd.server.said(), "nothing was tried"
    assert ssh_site.exists("production/modules/m11/manifests/init.pp")


def test_poll_of_fifty_repositories(ssh_site: Site, sshd: Sshd, measured: Callable[[str, str], None]) -> None:
    for number in range(REPOSITORIES - len(ssh_site.remotes)):
        remote = ssh_site.add(f"modules/m{number}")
        ssh_site.urls[f"modules/m{number}"] = sshd.url(remote.path)
    ssh_site.publish()
    began = time.monotonic()
    assert ssh_site.update("--strict").code == 0
    cloned = time.monotonic()
    ssh_site.remotes["modules/m7"].push({"code/manifests/init.pp": "class m7 { notice('news') }\n"})
    logins, began_poll = sshd.logins(), time.monotonic()
    outcome = ssh_site.update("--strict")
    polled = time.monotonic()
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    assert "news" in ssh_site.read("production/modules/m7/manifests/init.pp")
    # Each is asked once, with the two metadata repositories, and one is fetched.
    assert sshd.logins() - logins == REPOSITORIES + 2 + 1
    one = time.monotonic()
    subprocess.run(shlex.split(f"ssh -oBatchMode=yes {HOST} true"), check=True)
    one = time.monotonic() - one
    measured(f"first run with {REPOSITORIES} repositories behind sshd", f"{cloned - began:.1f} s")
    measured(f"POLL of {REPOSITORIES} repositories behind sshd", f"{polled - began_poll:.1f} s ({one:.2f} s a login)")
