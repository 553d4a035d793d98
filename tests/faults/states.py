"""A site that has several very different states, and goes from one to another at once.

All commits of all states are in one object store. A state is a directory of remotes, which have only their own refs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import definition, git

ALWAYS = ("common/hieradata", "common/site", "hostgroups/h0", "modules/m0", "modules/m1", "modules/m2")
SOMETIMES = ("hostgroups/h1", "modules/m3", "modules/m4")
LIBRARY, DEFINITIONS = "repositories", "environments"

#: Each repository's commits: one history, and another that a force push moves branches to.
_LINES = (("c0", "c1", "c2", "c3"), ("r0", "r1"))
_COMMITS = tuple(name for line in _LINES for name in line)
_LARGE = {"modules/m2": 30}

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[uploadpack]\n\tallowAnySHA1InWant = true\n"


@dataclass(frozen=True)
class State:
    """The place of every repository, its branches with the names of their commits, and every definition."""

    places: Mapping[str, str]
    branches: Mapping[str, Mapping[str, str]]
    definitions: Mapping[str, str]

    def changed_since(self, before: State) -> list[str]:
        """The repositories whose branches moved, for hints."""
        return sorted(repo for repo in self.branches if self.branches[repo] != before.branches.get(repo))


def _directories(repo: str) -> list[str]:
    kinds = {
        "modules": ["code", "data"],
        "hostgroups": ["code", "data/hostgroup", "data/fqdns"],
        "common/site": ["code"],
        "common/hieradata": ["data/environments"],
    }
    return kinds.get(repo) or kinds[repo.split("/", maxsplit=1)[0]]


def _files(repo: str, name: str) -> dict[str, str]:
    more = _LARGE.get(repo, 4)
    files = {"data/common.yaml": f"--- {name}\n"} if repo == "common/hieradata" else {}
    for directory in _directories(repo):
        files.update({f"{directory}/{number}.pp": f"# {repo} {name} {number}\n" for number in range(more)})
        files.update({f"{directory}/{file}": f"{repo}@{name} {more + 2}\n" for file in ("one", "two")})
    return files


class Stream:
    """Input for git fast-import, and the mark of each commit."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.marks: dict[tuple[str, str], int] = {}

    def commit(self, repo: str, name: str, files: Mapping[str, str], parent: str = "") -> None:
        mark = self.marks[repo, name] = len(self.marks) + 1
        self._lines += [f"commit refs/heads/{repo}/{name}\n", f"mark :{mark}\n"]
        self._lines += [f"committer Ann <ann@example.org> {1600000000 + mark} +0000\n", "data 4\npush\n"]
        self._lines += [f"from :{self.marks[repo, parent]}\n"] if parent else []
        self._lines += ["deleteall\n"]
        self._lines += [f"M 644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in files.items()]

    def run(self, store: Path) -> dict[tuple[str, str], str]:
        """Import everything; return the ids of all commits."""
        git("init", "--quiet", "--bare", "--template=", str(store), directory=store.parent)
        marks = store / "marks"
        git("fast-import", "--quiet", f"--export-marks={marks}", directory=store, stdin="".join(self._lines).encode())
        ids = dict(line[1:].split() for line in marks.read_text().splitlines())
        return {key: ids[str(mark)] for key, mark in self.marks.items()}


class Remotes:
    """The remotes: ``remotes`` below ``top`` is a link to those of the present state."""

    def __init__(self, top: Path, chance: random.Random, count: int) -> None:
        self.top = top
        self._store = top / "store"
        stream = Stream()
        for repo in (*ALWAYS, *SOMETIMES):
            for line in _LINES:
                for parent, name in zip(("", *line), line):
                    stream.commit(repo, name, _files(repo, name), parent)
        ids = stream.run(self._store)
        usual = {repo: _branches(chance) for repo in (*ALWAYS, *SOMETIMES)}
        self.states = [_draw(chance, usual, ids) for _ in range(count)]
        self._open(ids)

    def _open(self, ids: dict[tuple[str, str], str]) -> None:
        """Make the remotes of all states; the first one is the present state."""
        metadata = Stream()
        for number, state in enumerate(self.states):
            metadata.commit(LIBRARY, str(number), {"repositories.yaml": self._library(state)})
            metadata.commit(DEFINITIONS, str(number), {f"{name}.yaml": s for name, s in state.definitions.items()})
        ids.update(metadata.run(self._store))
        for number, state in enumerate(self.states):
            for repo, branches in state.branches.items():
                self._write(number, state.places[repo], {name: ids[repo, at] for name, at in branches.items()})
            for repo in (LIBRARY, DEFINITIONS):
                self._write(number, repo, {"master": ids[repo, str(number)]})
        self.present = 0
        self.go_to(0)

    def url(self, place: str) -> str:
        return f"file://{self.top}/remotes/{place}"

    def _library(self, state: State) -> str:
        lines = ["repositories:"]
        for partition in ("common", "hostgroups", "modules"):
            repos = [repo for repo in sorted(state.places) if repo.startswith(partition)]
            lines.append(f"  {partition}:{'' if repos else ' {}'}")
            lines += [f"    {repo.split('/')[1]}: '{self.url(state.places[repo])}'" for repo in repos]
        return "\n".join(lines) + "\n"

    def _write(self, number: int, place: str, heads: Mapping[str, str]) -> None:
        path = self.top / f"state-{number}" / place
        (path / "refs").mkdir(parents=True)
        (path / "objects").symlink_to(self._store / "objects")
        (path / "HEAD").write_text("ref: refs/heads/master\n")
        (path / "config").write_text(_CONFIG)
        refs = "".join(f"{commit} refs/heads/{name}\n" for name, commit in sorted(heads.items()))
        (path / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{refs}")

    def go_to(self, number: int) -> None:
        """Move all remotes to another state at once."""
        aside = self.top / "remotes.new"
        aside.symlink_to(f"state-{number}")
        aside.rename(self.top / "remotes")
        self.present = number

    @property
    def state(self) -> State:
        return self.states[self.present]


def _draw(chance: random.Random, usual: Mapping[str, Mapping[str, str]], ids: Mapping[tuple[str, str], str]) -> State:
    """Draw a state of the site that differs much from any other; half of the repositories have their usual branches."""
    repos = [*ALWAYS, *(repo for repo in SOMETIMES if chance.random() < 0.6)]
    branches = {repo: usual[repo] if chance.random() < 0.5 else _branches(chance) for repo in repos}
    places = {repo: f"{repo}.git" for repo in repos}
    places["modules/m1"] = chance.choice(("modules/m1.git", "moved/m1", "moved again/m1.git"))
    definitions = {
        "production": definition(more=_parser(chance)),
        "qa": definition("qa", mail=chance.choice(("ann", "bob"))),
        "test": definition(chance.choice(("master", "dev")), _overrides(chance, branches, 5), more=_parser(chance)),
        "snap": definition(None, _pins(chance, branches, ids), more=_parser(chance)),
    }
    for name in ("e1", "e2", "e3"):
        if chance.random() < 0.5:
            definitions[name] = definition(chance.choice(("master", "dev", "qa")), _overrides(chance, branches, 3))
    if chance.random() < 0.5:
        definitions["s1"] = definition(None, _pins(chance, branches, ids))
    return State(places, branches, definitions)


def _branches(chance: random.Random) -> dict[str, str]:
    at = {name: chance.choice(_COMMITS) for name in ("master", "dev", "qa", "feature")}
    if chance.random() < 0.3:
        del at["qa"]
    # Git allows only one of these names at a time.
    at[chance.choice(("feature", "feature/x", "feature/x/y"))] = at.pop("feature")
    return at


def _overrides(chance: random.Random, branches: Mapping[str, Mapping[str, str]], count: int) -> dict[str, str]:
    """Override with branches; nearly all of them exist."""
    repos = chance.sample(sorted(branches), count)
    return {repo: chance.choice(sorted(branches[repo])) if chance.random() < 0.9 else "feature/gone" for repo in repos}


def _pins(
    chance: random.Random, branches: Mapping[str, Mapping[str, str]], ids: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """Override with commits, on a branch or not; only commits on a branch can be abbreviated."""
    pins = {}
    for repo in chance.sample(sorted(branches), 4):
        name = chance.choice((*_COMMITS, *branches[repo].values()))
        commit = ids[repo, name]
        short = name in branches[repo].values() and chance.random() < 0.5
        pins[repo] = f"commit/{commit[:10].upper() if short else commit}"
    return pins


def _parser(chance: random.Random) -> str:
    return chance.choice(("", "parser: current\n", "parser: future\n"))
