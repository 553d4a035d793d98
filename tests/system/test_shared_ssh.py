"""One connection of ssh for all questions to a server: how many logins there are, and what happens when it breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import TREE
from tests.conftest import Site, git
from tests.faults.test_remotes import SOON, Run, run
from tests.system.sshd import HOST, Sshd, processes_of

INIT = "code/manifests/init.pp"
#: Logins for the metadata: Git asks for each of the two clones over a connection of its own.
METADATA = 2


def add(site: Site, sshd: Sshd, count: int = 8) -> list[str]:
    """Add that many modules behind sshd."""
    names = [f"modules/m{number}" for number in range(count)]
    for name in names:
        site.urls[name] = sshd.url(site.add(name).path)
    site.publish()
    return names


def on_the_server(sshd: Sshd, script: str) -> None:
    """Have sshd run a script instead of each command, which is in SSH_ORIGINAL_COMMAND."""
    path = sshd.directory / "force"
    path.write_text(f'#!/bin/sh\n{script}\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    path.chmod(0o755)
    sshd.configure(f"ForceCommand {path}")


def assert_nothing_is_left(sshd: Sshd, short: Path) -> None:
    """Check that no ssh of the run lives, and no socket is left, within some seconds."""
    end = time.monotonic() + 20
    while (found := [*masters(sshd), *map(str, short.iterdir())]) and time.monotonic() < end:
        time.sleep(0.05)
    assert found == []


def masters(sshd: Sshd) -> list[str]:
    """The command lines of masters, and of the shells beside them."""
    return [line for line in processes_of(sshd.directory) if "ControlMaster=yes" in line]


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory for temporary files with a short path, which a run of the test has for itself."""
    with tempfile.TemporaryDirectory(prefix="j-", dir="/tmp") as path:
        yield Path(path)


def run_with(site: Site, short: Path, *arguments: str) -> Run:
    return run(site, *arguments, variables={"TMPDIR": str(short)})


def test_a_poll_logs_in_once_and_fetches_over_the_same_connection(ssh_site: Site, sshd: Sshd, short: Path) -> None:
    sshd.configure(f"Banner {sshd.directory}/banner")
    (sshd.directory / "banner").write_text("Welcome!\nControlSocket is a word.\n")
    names = add(ssh_site, sshd)
    outcome = ssh_site.update("--strict")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    for name in names[:3]:
        ssh_site.remotes[name].push({INIT: "# new\n"})
    logins = sshd.logins()
    ended = run_with(ssh_site, short, "--strict")
    assert (ended.outcome.code, ended.outcome.stderr, ended.survivors) == (0, "", [])
    assert ssh_site.read("production/modules/m0/manifests/init.pp") == "# new\n"
    assert sshd.logins() - logins == 1 + METADATA
    assert_nothing_is_left(sshd, short)


@pytest.mark.parametrize(
    "how", ["share_connections", "ssh_cmd_path", "GIT_SSH_COMMAND", "core.sshCommand", "insteadOf"]
)
def test_nothing_is_shared_when_somebody_says_how(
    ssh_site: Site, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    names = add(ssh_site, sshd, 4)
    assert ssh_site.update("--strict").code == 0
    if how == "share_connections":
        ssh_site.settings["git.share_connections"] = "False"
    elif how == "ssh_cmd_path":
        ssh_site.settings["git.ssh_cmd_path"] = str(sshd.directory / "bin" / "ssh")
    elif how == "GIT_SSH_COMMAND":
        monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    elif how == "core.sshCommand":
        git("config", "--global", "core.sshCommand", "ssh -v", directory=tmp_path)
    else:
        git("config", "--global", f"url.{HOST}:.insteadOf", f"ssh://{HOST}", directory=tmp_path)
        for repo, remote in ssh_site.remotes.items():
            ssh_site.urls[repo] = sshd.url(remote.path)
        ssh_site.publish()
        assert ssh_site.update("--strict").code == 0
    logins = sshd.logins()
    ended = run(ssh_site, "--strict")
    assert (ended.outcome.code, ended.outcome.stderr) == (0, "")
    assert sshd.logins() - logins == len(names) + 4 + METADATA


def test_the_users_own_master_is_left_alone(ssh_site: Site, sshd: Sshd, short: Path) -> None:
    add(ssh_site, sshd, 4)
    assert ssh_site.update("--strict").code == 0
    control = f"{short}/own"
    path = sshd.directory / "config"
    path.write_text(f"ControlMaster auto\nControlPath {control}\nControlPersist 60\n{path.read_text()}")
    subprocess.run(["ssh", HOST, "true"], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    try:
        logins = sshd.logins()
        outcome = ssh_site.update("--strict")
        assert (outcome.code, outcome.stderr) == (0, "")
        assert sshd.logins() == logins, "all of them have shared the user's connection"
        subprocess.run(["ssh", "-O", "check", HOST], check=True, capture_output=True)
    finally:
        subprocess.run(["ssh", "-O", "exit", HOST], check=True, capture_output=True)
    assert_nothing_is_left(sshd, short)


def test_a_server_that_limits_sessions_gets_more_connections(ssh_site: Site, sshd: Sshd) -> None:
    names = add(ssh_site, sshd)
    sshd.configure("MaxSessions 1")
    assert ssh_site.update("--strict").code == 0
    on_the_server(sshd, "sleep 0.2")
    ssh_site.remotes[names[0]].push({INIT: "# new\n"})
    logins = sshd.logins()
    ended = run(ssh_site, "--strict")
    assert (ended.outcome.code, ended.outcome.stderr, ended.survivors) == (0, "", [])
    assert ssh_site.read("production/modules/m0/manifests/init.pp") == "# new\n"
    assert sshd.logins() - logins > 1 + METADATA
    ssh_site.urls["modules/none"] = f"{sshd.url(sshd.directory)}/none.git"
    ssh_site.publish()
    [error] = ssh_site.update().lines("ERROR")
    assert "mux_client" not in error
    assert "does not appear to be a git repository" in error


def test_a_refusal_is_what_ssh_says_of_each_repository(ssh_site: Site, sshd: Sshd) -> None:
    names = add(ssh_site, sshd)
    for name, remote in ssh_site.remotes.items():
        if name not in names:
            ssh_site.urls[name] = remote.url
    ssh_site.publish()
    assert ssh_site.update("--strict").code == 0
    (sshd.directory / "authorized_keys").write_text("")
    for clone, remote in (("environments", ssh_site.definitions), ("repository", ssh_site.library)):
        git("remote", "set-url", "origin", remote.url, directory=ssh_site.root / "metadata" / clone)
    errors = ssh_site.update().lines("ERROR")
    assert len(errors) == len(names)
    assert all("Permission denied (publickey)." in error for error in errors)


def test_a_master_that_dies_in_mid_run_is_no_failure(ssh_site: Site, sshd: Sshd) -> None:
    names = add(ssh_site, sshd)
    assert ssh_site.update("--strict").code == 0
    ssh_site.remotes[names[0]].push({INIT: "# new\n"})
    # One session ends the process of sshd that has the connection, with all its sessions.
    count, kill = sshd.directory / "count", 'kill -9 "$PPID"'
    on_the_server(
        sshd,
        f"case $SSH_ORIGINAL_COMMAND in *m5.git*) test -e {count} || {{ >{count}; {kill}; }};; esac",
    )
    ended = run(ssh_site, "--strict")
    assert count.exists()
    assert (ended.outcome.lines("ERROR"), ended.outcome.code, ended.survivors) == ([], 0, [])
    assert ssh_site.read("production/modules/m0/manifests/init.pp") == "# new\n"


def test_a_server_that_says_nothing_costs_its_time_once(ssh_site: Site, sshd: Sshd, silent: str, short: Path) -> None:
    assert ssh_site.update("--strict").code == 0
    for number in range(8):
        ssh_site.urls[f"modules/silent{number}"] = f"{silent}/m{number}.git"
    ssh_site.publish()
    ssh_site.settings.update({"git.timeout": "3", "git.clonetimeout": "60"})
    ended = run_with(ssh_site, short)
    assert ended.seconds < SOON
    assert (ended.outcome.code, ended.survivors) == (0, [])
    errors = ended.outcome.lines("ERROR")
    assert len(errors) == 8
    assert all("silent.example.org did not answer in time" in error for error in errors)
    assert_nothing_is_left(sshd, short)


def test_a_server_that_is_silent_after_the_login_costs_its_time_once(ssh_site: Site, sshd: Sshd, short: Path) -> None:
    names = add(ssh_site, sshd)
    for name, remote in ssh_site.remotes.items():
        if name not in names:
            ssh_site.urls[name] = remote.url
    for clone, remote in (("environments", ssh_site.definitions), ("repository", ssh_site.library)):
        git("remote", "set-url", "origin", remote.url, directory=ssh_site.root / "metadata" / clone)
    ssh_site.publish()
    assert ssh_site.update("--strict").code == 0
    on_the_server(sshd, "exec sleep 60")
    ssh_site.settings.update({"git.timeout": "3", "git.clonetimeout": "60"})
    ended = run_with(ssh_site, short)
    assert ended.seconds < SOON
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert len(ended.outcome.lines("ERROR")) == len(names)
    assert_nothing_is_left(sshd, short)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_master_survives_a_run_that_is_ended(
    ssh_site: Site, sshd: Sshd, short: Path, number: signal.Signals
) -> None:
    add(ssh_site, sshd)
    assert ssh_site.update("--strict").code == 0
    on_the_server(sshd, f"touch {sshd.directory}/reached; exec sleep 20")
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(ssh_site.config)]
    null, environment = subprocess.DEVNULL, {**os.environ, "TMPDIR": str(short)}
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=environment)
    try:
        end = time.monotonic() + 30
        while not (masters(sshd) and any(short.glob("*/master")) and (sshd.directory / "reached").exists()):
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
    assert_nothing_is_left(sshd, short)
