"""The end of a run and what it prints: exit codes, the one line on stderr, the log's lines and their order."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jens.commands import update
from jens.repositories import retention
from jens.system import files
from tests import TREE
from tests.conftest import Outcome, Remote, Site, definition, faults_of, git

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
EVERYTHING = ("environments", "clone", "bare", "cache", "metadata")
PUBLISHED = ("environments", "clone", "bare")


def assert_fatal(outcome: Outcome, code: int, *words: str) -> None:
    """Check the exit code, one line with these words on stderr, and nothing on stdout."""
    assert outcome.code == code, outcome
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    assert all(word in lines[0] for word in words), (words, lines[0])


def assert_silent(outcome: Outcome, code: int = 0) -> None:
    assert (outcome.code, outcome.stdout, outcome.stderr) == (code, "", "")


# 0


def test_exit_0_is_silent_when_all_went_well(site: Site) -> None:
    assert_silent(site.update())
    assert_silent(site.update())


def test_exit_0_is_silent_though_single_repositories_and_environments_failed(site: Site) -> None:
    site.define("bad", "default: [\n")
    site.add("modules/away").go_away()
    site.publish()
    outcome = site.update()
    assert_silent(outcome)
    assert len(outcome.lines("ERROR")) == 2


# 2


def test_exit_2_no_configuration_file(site: Site, tmp_path: Path) -> None:
    missing = tmp_path / "missing.conf"
    assert_fatal(site.update("-c", str(missing)), 2, str(missing))


def configured(site: Site, text: str) -> Outcome:
    path = site.root / "other.conf"
    path.write_text(text)
    return site.update("-c", str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[main\n", ()),
        ("[main]\nbaredir\n", ()),
        ("[main]\npurgelimit = many\n", ("[main]", "purgelimit", "percent")),
        ("[main]\npurgelimit = 101\n", ("[main]", "purgelimit", "100")),
        ("[main]\nmode = PUSH\n", ("[main]", "mode", "POLL")),
        ("[main]\ndebuglevel = LOUD\n", ("[main]", "debuglevel", "INFO")),
        ("[main]\ndirectory_environments = perhaps\n", ("[main]", "directory_environments", "True")),
        ("[git]\ntimeout = soon\n", ("[git]", "timeout", "seconds")),
        ("[lock]\ntype = NONE\n", ("[lock]", "type", "DISABLED")),
        ("[main]\nbaredir = relative\n", ("[main]", "baredir", "absolute")),
        ("[main]\nrepositorymetadata = /elsewhere/repositories.yaml\n", ("[main]", "repositorymetadata")),
        ("main = 1\n", ("main", "section")),
        ("[main]\n[[baredir]]\n", ("[main]", "baredir", "path")),
    ],
)
def test_exit_2_names_file_section_key_and_what_was_expected(site: Site, text: str, words: tuple[str, ...]) -> None:
    outcome = configured(site, text)
    assert_fatal(outcome, 2, str(site.root / "other.conf"), *words)
    assert os.listdir(site.root / "log") == []


def test_exit_2_a_configuration_that_is_no_text(site: Site) -> None:
    path = site.root / "other.conf"
    path.write_bytes(b"\xff\xfe\x00")
    assert_fatal(site.update("-c", str(path)), 2, str(path))
    assert_fatal(site.update("-c", str(site.root)), 2, str(site.root))


def test_an_unknown_key_or_section_is_a_warning_never_an_error(site: Site) -> None:
    site.settings["main.purge_limit"] = "1"
    site.settings["extras.key"] = "1"
    outcome = site.update()
    assert_silent(outcome)
    assert any("purge_limit" in line for line in outcome.lines("WARNING"))
    assert any("extras" in line for line in outcome.lines("WARNING"))
    assert faults_of(site.root) == {"configuration"}
    assert site.update("--strict").code == 60


# 3


@pytest.mark.parametrize("name", ["bare", "clone", "cache", "environments", "log"])
@pytest.mark.parametrize("how", ["missing", "a file"])
def test_exit_3_a_configured_directory_cannot_be_used(site: Site, name: str, how: str) -> None:
    path = site.root / name
    path.rmdir()
    if how == "a file":
        path.write_text("")
    assert_fatal(site.update(), 3, str(path), f"{name}dir")
    others = [other for other in ("bare", "clone", "environments") if other != name]
    assert site.listing(*others) == {}


def test_exit_3_a_configured_directory_is_not_writable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    unwritable = str(site.root / "clone")
    access = os.access  # tests may run as root, to whom everything is writable

    def deny(path: str | os.PathLike[str], mode: int) -> bool:
        return access(path, mode) and not (os.fspath(path) == unwritable and mode & os.W_OK)

    monkeypatch.setattr(os, "access", deny)
    assert_fatal(site.update(), 3, unwritable)


def test_exit_3_the_log_cannot_be_written(site: Site) -> None:
    (site.root / "log" / "jens-update.log").mkdir()
    site_log = str(site.root / "log")
    site.capture.readouterr()
    assert update.main(["-c", str(site.config)]) == 3
    lines = site.capture.readouterr().err.splitlines()
    assert len(lines) == 1
    assert site_log in lines[0]


@pytest.mark.parametrize("name", ["environments", "repository"])
@pytest.mark.parametrize("how", ["missing", "no repository"])
def test_exit_3_a_metadata_directory_is_missing_or_no_repository(site: Site, name: str, how: str) -> None:
    site.update()
    before = site.listing(*PUBLISHED)
    path = site.root / "metadata" / name
    shutil.rmtree(path)
    if how == "no repository":
        path.mkdir()
        (path / "production.yaml").write_text(definition())
        (path / "repositories.yaml").write_text("repositories: {common: {}, modules: {}, hostgroups: {}}\n")
    assert_fatal(site.update(), 3, str(path))
    assert site.listing(*PUBLISHED) == before


def test_exit_3_the_library_file_is_not_there(site: Site) -> None:
    site.update()
    before = site.listing(*PUBLISHED)
    site.library.push({"repositories.yaml": None})
    site.define("another")
    assert_fatal(site.update(), 3, "repositories.yaml")
    assert site.listing(*PUBLISHED) == before


# 20


@pytest.mark.parametrize("which", ["definitions", "library"])
@pytest.mark.parametrize("how", ["away", "branch gone", "clone damaged"])
def test_exit_20_metadata_that_cannot_be_refreshed_touch_nothing(site: Site, which: str, how: str) -> None:
    site.update()
    site.retire("production")
    del site.urls[DUMMY]
    site.publish()
    site.remotes["hostgroups/myapp"].push({INIT: "# new\n"})
    before = site.listing(*PUBLISHED, "cache/environments")
    clone = site.root / "metadata" / {"definitions": "environments", "library": "repository"}[which]
    remote = site.definitions if which == "definitions" else site.library
    if how == "away":
        remote.go_away()
    elif how == "branch gone":
        remote.branch("main")
        remote.delete("master")
    else:
        shutil.rmtree(clone / ".git" / "objects")
    assert_fatal(site.update(), 20, str(clone))
    assert site.listing(*PUBLISHED, "cache/environments") == before


def point_master_at(remote: Remote, object_id: str) -> None:
    """Write the branch's file, because Git lets a branch lead only to a commit."""
    head = remote.path / "refs" / "heads" / "master"
    head.unlink(missing_ok=True)
    head.write_text(f"{object_id}\n")


@pytest.mark.parametrize(("which", "code"), [("definitions", 20), ("library", 30)])
def test_metadata_whose_branch_is_a_file_touch_nothing(site: Site, which: str, code: int) -> None:
    site.update()
    remote = site.definitions if which == "definitions" else site.library
    before, commit = site.listing(*PUBLISHED, "cache/environments"), remote.commit()
    point_master_at(remote, git("hash-object", "-w", __file__, directory=remote.path).strip())
    assert_fatal(site.update(), code, str(site.root / "metadata"))
    assert site.listing(*PUBLISHED, "cache/environments") == before
    point_master_at(remote, commit)
    assert site.update("--strict").code == 0


def test_metadata_whose_branch_is_a_tree_are_read_and_that_is_an_error(site: Site) -> None:
    site.update()
    site.define("late")
    commit, tree = site.definitions.commit(), git("rev-parse", "master:", directory=site.definitions.path).strip()
    point_master_at(site.definitions, tree)
    outcome = site.update("--strict")
    assert (outcome.code, site.environments()) == (60, ["late", "production"])
    [error] = outcome.lines("ERROR")
    assert f"{site.root}/metadata/environments" in error
    assert f"non-commit object {tree}" in error
    point_master_at(site.definitions, commit)
    assert site.update("--strict").code == 0


# 30


def test_exit_30_the_library_is_unusable(site: Site) -> None:
    site.update()
    before = site.listing(*PUBLISHED)
    site.publish("repositories: {modules: {}}\n")
    assert_fatal(site.update(), 30, "repositories.yaml")
    assert site.listing(*PUBLISHED) == before


def test_exit_30_the_library_is_a_symbolic_link(site: Site) -> None:
    site.update()
    work = site.root / "work"
    git("clone", "-q", site.library.url, str(work), directory=site.root)
    (work / "repositories.yaml").rename(work / "real.yaml")
    (work / "repositories.yaml").symlink_to("real.yaml")
    git("add", "--all", directory=work)
    git("commit", "-q", "-m", "Link", directory=work)
    git("push", "-q", directory=work)
    assert_fatal(site.update(), 30, "repositories.yaml")
    assert site.exists("production/modules/dummy")


def _refuse_to_write(name: str, patch: pytest.MonkeyPatch) -> None:
    """Have the disk full when this file of state is written."""
    write = files.write_file

    def refuse_or_write(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    patch.setattr(files, "write_file", refuse_or_write)


@pytest.mark.parametrize("obstacle", ["inventory.json", "unreferenced.json", "absent-refs.json", "dangling.json"])
def test_state_that_cannot_be_saved_is_an_error_and_ends_nothing(
    site: Site, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.update()
    site.define("another", definition("nowhere"))
    del site.urls[DUMMY]
    site.publish()
    (site.root / "cache" / obstacle).unlink()
    with monkeypatch.context() as patch:
        _refuse_to_write(obstacle, patch)
        outcome = site.update("--strict")
    assert outcome.code == 60
    assert outcome.stderr == ""
    assert [line for line in outcome.lines("ERROR") if "Unable to remember" in line and obstacle in line]
    assert "another" in site.environments()
    assert not site.exists("production/modules/dummy")
    assert not (site.root / "bare" / DUMMY).exists()
    site.retire("another")
    assert_silent(site.update("--strict"))
    assert (site.root / "cache" / obstacle).exists()


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), "/somewhere")


def test_exit_30_the_repositories_stage_failed_as_a_whole(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    before = site.links("production")
    del site.urls[DUMMY]
    site.publish()
    with monkeypatch.context() as patch:
        patch.setattr(retention, "reclaim", _fail)
        assert_fatal(site.update(), 30)
    assert site.links("production") == before
    assert site.dangling("production") == []
    assert (site.root / "bare" / DUMMY).is_dir()
    assert_silent(site.update("--strict"))
    assert not site.exists("production/modules/dummy")


# 31


def test_exit_31_stopped_by_purgelimit(site: Site) -> None:
    site.update()
    del site.urls["common/site"]
    site.add("modules/extra")
    site.publish()
    outcome = site.update()
    assert_fatal(outcome, 31)
    assert any("site" in line for line in outcome.lines("ERROR"))
    assert site.exists("production/site/site.pp")
    assert site.exists("production/modules/extra")
    assert_silent(site.update("--allow-purge"))


# 40


def test_exit_40_the_environments_stage_failed_as_a_whole(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    before = site.links("production")
    site.remotes[DUMMY].push({INIT: "# new\n"})
    site.define("another")
    with monkeypatch.context() as patch:
        patch.setattr(retention, "retire_checkouts", _fail)
        assert_fatal(site.update(), 40)
    assert site.links("production") == before
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    assert_silent(site.update("--strict"))


# 50 and 51

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock_holder(site: Site) -> Iterator[Callable[[str], None]]:
    """A function that holds a lock file of the site in another process until the end of the test."""
    holders = []

    def hold(name: str) -> None:
        command = [sys.executable, "-c", HOLD, str(site.root / "lock" / name)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

    yield hold
    for holder in holders:
        holder.communicate(timeout=10)


def test_exit_50_another_process_holds_the_lock(site: Site, lock_holder: Callable[[str], None]) -> None:
    site.update()
    before = site.listing(*EVERYTHING)
    site.define("another")
    lock_holder("jens")
    outcome = site.update()
    assert_silent(outcome, 50)
    assert outcome.lines()[0] == "INFO Obtaining lock 'jens' (attempt: 1)..."
    assert [line for line in outcome.lines() if not line.startswith("INFO ")] == []
    assert site.listing(*EVERYTHING) == before
    assert site.update("--dry-run").code == 50


@pytest.mark.parametrize("setting", [{"lock.name": "other"}, {"lock.type": "DISABLED"}])
def test_another_lock_or_none_does_not_matter(
    site: Site, lock_holder: Callable[[str], None], setting: dict[str, str]
) -> None:
    lock_holder("jens")
    site.settings.update(setting)
    assert_silent(site.update())


def test_the_lock_is_free_once_its_holder_is_gone(site: Site) -> None:
    (site.root / "lock" / "jens").write_text("left over\n")
    assert_silent(site.update())
    assert_silent(site.update())


@pytest.mark.parametrize("how", ["no lockdir", "lockdir a file", "lock a directory", "lock a symbolic link"])
def test_exit_51_the_lock_could_not_be_tried(site: Site, how: str) -> None:
    lockdir = site.root / "lock"
    if how.startswith("lock a"):
        if how.endswith("directory"):
            (lockdir / "jens").mkdir()
        else:
            (lockdir / "jens").symlink_to(site.root / "elsewhere")
    else:
        lockdir.rmdir()
        if how == "lockdir a file":
            lockdir.write_text("")
    assert_fatal(site.update(), 51, str(lockdir))
    assert site.listing(*PUBLISHED) == {}
    assert not (site.root / "elsewhere").exists()


# 60


@pytest.mark.parametrize("what", ["repository", "new repository", "definition", "entry", "mandatory branch", "commit"])
def test_exit_60_only_with_strict_when_something_failed(site: Site, what: str) -> None:
    site.update()
    if what == "repository":
        site.remotes[DUMMY].go_away()
    elif what == "new repository":
        site.add("modules/away").go_away()
    elif what == "definition":
        site.define("production", "overrides: {}\n")
    elif what == "entry":
        site.urls["modules/bad"] = "ext::true"
    elif what == "mandatory branch":
        site.remotes[DUMMY].branch("other")
        site.remotes[DUMMY].delete("master")
    else:
        site.define("production", definition(overrides={DUMMY: "commit/abcdef"}))
    site.publish()
    assert_silent(site.update())
    outcome = site.update("--strict")
    assert_silent(outcome, 60)
    assert len(outcome.lines("ERROR")) == 1


# 130

HANGS = "git://127.0.0.1:{}/hangs.git"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that accepts connections and never replies."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def processes_that_mention(text: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command and str(os.getpid()) != process.name:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: str(number.name))
def test_exit_130_interrupted_ends_all_its_git_processes(
    site: Site, server: socket.socket, number: signal.Signals
) -> None:
    site.update()
    before = site.listing("environments", "clone")
    port = server.getsockname()[1]
    for repo in ("modules/hangs", "modules/hangs_too"):
        site.urls[repo] = f"{HANGS.format(port)}/{repo}"  # the same one would be asked once
    site.publish()
    site.remotes[DUMMY].push({INIT: "# new\n"})
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            connections = [server.accept()[0] for _ in range(2)]
            assert processes_that_mention(HANGS.format(port)), "Git is waiting for the server"
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert stdout == b""
    assert len(stderr.splitlines()) == 1, stderr
    assert b"Traceback" not in stderr
    for connection in connections:
        with connection:
            connection.settimeout(5)
            while connection.recv(4096):
                pass  # read Git's request, then the end: no process has the connection open
    deadline = time.monotonic() + 5
    while processes_that_mention(HANGS.format(port)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_that_mention(HANGS.format(port)) == []
    after = {name: entry for name, entry in site.listing("environments", "clone").items() if "/.new-" not in name}
    assert after == before, "nothing was switched"

    del site.urls["modules/hangs"], site.urls["modules/hangs_too"]
    site.publish()
    assert_silent(site.update("--strict"))
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"
    left_over = [name for name in site.listing(*PUBLISHED) if "/.new-" in name or "/.trash-" in name]
    assert left_over == []


# 70


def test_exit_70_anything_unforeseen_is_one_plain_line_and_a_traceback_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("surprise\nin two lines")

    with monkeypatch.context() as patch:
        patch.setattr("jens.update.plan.plan_everything", fail)
        outcome = site.update()
    assert_fatal(outcome, 70)
    assert "Traceback (most recent call last):" in outcome.log
    assert "RuntimeError: surprise" in outcome.log
    assert_silent(site.update(), 0)


# The record of the last run


def test_the_last_run_is_remembered_with_its_exit_status_and_what_failed(site: Site) -> None:
    path = site.root / "cache" / "last-run.json"
    site.update()
    assert '"status": 0' in path.read_text()
    site.remotes[DUMMY].go_away()
    site.update("--strict")
    assert '"status": 60' in path.read_text()
    assert "Unable to fetch 'dummy'" in path.read_text()
    site.publish("")
    site.update()
    assert '"status": 30' in path.read_text()
    site.library.go_away()
    site.update()
    assert '"status": 20' in path.read_text()
    assert "repository" in path.read_text()


# The log


def in_order(expected: list[str], lines: list[str]) -> list[str]:
    """The expected lines from the first that does not come in order; other lines may stand between them."""
    rest = iter(lines)
    for position, pattern in enumerate(expected):
        if not any(re.fullmatch(pattern, line) for line in rest):
            return expected[position:]
    return []


def partition(name: str, new: list[str], middle: list[str] = [], deleted: list[str] = []) -> list[str]:  # noqa: B006
    """The lines of one partition in the repositories stage; ``middle`` has those about new repositories."""
    return [
        re.escape(line)
        for line in (
            f"INFO Refreshing bare repositories ({name})",
            f"INFO New repositories: {new}",
            f"INFO Deleted repositories: {deleted}",
            "INFO Cloning and expanding NEW bare repositories...",
            *middle,
            "INFO Expanding EXISTING bare repositories...",
            "INFO Purging REMOVED bare repositories...",
        )
    ]


def taken_in(site: Site, repo: str) -> list[str]:
    return [f"INFO Cloning and expanding {repo}...", populated(site, repo, "master")]


def populated(site: Site, repo: str, branch: str) -> str:
    commit = site.remotes[repo].commit(branch)
    return f"INFO Populating new ref '{site.path(repo, branch)}' ({commit[:7]})"


MS = r"in \d+\.\d\d ms"
PROCESSING = [
    re.escape(f"INFO Processing {what}...") for what in ("modules", "hostgroups", "site", "common Hiera data")
]


def test_each_line_of_the_log_has_time_process_and_level(site: Site) -> None:
    outcome = site.update()
    for line in outcome.log.splitlines():
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} \[{os.getpid()}\] (INFO|WARNING) .+", line), (
            line
        )


def test_the_log_of_a_first_run(site: Site) -> None:
    site.define("test", definition(overrides={DUMMY: "test"}))
    site.remotes[DUMMY].branch("test")
    dummy = [*taken_in(site, DUMMY), populated(site, DUMMY, "test")]
    expected = [
        r"INFO Obtaining lock 'jens' \(attempt: 1\)\.\.\.",
        r"INFO Refreshing metadata\.\.\.",
        rf"INFO Executed 'refresh_metadata' {MS}",
        r"INFO Refreshing repositories\.\.\.",
        r"INFO Fetching repositories inventory\.\.\.",
        r"WARNING Inventory on disk not found or corrupt, generating\.\.\.",
        r"INFO Generating inventory of bares and clones\.\.\.",
        *partition("modules", ["dummy"], dummy),
        *partition("hostgroups", ["myapp"], taken_in(site, "hostgroups/myapp")),
        *partition(
            "common",
            ["hieradata", "site"],
            [*taken_in(site, "common/hieradata"), *taken_in(site, "common/site")],
        ),
        r"INFO Persisting repositories inventory\.\.\.",
        rf"INFO Executed 'refresh_repositories' {MS}",
        r"INFO Refreshing environments\.\.\.",
        r"INFO New environments: \['production', 'test'\]",
        r"INFO Existing and changed environments: \[\]",
        r"INFO Deleted environments: \[\]",
        r"INFO Creating new environments\.\.\.",
        r"INFO Creating new environment 'production'",
        *PROCESSING,
        r"INFO Creating new environment 'test'",
        PROCESSING[0],
        r"INFO modules 'dummy' overridden to use treeish 'test'",
        *PROCESSING[1:],
        r"INFO Purging deleted environments\.\.\.",
        r"INFO Recreating changed environments\.\.\.",
        r"INFO Refreshing not changed environments\.\.\.",
        rf"INFO Executed 'refresh_environments' {MS}",
        r"INFO Releasing lock 'jens'\.\.\.",
        r"INFO Done",
    ]
    assert in_order(expected, site.update().lines()) == []


def test_the_log_of_a_second_run_with_every_kind_of_news(site: Site) -> None:
    site.settings["main.protectedenvironments"] = "production,"
    site.add("modules/old")
    site.publish()
    for name in ("gone", "test"):
        site.define(name)
    site.update()
    before = site.remotes[DUMMY].commit()
    new = site.remotes[DUMMY].push({INIT: "# new\n"})
    site.remotes["hostgroups/myapp"].go_away()
    site.add("modules/fresh")
    del site.urls["modules/old"]
    site.publish()
    site.define("test", definition(overrides={"hostgroups/myapp": "master"}))
    for name in ("gone", "production"):
        site.retire(name)
    master = re.escape(str(site.path(DUMMY, "master")))
    modules = partition("modules", ["fresh"], taken_in(site, "modules/fresh"), ["old"])
    hostgroups = partition("hostgroups", [])
    expected = [
        r"INFO Obtaining lock 'jens' \(attempt: 1\)\.\.\.",
        r"INFO Refreshing metadata\.\.\.",
        rf"INFO Executed 'refresh_metadata' {MS}",
        r"INFO Refreshing repositories\.\.\.",
        r"INFO Fetching repositories inventory\.\.\.",
        *modules[:-1],
        rf"INFO Updating ref '{master}'",
        rf"INFO Updated ref '{master}' \({before[:7]}\.\.{new[:7]}\)",
        modules[-1],
        r"INFO Deleting modules/old\.\.\.",
        rf"INFO Removing {re.escape(str(site.path('modules/old', 'master')))}",
        *hostgroups[:-1],
        r"ERROR Unable to fetch 'myapp' from remote \(.+\)",
        hostgroups[-1],
        *partition("common", []),
        r"INFO Persisting repositories inventory\.\.\.",
        rf"INFO Executed 'refresh_repositories' {MS}",
        r"INFO Refreshing environments\.\.\.",
        r"INFO New environments: \[\]",
        r"INFO Existing and changed environments: \['test'\]",
        r"INFO Deleted environments: \['gone'.*\]",
        r"INFO Creating new environments\.\.\.",
        r"INFO Purging deleted environments\.\.\.",
        r"INFO Deleting environment 'gone'",
        rf"INFO Deleted '{re.escape(str(site.root / 'environments' / 'gone'))}'",
        r"WARNING Refusing to delete 'production' as it's protected",
        r"INFO Recreating changed environments\.\.\.",
        r"INFO Recreating environment 'test'",
        *PROCESSING[:2],
        r"INFO hostgroups 'myapp' overridden to use treeish 'master'",
        *PROCESSING[2:],
        r"INFO Refreshing not changed environments\.\.\.",
        rf"INFO Executed 'refresh_environments' {MS}",
        r"INFO Releasing lock 'jens'\.\.\.",
        r"INFO Done",
    ]
    outcome = site.update()
    assert in_order(expected, outcome.lines()) == []
    assert len([line for line in outcome.lines() if "Inventory on disk" in line]) == 0


def test_the_log_of_a_run_without_news_names_no_ref_and_no_environment(site: Site) -> None:
    site.update()
    lines = site.update("-v").lines()
    words = ("Populating", "Updat", "Removing", "Delet", "Creating new environment '", "Recreating environment '")
    quiet = ("INFO Deleted repositories: []", "INFO Deleted environments: []")
    assert [line for line in lines if any(word in line for word in words) and line not in quiet] == []
    assert lines.count("INFO New repositories: []") == 3
    assert [line for line in lines if not line.startswith("INFO ")] == []


@pytest.mark.parametrize(("level", "kinds"), [("ERROR", {"ERROR"}), ("DEBUG", {"DEBUG", "ERROR", "INFO", "WARNING"})])
def test_debuglevel_says_how_much_is_logged(site: Site, level: str, kinds: set[str]) -> None:
    site.settings["main.debuglevel"] = level
    site.define("bad", "")
    assert {line.split()[0] for line in site.update().lines()} == kinds


def test_verbose_copies_the_log_to_stderr(site: Site) -> None:
    site.define("bad", "")
    for option in ("-v", "--verbose"):
        outcome = site.update(option)
        assert (outcome.code, outcome.stdout) == (0, "")
        assert outcome.stderr == outcome.log
        assert outcome.stderr.count("\n") > 20


# --dry-run


def empty_directories(site: Site) -> None:
    for name in ("modules", "hostgroups", "common"):
        (site.root / "bare" / name).mkdir()
        (site.root / "clone" / name).mkdir()
    (site.root / "cache" / "environments").mkdir()


@pytest.mark.parametrize("option", ["-n", "--dry-run"])
def test_a_dry_run_of_the_first_run_changes_nothing_and_prints_the_plan(site: Site, option: str) -> None:
    empty_directories(site)
    before = site.listing("environments", "clone", "bare", "cache")
    outcome = site.update(option)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert site.listing("environments", "clone", "bare", "cache") == before
    for word in ("modules/dummy", "hostgroups/myapp", "common/site", "common/hieradata", "'production'"):
        assert word in outcome.stdout


def test_a_dry_run_changes_nothing_and_prints_the_plan(site: Site) -> None:
    site.settings["main.retention"] = "0"
    site.add("modules/old")
    site.remotes[DUMMY].branch("feature")
    site.publish()
    for name in ("gone", "changed", "bad"):
        site.define(name)
    site.update()
    old = site.remotes[DUMMY].commit()
    new = site.remotes[DUMMY].push({INIT: "# new\n"})
    site.add("modules/fresh")
    del site.urls["modules/old"]
    site.publish()
    site.define("changed", definition(overrides={DUMMY: "feature"}))
    site.define("bad", "")
    site.define("fresh")
    site.retire("gone")
    (site.root / "environments/production/modules/foreign").symlink_to("/nowhere")
    (site.root / "clone" / DUMMY / ".new-0123456789ab").mkdir()
    before = site.listing("environments", "clone", "bare", "cache")
    tree = {name: entry for name, entry in site.listing("metadata").items() if "/.git/" not in name}

    outcome = site.update("--dry-run")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert site.listing("environments", "clone", "bare", "cache") == before
    assert {name: entry for name, entry in site.listing("metadata").items() if "/.git/" not in name} == tree
    plan = outcome.stdout.splitlines()
    for words in (
        (DUMMY, "master", old[:7], new[:7]),
        (DUMMY, "feature"),
        ("modules/fresh",),
        ("modules/old",),
        ("create", "'fresh'"),
        ("recreate", "'changed'"),
        ("delete", "'gone'"),
        ("'bad'", "ill-formed"),
    ):
        assert any(all(word in line for word in words) for line in plan), (words, plan)

    assert_silent(site.update())
    assert site.environments() == ["bad", "changed", "fresh", "production"]
    again = site.update("--dry-run").stdout
    assert "modules" not in again
    assert "'fresh'" not in again


def test_a_dry_run_says_what_is_wrong_with_the_library(site: Site) -> None:
    site.urls["modules/bad"] = "ext::true"
    site.publish()
    assert "modules/bad" in site.update("--dry-run").stdout


def test_a_dry_run_without_news_says_so(site: Site) -> None:
    site.update()
    before = site.listing(*EVERYTHING)
    outcome = site.update("--dry-run")
    assert outcome.code == 0
    assert len(outcome.stdout.splitlines()) == 1
    assert {**site.listing(*EVERYTHING), **before} == site.listing(*EVERYTHING)


def test_a_dry_run_fails_as_a_run_would(site: Site) -> None:
    site.update()
    site.publish("")
    assert_fatal(site.update("--dry-run"), 30, "repositories.yaml")
    site.library.go_away()
    assert_fatal(site.update("--dry-run"), 20)
