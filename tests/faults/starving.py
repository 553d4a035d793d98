"""A small site that goes back and forth between two states, and an instance that lacks room each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jens.tools.compare import compare
from tests.conftest import definition
from tests.faults.campaign import Controls, Instance, left_overs
from tests.faults.injector import NONE, Ended, Fault, runner
from tests.faults.observer import Observer
from tests.faults.states import Remotes, State, Stream

_FILES = {
    "common/hieradata": ("data/common.yaml", "data/environments/one", "data/environments/two"),
    "common/site": ("code/one", "code/two"),
    "modules": ("code/one", "code/two", "data/one", "data/two"),
}
_CODES = (0, 3, 20, 25, 30, 40, 51, 60)


def _repositories(number: int) -> dict[str, dict[str, str]]:
    """The branches of each repository; between the two states everything happens that can happen to a branch."""
    moved = str(number)
    return {
        "common/hieradata": {"master": "0"},
        "common/site": {"master": "0"},
        "modules/m0": {"master": moved, ("dev", "qa")[number]: "2"},
        ("modules/old", "modules/new")[number]: {"master": "0"},
    }


class TwoStates(Remotes):
    """Remotes with two states; half of the repositories differ."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._store = top / "store"
        stream = Stream()
        for repo in sorted({*_repositories(0), *_repositories(1)}):
            paths = _FILES.get(repo) or _FILES["modules"]
            for name in ("0", "1", "2"):
                stream.commit(repo, name, dict.fromkeys(paths, f"{repo}@{name}\n"))
        ids = stream.run(self._store)
        self.states = [self._state(number, ids["modules/m0", "2"]) for number in (0, 1)]
        self._open(ids)

    def _state(self, number: int, pinned: str) -> State:
        branches = _repositories(number)
        ref = ("dev", "qa")[number]
        definitions = {
            "production": definition(),
            "changed": definition("master", {"modules/m0": ref}, more=("", "parser: future\n")[number]),
            ("gone", "made")[number]: definition(None, {"modules/m0": f"commit/{pinned}"}),
        }
        return State({repo: f"{repo}.git" for repo in branches}, branches, definitions)


class Starving:
    """The instance, its two controls, and an observer that reads all the time."""

    def __init__(self, top: Path, *, watched: bool = True) -> None:
        self.remotes = TwoStates(top)
        self._watched = watched
        self.instance = Instance(top / "instance", self.remotes)
        self._controls = [Instance(top / f"control-{number}", self.remotes) for number in (0, 1)]
        self._scratch = top / "scratch"
        self._scratch.mkdir()
        self._observer = Observer(self._scratch)
        self._number = 0

    @contextmanager
    def going_on(self) -> Iterator[Starving]:
        """Start all processes, and end them afterwards."""
        with runner() as self._runner:
            for number, control in enumerate(self._controls):
                self.remotes.go_to(number)
                assert self._runner.update(control.config(), "--strict").code == 0
            self._known = Controls(self._controls)
            assert self._runner.update(self.instance.config(), "--strict").code == 0
            if self._watched:
                with self._observer.observing(self.instance.root):
                    yield self
                assert self._observer.looks > 0
            else:
                yield self

    @property
    def control(self) -> Instance:
        """An undisturbed instance in the present state."""
        return self._controls[self.remotes.present]

    def set_out(self, *, cleared: bool = False, gone_too: bool = True) -> None:
        """Change everything at the remotes; let replaced checkouts expire, and with ``cleared`` remove them.

        With ``gone_too`` checkouts of gone repositories expire, too. Without, the next run need not look at everything
        to remove the others.
        """
        self.instance.age(time.time(), gone_too=gone_too)
        if cleared and not self.instance.make_room():
            self.recover()
        here, there = self.remotes.present, 1 - self.remotes.present
        self._number += 1
        if self._watched:
            self._observer.expect(self._known.between(self._number, here, there))
        self.remotes.go_to(there)

    def run(self, fault: Fault = NONE) -> tuple[Ended, list[str]]:
        """Do one run, and return its ERROR lines; with any lack it must end with a known code, and no traceback."""
        size = self.instance.log_size()
        ended = self._runner.update(self.instance.config(), "--strict", fault=fault)
        log = self.instance.log(size)
        assert ended.code in _CODES, (ended, log)
        assert "Traceback" not in ended.stderr + log, (ended, log)
        said = ended.stderr.splitlines()
        assert ended.stdout == "", ended
        assert len(said) == (ended.code not in (0, 60)), ended
        return ended, [line.split("] ", 1)[1] for line in log.splitlines() if "] ERROR " in line]

    def differences(self) -> list[str]:
        """Where Puppet sees something else than in the control."""
        return list(map(str, compare(self.instance.root, self.control.root)))

    def recover(self) -> None:
        """Do one run without any lack: it must make up for everything, and no reader may have missed anything."""
        ended, errors = self.run()
        assert (ended.code, errors) == (0, []), (ended, errors)
        assert self.differences() == []
        left = left_overs(self.instance.root)
        assert left == [], left
        assert self.instance.mirrors() == self.control.mirrors()
        met = self._observer.met()
        assert met == [], met
