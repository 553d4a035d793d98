"""Runs from cron and from other unusual callers: what a run makes does not depend on its caller."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jens.commands import update
from tests import TREE
from tests.conftest import MODULE, Remote, Site, definition, faults_of, git
from tests.faults.users import NOBODY, PARTS, as_user, give, instance_of, needs_root

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"


@dataclass
class Caller:
    """How a shell calls jens-update; ``prefix`` has the shell's commands before it."""

    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "umask 022; cd /"
    suffix: str = "</dev/null"


class Place:
    """A site whose instance is made many times in the same place, so that every byte can be compared."""

    def __init__(self, site: Site, elsewhere: Path) -> None:
        self.site = site
        self.elsewhere = elsewhere
        remote = site.remotes[DUMMY]
        files = {"code/files/text.txt": "one\ntwo\n", "code/files/crlf.txt": "one\r\ntwo\r\n", ".gitattributes": _LURE}
        remote.push(files)
        self._commits = [remote.commit(), remote.push({INIT: "# pushed\n"})]
        _add_unusual_files(remote)
        self._commits.append(remote.commit())
        git("tag", "a-tag", self._commits[0], directory=remote.path)
        site.define("team", definition("qa", {DUMMY: "feature/x"}, more="parser: current\n"))
        site.settings["main.directory_environments"] = "True"
        self.begin()

    def begin(self) -> None:
        """Remove the instance, and begin again."""
        for part in PARTS:
            shutil.rmtree(self.site.root / part, ignore_errors=True)
            (self.site.root / part).mkdir()
        self._go_to(0)

    def _go_to(self, number: int) -> None:
        remote = self.site.remotes[DUMMY]
        for branch, at in (("master", number), ("qa", 0), ("feature/x", number + 1)):
            git("update-ref", f"refs/heads/{branch}", self._commits[at], directory=remote.path)

    def run(self, caller: Caller, *arguments: str) -> None:
        """Do a run, which must print nothing and write nowhere else."""
        before = _listing(self.elsewhere)
        script = f'{caller.prefix}; exec "$@" {caller.suffix}'
        tool = [sys.executable, "-B", f"{TREE}/bin/jens-update", "-c", str(self.site.config), *arguments]
        variables = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(TREE),
            "TMPDIR": str(self.elsewhere),
            **caller.variables,
        }
        variables = {name: value for name, value in variables.items() if value != "unset"}
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *tool],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), self.log()
        assert faults_of(self.site.root) <= {"dangling link"}
        assert _listing(self.elsewhere) == before

    def log(self) -> str:
        return (self.site.root / "log" / "jens-update.log").read_text()

    def make(self, caller: Caller) -> list[dict[str, str]]:
        """The instance after a first run, and after a second run that moves branches."""
        self.begin()
        found = []
        for number in (0, 1):
            self._go_to(number)
            self.run(caller)
            assert "ERROR" not in self.log()
            found.append(self.instance())
        return found

    def instance(self) -> dict[str, str]:
        """The content of the instance without times and without Git's objects, which may be packed in any way."""
        listing = self.site.listing("bare", "clone", "environments", "cache", "lock")
        objects = {what.split()[0] for path, what in listing.items() if "/objects/" in path}
        kept = {path: what for path, what in listing.items() if "/objects/" not in path}
        for path in kept:
            if path.endswith("/index") or path in ("cache/last-run.json", "cache/unreferenced.json"):
                kept[path] = kept[path].split()[0]
        return {**kept, "modes of objects": " ".join(sorted(objects))}


_LURE = "*.pp filter=lure diff=lure\n"


def _add_unusual_files(remote: Remote) -> None:
    """Push an executable file and a symbolic link, which settings could turn into ordinary files."""
    parent = remote.commit()
    stream = f"commit refs/heads/master\ncommitter Ann <ann@example.org> now\ndata 4\npush\nfrom {parent}\n"
    stream += "M 100755 inline code/files/run.sh\ndata 10\n#!/bin/sh\n\n"
    stream += "M 120000 inline code/files/link\ndata 8\ntext.txt\n"
    git("fast-import", "--quiet", "--date-format=now", directory=remote.path, stdin=stream.encode())


def differences(one: list[dict[str, str]], other: list[dict[str, str]]) -> dict[str, object]:
    """The differences of two instances after each run; the process that held a lock may differ."""
    return {
        path: [(a.get(path), b.get(path)) for a, b in zip(one, other)]
        for path in sorted({path for found in (*one, *other) for path in found})
        if not path.endswith(("/jens.lock", "lock/jens"))
        and any(a.get(path) != b.get(path) for a, b in zip(one, other))
    }


def _listing(top: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(top.rglob("*"))}


@pytest.fixture
def place(site: Site, tmp_path: Path) -> Place:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return Place(site, elsewhere)


def lure(place: Place) -> str:
    """A command that leaves a trace when it runs."""
    path = place.elsewhere / "lure"
    path.write_text(f"#!/bin/sh\ntouch {place.elsewhere}/caught-$$\ncat\n")
    path.chmod(0o755)
    return str(path)


def hooks(place: Place) -> Path:
    """A directory of hooks; each would leave a trace, and fail."""
    directory = place.elsewhere / "templates" / "hooks"
    directory.mkdir(parents=True)
    for name in ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc", "post-merge"):
        path = directory / name
        path.write_text(f"#!/bin/sh\ntouch {place.elsewhere}/hooked-{name}-$$\nexit 1\n")
        path.chmod(0o755)
    (directory.parent / "description").write_text("from a template\n")
    return directory


def settings(place: Place) -> str:
    """A configuration of Git that changes as much as it can."""
    program, hook = lure(place), hooks(place)
    attributes = place.elsewhere / "attributes"
    attributes.write_text("* text eol=crlf filter=lure\n")
    return f"""
[core]
\thooksPath = {hook}
\tautocrlf = true
\teol = crlf
\tfileMode = false
\tsymlinks = false
\tbare = true
\tworktree = {place.elsewhere}
\tsharedRepository = world
\tlogAllRefUpdates = always
\tfsmonitor = {program}
\tattributesFile = {attributes}
\texcludesFile = {attributes}
\tpager = {program}
\tcompression = 0
[init]
\tdefaultBranch = trunk
\ttemplateDir = {hook.parent}
\tdefaultObjectFormat = sha256
\tdefaultRefFormat = reftable
[clone]
\tdefaultRemoteName = upstream
[extensions]
\tobjectFormat = sha256
\tworktreeConfig = true
[fetch]
\tprune = true
\tpruneTags = true
\trecurseSubmodules = true
\tfsckObjects = true
\tunpackLimit = 1
\twriteCommitGraph = true
\tshowForcedUpdates = false
[submodule]
\trecurse = true
[transfer]
\tfsckObjects = true
\tunpackLimit = 1
[gc]
\tauto = 1
\tautoDetach = true
[maintenance]
\tauto = true
[protocol]
\tallow = never
[protocol "file"]
\tallow = never
[safe]
\tbareRepository = explicit
[tag]
\tgpgSign = true
[remote "origin"]
\tfetch = +refs/*:refs/*
\ttagOpt = --tags
\tprune = true
[filter "lure"]
\tsmudge = {program}
\tclean = {program}
\tprocess = {program}
\trequired = true
[diff "lure"]
\ttextconv = {program}
[user]
\tuseConfigOnly = true
[feature]
\texperimental = true
\tmanyFiles = true
"""


# Variables and settings of the caller


def test_a_poor_caller_gets_what_any_other_gets(place: Place, tmp_path: Path) -> None:
    plain = place.make(Caller({"HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", "USER": "ann"}))
    file = tmp_path / "a file"
    file.write_text("")
    gone = tmp_path / "gone"
    callers = {
        "as cron does": Caller({"SHELL": "/bin/sh"}, "umask 077; cd /"),
        "no path, no home": Caller({"PATH": "unset", "HOME": str(tmp_path / "nothing"), "LANG": "C"}, "umask 027"),
        "all closed, nowhere": Caller(
            {"HOME": str(file), "LANG": "xx_YY"},
            f"umask 000; mkdir {gone}; cd {gone}; rmdir {gone}",
            "<&- >&- 2>&-",
        ),
        "few files": Caller({}, "umask 077; ulimit -n 256; ulimit -c 0"),
    }
    for name, caller in callers.items():
        assert differences(place.make(caller), plain) == {}, name
    top = place.site.root
    assert stat.S_IMODE((top / "clone" / DUMMY / "master" / INIT).stat().st_mode) == 0o644
    assert stat.S_IMODE((top / "clone" / DUMMY / "feature~x" / "code" / "files" / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "environments" / "team" / "modules").stat().st_mode) == 0o755


def test_variables_of_git_change_nothing_and_leave_no_trace(place: Place) -> None:
    plain = place.make(Caller())
    top, program, hook = place.elsewhere, lure(place), hooks(place)
    (top / "config").write_text(f"[core]\n\thooksPath = {hook}\n\tautocrlf = true\n[bad\n")
    trap = top / "trap"
    git("init", "-q", "--template=", str(trap), directory=top)
    variables = {
        **dict.fromkeys(("GIT_DIR", "GIT_COMMON_DIR"), f"{trap}/.git"),
        "GIT_WORK_TREE": str(trap),
        "GIT_INDEX_FILE": f"{trap}/index",
        "GIT_OBJECT_DIRECTORY": f"{trap}/.git/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f"{trap}/none",
        "GIT_NAMESPACE": "trap",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_EXEC_PATH": str(top),
        "GIT_TEMPLATE_DIR": str(hook.parent),
        "GIT_CONFIG": f"{top}/config",
        "GIT_CONFIG_GLOBAL": f"{top}/config",
        "GIT_CONFIG_SYSTEM": f"{top}/config",
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={hook}' 'remote.origin.fetch=+refs/*:refs/*'",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": program,
        "GIT_CONFIG_KEY_1": "core.autocrlf",
        "GIT_CONFIG_VALUE_1": "true",
        **dict.fromkeys(("GIT_TRACE", "GIT_TRACE_SETUP", "GIT_TRACE_PACKET", "GIT_TRACE2"), f"{top}/trace"),
        **dict.fromkeys(("GIT_TRACE2_EVENT", "GIT_TRACE2_PERF", "GIT_TRACE_REFS"), f"{top}/trace2"),
        **dict.fromkeys(("GIT_PAGER", "PAGER", "GIT_EDITOR", "EDITOR", "GIT_EXTERNAL_DIFF", "GIT_ASKPASS"), program),
        **dict.fromkeys(("SSH_ASKPASS", "VISUAL", "GIT_PROXY_COMMAND", "GIT_SEQUENCE_EDITOR"), program),
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_DEFAULT_REF_FORMAT": "reftable",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_QUARANTINE_PATH": str(trap),
        "GIT_SHALLOW_FILE": f"{trap}/shallow",
        "GIT_GRAFT_FILE": f"{trap}/grafts",
        "GIT_REPLACE_REF_BASE": "refs/heads/",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ICASE_PATHSPECS": "1",
        "GIT_TERMINAL_PROMPT": "1",
        "GIT_PREFIX": "trap/",
        "GIT_ATTR_SOURCE": "HEAD",
        "GIT_PYTHON_GIT_EXECUTABLE": "/nonexistent/git",
        "GIT_PYTHON_REFRESH": "raise",
        "GIT_PYTHON_TRACE": "full",
    }
    assert differences(place.make(Caller(variables)), plain) == {}


def test_settings_of_the_user_change_nothing_but_the_way_to_remotes(place: Place, tmp_path: Path) -> None:
    home = tmp_path / "another home"
    home.mkdir()
    plain = place.make(Caller({"HOME": str(home)}))
    extra = Remote.create(place.elsewhere / "extra.git")
    extra.push(MODULE)
    text = settings(place)
    (home / ".gitconfig").write_text(f'{text}[url "{extra.url}"]\n\tinsteadOf = https://git.example.org/extra.git\n')
    assert differences(place.make(Caller({"HOME": str(home)})), plain) == {}
    place.site.urls["modules/extra"] = "https://git.example.org/extra.git"
    place.site.publish()
    place.run(Caller({"HOME": str(home)}))
    assert place.site.read("production/modules/extra/manifests/init.pp") == MODULE[INIT]


# Files of another user


@needs_root
def test_bares_and_metadata_of_another_user_are_no_obstacle_for_root(site: Site) -> None:
    assert site.update("--strict").code == 0
    for path in instance_of(site):
        give(path, NOBODY)
    site.remotes[DUMMY].push({INIT: "# new\n"})
    site.define("another")
    outcome = site.update("--strict", "--as-root")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert site.read("another/modules/dummy/manifests/init.pp") == "# new\n"


@needs_root
@pytest.mark.parametrize("user", [0, NOBODY])
def test_a_remote_that_git_distrusts_is_one_line_that_says_what_to_do_and_costs_nothing(
    open_site: Site, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, other_user = open_site, 12345
    config = str(site.config)
    assert site.update("--strict").code == 0
    (site.root / "log" / "jens-update.log").unlink()
    before = site.listing("bare/modules", "clone/modules", "environments")
    dummy, myapp = site.remotes[DUMMY], site.remotes["hostgroups/myapp"]
    for remote in (dummy, myapp):
        remote.push({INIT: "# new\n"})
    for path in (site.root / "remotes", *instance_of(site)):
        give(path, user)
    give(dummy.path, other_user)
    monkeypatch.setenv("HOME", str(site.root))
    assert as_user(user, lambda: update.main(["-c", config])) == 0
    log = (site.root / "log" / "jens-update.log").read_text()
    [line] = [line for line in log.splitlines() if " ERROR " in line]
    assert all(word in line for word in ("modules/dummy", "dubious ownership", f"safe.directory {dummy.path}"))
    assert site.listing("bare/modules", "clone/modules", "environments") == before
    assert site.read("production/hostgroups/hg_myapp/manifests/init.pp") == "# new\n"
    (site.root / ".gitconfig").write_text(f"[safe]\n\tdirectory = {dummy.path}\n")
    assert as_user(user, lambda: update.main(["-c", config, "--strict"])) == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


@needs_root
def test_metadata_that_git_distrusts_end_the_run_with_one_line_that_says_what_to_do(site: Site) -> None:
    assert site.update("--strict").code == 0
    before = site.listing("bare", "clone", "environments")
    site.retire("production")
    give(site.library.path, 12345)
    outcome = site.update()
    assert (outcome.code, outcome.stderr.count("\n")) == (20, 1)
    assert "safe.directory" in outcome.stderr
    assert site.listing("bare", "clone", "environments") == before
    give(site.library.path, 0)
    assert site.update("--strict").code == 0
    assert site.environments() == []


@needs_root
def test_a_home_that_cannot_be_read_harms_nobody(open_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = open_site
    home = site.root / "home"
    home.mkdir(0o700)
    (home / ".gitconfig").write_text("[bad")
    config = str(site.config)
    for path in (site.root / "remotes", *instance_of(site)):
        give(path, NOBODY)
    monkeypatch.setenv("HOME", str(home))
    assert as_user(NOBODY, lambda: update.main(["-c", config, "--strict"])) == 0
    assert site.exists("production/modules/dummy/manifests/init.pp")
