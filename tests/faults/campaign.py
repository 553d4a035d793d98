"""Kill runs that have much to do; after each kill, one more run must make everything as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jens.commands.exitcodes import LOCKED
from jens.config import Config, load_config
from jens.layout import Layout
from jens.messaging.queue import Queue
from jens.model import RepoId
from jens.repositories import retention
from jens.tools.compare import compare
from jens.update import baseline, scope
from tests.conftest import faults_of, git
from tests.faults import observer
from tests.faults.observer import Expected, Observer
from tests.faults.states import DEFINITIONS, LIBRARY, Remotes
from tests.warm import Run, warm

#: How many different states the site has.
STATES = 4
#: After so many kills, look for files that runs have left behind.
TIDY = 12
#: Factors for the usual length of a run, for a run that ended before its kill and one that did not: about one in ten
#: runs ends before.
_FASTER, _SLOWER = 0.8, 1.02
_ITEMS = ("common.yaml", "environments")
_LEFT_OVER = (".new-", ".trash-")


class Instance:
    """One instance of Jens with all its directories below ``root``."""

    def __init__(self, root: Path, remotes: Remotes) -> None:
        self.root = root
        self.remotes = remotes
        for name in ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata"):
            (root / name).mkdir(parents=True)
        for name, place in (("environments", DEFINITIONS), ("repository", LIBRARY)):
            git("clone", "-q", remotes.url(place), str(root / "metadata" / name), directory=root)

    def config(self, mode: str = "POLL", jobs: int = 0) -> str:
        path = self.root / f"{mode}-{jobs}.conf"
        if not path.exists():
            lines = ["[main]", f"mode = {mode}", "mandatorybranches = master,", "directory_environments = True"]
            lines += [f"{name}dir = {self.root / name}" for name in ("bare", "clone", "cache", "environments", "log")]
            lines += [
                f"{name}metadatadir = {self.root}/metadata/{name[:-1] if name == 'repositorys' else name}"
                for name in ("environments", "repository")
            ]
            lines += [f"repositorymetadata = {self.root}/metadata/repository/repositories.yaml"]
            lines += [f"common_hieradata_items = {', '.join(_ITEMS)}"]
            lines += ["[filelock]", f"lockdir = {self.root / 'lock'}"]
            lines += ["[messaging]", f"queuedir = {self.root / 'spool'}", "[git]", f"jobs = {jobs}"]
            path.write_text("\n".join(lines) + "\n")
        return str(path)

    def log(self, begin: int = 0) -> str:
        with suppress(FileNotFoundError), open(self.root / "log" / "jens-update.log") as file:
            file.seek(begin)
            return file.read()
        return ""

    def log_size(self) -> int:
        with suppress(FileNotFoundError):
            return (self.root / "log" / "jens-update.log").stat().st_size
        return 0

    def age(self, until: float, *, gone_too: bool) -> None:
        """Let checkouts expire that nothing has needed since ``until``; a baseline that holds still holds afterwards.

        With ``gone_too``, also checkouts of repositories that are gone; their directories go with them.
        """
        config, layout = self._loaded
        unreferenced, before = retention.load(layout), baseline.load(config, layout)
        holds = before is not None and before.is_untouched(config, layout)
        may_go = {key for key in unreferenced if gone_too or before is None or key[0] in before.urls}
        aged = {key: 0.0 if since <= until and key in may_go else since for key, since in unreferenced.items()}
        retention.save(layout, aged)
        if before is not None and holds:
            baseline.renew(layout, before, (), retention.next_expiry(layout, config.main.retention), lambda *_: True)

    def make_room(self) -> bool:
        """Remove expired checkouts, as the start of a run does; whether all could be removed."""
        config, layout = self._loaded
        before = baseline.load(config, layout)
        return before is not None and scope.without_expired(config, layout, before) is not None

    @cached_property
    def _loaded(self) -> tuple[Config, Layout]:
        config = load_config(Path(self.config()))
        return config, Layout.of(config)

    def paths(self) -> dict[str, dict[str, str]]:
        """The paths in each environment, with their kinds."""
        tops = sorted(self.root.joinpath("environments").iterdir())
        return {top.name: {str(path.relative_to(top)): _kind(path) for path in sorted(top.rglob("*"))} for top in tops}

    def contents(self) -> dict[str, str]:
        """The content of each environment.conf."""
        return {path.parent.name: path.read_text() for path in self.root.glob("environments/*/environment.conf")}

    def entries(self) -> set[str]:
        """The branch links and the checkouts below clonedir."""
        return {str(path.relative_to(self.root / "clone")) for path in self.root.glob("clone/*/*/*")}

    def mirrors(self) -> set[str]:
        return {str(path.relative_to(self.root / "bare")) for path in self.root.glob("bare/*/*")}


def _kind(path: Path) -> str:
    if not path.exists():
        return observer.ANYTHING
    if path.is_symlink() and path.is_dir():
        return observer.TREE
    return observer.DIRECTORY if path.is_dir() else observer.FILE


def left_overs(root: Path) -> list[str]:
    """Files that a complete run never leaves: names that nobody reads, Git's locks, records without a checkout."""
    found = []
    for top in ("bare", "clone", "cache", "environments", "metadata"):
        for directory, directories, files in os.walk(root / top):
            names = [name for name in (*directories, *files) if name.startswith(_LEFT_OVER)]
            names += [name for name in files if name.endswith(".lock") and name != "jens.lock"]
            found += [os.path.join(directory, name) for name in names]
    for record in root.glob("bare/*/*/worktrees/*"):
        checkout = root / "clone" / record.relative_to(root / "bare").parents[1] / f".{record.name}"
        if not checkout.is_dir():
            found.append(f"{record}: no such checkout")
    return sorted(found)


@dataclass
class Round:
    """One kill and the run after it, with what a report of a failure needs."""

    number: int
    states: tuple[int, int]
    killed: str
    recovery: str
    git_killed: bool
    moment: float = 0.0
    logs: list[str] = field(default_factory=list)


@dataclass
class Controls:
    """Undisturbed instances, one for each state; they tell what the observer can expect between two states."""

    instances: list[Instance]

    def __post_init__(self) -> None:
        self._paths = [instance.paths() for instance in self.instances]
        self._contents = [instance.contents() for instance in self.instances]
        self._entries = [instance.entries() for instance in self.instances]

    def between(self, number: int, a: int, b: int) -> Expected:
        """Paths of both states must always be there; an environment of only one state is complete or absent."""
        before, after = self._paths[a], self._paths[b]
        both = sorted(before.keys() & after.keys())
        may_go = {name: before.get(name) or after[name] for name in sorted(before.keys() ^ after.keys())}
        optional = {}
        always = dict(may_go)
        for name in both:
            here, there = before[name], after[name]
            always[name] = {path: _common(here[path], there[path]) for path in here if path in there}
            optional[name] = {path: kind for path, kind in {**here, **there}.items() if path not in always[name]}
        contents = {
            name: tuple(sorted({found[name] for found in (self._contents[a], self._contents[b]) if name in found}))
            for name in always
        }
        entries = tuple(sorted(self._entries[a] & self._entries[b]))
        return Expected(number, always, tuple(may_go), optional, contents, entries)


def _common(a: str, b: str) -> str:
    return a if a == b else observer.ANYTHING


class CampaignError(AssertionError):
    """Something went wrong; the text says what, and what happened before."""


class Campaign:
    """A site, an instance whose runs are killed, and control instances whose runs are not."""

    def __init__(self, top: Path, seed: int) -> None:
        self.seed = seed
        self.kills = 0
        self.looks = 0
        self._chance = random.Random(seed)
        self._remotes = Remotes(top, self._chance, STATES)
        self._instance = Instance(top / "instance", self._remotes)
        self._controls = [Instance(top / f"control-{number}", self._remotes) for number in range(STATES)]
        self._scratch = top / "scratch"
        self._scratch.mkdir()
        self._expectations = 0
        self._safe = 0.0
        self._usual = {"POLL": 1.0, "ONDEMAND": 1.0}
        self._survivors: dict[int, str] = {}
        self._running: Run | None = None

    @contextmanager
    def going_on(self) -> Iterator[Campaign]:
        """Start all processes, and end them afterwards."""
        self._observer = Observer(self._scratch)
        with warm(self._scratch / "output") as tools:
            self._tools = tools
            try:
                self._begin()
                with self._observer.observing(self._instance.root):
                    yield self
            finally:
                self.looks = self._observer.looks
                self._end_survivors()

    def _begin(self) -> None:
        for number, control in enumerate(self._controls):
            self._remotes.go_to(number)
            self._run_to_end(control.config())
        self.controls = Controls(self._controls)
        self._run_to_end(self._instance.config())
        for number, mode in enumerate(self._usual, 1):
            self._usual[mode] = self._undisturbed((self._remotes.present + number) % STATES, mode)

    def _undisturbed(self, number: int, mode: str) -> float:
        """Go to another state in one undisturbed run; return its seconds."""
        self._flip(number, hint=mode == "ONDEMAND")
        begin = time.monotonic()
        self._run_to_end(self._instance.config(mode))
        seconds = time.monotonic() - begin
        assert compare(self._instance.root, self._controls[number].root) == []
        return seconds

    def _start(self, config: str) -> Run:
        self._running = self._tools.start("update", "-c", config)
        return self._running

    def abort(self) -> None:
        """Kill the present run, which seems to hang, so that the campaign fails."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def _run_to_end(self, config: str) -> None:
        code = self._start(config).wait()
        assert code == 0, (code, Path(config).parent.joinpath("log", "jens-update.log").read_text()[-4000:])
        assert faults_of(Path(config).parent) <= {"dangling link"}

    def _flip(self, number: int, *, hint: bool) -> None:
        before = self._remotes.state
        self._remotes.go_to(number)
        if hint:
            changed = self._remotes.state.changed_since(before)
            Queue(self._instance.root / "spool").add(RepoId(*repo.split("/")) for repo in changed)

    def rounds(self, kills: int) -> Iterator[Round]:
        """Yield rounds until there were so many kills. Raises CampaignError."""
        end = self.kills + kills
        while self.kills < end:
            this = self._round()
            try:
                self._fight(this)
                if self.kills % TIDY == 0 or self.kills == end:
                    self._tidy(this)
            except AssertionError as error:
                if isinstance(error, CampaignError):
                    raise
                raise self._failure(this, str(error)) from error
            yield this

    def _round(self) -> Round:
        chance, now = self._chance, self._remotes.present
        to = chance.choice([number for number in range(STATES) if number != now])
        mode = chance.choice(("POLL", "ONDEMAND", "ONDEMAND"))
        recovery = mode if chance.random() < 0.8 else "POLL"
        return Round(self._expectations, (now, to), mode, recovery, chance.random() < 0.5)

    def _fight(self, this: Round) -> None:
        chance = self._chance
        self._expect(*this.states)
        self._expire(0.5)
        self._flip(this.states[1], hint=this.killed == "ONDEMAND")
        size = self._instance.log_size()
        jobs = chance.choice((1, 4, 0))
        usual = self._usual[this.killed]
        this.moment = chance.uniform(0, usual * 1.05) if chance.random() < 0.6 else chance.uniform(0.5, 1.1) * usual
        run = self._start(self._instance.config(this.killed, jobs))
        time.sleep(this.moment)
        self._kill(run.pid, git_too=this.git_killed)
        code = run.wait()
        this.logs.append(self._instance.log(size))
        assert code in (0, -signal.SIGKILL), f"the run that was to be killed ended with {code}"
        if code == 0:  # the kill came too late: the machine is faster at the moment
            self._usual[this.killed] *= _FASTER
        else:
            self.kills += 1
            self._usual[this.killed] *= _SLOWER
        self._expire(0.5)
        size = self._instance.log_size()
        code = self._unlocked(self._instance.config(this.recovery, jobs))
        this.logs.append(self._instance.log(size))
        assert code == 0, f"the run after the kill ended with {code}"
        assert faults_of(self._instance.root) <= {"dangling link"}
        self._check(this, "after one more run")

    def _check(self, this: Round, when: str) -> None:
        differences = compare(self._instance.root, self._controls[this.states[1]].root)
        assert differences == [], f"{when} the instance is not as its control: {differences}"
        met = self._observer.met()
        assert met == [], "the reader met:\n" + "\n".join(met[:40])

    def _expect(self, now: int, to: int) -> None:
        """Tell the observer what to expect; afterwards nobody reads checkouts that were replaced before."""
        begin = time.time()
        self._expectations += 1
        self._observer.expect(self.controls.between(self._expectations, now, to))
        self._safe = begin

    def _expire(self, share: float) -> None:
        """Let unneeded checkouts expire with this probability, except those that somebody may still read."""
        if self._chance.random() < share:
            self._instance.age(self._safe, gone_too=share == 1 or self._chance.random() < 0.3)

    def _unlocked(self, config: str) -> int:
        """Run until the lock is free: a process that was killed just before its exec holds it for milliseconds."""
        end = time.monotonic() + 10
        while True:
            code = self._start(config).wait()
            if code != LOCKED or time.monotonic() > end:
                return code
            time.sleep(0.02)

    def _kill(self, pid: int, *, git_too: bool) -> None:
        """Send SIGKILL to the run's process group, and with ``git_too`` to the Git sessions that it has started."""
        os.kill(pid, signal.SIGSTOP)  # it must not start more of them
        children = _children(pid)
        for child in children if git_too else ():
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        self._survivors = {child: began for child, began in self._survivors.items() if _is_alive(child, began)}
        self._survivors.update(children)

    def _tidy(self, this: Round) -> None:
        """Let everything expire, and run without a kill; the instance must then be like its control."""
        self._wait_for_survivors()
        self._expect(this.states[1], this.states[1])
        self._expire(1)
        self._run_to_end(self._instance.config())
        self._check(this, "after two more runs")
        control = self._controls[this.states[1]]
        assert left_overs(self._instance.root) == []
        assert self._instance.entries() == control.entries()
        assert self._instance.mirrors() == control.mirrors()

    def _wait_for_survivors(self) -> None:
        end = time.monotonic() + 30
        while any(_is_alive(child, began) for child, began in self._survivors.items()) and time.monotonic() < end:
            time.sleep(0.01)

    def _end_survivors(self) -> None:
        for child, began in self._survivors.items():
            if _is_alive(child, began):
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)

    def _failure(self, this: Round, reason: str) -> CampaignError:
        lines = [f"seed {self.seed}, kill {self.kills}, states {this.states}, {this.killed} killed after"]
        lines[0] += f" {this.moment * 1000:.0f} ms of {self._usual[this.killed] * 1000:.0f}, Git too: {this.git_killed}"
        lines += [f"then {this.recovery}", reason]
        for name, text in zip(("killed", "after"), this.logs):
            complaints = [line for line in text.splitlines() if " INFO " not in line]
            lines += [f"--- log of the run {name}", *complaints, "--- its end", text[-6000:]]
        return CampaignError("\n".join(lines))


def _children(pid: int) -> dict[int, str]:
    """The children of a process, each with its start time: proc(5)."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        parent, began = _stat(int(name))
        if parent == pid:
            found[int(name)] = began
    return found


def _stat(pid: int) -> tuple[int, str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1, ""
    return (-1 if fields[0] == "Z" else int(fields[1])), fields[19]


def _is_alive(pid: int, began: str) -> bool:
    parent, since = _stat(pid)
    return parent != -1 and since == began
