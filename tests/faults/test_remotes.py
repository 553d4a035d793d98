"""Remotes that lie: the run ends in time, none of its processes survives, and everything else is up to date."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import TREE
from tests.conftest import Outcome, Remote, Site, git
from tests.faults.lies import NAMES
from tests.faults.servers import Servers, servers

INIT = "code/manifests/init.pp"
#: Timeout for a remote, in seconds; a busy machine must manage an honest reply in this time.
TIMEOUT = 3
#: Seconds after which a run with such remotes has ended: it asks them, fetches, and may wait for the timeout twice.
SOON = 60.0


@dataclass(frozen=True)
class Run:
    """The result of jens-update in a process of its own."""

    outcome: Outcome
    seconds: float
    megabytes: float
    survivors: list[str]


def run(site: Site, *arguments: str, variables: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> Run:
    """Run jens-update, look for processes of it that survived, and end them.

    ``before`` is a command that runs the rest of its command line.
    """
    mark = f"JENS_TEST_RUN={uuid.uuid4()}"
    config, log = str(site.config), site.root / "log" / "jens-update.log"
    begin, size = time.monotonic(), log.stat().st_size if log.exists() else 0
    environment = {**os.environ, "PYTHONPATH": str(TREE), **dict([mark.split("=")]), **(variables or {})}
    command = [*before, sys.executable, str(TREE / "bin" / "jens-update"), "-c", config, *arguments]
    with open(site.root / "stdout", "w+") as stdout, open(site.root / "stderr", "w+") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)
        try:
            kilobytes = 0
            while process.poll() is None:
                kilobytes = max(kilobytes, _most_memory(process.pid))
                time.sleep(0.02)
            seconds = time.monotonic() - begin
            survivors = [command for _, command in _survivors(mark)]
        finally:
            process.kill()
            for pid, _ in processes_with(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    outcome = Outcome(
        process.returncode,
        (site.root / "stdout").read_text(),
        (site.root / "stderr").read_text(),
        log.read_bytes()[size:].decode(),
    )
    return Run(outcome, seconds, kilobytes / 1024, survivors)


def _most_memory(pid: int) -> int:
    """The peak memory of a process so far, in kilobytes; unlike the value of wait4(2), without that of its children."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _survivors(mark: str) -> list[tuple[int, str]]:
    """Processes with the mark that are still there after five seconds: the kernel may need time to end them."""
    end = time.monotonic() + 5
    while (found := processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def processes_with(mark: str) -> list[tuple[int, str]]:
    """The processes that have this variable (NAME=VALUE) in their environment, with their command lines."""
    found = []
    for top in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (top / "environ").read_bytes().split(b"\0"):
                found.append((int(top.name), (top / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
    return found


@pytest.fixture
def lying(site: Site) -> Iterator[Servers]:
    with servers(site.root / "servers") as found:
        yield found


def much() -> str:
    """A random file, which a pack cannot compress."""
    return "".join(f"{random.getrandbits(4096):x}\n" for _ in range(60))


def add(site: Site, repo: str, url: str) -> None:
    """Add a module whose remote is behind a server; ``url`` is the beginning of its URL."""
    site.add(repo)
    site.remotes[repo].push({"data/much": much()})
    site.urls[repo] = f"{url}{site.remotes[repo].path}"


def push_everywhere(site: Site) -> None:
    """Push to every repository."""
    for repo, remote in site.remotes.items():
        remote.push({INIT: f"# new in {repo}\n", "data/much": much()})


def up_to_date(site: Site) -> set[str]:
    """The repositories for which Puppet reads the last push."""
    return {repo for repo, remote in site.remotes.items() if _is_up_to_date(site, repo, remote)}


def _is_up_to_date(site: Site, repo: str, remote: Remote) -> bool:
    return site.path(repo).is_dir() and site.expanded(repo).get("master") == remote.commit()


#: The lies for known and for new repositories; each has its own server.
LIES = {
    "git": {
        "known": ("silent", "silent-pack", "cut-pack", "drip", "garbage"),
        "new": ("silent-pack", "cut-pack", "cut", "drip-pack"),
    },
    "http": {"known": ("silent-pack", "cut-pack", "drip", "password"), "new": ("silent", "cut-pack", "password")},
    "ssh": {
        "known": ("silent", "silent-pack", "cut-pack", "password"),
        "new": ("silent-pack", "drip", "drip-pack", "cut-pack", "password"),
    },
}


@pytest.mark.parametrize("transports", ["git http ssh by ssh_cmd_path", "ssh by GIT_SSH_COMMAND"])
def test_remotes_that_lie_hold_up_nobody_and_leave_no_process_behind(
    site: Site, lying: Servers, transports: str
) -> None:
    bad: dict[str, set[str]] = {"known": set(), "new": set()}
    urls: dict[str, str] = {}
    for transport in transports.partition(" by ")[0].split():
        for kind, lies in LIES[transport].items():
            for lie in lies:
                repo = f"modules/{transport}-{kind}-{lie}"
                bad[kind].add(repo)
                urls[repo] = _server(lying, transport, repo, lie)
    site.settings |= {"git.timeout": str(TIMEOUT), "git.clonetimeout": str(TIMEOUT), "git.jobs": "40"}
    variables = {}
    if "ssh_cmd_path" in transports:
        site.settings["git.ssh_cmd_path"] = str(lying.ssh())
    elif "GIT_SSH_COMMAND" in transports:
        variables["GIT_SSH_COMMAND"] = str(lying.ssh())
    for repo in sorted(bad["known"]):
        add(site, repo, urls[repo])
    site.publish()
    assert run(site, "--strict", variables=variables).outcome.code == 0
    good = set(site.remotes) - bad["known"]
    for repo in sorted(bad["new"]):
        add(site, repo, urls[repo])
    site.publish()
    push_everywhere(site)
    lying.lie()
    ended = run(site, variables=variables)
    assert ended.survivors == []
    assert ended.outcome.code == 0
    assert ended.seconds < SOON
    errors = ended.outcome.lines("ERROR")
    everyone = bad["known"] | bad["new"]
    assert {repo: sum(f"({repo}: " in error for error in errors) for repo in everyone} == dict.fromkeys(everyone, 1)
    assert len(errors) == len(everyone)
    assert up_to_date(site) == good
    assert lying.reached() == {_place(repo) for repo in everyone}, "each of them has lied"
    lying.lie(lying=False)
    ended = run(site, "--strict", variables=variables)
    assert (ended.outcome.code, ended.outcome.stderr) == (0, "")
    assert up_to_date(site) == set(site.remotes)


def _server(lying: Servers, transport: str, repo: str, lie: str) -> str:
    if transport == "ssh":
        return f"ssh://git@{_place(repo)}"
    return (lying.git if transport == "git" else lying.http)(_place(repo), lie)


def _place(repo: str) -> str:
    """The host for ``modules/ssh-new-cut-pack`` is ``cut-pack.new.example.org``: its name begins with the lie."""
    transport, kind, lie = repo.partition("/")[2].split("-", 2)
    return f"{lie}.{kind}.example.org" if transport == "ssh" else f"{transport}.{kind}.{lie}"


@pytest.mark.parametrize(
    ("transport", "lie"), [("git", "silent"), ("ssh", "drip"), ("http", "cut-pack"), ("http", "password")]
)
def test_metadata_that_cannot_be_had_end_the_run_in_time_and_change_nothing(
    site: Site, lying: Servers, transport: str, lie: str
) -> None:
    site.settings |= {"git.ssh_cmd_path": str(lying.ssh()), "git.timeout": "1"}
    url = _server(lying, transport, f"modules/{transport}-known-{lie}", lie)
    clone = site.root / "metadata" / "environments"
    git("remote", "set-url", "origin", f"{url}{site.definitions.path}", directory=clone)
    assert site.update("--strict").code == 0
    site.definitions.push({"much": much()})
    site.remotes["modules/dummy"].push({INIT: "# new\n"})
    before = site.listing("environments", "clone", "bare")
    lying.lie()
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (20, [])
    assert len(ended.outcome.stderr.splitlines()) == 1
    assert ended.seconds < SOON
    assert site.listing("environments", "clone", "bare") == before
    lying.lie(lying=False)
    assert run(site, "--strict").outcome.code == 0
    assert up_to_date(site) == set(site.remotes)


def test_what_remotes_say_costs_no_memory_and_leads_nowhere(site: Site, lying: Servers) -> None:
    """One remote sends endless text to stderr, one an endless list of branches, one branches with hostile names."""
    lies = {
        "modules/git-known-names": "names",
        "modules/git-known-endless": "endless",
        "modules/ssh-known-flood": "flood",
    }
    site.settings |= {"git.ssh_cmd_path": str(lying.ssh()), "git.timeout": "2"}
    for repo, lie in lies.items():
        add(site, repo, _server(lying, repo[8:11], repo, lie))
    site.publish()
    for name in NAMES:
        site.remotes["modules/git-known-names"].branch(name)
    assert site.update("--strict").code == 0
    push_everywhere(site)
    lying.lie()
    outside = _names(site.root)
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    assert ended.megabytes < 150, "what a remote complains of is not collected"
    assert len(ended.outcome.lines("ERROR")) == 2
    assert up_to_date(site) == set(site.remotes) - {"modules/git-known-endless", "modules/ssh-known-flood"}
    assert lying.reached() == {_place(repo) for repo in lies}
    assert [name for name in _names(site.root) - outside if "escape" in name or "conf.lock" in name] == []


def _names(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


def test_a_helper_that_detaches_itself_holds_up_nobody(site: Site, lying: Servers) -> None:
    """While it lives, it keeps the pipes of Git's process open."""
    site.settings["git.ssh_cmd_path"] = str(lying.ssh())
    add(site, "modules/ssh-known-detached", "ssh://git@detached.known.example.org")
    site.publish()
    assert site.update("--strict").code == 0
    push_everywhere(site)
    lying.lie()
    try:
        ended = run(site, "--strict")
        assert [pid for pid in _detached(lying) if not Path(f"/proc/{pid}").exists()] == []
    finally:
        for pid in _detached(lying):
            os.kill(pid, signal.SIGKILL)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    assert len(_detached(lying)) == 2, "asked and fetched from"
    assert up_to_date(site) == set(site.remotes)


def _detached(lying: Servers) -> list[int]:
    return [int(line) for line in (lying.top / "detached").read_text().splitlines()]


#: Runs the rest of the command line on a new terminal.
ON_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
)


def test_nobody_is_asked_for_a_password(site: Site, lying: Servers) -> None:
    """Neither on the terminal where the run was started, nor with a program of the user's or of ssh."""
    site.settings["git.ssh_cmd_path"] = str(lying.ssh())
    bad = {"modules/http-known-password", "modules/ssh-known-password"}
    for repo in sorted(bad):
        add(site, repo, _server(lying, repo.split("/")[1].split("-")[0], repo, "password"))
    site.publish()
    first = site.update("--strict")
    assert (first.code, first.lines("ERROR")) == (0, [])
    push_everywhere(site)
    lying.lie()
    canary, program = site.root / "canary", site.root / "askpass"
    program.write_text(f"#!/bin/sh\necho $0 $1 >> {canary}\necho secret\n")
    program.chmod(0o755)
    (Path(os.environ["HOME"]) / ".gitconfig").write_text(f"[core]\n\taskPass = {program}\n")
    variables = {"SSH_ASKPASS": str(program), "GIT_TERMINAL_PROMPT": "1"}
    variables |= {"SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    ended = run(site, variables=variables, before=ON_A_TERMINAL)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    assert not canary.exists()
    assert not (lying.top / "asked").exists()
    assert "Username" not in ended.outcome.stdout
    errors = ended.outcome.lines("ERROR")
    assert len(errors) == 2
    assert lying.reached() == {_place(repo) for repo in bad}, errors
    assert up_to_date(site) == set(site.remotes) - bad


def test_an_askpass_program_of_the_caller_that_hangs_is_ended(site: Site, lying: Servers) -> None:
    repo = "modules/http-known-password"
    site.settings["git.timeout"] = "2"
    add(site, repo, _server(lying, "http", repo, "password"))
    site.publish()
    assert site.update("--strict").code == 0
    push_everywhere(site)
    lying.lie()
    program = site.root / "askpass"
    program.write_text(f"#!/bin/sh\ntrap '' TERM\ntouch {site.root}/asked\nwhile :; do sleep 60; done\n")
    program.chmod(0o755)
    ended = run(site, variables={"GIT_ASKPASS": str(program)})
    assert (site.root / "asked").exists()
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    [error] = ended.outcome.lines("ERROR")
    assert "no answer within 2 seconds" in error
    assert up_to_date(site) == set(site.remotes) - {repo}


def test_a_credential_helper_of_the_user_that_hangs_is_ended(site: Site, lying: Servers) -> None:
    repo = "modules/http-known-password"
    site.settings["git.timeout"] = "2"
    add(site, repo, _server(lying, "http", repo, "password"))
    site.publish()
    assert site.update("--strict").code == 0
    push_everywhere(site)
    lying.lie()
    helper = f"!f() {{ trap '' TERM; touch {site.root}/helped; while :; do sleep 60; done; }}; f"
    git("config", "--global", "credential.helper", helper, directory=site.root)
    ended = run(site)
    assert (site.root / "helped").exists(), "what the user has configured to carry the traffic counts"
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    [error] = ended.outcome.lines("ERROR")
    assert "no answer within 2 seconds" in error
    assert up_to_date(site) == set(site.remotes) - {repo}
