"""One slow repository holds up nobody: runs leave it to jens-transfer, and take it up when that has it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jens import locking
from jens.commands import gc, reset
from jens.config import load_config
from jens.layout import Layout
from jens.model import RepoId
from jens.repositories import transfers
from tests import TREE
from tests.conftest import Site, definition, git
from tests.faults.samples import IS_SOAK
from tests.faults.servers import Servers, servers
from tests.faults.test_remotes import INIT, processes_with

DUMMY, OTHER = "modules/dummy", "modules/other"
#: Seconds within which everything happens that a test waits for.
SOON = 900.0 if IS_SOAK else 120.0


@dataclass
class Host:
    """A site whose module dummy is on a server that can fall silent, and runs in processes of their own."""

    site: Site
    servers: Servers
    mark: str = field(default_factory=lambda: f"JENS_TEST_RUN={uuid.uuid4()}")

    @property
    def layout(self) -> Layout:
        return Layout.of(load_config(self.site.config))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(TREE), **dict([self.mark.split("=")])}

    def start(self, tool: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(TREE / "bin" / tool), "-c", str(self.site.config), *arguments]
        return subprocess.Popen(command, env=self.environment(), stdin=subprocess.DEVNULL)

    def run(self, *arguments: str) -> tuple[int, float]:
        """A run: its exit code, and the seconds that it took."""
        begin = time.monotonic()
        return self.start("jens-update", *arguments).wait(SOON), time.monotonic() - begin

    def log(self, tool: str) -> str:
        path = self.site.root / "log" / f"{tool}.log"
        return path.read_text() if path.exists() else ""

    def left(self) -> set[str]:
        return {str(repo) for repo in transfers.left(self.layout)}

    def is_at_rest(self) -> bool:
        """Whether no jens-transfer is at work."""
        return not locking.is_held(transfers.at_work(self.layout)) and not processes_with(self.mark)

    def shows(self, repo: str, text: str) -> bool:
        return self.site.exists(f"production/{repo}") and self.site.read(f"production/{repo}/manifests/init.pp") == text

    def until(self, condition: Callable[[], bool], step: Callable[[], object] = lambda: None) -> None:
        """Wait for a condition; ``step`` is what cron does meanwhile."""
        end = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < end, self.log("jens-update")[-3000:] + self.log("jens-transfer")[-3000:]
            step()
            time.sleep(0.1)


@pytest.fixture
def host(site: Site) -> Iterator[Host]:
    site.settings |= {"git.timeout": "4", "git.patience": "2", "git.clonetimeout": "60"}
    site.add(OTHER)
    site.publish()
    with servers(site.root / "servers") as found:
        made = Host(site, found)
        try:
            yield made
        finally:
            for pid, _ in processes_with(made.mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def serve(host: Host, lie: str, repo: str = DUMMY) -> None:
    """Have a repository served by a server that lies, when it is told to."""
    host.site.urls[repo] = f"{host.servers.git(lie, lie)}{host.site.remotes[repo].path}"
    host.site.publish()


def push(host: Host, repo: str, text: str) -> None:
    host.site.remotes[repo].push({INIT: text})
    host.site.hint(repo)


NARROW = "Only repositories that were pushed to are looked at"


def complaints(host: Host) -> list[str]:
    """What went wrong in runs so far."""
    return [line for line in host.log("jens-update").splitlines() if "] ERROR" in line or "] WARNING" in line]


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_module_whose_server_falls_silent_holds_up_nobody_and_comes_back_by_itself(host: Host, mode: str) -> None:
    host.site.settings["main.mode"] = mode
    serve(host, "silent")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    push(host, DUMMY, "# waits\n")
    push(host, OTHER, "# does not wait\n")
    host.run()
    assert host.shows("modules/other", "# does not wait\n")
    assert host.shows("modules/dummy", "class dummy {}\n")
    assert host.left() == {DUMMY}
    assert "INFO Leaving modules/dummy to jens-transfer" in host.log("jens-update")
    told = complaints(host)
    for number in range(3):  # the silent server costs them nothing: nobody but jens-transfer asks it
        push(host, OTHER, f"# {number}\n")
        began = len(host.log("jens-update"))
        host.run()
        assert host.shows("modules/other", f"# {number}\n")
        assert complaints(host) == told
        assert number == 0 or NARROW in host.log("jens-update")[began:]  # the first one has saved a baseline
    assert host.run("--strict")[0] == 60
    assert host.log("jens-update").count("Leaving modules/dummy to jens-transfer") == 1
    if mode == "ONDEMAND":
        assert host.site.hinted() == [DUMMY]
    host.servers.lie(lying=False)
    host.until(lambda: host.shows("modules/dummy", "# waits\n"), host.run)
    host.until(lambda: not host.left() and (mode == "POLL" or host.site.hinted() == []), host.run)
    assert host.run("--strict")[0] == 0


def test_fifty_modules_of_a_silent_server_cost_a_run_one_wait(host: Host) -> None:
    base = host.servers.git("silent", "silent")
    for number in range(50):
        host.site.urls[f"modules/far{number}"] = f"{base}{host.site.remotes[DUMMY].path}"
    host.site.publish()
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    push(host, OTHER, "# does not wait\n")
    host.run("--poll")
    assert host.shows("modules/other", "# does not wait\n")
    assert len(host.left()) == 50
    push(host, OTHER, "# nor does this\n")
    host.run("--poll")
    assert host.shows("modules/other", "# nor does this\n")
    host.servers.lie(lying=False)
    host.until(lambda: not host.left(), host.run)
    assert host.run("--strict", "--poll")[0] == 0


@pytest.mark.parametrize("name", ["environments", "repository"])
def test_metadata_whose_server_is_silent_end_the_run_in_time_and_touch_nothing(host: Host, name: str) -> None:
    base = host.servers.git("silent", "silent")
    remote = {"environments": host.site.definitions, "repository": host.site.library}[name]
    git("remote", "set-url", "origin", f"{base}{remote.path}", directory=host.site.root / "metadata" / name)
    host.site.settings["git.timeout"] = "3000"
    assert host.run("--strict")[0] == 0
    before = host.site.listing("clone", "environments")
    host.servers.lie()
    push(host, OTHER, "# waits\n")
    assert host.run()[0] == 20
    assert host.site.listing("clone", "environments") == before
    host.servers.lie(lying=False)
    assert host.run("--strict")[0] == 0
    assert host.shows("modules/other", "# waits\n")


def test_a_repository_that_arrives_slowly_is_whole_in_the_end_and_holds_up_nobody(host: Host) -> None:
    """A server that takes a second for 40 KiB has 400 KiB to send: longer than a run has patience."""
    host.site.settings["main.mode"] = "ONDEMAND"
    serve(host, "slow-pack")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    chance = random.Random(1)
    large = "".join(chance.choice("0123456789abcdef") for _ in range(800_000))
    host.site.remotes[DUMMY].push({"code/files/large": large, INIT: "# large\n"})
    host.site.hint(DUMMY)
    push(host, OTHER, "# first\n")
    host.run()
    assert host.shows("modules/other", "# first\n")
    assert DUMMY in host.left()
    number = 0

    def one_more_push() -> None:
        nonlocal number
        number += 1
        push(host, OTHER, f"# {number}\n")
        host.run()
        assert host.shows("modules/other", f"# {number}\n")

    host.until(lambda: host.shows("modules/dummy", "# large\n"), one_more_push)
    assert host.site.read("production/modules/dummy/files/large") == large
    host.until(lambda: not host.left() and host.site.hinted() == [], host.run)
    assert host.run("--strict")[0] == 0


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_hanging_repository_holds_up_no_other_on_its_server(host: Host, mode: str) -> None:
    """modules/dummy hangs on a server that answers for others before and behind it in the order of names."""
    names = ("modules/a", "modules/z")
    for name in names:
        host.site.add(name)
    asked = host.site.root / "ssh"
    hangs = f"[ -e {host.site.root}/hangs ] && case $last in *dummy*) exec sleep 1000;; esac"
    asked.write_text(f'#!/bin/sh\nfor last; do :; done\n[ "$1" = -G ] && exit 0\n{hangs}\nexec sh -c "$last"\n')
    asked.chmod(0o755)
    host.site.settings |= {"main.mode": mode, "git.ssh_cmd_path": str(asked)}
    for name in (*names, DUMMY):
        host.site.urls[name] = f"ssh://git@h.example.org{host.site.remotes[name].path}"
    host.site.publish()
    assert host.run("--strict")[0] == 0
    (host.site.root / "hangs").touch()
    push(host, DUMMY, "# waits\n")
    for number in range(3):
        for name in names:
            push(host, name, f"# {number}\n")
        host.run()
        assert [host.shows(name, f"# {number}\n") for name in names] == [True, True]
        assert host.left() == {DUMMY}
    (host.site.root / "hangs").unlink()
    host.until(lambda: host.shows(DUMMY, "# waits\n") and not host.left(), host.run)
    host.until(lambda: mode == "POLL" or host.site.hinted() == [], host.run)
    assert host.run("--strict")[0] == 0


class Hesitant:
    """A server that takes so many seconds for each conversation about modules/dummy, or about other repositories."""

    def __init__(self, host: Host, seconds: float) -> None:
        self._flag, self._calls = host.site.root / "hesitates", host.site.root / "calls"
        program, note = host.site.root / "ssh", f"echo ${{JENS_TRANSFER:+transfer}} >>{self._calls}"
        script = f"[ -e {self._flag} ] && case $last in *$(cat {self._flag})*) {note}; sleep {seconds};; esac"
        program.write_text(f'#!/bin/sh\nfor last; do :; done\n[ "$1" = -G ] && exit 0\n{script}\nexec sh -c "$last"\n')
        program.chmod(0o755)
        host.site.settings["git.ssh_cmd_path"] = str(program)
        host.site.urls[DUMMY] = self.url(host.site.remotes[DUMMY].path)
        host.site.publish()
        assert host.run("--strict")[0] == 0

    @staticmethod
    def url(path: Path) -> str:
        return f"ssh://git@h.example.org{path}"

    def begin(self, what: str = "dummy") -> None:
        self._calls.write_text("")
        self._flag.write_text(what)

    def end(self) -> None:
        self._flag.unlink()

    def questions(self) -> tuple[int, int]:
        """How many conversations runs have begun, and jens-transfer."""
        lines = self._calls.read_text().splitlines()
        return lines.count(""), lines.count("transfer")


def test_all_that_a_run_asks_one_repository_takes_its_patience_once(host: Host) -> None:
    """Each conversation ends in time. There would be three: the question, the fetch, and the search for a commit."""
    host.site.settings |= {"git.timeout": "60", "git.patience": "3", "main.mode": "ONDEMAND"}
    server = Hesitant(host, 2)
    server.begin()
    host.site.define("pinned", definition(overrides={DUMMY: f"commit/{'0123' * 10}"}))
    push(host, DUMMY, "# waits\n")
    push(host, OTHER, "# does not wait\n")
    host.layout.transfers.mkdir()
    with locking.holding(transfers.at_work(host.layout)):  # no jens-transfer begins
        host.run()
    assert host.shows(OTHER, "# does not wait\n")
    assert server.questions()[0] <= 2
    assert host.left() == {DUMMY}
    assert "([git] patience)" in host.log("jens-update")
    server.end()
    host.until(lambda: host.shows(DUMMY, "# waits\n") and not host.left(), host.run)


def test_question_and_fetch_of_metadata_take_the_patience_once(host: Host) -> None:
    host.site.settings |= {"git.timeout": "60", "git.patience": "3"}
    server = Hesitant(host, 2)
    url = server.url(host.site.definitions.path)
    git("remote", "set-url", "origin", url, directory=host.site.root / "metadata" / "environments")
    for _ in range(2):
        assert host.run("--strict")[0] == 0
    server.begin("environments")
    host.site.define("another")
    assert host.run()[0] == 20
    server.end()
    assert host.run("--strict")[0] == 0
    assert "another" in host.site.environments()


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_remote_that_answers_too_late_is_asked_by_nobody_but_the_transfer(host: Host, mode: str) -> None:
    """It takes longer than a run has patience, but no longer than the time limit."""
    host.site.settings |= {"git.timeout": "60", "main.mode": mode}
    server = Hesitant(host, 3)
    server.begin()
    push(host, DUMMY, "# one\n")
    push(host, OTHER, "# one\n")
    host.run()
    assert host.shows(OTHER, "# one\n")
    host.until(lambda: host.shows(DUMMY, "# one\n"), host.run)
    if mode == "ONDEMAND":
        for _ in range(2):
            push(host, DUMMY, "# two\n")
        host.until(lambda: host.shows(DUMMY, "# two\n"), host.run)
    assert server.questions()[0] == 1
    assert host.left() == {DUMMY}
    host.until(host.is_at_rest)
    with locking.holding(transfers.at_work(host.layout)):  # until the next transfer, runs have nothing to do
        for narrow in (None, True, True):
            began = len(host.log("jens-update"))
            assert host.run("--strict")[0] == 60
            assert narrow is None or "INFO Nothing new" in host.log("jens-update")[began:]
    assert server.questions()[0] == 1
    if mode == "ONDEMAND":
        assert host.site.hinted() == [DUMMY]  # what was taken up has acknowledged no hint
    server.end()
    host.until(lambda: not host.left() and (mode == "POLL" or host.site.hinted() == []), host.run)
    assert host.run("--strict")[0] == 0


def push_large(host: Host, repo: str, megabytes: int) -> None:
    """Push files of ten megabytes that no compression makes smaller."""
    for number in range(megabytes // 10):
        content = os.urandom(10_000_000)
        head = "commit refs/heads/master\ncommitter Ann <ann@example.org> now\ndata 4\npush\n"
        head += "from refs/heads/master^0\n"
        head += f"M 100644 inline code/files/large{number}\ndata {len(content)}\n"
        arguments = ("fast-import", "--quiet", "--date-format=now")
        git(*arguments, directory=host.site.remotes[repo].path, stdin=head.encode() + content + b"\n")


@pytest.mark.timeout(1800 if IS_SOAK else 300)
@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_beside_a_clone_through_a_throttle_and_a_remote_that_drips_each_push_is_soon_there(
    host: Host, mode: str
) -> None:
    """A run that waited for the one that drips would take longer than a push may wait here."""
    megabytes, rate, seconds, others = (500, 8, 60, 10) if IS_SOAK else (20, 2, 10, 2)
    host.site.settings |= {"git.timeout": "60", "git.clonetimeout": "600", "main.mode": mode}
    names = [f"modules/m{number}" for number in range(others)]
    for name in (*names, "modules/large", "modules/drip"):
        host.site.add(name)
    late = {name: host.site.urls.pop(name) for name in ("modules/large", "modules/drip")}
    host.site.publish()
    assert host.run("--strict")[0] == 0
    push_large(host, "modules/large", megabytes)
    host.servers.lie()
    serve(host, f"throttle{rate}", "modules/large")
    serve(host, "drip", "modules/drip")
    host.site.hint(*late)
    longest, number, begin = 0.0, 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        name = names[number % others]
        pushed = time.monotonic()
        push(host, name, f"# {number}\n")
        host.run()
        assert host.shows(name, f"# {number}\n")
        longest = max(longest, time.monotonic() - pushed)
        time.sleep(max(0.0, pushed + 1 - time.monotonic()))
        number += 1
    assert longest < 40
    assert not host.site.exists("production/modules/drip")
    host.until(lambda: host.shows("modules/large", "class dummy {}\n"), host.run)
    files = host.site.root / "environments" / "production" / "modules" / "large" / "files"
    assert sum(path.stat().st_size for path in files.iterdir()) == megabytes * 1_000_000
    host.servers.lie(lying=False)
    host.servers.hang_up()
    host.until(lambda: not host.left() and (mode == "POLL" or host.site.hinted() == []), host.run)
    assert host.run("--strict")[0] == 0
    assert host.shows("modules/drip", "class dummy {}\n")


def test_a_long_transfer_holds_up_no_other(host: Host) -> None:
    serve(host, "silent")
    serve(host, "slow-pack", OTHER)
    assert host.run("--strict")[0] == 0
    host.site.settings["git.timeout"] = "600"
    host.servers.lie()
    push(host, DUMMY, "# waits\n")
    host.run()
    host.until(lambda: bool(transfers.under_way(host.layout)))
    host.site.remotes[OTHER].push({"code/files/large": os.urandom(100_000).hex(), INIT: "# arrives\n"})
    host.run()
    assert host.left() == {DUMMY, OTHER}
    host.until(lambda: host.shows(OTHER, "# arrives\n"), host.run)
    assert host.left() == {DUMMY}


def test_what_a_transfer_is_at_work_on_is_no_left_over(host: Host) -> None:
    transfers.ask_for(host.layout, RepoId("modules", "dummy"))
    places = [host.layout.baredir / "modules", host.layout.clone(RepoId("modules", "dummy"))]
    places[1].mkdir(parents=True)
    host.site.settings["git.patience"] = "2"
    for place in places:
        for prefix in (".new-", ".trash-"):
            (place / f"{prefix}0123").mkdir(parents=True)
    with locking.holding(transfers.at_work(host.layout)):  # no jens-transfer begins
        host.run()
        gc.main(["-c", str(host.site.config), "--all"])
    assert [sorted(path.name for path in place.glob(".*-*")) for place in places] == [[".new-0123"], [".new-0123"]]
    host.until(lambda: not host.left(), host.run)
    host.run()
    assert [sorted(path.name for path in place.glob(".*-*")) for place in places] == [[], []]


def test_a_run_with_a_relative_configuration_starts_it_as_well(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(host, "silent")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    push(host, DUMMY, "# waits\n")
    monkeypatch.chdir(host.site.root)
    command = [sys.executable, str(TREE / "bin/jens-update"), "-c", host.site.config.name]
    assert subprocess.run(command, env=host.environment(), check=False, timeout=SOON).returncode == 0
    host.until(lambda: "Transferring modules/dummy" in host.log("jens-transfer"))


def test_where_nothing_was_left_there_is_nothing_to_do(host: Host) -> None:
    assert host.run("--strict")[0] == 0
    assert host.start("jens-transfer").wait(SOON) == 0
    assert not host.left()


def test_patience_of_zero_leaves_nothing(host: Host) -> None:
    host.site.settings["git.patience"] = "0"
    serve(host, "slow-pack")
    host.servers.lie()
    host.site.remotes[DUMMY].push({"code/files/large": os.urandom(100_000).hex()})
    assert host.run("--strict")[0] == 0
    assert not host.layout.transfers.exists()


def test_a_reset_ends_the_transfer_with_all_its_processes(host: Host) -> None:
    serve(host, "silent")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    host.site.settings["git.timeout"] = "600"
    push(host, DUMMY, "# waits\n")
    host.run()
    host.until(lambda: bool(transfers.under_way(host.layout)))
    assert reset.main(["-c", str(host.site.config), "--yes"]) == 0
    assert host.is_at_rest()
    assert host.left() == set()
    host.servers.lie(lying=False)
    assert host.run("--strict")[0] == 0
    assert host.shows("modules/dummy", "# waits\n")


def test_only_one_transfer_of_a_repository_is_under_way(host: Host) -> None:
    serve(host, "silent")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    host.site.settings["git.timeout"] = "600"
    push(host, DUMMY, "# waits\n")
    host.run()
    host.until(lambda: bool(transfers.under_way(host.layout)))
    assert host.start("jens-transfer").wait(SOON) == 50
    host.run()
    assert host.log("jens-transfer").count("Transferring modules/dummy") == 1


def test_what_left_the_library_is_left_to_nobody(host: Host) -> None:
    serve(host, "silent")
    assert host.run("--strict")[0] == 0
    host.servers.lie()
    push(host, DUMMY, "# waits\n")
    host.run()
    assert host.left() == {DUMMY}
    del host.site.urls[DUMMY]
    host.site.publish()
    host.until(lambda: not host.left() and not (host.site.root / "bare" / DUMMY).exists(), host.run)
    assert host.run("--strict")[0] == 0


@pytest.mark.parametrize("seed", range(20 if IS_SOAK else 1))
def test_whatever_is_killed_whenever_nothing_is_lost_and_nothing_stays_at_work(host: Host, seed: int) -> None:
    """Runs, transfers, their Gits, or all of them are killed at random instants, while a server is slow."""
    chance = random.Random(seed)
    host.site.settings["main.mode"] = "ONDEMAND"
    serve(host, "slow-pack")
    assert host.run("--strict")[0] == 0
    for number in range(10):
        host.servers.lie()
        host.site.remotes[DUMMY].push({"code/files/large": os.urandom(90_000).hex(), INIT: f"# {number}\n"})
        host.site.hint(DUMMY)
        push(host, OTHER, f"# {number}\n")
        running = host.start("jens-update")
        time.sleep(chance.uniform(0, 6))
        victims = processes_with(host.mark)
        if chance.random() < 0.6:
            victims = [(pid, command) for pid, command in victims if chance.choice(("git", "jens")) in command]
        for pid, _ in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.wait(SOON)
        host.servers.lie(lying=False)
        if number % 3 == 0:
            host.until(lambda number=number: host.shows("modules/dummy", f"# {number}\n"), host.run)  # type: ignore[misc]
    host.until(lambda: host.shows("modules/dummy", "# 9\n") and host.shows("modules/other", "# 9\n"), host.run)
    host.until(lambda: not host.left() and host.site.hinted() == [], host.run)
    host.until(host.is_at_rest)
    assert host.run("--strict", "--poll")[0] == 0
    for repo in (DUMMY, OTHER):
        git("fsck", "--strict", directory=host.site.root / "bare" / repo)
    assert not list((host.site.root / "bare" / "modules").glob(".*"))
