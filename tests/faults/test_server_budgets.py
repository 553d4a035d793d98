"""What servers may cost a run: each its time limit once, whoever asks and however often. The others hold up nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.conftest import Site, git
from tests.faults.servers import Servers, servers
from tests.faults.test_remotes import INIT, SOON, add, much, run, up_to_date

DUMMY = "modules/dummy"
#: The largest number of repositories that are worked on at once in these tests.
JOBS = 8


@pytest.fixture
def lying(site: Site) -> Iterator[Servers]:
    with servers(site.root / "servers") as found:
        yield found


class Silent:
    """A server that accepts connections and says nothing. It knows when each began, and when the other side left."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"git://127.0.0.1:{self._listening.getsockname()[1]}"
        self.begun: list[float] = []
        self.left: list[float] = []
        self._open: list[tuple[socket.socket, threading.Thread]] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.begun.append(time.monotonic())
                thread = threading.Thread(target=self._wait, args=(connection,), daemon=True)
                self._open.append((connection, thread))
                thread.start()

    def _wait(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(1 << 16):
                pass
        self.left.append(time.monotonic())

    def close(self) -> None:
        """End the server and its connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        for connection, thread in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()


@contextmanager
def silent_servers(count: int) -> Iterator[list[Silent]]:
    with ExitStack() as stack:
        found = [Silent() for _ in range(count)]
        for server in found:
            stack.callback(server.close)
        yield found


@contextmanager
def dropping_packets() -> Iterator[str]:
    """An address that answers no SYN: a listener on loopback that has no room for another connection."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"


def ssh_program(site: Site, script: str) -> None:
    """Run this instead of ssh; it has the variables ``host`` and ``command``. Its calls are counted."""
    path = site.root / "ssh"
    head = "for argument; do host=$command; command=$argument; done\nhost=${host#*@}\n"
    path.write_text(
        f'#!/bin/sh\n{head}echo "$host $command" >>{site.root}/calls\n{script}\neval "git ${{command#git-}}"\n'
    )
    path.chmod(0o755)
    site.settings["git.ssh_cmd_path"] = str(path)


def calls(site: Site) -> list[str]:
    """The calls of ssh since this was last asked."""
    path = site.root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


def limit(site: Site, seconds: int) -> None:
    site.settings |= {"git.timeout": str(seconds), "git.clonetimeout": "60", "git.jobs": str(JOBS)}


def add_new(site: Site, urls: Sequence[str]) -> list[str]:
    """Add modules with these URLs to the library, and return the names of their repositories."""
    names = [f"modules/far{number}" for number in range(len(urls))]
    site.urls.update(zip(names, urls))
    site.publish()
    return names


def assert_one_error_each(errors: Sequence[str], repos: Sequence[str]) -> None:
    assert {repo: sum(f"({repo}: " in error for error in errors) for repo in repos} == dict.fromkeys(repos, 1)
    assert len(errors) == len(repos)


# Servers that are silent, or not there


def test_forty_new_repositories_on_an_address_that_drops_packets_cost_one_timeout(site: Site) -> None:
    limit(site, 3)
    assert site.update("--strict").code == 0
    with dropping_packets() as server:
        repos = add_new(site, [f"git://{server}/far{number}" for number in range(40)])
        for _ in range(2):
            commit = site.remotes[DUMMY].push({INIT: f"# {time.monotonic()}\n"})
            ended = run(site)
            assert (ended.outcome.code, ended.survivors) == (0, [])
            assert ended.seconds < SOON
            assert site.expanded(DUMMY) == {"master": commit}
            errors = ended.outcome.lines("ERROR")
            assert_one_error_each(errors, repos)
            tried = [error for error in errors if "no answer" in error]
            assert len(tried) <= 2 * JOBS
            assert sum(f"not tried, {server} did not answer in time before" in error for error in errors) >= 40 - len(
                tried
            )


def test_thirty_two_silent_servers_on_eight_jobs_cost_one_timeout(site: Site) -> None:
    """All of them are asked before the first of them is given up."""
    limit(site, 6)
    assert site.update("--strict").code == 0
    with silent_servers(32) as silent:
        repos = add_new(site, [f"{server.url}/far" for server in silent])
        commit = site.remotes[DUMMY].push({INIT: "# new\n"})
        ended = run(site)
        assert all(len(server.begun) == 1 for server in silent)
        assert max(server.begun[0] for server in silent) < min(server.left[0] for server in silent)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert ended.seconds < SOON
    assert site.expanded(DUMMY) == {"master": commit}
    assert_one_error_each(ended.outcome.lines("ERROR"), repos)
    for repo in repos:
        del site.urls[repo]
    site.publish()
    ended = run(site, "--strict")
    assert (ended.outcome.code, ended.outcome.lines("ERROR")) == (0, [])


def test_a_silent_server_with_many_repositories_takes_no_turn_of_another(site: Site) -> None:
    """The other server answers in half a second, and has more repositories than there are jobs."""
    limit(site, 8)
    site.settings["git.jobs"] = "2"
    ssh_program(site, "case $host in slow) sleep 0.5;; esac")
    for number in range(6):
        remote = site.add(f"modules/slow{number}")
        site.urls[f"modules/slow{number}"] = f"ssh://git@slow{remote.path}"
    with silent_servers(1) as [silent]:
        add_new(site, [f"{silent.url}/far{number}" for number in range(20)])
        ended = run(site)
        assert len(silent.begun) <= 4
    assert ended.outcome.code == 0
    assert up_to_date(site) == set(site.remotes)
    assert len(ended.outcome.lines("ERROR")) == 20
    assert ended.seconds < SOON


NOT_REACHED = {
    "port": "git://127.0.0.1:1",
    "web port": "http://127.0.0.1:1",
    "name": "git://no-such-host.invalid",
    "web name": "http://no-such-host.invalid",
    "ssh": "ssh://git@down.example.org",
}


@pytest.mark.parametrize("what", NOT_REACHED)
def test_a_server_that_cannot_be_reached_is_tried_a_few_times(site: Site, what: str) -> None:
    """Its ssh gives up after a second, as one with ``ConnectTimeout=1``."""
    limit(site, 20)
    reason = "ssh: connect to host down.example.org port 22: Connection timed out"
    ssh_program(site, f'case $host in down*) sleep 1; echo "{reason}" >&2; exit 255;; esac')
    site.urls[DUMMY] = f"ssh://git@up.example.org{site.remotes[DUMMY].path}"
    repos = add_new(site, [f"{NOT_REACHED[what]}/far{number}" for number in range(40)])
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert up_to_date(site) == set(site.remotes)
    errors = ended.outcome.lines("ERROR")
    assert_one_error_each(errors, repos)
    refused = [error for error in errors if "not tried, " in error and " could not be reached before" in error]
    assert len(refused) >= 40 - 2 * JOBS
    assert len([call for call in calls(site) if call.startswith("down")]) == (40 - len(refused) if what == "ssh" else 0)


def test_a_server_that_goes_down_after_it_was_asked_is_not_fetched_from_forty_times(site: Site) -> None:
    reason = "kex_exchange_identification: read: Connection reset by peer"
    ssh_program(site, f'test ! -e {site.root}/down || {{ echo "{reason}" >&2; exit 255; }}')
    limit(site, 20)
    for number in range(20):
        remote = site.add(f"modules/m{number}")
        site.urls[f"modules/m{number}"] = f"ssh://git@h.example.org{remote.path}"
    site.publish()
    assert site.update("--strict").code == 0
    for number in range(20):
        site.remotes[f"modules/m{number}"].push({INIT: "# new\n"})
    ssh_program(
        site,
        f'if [ $(wc -l <{site.root}/calls) -gt 20 ]; then echo "{reason}" >&2; exit 255; fi',
    )
    calls(site)
    ended = run(site)
    assert ended.outcome.code == 0
    assert_one_error_each(ended.outcome.lines("ERROR"), [f"modules/m{number}" for number in range(20)])
    assert len(calls(site)) <= 20 + JOBS
    assert not [line for line in ended.outcome.lines("WARNING") if "damaged" in line]


# Servers that refuse a repository, or have one that hangs


REFUSALS = {
    "denied": ('echo "git@h: Permission denied (publickey)." >&2; exit 255', "Permission denied"),
    "host key": ('echo "Host key verification failed." >&2; exit 255', "Host key verification failed"),
    "unknown": ('echo "ERROR: Repository not found." >&2; exit 1', "Repository not found"),
    "without a word": ("exit 255", "Could not read from remote repository"),
    "names another server": (
        'echo "remote: ssh: connect to host backend port 22: Connection refused" >&2; exit 1',
        "Connection refused",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_of_one_repository_does_not_silence_its_server(site: Site, what: str) -> None:
    script, said = REFUSALS[what]
    limit(site, 20)
    ssh_program(site, f"case $command in */far[0-9]*) {script};; esac")
    for repo, remote in site.remotes.items():
        site.urls[repo] = f"ssh://git@h.example.org{remote.path}"
    repos = add_new(site, [f"ssh://git@h.example.org/far{number}" for number in range(12)])
    ended = run(site)
    assert ended.outcome.code == 0
    assert up_to_date(site) == set(site.remotes)
    errors = ended.outcome.lines("ERROR")
    assert_one_error_each(errors, repos)
    assert all(said in error for error in errors)


def test_a_web_server_that_does_not_have_a_repository_is_asked_for_the_others(site: Site, lying: Servers) -> None:
    limit(site, 20)
    url = lying.http("web", "")
    site.urls[DUMMY] = f"{url}{site.remotes[DUMMY].path}"
    repos = add_new(site, [f"{url}/nowhere/far{number}" for number in range(12)])
    ended = run(site)
    assert ended.outcome.code == 0
    assert up_to_date(site) == set(site.remotes)
    errors = ended.outcome.lines("ERROR")
    assert_one_error_each(errors, repos)
    assert not any("not tried" in error for error in errors)


def test_a_repository_that_hangs_does_not_keep_pushes_to_others_on_its_server_out(site: Site) -> None:
    ssh_program(site, "case $command in */stuck[0-9]*) exec sleep 60;; esac")
    for number in range(6):
        remote = site.add(f"modules/m{number}")
        site.urls[f"modules/m{number}"] = f"ssh://git@h.example.org{remote.path}"
    site.publish()
    assert site.update("--strict").code == 0
    repos = add_new(site, [f"ssh://git@h.example.org/stuck{number}" for number in range(2)])
    limit(site, 10)
    for number in range(6):
        site.remotes[f"modules/m{number}"].push({INIT: "# new\n"})
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert_one_error_each(ended.outcome.lines("ERROR"), repos)
    assert up_to_date(site) == set(site.remotes)


def test_servers_that_are_silent_when_they_are_fetched_from_do_not_wait_for_each_other(site: Site) -> None:
    limit(site, 4)
    site.settings |= {"git.jobs": "2"}
    held = site.root / "held"
    held.mkdir()
    asked, lying = f"{site.root}/asked-$host", site.root / "lying"
    ssh_program(
        site,
        f"test ! -e {lying} -o ! -e {asked} || {{ date +%s.%N >{held}/$host; exec sleep 60; }}\ntouch {asked}",
    )
    bad = [f"modules/m{number}" for number in range(10)]
    for repo in bad:
        remote = site.add(repo)
        site.urls[repo] = f"ssh://git@{repo.partition('/')[2]}.example.org{remote.path}"
    site.publish()
    assert site.update("--strict").code == 0
    for path in site.root.glob("asked-*"):
        path.unlink()
    lying.touch()
    for repo in site.remotes:
        site.remotes[repo].push({INIT: "# new\n"})
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    assert_one_error_each(ended.outcome.lines("ERROR"), bad)
    assert up_to_date(site) == set(site.remotes) - set(bad)
    times = sorted(float(path.read_text()) for path in held.iterdir())
    assert len(times) == 10
    assert times[-1] - times[0] < 2 * 4, "two at a time take four times the limit"


def test_a_server_that_falls_silent_in_a_clone_costs_one_timeout(site: Site, lying: Servers) -> None:
    """A clone may take a minute, but not a minute of silence. One that is only slow gets its minute."""
    limit(site, 4)
    new = {f"modules/{lie}": lie for lie in ("silent-pack", "drip-pack", "slow")}
    for repo, lie in new.items():
        add(site, repo, lying.git(lie, lie))
    site.remotes["modules/slow"].push({f"data/{number}": much() for number in range(8)})
    site.publish()
    lying.lie()
    ended = run(site)
    assert (ended.outcome.code, ended.survivors) == (0, [])
    silent = ["modules/silent-pack", "modules/drip-pack"]
    assert up_to_date(site) == set(site.remotes) - set(silent)
    errors = ended.outcome.lines("ERROR")
    assert_one_error_each(errors, silent)
    assert all("no answer within 4 seconds" in error for error in errors)
    assert ended.seconds < 60
    lying.lie(lying=False)
    assert site.update("--strict").lines("ERROR") == []
    assert up_to_date(site) == set(site.remotes)


def test_a_silent_server_of_metadata_and_repositories_costs_one_timeout(site: Site) -> None:
    limit(site, 3)
    with silent_servers(1) as [silent]:
        assert site.update("--strict").code == 0
        clone = site.root / "metadata" / "environments"
        git("remote", "set-url", "origin", f"{silent.url}/environments", directory=clone)
        clone = site.root / "metadata" / "repository"
        git("remote", "set-url", "origin", f"{silent.url}/repository", directory=clone)
        before = site.listing("environments", "clone", "bare")
        ended = run(site)
        assert (ended.outcome.code, ended.survivors) == (20, [])
        assert len(silent.begun) <= 3
    assert site.listing("environments", "clone", "bare") == before
