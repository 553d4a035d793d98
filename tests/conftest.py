"""A site for the tests: remotes that teams push to, an instance of Jens, and what Puppet sees after a run."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Callable

import pytest
from dirq.queue import Queue

from jens.commands import deliver, update
from jens.system import clock
from jens.system.clock import Moment
from tests import TREE
from tests.everything import everything_below

_REAL_HOME = Path(os.path.expanduser("~"))
_FORBIDDEN = tuple(str(path) for path in (_REAL_HOME, Path("/etc"), Path("/var")))
_CHECKOUT_OF_JENS = str(TREE)
_guarding = False

MODULE = {"code/manifests/init.pp": "class dummy {}\n", "data/dummy.yaml": "--- {}\n"}
HOSTGROUP = {
    "code/manifests/init.pp": "class hg_myapp {}\n",
    "data/hostgroup/myapp.yaml": "--- {}\n",
    "data/fqdns/web01.example.org.yaml": "--- {}\n",
}
SITE_CODE = {"code/site.pp": "node default {}\n"}
HIERADATA = {
    "data/common.yaml": "--- {}\n",
    "data/environments/production.yaml": "--- {}\n",
    "data/hardware/kvm.yaml": "--- {}\n",
    "data/operatingsystems/RedHat.yaml": "--- {}\n",
}


# A shell ignores these signals in background jobs. Programs that the tests start would inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    """Stop a test that is about to write to a directory of the real system."""
    if not _guarding or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"):
        return
    if event == "open" and not (
        isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        return
    for argument in arguments[event == "os.symlink" : 2]:  # a link may lead anywhere
        path = os.fspath(argument) if isinstance(argument, (str, os.PathLike)) else ""
        if isinstance(path, str) and path.startswith(_FORBIDDEN) and not path.startswith(_CHECKOUT_OF_JENS):
            raise AssertionError(f"a test is about to touch {path} ({event})")


sys.addaudithook(_guard)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember which tests passed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        _passed[item.nodeid] = report.passed


_passed: dict[str, bool] = {}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep tests away from $HOME, /etc, /var and the caller's Git configuration; delete the files of passed tests."""
    global _guarding  # noqa: PLW0603 - an audit hook cannot be removed, only switched off
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[init]\n\tdefaultBranch = main\n[core]\n\tautocrlf = true\n[user]\n\tname = Ann\n\temail = ann@example.org\n"
    )
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "GIT_SSH", "GIT_SSH_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["jens-test"])
    _guarding = not str(tmp_path).startswith(_FORBIDDEN)
    yield
    _guarding = False
    if _passed.pop(request.node.nodeid, False):  # or millions of files would slow down the file system
        monkeypatch.undo()
        try:
            shutil.rmtree(tmp_path, ignore_errors=True)
        except RecursionError:  # some tests make very deep trees
            subprocess.run(["rm", "-rf", tmp_path], check=False)


def git(*arguments: str, directory: Path, stdin: bytes | None = None) -> str:
    """Run Git as a user of the site does, and return its stdout."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        input=stdin,
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, (arguments, done.stderr.decode())
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def take_over(clone: Path) -> None:
    """Fetch into a clone of metadata, and move its branch as a run does."""
    git("fetch", "-q", directory=clone)
    git("reset", "-q", "--soft", "origin/master", directory=clone)


def let_pass(monkeypatch: pytest.MonkeyPatch, seconds: float, *, jump: float = 0) -> None:
    """Let so many seconds pass from now on, and no more, and set the clock ahead by ``jump`` seconds."""
    begin = Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), clock.boot_id())
    later = begin._replace(wall=begin.wall + seconds + jump, up=begin.up + seconds)
    monkeypatch.setattr(clock, "now", lambda: later)


def definition(
    default: str | None = "master", overrides: Mapping[str, str] | None = None, *, more: str = "", mail: str = "ann"
) -> str:
    """The text of a definition; ``overrides`` maps ``partition/name`` to a ref, ``more`` has lines of its top level."""
    text = f"default: {default}\n" if default else ""
    text += f"notifications: {mail}@example.org\n{more}"
    for partition in ("common", "hostgroups", "modules"):
        refs = {repo: ref for repo, ref in (overrides or {}).items() if repo.startswith(f"{partition}/")}
        text += "overrides:\n" if refs and "overrides:\n" not in text else ""
        text += f"  {partition}:\n" if refs else ""
        text += "".join(f"    {repo.split('/')[1]}: {ref}\n" for repo, ref in refs.items())
    return text


# Nearly every test needs these repositories. They are made once and copied, which takes a tenth of the time.


@functools.cache
def _templates() -> Path:
    top = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, top)
    return top


@functools.cache
def _empty_repository() -> Path:
    path = _templates() / "empty.git"
    git("init", "--quiet", "--bare", "--template=", "--initial-branch=master", str(path), directory=path.parent)
    git("config", "uploadpack.allowAnySHA1InWant", "true", directory=path)
    (path / "hooks").mkdir()
    return path


@functools.cache
def _repository_of(files: tuple[tuple[str, str], ...]) -> Path:
    path = Path(tempfile.mkdtemp(dir=_templates())) / "first.git"
    Remote.create(path).push(dict(files))
    return path


@functools.cache
def _metadata() -> Path:
    """The two metadata repositories, and a clone of each."""
    top = _templates() / "site"
    for name, place, text in (
        ("environments", "environments", "environments"),
        ("repository", "repositories", "library"),
    ):
        remote = Remote.create(top / "remotes" / place)
        remote.push({"README": f"The {text}\n"})
        git("clone", "-q", "--template=", remote.url, str(top / "metadata" / name), directory=top)
    return top


@dataclass
class Remote:
    """A repository on a Git server."""

    path: Path

    @classmethod
    def create(cls, path: Path, files: Mapping[str, str] | None = None) -> Remote:
        """Make a repository that is empty, or has one commit on branch master."""
        shutil.copytree(_repository_of(tuple(files.items())) if files else _empty_repository(), path)
        return cls(path)

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def push(
        self, files: Mapping[str, str | None], branch: str = "master", *, onto: str | None = None, rewrite: bool = False
    ) -> str:
        """Commit changes (None deletes) on a branch and return the commit's id.

        A new branch begins at ``onto``, if that is given; with ``rewrite`` the branch begins its history anew.
        """
        parent = None if rewrite else (self.find(branch) or (onto and self.commit(onto)))
        lines = [f"commit refs/heads/{branch}\n", "committer Ann <ann@example.org> now\n", "data 4\npush\n"]
        lines += [f"from {parent}\n"] if parent else []
        for name, content in files.items():
            if content is None:
                lines.append(f"D {name}\n")
            else:
                lines.append(f"M 100644 inline {name}\ndata {len(content.encode())}\n{content}\n")
        stream = "".join(lines).encode()
        git("fast-import", "--quiet", "--force", "--date-format=now", directory=self.path, stdin=stream)
        return self.commit(branch)

    def find(self, branch: str) -> str | None:
        """The commit of a branch, or None; reads the repository's files, because tests ask very often."""
        try:
            return (self.path / "refs" / "heads" / branch).read_text().strip()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            packed = self.path / "packed-refs"
            lines = packed.read_text().splitlines() if packed.exists() else []
            return next((line[:40] for line in lines if line[41:] == f"refs/heads/{branch}"), None)

    def commit(self, branch: str = "master") -> str:
        found = self.find(branch)
        assert found, f"{self.path} has no branch {branch}"
        return found

    def delete(self, branch: str) -> None:
        git("update-ref", "-d", f"refs/heads/{branch}", directory=self.path)

    def branch(self, name: str, at: str = "master") -> None:
        git("update-ref", f"refs/heads/{name}", self.commit(at), directory=self.path)

    def tag(self, name: str, at: str = "master", *, annotated: bool = False) -> str:
        """Make or move a tag to a branch or an object, and return that commit's id."""
        what = ["-a", "-m", f"Release {name}"] if annotated else []
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        git(*who, "tag", "--force", *what, name, at, directory=self.path)
        return git("rev-parse", f"refs/tags/{name}^{{}}", directory=self.path)

    def go_away(self) -> None:
        """Become unreachable, until ``come_back``."""
        self.path.rename(self.path.with_name(f"{self.path.name}.away"))

    def come_back(self) -> None:
        self.path.with_name(f"{self.path.name}.away").rename(self.path)


def interrupt(tool: str, arguments: Iterable[str], at: str, scratch: Path) -> tuple[int, str, str]:
    """Press Ctrl-C while a tool is in the function ``at``; return its exit code, stdout and stderr."""
    reached = scratch / "reached"
    os.mkfifo(reached)
    program = f"""
import importlib, sys, time
module, _, name = {at!r}.rpartition(".")
def for_ever(*_, **__):
    open({str(reached)!r}, "w").close()
    for _ in range(600):
        time.sleep(0.1)  # a signal that comes just before a sleep does not shorten it
setattr(importlib.import_module(module), name, for_ever)
sys.argv[0] = "jens-{tool}"
sys.exit(importlib.import_module("jens.commands.{tool}").main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": _CHECKOUT_OF_JENS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    reached.read_bytes()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@dataclass
class Outcome:
    """The result of a run, as an administrator sees it."""

    code: int
    stdout: str
    stderr: str
    log: str

    def lines(self, level: str = "") -> list[str]:
        """The log's lines without time and process; only those that begin with ``level``, if it is given."""
        lines = [line.split("] ", 1)[1] for line in self.log.splitlines() if "] " in line]
        return [line for line in lines if line.startswith(level)]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines())


def assert_complaint(outcome: Outcome, code: int, *words: str) -> None:
    """The tool ended with this code, printed one line with these words to stderr, and nothing to stdout."""
    assert (outcome.code, outcome.stdout) == (code, "")
    [line] = outcome.stderr.splitlines()
    assert all(word in line for word in words), (words, line)
    assert "Traceback" not in outcome.log


def faults_of(root: Path) -> set[str]:
    """The kinds of the faults that are open after a run, in which nothing failed, of the instance in this directory."""
    content = json.loads((root / "cache" / "last-run.json").read_text())["content"]
    assert content["failed"] == []
    return {fault["kind"] for fault in content["faults"]}


@dataclass
class Site:
    """Remotes, the two metadata repositories, and one instance of Jens."""

    root: Path
    capture: pytest.CaptureFixture[str]
    settings: dict[str, str] = field(default_factory=dict)
    remotes: dict[str, Remote] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("bare", "clone", "cache", "environments", "log", "lock", "spool"):
            (self.root / name).mkdir(parents=True)
        for name in ("remotes", "metadata"):
            shutil.copytree(_metadata() / name, self.root / name)
        for config in self.root.glob("metadata/*/.git/config"):
            config.write_text(config.read_text().replace(str(_metadata()), str(self.root)))
        self.library = Remote(self.root / "remotes" / "repositories")
        self.definitions = Remote(self.root / "remotes" / "environments")

    # What teams do

    def add(self, repo: str, files: Mapping[str, str] | None = None, branches: tuple[str, ...] = ()) -> Remote:
        """Make a repository with master, and ``branches`` at the same commit; ``publish`` adds it to the library."""
        kinds = {"modules": MODULE, "hostgroups": HOSTGROUP, "common/site": SITE_CODE, "common/hieradata": HIERADATA}
        content = files or kinds.get(repo) or kinds[repo.split("/", maxsplit=1)[0]]
        remote = Remote.create(self.root / "remotes" / f"{repo}.git", content)
        for branch in branches:
            remote.branch(branch)
        self.remotes[repo] = remote
        self.urls[repo] = remote.url
        return remote

    def publish(self, text: str | None = None) -> None:
        """Push the library with the content of ``urls``, or with another text."""
        if text is None:
            text = "repositories:\n"
            for partition in ("common", "hostgroups", "modules"):
                entries = {repo: url for repo, url in sorted(self.urls.items()) if repo.startswith(f"{partition}/")}
                text += f"  {partition}:{'' if entries else ' {}'}\n"
                text += "".join(f"    {repo.split('/')[1]}: '{url}'\n" for repo, url in entries.items())
        self.library.push({"repositories.yaml": text})

    def define(self, name: str, text: str = "default: master\nnotifications: ann@example.org\n") -> None:
        """Push a definition."""
        self.definitions.push({f"{name}.yaml": text})

    def retire(self, name: str) -> None:
        """Push the removal of a definition."""
        self.definitions.push({f"{name}.yaml": None})

    # What producers do

    @property
    def queue(self) -> Queue:
        """The queue of hints, opened with python-dirq."""
        return Queue(str(self.root / "spool"), schema={"time": "string", "data": "binary"})

    def hint(self, *repos: str) -> str:
        """Add a hint without the code of Jens, and return the name of its element."""
        content: dict[str, list[str]] = {}
        for repo in repos:
            partition, _, name = repo.partition("/")
            content.setdefault(partition, []).append(name)
        return str(self.queue.add({"time": datetime.now().isoformat(), "data": pickle.dumps(content)}))

    def hinted(self) -> list[str]:
        """The repositories that the queue has hints for, once for each hint."""
        queue, found = self.queue, []
        for name in queue.names():
            content = pickle.loads((self.root / "spool" / name / "data").read_bytes())  # noqa: S301 - our own
            found += [f"{partition}/{repo}" for partition, repos in content.items() for repo in repos]
        return sorted(found)

    # What the administrator does

    @property
    def config(self) -> Path:
        path = self.root / "main.conf"
        settings = {
            **{f"main.{name}dir": str(self.root / name) for name in ("bare", "clone", "cache", "environments", "log")},
            "main.environmentsmetadatadir": str(self.root / "metadata" / "environments"),
            "main.repositorymetadatadir": str(self.root / "metadata" / "repository"),
            "main.repositorymetadata": str(self.root / "metadata" / "repository" / "repositories.yaml"),
            "main.mandatorybranches": "master,",
            "main.common_hieradata_items": "common.yaml, environments, hardware, operatingsystems",
            "filelock.lockdir": str(self.root / "lock"),
            "messaging.queuedir": str(self.root / "spool"),
            "git.patience": "0",  # a run does all its work itself; tests/faults/test_transfers.py is about the rest
            **self.settings,
        }
        sections: dict[str, list[str]] = {}
        for key, value in settings.items():
            section, name = key.split(".")
            sections.setdefault(section, []).append(f"{name} = {value}")
        path.write_text("".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items()))
        return path

    def update(self, *arguments: str) -> Outcome:
        """Run jens-update."""
        log = self.root / "log" / "jens-update.log"
        begin = log.stat().st_size if log.exists() else 0
        self.capture.readouterr()
        code = update.main(["-c", str(self.config), *arguments])
        captured = self.capture.readouterr()
        text = log.read_bytes()[begin:].decode() if log.exists() else ""
        return Outcome(code, captured.out, captured.err, text)

    def deliver(self, *arguments: str) -> Outcome:
        """Run jens-deliver."""
        self.capture.readouterr()
        log = self.root / "log" / "jens-deliver.log"
        begin = log.stat().st_size if log.exists() else 0
        code = deliver.main(["-c", str(self.config), *arguments])
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err, log.read_text()[begin:] if log.exists() else "")

    # What Puppet sees

    def read(self, path: str) -> str:
        """A file below environmentsdir."""
        return (self.root / "environments" / path).read_text()

    def exists(self, path: str) -> bool:
        """Whether there is something at a path below environmentsdir; links are followed."""
        return (self.root / "environments" / path).exists()

    def links(self, environment: str) -> dict[str, str]:
        """Every link of an environment, with its target as written."""
        top = self.root / "environments" / environment
        return {str(path.relative_to(top)): os.readlink(path) for path in sorted(top.rglob("*")) if path.is_symlink()}

    def dangling(self, environment: str) -> list[str]:
        """The links of an environment that lead nowhere."""
        return [link for link in self.links(environment) if not self.exists(f"{environment}/{link}")]

    def environments(self) -> list[str]:
        return sorted(os.listdir(self.root / "environments"))

    def expanded(self, repo: str) -> dict[str, str]:
        """The expanded branches of a repository, each with the name of its checkout."""
        clone = self.root / "clone" / repo
        return {path.name: os.readlink(path)[1:] for path in sorted(clone.iterdir()) if path.is_symlink()}

    def checkouts(self, repo: str) -> set[str]:
        """The commits of a repository that have a checkout."""
        clone = self.root / "clone" / repo
        return {path.name[1:] for path in clone.iterdir() if not path.is_symlink()} if clone.is_dir() else set()

    def path(self, repo: str, entry: str = "") -> Path:
        """A repository's directory below clonedir, or an entry of it."""
        return self.root / "clone" / repo / entry

    def listing(self, *tops: str) -> dict[str, str]:
        """Everything below these directories of the instance: kind and mode, and the link's target or the content.

        Baseline and history are left out, because they record times.
        """
        spared = [self.root / "cache" / name for name in ("baseline.json", "history.sqlite")]
        found = {path: what for top in tops for path, what in everything_below(self.root / top, spared).items()}
        return {path[len(f"{self.root}/") :]: what for path, what in found.items()}


@pytest.fixture
def bare_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site whose library is not written yet."""
    return Site(tmp_path / "site", capsys)


@pytest.fixture
def site(bare_site: Site) -> Site:
    """A small site: a module, a hostgroup, the common repositories, environment production. No run has happened yet."""
    for repo in ("common/hieradata", "common/site", "hostgroups/myapp", "modules/dummy"):
        bare_site.add(repo)
    bare_site.publish()
    bare_site.define("production")
    return bare_site


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Keep a measurement (what was measured, and the result), to be printed at the end of the test run."""
    return lambda what, result: record_property("measured", f"{what}: {result}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured, also in other processes."""
    reports = (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed"))
    figures = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if figures:
        terminalreporter.section("measured")
        for figure in sorted(figures):
            terminalreporter.line(figure)
