"""One connection of ssh for all questions to a server: how many logins there are, and what happens when it breaks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from jens.git import sessions, wrapper
from jens.git.process import GitOptions
from jens.git.remotes import Remotes
from tests import TREE
from tests.conftest import Site, git
from tests.faults.test_remotes import SOON, Run, run
from tests.system.services import serving
from tests.system.sshd import HOST, Sshd, clone_metadata, processes_of
from tests.system.test_shared_http import ask
from tests.system.test_sshd import REFUSALS

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


def begun(site: Site, short: Path) -> subprocess.Popen[bytes]:
    """A run that has just begun."""
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    null, environment = subprocess.DEVNULL, {**os.environ, "TMPDIR": str(short)}
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=environment)


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


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


@REFUSALS
def test_a_refusal_is_what_ssh_says_of_each_repository(
    ssh_site: Site, sshd: Sshd, refuse: Callable[[Sshd], None], why: str
) -> None:
    names = add(ssh_site, sshd)
    for name, remote in ssh_site.remotes.items():
        if name not in names:
            ssh_site.urls[name] = remote.url
    ssh_site.publish()
    assert ssh_site.update("--strict").code == 0
    refuse(sshd)
    for clone, remote in (("environments", ssh_site.definitions), ("repository", ssh_site.library)):
        git("remote", "set-url", "origin", remote.url, directory=ssh_site.root / "metadata" / clone)
    errors = ssh_site.update().lines("ERROR")
    assert len(errors) == len(names)
    assert all(why in error for error in errors)


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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_master_survives_a_run_that_is_ended(
    ssh_site: Site, sshd: Sshd, short: Path, number: signal.Signals
) -> None:
    add(ssh_site, sshd)
    assert ssh_site.update("--strict").code == 0
    on_the_server(sshd, f"touch {sshd.directory}/reached; exec sleep 20")
    process = begun(ssh_site, short)
    try:
        until(lambda: bool(masters(sshd)) and any(short.glob("*/master")) and (sshd.directory / "reached").exists())
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
    assert_nothing_is_left(sshd, short)


def test_two_instances_of_one_user_do_not_meet(ssh_site: Site, sshd: Sshd, short: Path, tmp_path: Path) -> None:
    names = add(ssh_site, sshd)
    twin = replace(ssh_site, root=tmp_path / "twin")
    twin.library, twin.definitions = ssh_site.library, ssh_site.definitions
    clone_metadata(twin, sshd)
    for site in (ssh_site, twin):
        assert site.update("--strict").code == 0
    ssh_site.remotes[names[0]].push({INIT: "# new\n"})
    go = sshd.directory / "go"
    on_the_server(sshd, f"case $SSH_ORIGINAL_COMMAND in *m5.git*) while ! test -e {go}; do sleep 0.02; done;; esac")
    logins = sshd.logins()
    first, second = begun(ssh_site, short), begun(twin, short)
    try:
        until(lambda: len([*short.glob("*/master")]) == 2)
        first.send_signal(signal.SIGTERM)
        first.wait(30)
        until(lambda: len([*short.iterdir()]) == 1 and len([*short.glob("*/master")]) == 1)
        go.touch()
        assert second.wait(60) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert twin.read("production/modules/m0/manifests/init.pp") == "# new\n"
    assert ssh_site.read("production/modules/m0/manifests/init.pp") != "# new\n"
    assert sshd.logins() - logins == 2 * (1 + METADATA)
    assert_nothing_is_left(sshd, short)


# Questions without a process


def repositories(sshd: Sshd, count: int = 10) -> list[str]:
    """URLs of so many repositories with branches and a tag behind sshd, in both forms."""
    top = sshd.directory / "many"
    top.mkdir()
    git("init", "-q", "-b", "master", str(top / "a.git"), directory=top)
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    git(*identity, "commit", "-q", "--allow-empty", "-m", "x", directory=top / "a.git")
    git("branch", "feature/ä", directory=top / "a.git")
    git("tag", "v1", directory=top / "a.git")
    for number in range(count):
        (top / f"r{number}.git").symlink_to("a.git")
    paths = [top / f"r{number}.git" for number in range(count)]
    return [f"{HOST}:{path}" if number % 2 else sshd.url(path) for number, path in enumerate(paths)]


def odd_repositories(sshd: Sshd) -> list[str]:
    """URLs of what is not plainly a good repository, or not plainly a URL."""
    top = sshd.directory / "many"
    git("init", "-q", "--bare", str(top / "empty.git"), directory=top)
    git("init", "-q", "--object-format=sha256", "-b", "master", str(top / "sha256.git"), directory=top)
    (top / "with space.git").symlink_to("a.git")
    names = ("empty.git", "sha256.git", "none.git", "with%20space.git")
    return [sshd.url(top / name) for name in names]


def unhurried(replies: Mapping[str, bytes | str]) -> dict[str, bytes | str]:
    """Replies and complaints; of those about a message only that, for Git says more when the server ends first."""
    message = re.compile(r".*protocol error: bad line.*", re.DOTALL)
    return {url: message.sub("a message", said) if isinstance(said, str) else said for url, said in replies.items()}


#: How servers differ, as lines of their configuration or scripts; and whether only Git can make sense of them.
SERVERS: dict[str, tuple[str, str, bool]] = {
    "version 0": ("", "", False),
    "version 2": ("AcceptEnv GIT_PROTOCOL", "", False),
    "version 1": ("", "export GIT_PROTOCOL=version=1", True),
    "a message first": ("", "echo Welcome!", True),
    "a message on stderr": ("", "echo Welcome! >&2", False),
    "slow": ("AcceptEnv GIT_PROTOCOL", "sleep 0.3", False),
    "a refusal": ("", "echo no >&2; exit 1", True),
    "one that is killed": ("", "kill -9 $$", True),
}


@pytest.mark.parametrize("what", SERVERS)
def test_questions_without_a_process_decide_what_git_would(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(sessions, "_LATE", 15.0)  # a busy machine is no slow server
    monkeypatch.setattr(sessions, "_PART", 1.0)
    line, script, is_left_to_git = SERVERS[what]
    urls = repositories(sshd)
    odd = odd_repositories(sshd)
    if line:
        sshd.configure(line)
    on_the_server(sshd, script)
    calls = sshd.note_calls()
    found = ask([*urls, *odd], share=True)
    asked = [call for call in calls.read_text().splitlines() if "git-upload-pack" in call]
    assert unhurried(found) == unhurried(ask([*urls, *odd], share=False))
    assert len(asked) == len(odd) + is_left_to_git * len(urls)
    if not is_left_to_git:
        assert all(b"feature/" in found[url] for url in urls)


def test_questions_for_tags_share_the_connection(sshd: Sshd) -> None:
    urls, sessions_at_once = repositories(sshd, 20), list[int]()
    questions = [wrapper.question(url, ["v1"]) for url in urls]
    with Remotes(GitOptions(timeout=60, share=True), 4) as remotes:
        for question in remotes.replies_to(questions):
            assert b"refs/tags/v1" in remotes.reply(question)
            master = remotes._connections.opened(urls[0])
            assert master is not None
            sessions_at_once.append(master.sessions)
    assert max(sessions_at_once) > 0, "those of Git count, too"
    assert sessions_at_once[-1] == 0
    assert sshd.logins() == 1


@pytest.mark.parametrize("most", [1, 2])
def test_a_server_that_limits_sessions_gets_a_few_connections(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(sessions, "_LATE", 15.0)  # a busy machine is no slow server
    urls = repositories(sshd, 40)
    sshd.configure(f"MaxSessions {most}")
    on_the_server(sshd, "sleep 0.1")
    found = ask(urls, share=True, timeout=60)
    assert all(isinstance(said, bytes) for said in found.values())
    assert 1 < sshd.logins() < len(urls) / 2


@pytest.fixture
def far(sshd: Sshd) -> Iterator[str]:
    """The name of the host for ssh behind a relay that delays everything by 50 ms each way."""
    relay = str(TREE / "benchmarks" / "poll_servers.py")

    def command(port: int) -> list[str]:
        return [sys.executable, relay, "--relay", str(port), str(sshd.server.port)]

    with serving(command, sshd.directory / "relay") as server:
        text = (sshd.directory / "config").read_text()
        entry = text.replace(f"Host {HOST}", f"Host far.{HOST}").replace(str(sshd.server.port), str(server.port))
        (sshd.directory / "config").write_text(text + entry)
        yield f"far.{HOST}"


@pytest.mark.parametrize(("many", "logins"), [(0, 1), (12, 2), (24, 3)])
def test_a_server_that_is_far_away_gets_more_questions_at_a_time(
    sshd: Sshd, far: str, short: Path, monkeypatch: pytest.MonkeyPatch, many: int, logins: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setattr(sessions, "_LATE", 15.0)  # a busy machine is no slow server
    urls = [url.replace(HOST, far) for url in repositories(sshd, 120)]
    found = ask(urls, share=True, timeout=60, many=many)
    assert all(isinstance(said, bytes) for said in found.values())
    assert logins <= sshd.logins() < logins + 3, "on a busy machine Git may have asked, too"
    assert_nothing_is_left(sshd, short)
