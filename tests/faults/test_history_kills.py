"""Runs that are killed at random instants: the next run records all that they did, nothing twice, nothing missing.

The test keeps a log of its own. It looks at what Puppet sees after each kill, and after each run. Within one run each
link moves once at most, so nothing is visible that it does not see.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from jens.commands.exitcodes import LOCKED
from jens.history import queries
from jens.history.queries import Change, EnvironmentChange
from jens.history.store import Reader
from jens.layout import entry_ref
from jens.model import Commit
from tests.conftest import Site, definition
from tests.faults.samples import IS_SOAK
from tests.warm import Run, Warm, warm

KILLS = 100 if IS_SOAK else 10
#: Factors for the usual length of a run, for a run that ended before its kill and one that did not.
_FASTER, _SLOWER = 0.9, 1.05
#: Seconds that times of files may be behind the clock: Linux notes them in steps.
_STEP = 0.02
MODULES = ("modules/a", "modules/b", "modules/c")
BRANCHES = ("x", "y")
ENVIRONMENTS = ("one", "two")


class Seen(NamedTuple):
    """What Puppet sees: the commit of each branch link, and what each environment holds, by its links to code."""

    links: Mapping[tuple[str, str], str]
    holds: Mapping[str, Mapping[str, object]]


def look(site: Site) -> Seen:
    links = {}
    for repo in (path for path in (site.root / "clone").glob("*/*") if path.is_dir()):
        for entry in repo.iterdir():
            if entry.is_symlink():
                links[f"{repo.parent.name}/{repo.name}", entry.name] = os.readlink(entry)[1:]
    holds = {
        environment.name: {
            "/".join(parts[-4:-2]) if parts[-1] == "code" else "common/hieradata": entry_ref(parts[-2])
            for link in (*environment.glob("modules/*"), *environment.glob("hostgroups/*"), environment / "site")
            for parts in [os.readlink(link).split("/")]
        }
        for environment in (site.root / "environments").iterdir()
        if not environment.name.startswith(".")
    }
    return Seen(links, {name: _repositories(held) for name, held in holds.items()})


def _repositories(held: Mapping[str, object]) -> Mapping[str, object]:
    """What was found, by the names of repositories: the last but two parts of a link are these."""
    return {repo: ref for repo, ref in held.items() if repo != "common/hieradata"}


class Teams:
    """Teams that push whatever they like."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self._pushes = 0

    def work(self) -> None:
        """Do a few things, and tell of them."""
        for _ in range(self._chance.randrange(1, 5)):
            self._chance.choice((self._push, self._push, self._push, self._rewrite, self._delete, self._define))()
        self._site.hint(*MODULES)

    def _push(self) -> None:
        self._pushes += 1
        remote = self._site.remotes[self._chance.choice(MODULES)]
        branch = self._chance.choice(("master", *BRANCHES))
        remote.push({"code/file": f"{self._pushes}\n"}, branch, onto="master")

    def _rewrite(self) -> None:
        self._pushes += 1
        remote = self._site.remotes[self._chance.choice(MODULES)]
        remote.push({"code/file": f"{self._pushes}\n"}, rewrite=True)

    def _delete(self) -> None:
        remote = self._site.remotes[self._chance.choice(MODULES)]
        branch = self._chance.choice(BRANCHES)
        if remote.find(branch):
            remote.delete(branch)

    def _define(self) -> None:
        name = self._chance.choice(ENVIRONMENTS)
        refs = [*BRANCHES, f"commit/{self._site.remotes[MODULES[0]].commit()}"]
        if self._chance.random() < 0.3:
            self._site.definitions.push({f"{name}.yaml": None})
        else:
            repo = MODULES[0] if self._chance.random() < 0.5 else MODULES[1]
            ref = self._chance.choice(refs if repo == MODULES[0] else BRANCHES)
            self._site.define(name, definition("master", {repo: ref}))


class Log:
    """What was visible, look by look, each with the time of its begin and of its end."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._looks: list[tuple[float, Seen]] = [(time.time(), Seen({}, {}))]

    def look(self) -> None:
        self._looks.append((time.time(), look(self._site)))

    def links(self) -> list[tuple[str, str, str | None, float, float]]:
        """Each move of a link: repository, branch, commit, and the looks between which it happened; sorted."""
        found: list[tuple[str, str, str | None, float, float]] = []
        for (begin, before), (end, after) in zip(self._looks, self._looks[1:]):
            found += [
                (*key, after.links.get(key), begin, end)
                for key in {*before.links, *after.links}
                if before.links.get(key) != after.links.get(key)
            ]
        return sorted(found, key=lambda move: (move[:2], move[3]))

    def environments(self) -> list[tuple[str, str]]:
        """What became of each environment, in order."""
        found = []
        for name in sorted({name for _, seen in self._looks for name in seen.holds}):
            for (_, before), (_, after) in zip(self._looks, self._looks[1:]):
                old, new = before.holds.get(name), after.holds.get(name)
                if (old is None) != (new is None):
                    found.append((name, "created" if old is None else "deleted"))
                elif old != new:
                    found.append((name, "changed"))
        return found

    @property
    def last(self) -> Seen:
        return self._looks[-1][1]

    @property
    def end(self) -> float:
        return self._looks[-1][0]


def check(site: Site, log: Log) -> None:
    """The history tells what the log tells."""
    with Reader(site.root / "cache" / "history.sqlite") as reader:
        entries = [*queries.entries(reader)][::-1]
        held = {name: queries.held_by(reader, name) for name in queries.environments_at(reader)}
    changes = [entry for entry in entries if isinstance(entry, Change)]
    told = sorted(
        ((change.repository, str(change.ref).replace("/", "~"), change.now, change.time) for change in changes),
        key=lambda change: (change[:2], change[3]),
    )
    moves = log.links()
    assert [change[:3] for change in told] == [move[:3] for move in moves]
    for change, move in zip(told, moves):
        # What is gone has the time of its directory, in which the runs after it may have begun something.
        latest = log.end if change[2] is None else move[4]
        assert move[3] - _STEP <= change[3] <= latest + _STEP, (change, move)
    made = [entry for entry in entries if isinstance(entry, EnvironmentChange)]
    names = sorted({entry.environment or "" for entry in made})
    became = [(name, entry.change) for name in names for entry in made if entry.environment == name]
    assert became == log.environments()
    last = log.last
    assert {
        name: {each.repository: each.ref for each in found if each.repository != "common/hieradata"}
        for name, found in held.items()
    } == last.holds
    for name, found in held.items():
        for each in found:
            if not isinstance(each.ref, Commit):
                commit = last.links.get((each.repository, str(each.ref).replace("/", "~")))
                assert each.commit == commit, (name, each)


@pytest.mark.timeout(1200)
def test_whenever_a_run_is_killed_the_next_records_all_that_it_did(site: Site, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    for repo in MODULES:
        site.add(repo, branches=BRANCHES)
    site.publish()
    teams, log = Teams(site, chance), Log(site)
    configs = [_config(site, mode) for mode in ("POLL", "ONDEMAND")]
    try:
        with warm(tmp_path / "output") as tools:
            begin = time.monotonic()
            assert tools.run("update", "-c", configs[0]) == 0
            usual = time.monotonic() - begin
            log.look()
            check(site, log)
            kills = 0
            while kills < KILLS:
                teams.work()
                if chance.random() < 0.7:  # between the switch and the end of the run are milliseconds
                    kills += _kill_when_visible(site, tools, chance.choice(configs), chance.uniform(0, 0.03))
                elif _kill_a_run(tools, chance.choice(configs), chance.uniform(0, 1.05) * usual):
                    kills += 1
                    usual *= _SLOWER
                else:
                    usual *= _FASTER
                log.look()
                if chance.random() < 0.3:  # and one more
                    _kill_a_run(tools, chance.choice(configs), chance.uniform(0, 1) * usual)
                    log.look()
                if chance.random() < 0.8:  # the same links move again
                    teams.work()
                assert _unlocked(tools, chance.choice(configs)) == 0
                log.look()
                check(site, log)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n{_log(site)}") from error


def _config(site: Site, mode: str) -> str:
    site.settings["main.mode"] = mode
    path = site.root / f"{mode}.conf"
    path.write_text(site.config.read_text())
    return str(path)


def _kill_a_run(tools: Warm, config: str, seconds: float) -> bool:
    """Kill a run after so many seconds; whether it had not ended before."""
    run = tools.start("update", "-c", config)
    time.sleep(seconds)
    return _kill(run)


def _kill(run: Run) -> bool:
    with suppress(ProcessLookupError):  # it may not have made its group yet
        os.killpg(run.pid, signal.SIGKILL)
    os.kill(run.pid, signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


def _kill_when_visible(site: Site, tools: Warm, config: str, seconds: float) -> bool:
    """Kill a run so many seconds after something has become visible, or when it has ended: whether it had not."""

    def links() -> list[str]:
        found = [path for path in clone.glob("*/*/*") if path.is_symlink()]
        return [os.readlink(path) for path in found if os.path.lexists(path)] + site.environments()

    clone = site.root / "clone"
    before = links()
    run = tools.start("update", "-c", config)
    end = time.monotonic() + 30
    while _seen(links) == before and _is_running(run.pid) and time.monotonic() < end:
        pass
    time.sleep(seconds)
    return _kill(run)


def _seen(links: Callable[[], list[str]]) -> list[str]:
    """What there is; it may go while somebody looks."""
    while True:
        with suppress(FileNotFoundError):
            return links()


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _unlocked(tools: Warm, config: str) -> int:
    """Run until the lock is free: a process that was killed just before its exec holds it for milliseconds."""
    end = time.monotonic() + 30
    while True:
        code = tools.run("update", "-c", config)
        if code != LOCKED or time.monotonic() > end:
            return code
        time.sleep(0.02)


def _log(site: Site) -> str:
    lines = (site.root / "log" / "jens-update.log").read_text().splitlines()
    return "\n".join(line for line in lines[-200:] if " INFO " not in line or "ref" in line)
