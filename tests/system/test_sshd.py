"""Remotes behind a real sshd, reached with the real ssh."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.conftest import Site, assert_complaint
from tests.system.services import commands, documented
from tests.system.sshd import HOST, Sshd, processes_of

REPOSITORIES = 50


def test_library_and_metadata_in_both_forms_of_urls(ssh_site: Site, sshd: Sshd) -> None:
    urls = {url.partition(":")[0] for url in ssh_site.urls.values()}
    assert urls == {"ssh", HOST}
    assert ssh_site.update("--strict").code == 0
    logins = sshd.logins()
    assert 0 < logins < 6, "the questions have shared a connection"
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
    assert 0 < sshd.logins() - logins < 6


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
    ssh_site.settings["git.share_connections"] = "False"
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
    # Each is asked once and one is fetched, over one connection. The two metadata repositories have their own.
    assert sshd.logins() - logins == 1 + 2
    one = time.monotonic()
    subprocess.run(shlex.split(f"ssh -oBatchMode=yes {HOST} true"), check=True)
    one = time.monotonic() - one
    measured(f"first run with {REPOSITORIES} repositories behind sshd", f"{cloned - began:.1f} s")
    measured(f"POLL of {REPOSITORIES} repositories behind sshd", f"{polled - began_poll:.1f} s ({one:.2f} s a login)")
