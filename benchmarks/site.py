"""The reference site: remotes, metadata and a configuration; benchmarks choose its size.

At scale 1: 260 modules, 150 hostgroups, hieradata and site, each with 60 files (one in twenty with 480) and 20
commits; 160 environments: production, qa, 148 with one to three overrides, 10 snapshots of 80 pins. It is the same
each time. ``python benchmarks/site.py DIRECTORY [SCALE]`` makes a site to look at.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

COMMITS, FILES, MANY_FILES, ONE_IN = 20, 60, 480, 20
SNAPSHOTS, PINS = 10, 80
_WHEN = 1_600_000_000
_PARTS = ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata", "remotes")


@dataclass(frozen=True)
class Repository:
    """One remote: its commits from the first to the last, and the branches that overrides use."""

    name: str
    path: Path
    commits: tuple[str, ...]
    branches: tuple[str, ...]


def _git(*arguments: str, directory: Path, stdin: bytes | None = None) -> str:
    command = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *arguments]
    done = subprocess.run(command, cwd=directory, input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


def _tops(name: str) -> tuple[str, ...]:
    if name == "common/site":
        return ("code",)
    if name == "common/hieradata":
        return ("data",)
    return ("code", "data") if name.startswith("modules/") else ("code", "data/hostgroup", "data/fqdns")


def _text(chance: random.Random, name: str, number: int) -> bytes:
    """Text that compresses as well as Puppet code."""
    lines = [f"# {name} {number}", f"class c{number} {{"]
    lines += [
        f"  file {{ '/etc/{name}/{chance.randrange(10**9)}': ensure => file }}" for _ in range(chance.randrange(40))
    ]
    return "\n".join([*lines, "}\n"]).encode()


class Stream:
    """Input for git fast-import."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._mark = 0

    def commit(self, branch: str, files: Mapping[str, bytes], parent: int = 0) -> int:
        """Add a commit; return its mark."""
        self._mark += 1
        head = f"commit refs/heads/{branch}\nmark :{self._mark}\ncommitter Ann <ann@example.org> "
        head += f"{_WHEN + 60 * self._mark} +0000\ndata 5\npush\n" + (f"from :{parent}\n" if parent else "")
        self._parts.append(head.encode())
        for path, content in files.items():
            self._parts.append(f"M 644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
        return self._mark

    def branch(self, name: str, at: int) -> None:
        """Add a branch at an earlier commit, given by its mark."""
        self._parts.append(f"reset refs/heads/{name}\nfrom :{at}\n\n".encode())

    def run(self, bare: Path) -> list[str]:
        """Make the repository; return the ids of its commits in order."""
        bare.mkdir(parents=True)
        _git("init", "-q", "--bare", "--initial-branch=master", "--template=", ".", directory=bare)
        _git("fast-import", "--quiet", "--export-marks=marks", directory=bare, stdin=b"".join(self._parts))
        marks = dict(line[1:].split() for line in (bare / "marks").read_text().splitlines())
        _git("pack-refs", "--all", directory=bare)
        return [marks[str(number)] for number in range(1, self._mark + 1)]


def _make_repository(path: Path, name: str, number: int, branches: tuple[str, ...]) -> Repository:
    chance = random.Random(name)
    stream, tops = Stream(), _tops(name)
    count = MANY_FILES if number % ONE_IN == 0 else FILES
    paths = [f"{chance.choice(tops)}/d{index % 12}/f{index}.pp" for index in range(count)]
    paths[: len(tops)] = [f"{top}/init.pp" for top in tops]
    mark = 0
    for index in range(COMMITS):
        changed = paths if index == 0 else chance.sample(paths, 5)
        mark = stream.commit("master", {path: _text(chance, name, index) for path in changed}, mark)
    stream.branch("qa", mark - 2)
    for branch in branches:
        stream.commit(branch, {paths[0]: _text(chance, name, 99)}, mark)
    return Repository(name, path, tuple(stream.run(path)[:COMMITS]), branches)


class Site:
    """The site and one instance, all below one directory."""

    def __init__(self, root: Path, scale: float = 1.0) -> None:
        self.root = root
        for part in _PARTS:
            (root / part).mkdir(parents=True, exist_ok=True)
        self._names = ["common/hieradata", "common/site"]
        self._names += [f"hostgroups/h{number}" for number in range(round(150 * scale))]
        self._names += [f"modules/m{number}" for number in range(round(260 * scale))]
        self.environments = max(3, round(160 * scale))
        overrides = dict(self._draw_overrides(random.Random(1), scale))
        wanted: dict[str, set[str]] = {}
        for repos in overrides.values():
            for name, branch in repos.items():
                wanted.setdefault(name, set()).add(branch)
        remotes = root / "remotes"
        with ThreadPoolExecutor(4) as pool:
            made = pool.map(
                lambda item: _make_repository(
                    remotes / f"{item[1]}.git", item[1], item[0], tuple(sorted(wanted.get(item[1], ())))
                ),
                enumerate(self._names),
            )
        self.repositories = {repository.name: repository for repository in made}
        self._write_metadata(overrides, scale)
        self.config()

    def _draw_overrides(self, chance: random.Random, scale: float) -> Iterator[tuple[str, dict[str, str]]]:
        count = self.environments - 2 - round(SNAPSHOTS * scale)
        for number in range(count):
            repos = chance.sample(self._names[2:], chance.choice((1, 2, 3)))
            yield f"dev{number}", dict.fromkeys(repos, f"dev{number % 34}")

    def _write_metadata(self, overrides: Mapping[str, Mapping[str, str]], scale: float) -> None:
        chance = random.Random(2)
        texts = {"production": _definition("master", {}), "qa": _definition("qa", {})}
        texts |= {name: _definition("master", repos) for name, repos in overrides.items()}
        for number in range(round(SNAPSHOTS * scale)):
            names = chance.sample(self._names, min(PINS, len(self._names)))
            pins = {name: f"commit/{chance.choice(self.repositories[name].commits[-6:])}" for name in names}
            texts[f"snap{number}"] = _definition(None, pins)
        library = "repositories:\n"
        for partition in ("common", "hostgroups", "modules"):
            entries = [name for name in self._names if name.startswith(partition)]
            library += f"  {partition}:\n"
            library += "".join(f"    {name.split('/')[1]}: '{self.url(name)}'\n" for name in entries)
        self._metadata("environments", {f"{name}.yaml": text.encode() for name, text in texts.items()})
        self._metadata("repository", {"repositories.yaml": library.encode()})

    def _metadata(self, name: str, files: Mapping[str, bytes]) -> None:
        stream = Stream()
        stream.commit("master", files)
        stream.run(self.root / "remotes" / f"{name}.git")
        _git("clone", "-q", f"file://{self.root}/remotes/{name}.git", f"metadata/{name}", directory=self.root)

    def url(self, name: str) -> str:
        """The URL of a repository in the library."""
        return f"file://{self.root}/remotes/{name}.git"

    def config(self, name: str = "main", **settings: str) -> Path:
        """Write a configuration of the instance; ``settings`` belong to section main, those named ``git_…`` to git."""
        path = self.root / f"{name}.conf"
        lines = ["[main]", "mandatorybranches = master, qa"]
        lines += [f"{part}dir = {self.root / part}" for part in ("bare", "clone", "cache", "environments", "log")]
        lines += [f"environmentsmetadatadir = {self.root}/metadata/environments"]
        lines += [f"repositorymetadatadir = {self.root}/metadata/repository"]
        lines += [f"repositorymetadata = {self.root}/metadata/repository/repositories.yaml"]
        lines += [f"{key} = {value}" for key, value in settings.items() if not key.startswith("git_")]
        lines += ["[filelock]", f"lockdir = {self.root}/lock", "[messaging]", f"queuedir = {self.root}/spool", "[git]"]
        lines += [f"{key[4:]} = {value}" for key, value in settings.items() if key.startswith("git_")]
        path.write_text("\n".join(lines) + "\n")
        return path

    def push(self, names: list[str], note: str) -> None:
        """Push one commit to branch master of each of these repositories."""
        for name in names:
            stream = "commit refs/heads/master\ncommitter Ann <ann@example.org> now\ndata 4\npush\n"
            stream += f"from refs/heads/master^0\nM 644 inline code/pushed.pp\ndata {len(note)}\n{note}\n"
            arguments = ("fast-import", "--quiet", "--date-format=now")
            _git(*arguments, directory=self.repositories[name].path, stdin=stream.encode())


def _definition(default: str | None, overrides: Mapping[str, str]) -> str:
    text = f"default: {default}\n" if default else ""
    text += "notifications: ann@example.org\n" + ("overrides:\n" if overrides else "")
    for partition in ("common", "hostgroups", "modules"):
        refs = {name: ref for name, ref in overrides.items() if name.startswith(partition)}
        text += f"  {partition}:\n" if refs else ""
        text += "".join(f"    {name.split('/')[1]}: {ref}\n" for name, ref in sorted(refs.items()))
    return text


if __name__ == "__main__":
    Site(Path(sys.argv[1]).resolve(), float(sys.argv[2]) if sys.argv[2:] else 1.0)
