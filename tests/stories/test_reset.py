"""jens-reset removes what Jens has made and nothing else, whatever interrupts it."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jens.commands import reset as command
from jens.config import load_config
from jens.locking import run_lock
from jens.system import files, removal
from jens.tools.reset import Kind, Place, Verdict, judge
from tests import TREE
from tests.conftest import Outcome, Site, definition
from tests.reader import look
from tests.stories.test_atomicity import _site_of_jens_1
from tests.warm import warm

SAD = "Done -- Jens is sad now"
KEPT = ("metadata", "spool", "log", "remotes")
MADE = ("bare", "clone", "cache", "environments")
KILLS = 16
#: What a package installs, and what is left after a reset.
EMPTY = {
    *(f"{top}/{partition}" for top in ("bare", "clone") for partition in ("modules", "hostgroups", "common")),
    "cache/environments",
}


def reset(site: Site, *arguments: str) -> Outcome:
    """Run jens-reset."""
    site.capture.readouterr()
    code = command.main(["-c", str(site.config), *arguments])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, "")


def assert_done(outcome: Outcome) -> None:
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines()[-1] == SAD


def assert_complaint(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code
    assert SAD not in outcome.stdout
    [line] = outcome.stderr.splitlines()
    assert all(word in line for word in words), (words, line)


def contents(site: Site) -> dict[str, str]:
    """All that is published and remembered, except the record of the last run, which has times."""
    found = site.listing("clone", "environments", "cache")
    return {name: entry for name, entry in found.items() if name != "cache/last-run.json"}


@pytest.fixture
def built(site: Site) -> Site:
    """A site with a branch, an old snapshot, and a hint in the queue."""
    pinned = site.remotes["modules/dummy"].commit()
    site.remotes["modules/dummy"].push({"code/new": "new\n"})
    site.remotes["modules/dummy"].branch("test")
    site.define("test", definition(overrides={"modules/dummy": "test"}))
    site.define("snap", definition(None, {"modules/dummy": f"commit/{pinned}"}))
    site.hint("modules/dummy")
    assert site.update("--strict").code == 0
    return site


# The announcement


def test_without_yes_it_says_what_it_would_do_and_does_nothing(built: Site) -> None:
    before = built.listing(".")
    outcome = reset(built)
    assert built.listing(".") == before
    assert (outcome.code, outcome.stderr) == (10, "")
    root = built.root
    assert outcome.stdout.splitlines() == [
        "Would remove:",
        f"\t3 environments in {root}/environments",
        f"\t5 checkouts of 4 repositories in {root}/clone",
        f"\t4 bares in {root}/bare",
        f"\t3 remembered definitions, inventory and memory of runs in {root}/cache",
        f"Nothing was removed. To do it: jens-reset -c {root}/main.conf --yes",
    ]


def test_a_single_item_is_announced_in_the_singular(bare_site: Site) -> None:
    bare_site.add("common/site")
    bare_site.publish()
    bare_site.define("production")
    assert bare_site.update().code == 0
    (bare_site.root / "cache" / ".new-abc").write_text("half")
    lines = reset(bare_site).stdout.splitlines()
    assert [line.strip().split(" in ")[0] for line in lines[1:-1]] == [
        "1 environment",
        "1 checkout of 1 repository",
        "1 bare",
        "1 remembered definition, inventory and memory of runs",
        "1 left-over of earlier runs",
    ]


def test_the_announcement_takes_no_lock(built: Site) -> None:
    with run_lock(load_config(built.config)):
        assert reset(built).code == 10


# Removed and kept


@pytest.mark.parametrize("option", ["-y", "--yes"])
def test_with_yes_all_that_jens_made_goes_and_all_else_stays(built: Site, option: str) -> None:
    built.settings["main.protectedenvironments"] = "production, test"
    assert built.update().code == 0
    kept = built.listing(*KEPT)
    outcome = reset(built, option)
    assert_done(outcome)
    assert "\t3 environments in " in outcome.stdout
    assert set(built.listing(*MADE)) == EMPTY
    assert built.listing(*KEPT) == kept
    assert built.hinted() == ["modules/dummy"]


def test_the_next_update_makes_everything_anew(built: Site) -> None:
    before = contents(built)
    assert reset(built, "-y").code == 0
    assert built.update("--strict").code == 0
    assert contents(built) == before


def test_there_may_be_nothing_to_remove(site: Site) -> None:
    for _ in range(2):
        assert_done(reset(site, "-y"))
    assert set(site.listing(*MADE)) == EMPTY
    assert site.update("--strict").code == 0
    assert_done(reset(site, "-y"))


def test_left_overs_of_killed_runs_go(built: Site) -> None:
    places = ("environments", "bare/modules", "clone/common", "clone/modules/dummy", "cache", "cache/environments")
    for place in places:
        (built.root / place / ".new-0123456789ab" / "deep").mkdir(parents=True)
        (built.root / place / ".trash-0123456789ab").write_text("half")
    assert_done(reset(built, "-y"))
    assert set(built.listing(*MADE)) == EMPTY


ENVIRONMENTS = Place("environmentsdir", Path("/e"), {"production"}.__contains__, frozenset({Kind.DIRECTORY, Kind.LINK}))
TOP = Place("baredir", Path("/b"), lambda _: False, frozenset(), frozenset({"modules"}), has_left_overs=False)
CACHE = Place(
    "cachedir",
    Path("/c"),
    {"inventory.json"}.__contains__,
    frozenset({Kind.FILE, Kind.LINK}),
    frozenset({"environments"}),
)


@pytest.mark.parametrize(
    ("place", "name", "kind", "expected"),
    [
        (ENVIRONMENTS, "production", Kind.DIRECTORY, Verdict.GOES),
        (ENVIRONMENTS, "production", Kind.LINK, Verdict.GOES),
        (ENVIRONMENTS, "production", Kind.FILE, Verdict.STRANGER),
        (ENVIRONMENTS, "production", Kind.OTHER, Verdict.STRANGER),
        (ENVIRONMENTS, "other", Kind.DIRECTORY, Verdict.STRANGER),
        (ENVIRONMENTS, "other", Kind.LINK, Verdict.STRANGER),
        (ENVIRONMENTS, ".new-0", Kind.DIRECTORY, Verdict.LEFT_OVER),
        (ENVIRONMENTS, ".trash-0", Kind.FILE, Verdict.LEFT_OVER),
        (ENVIRONMENTS, ".news", Kind.FILE, Verdict.STRANGER),
        (TOP, "modules", Kind.DIRECTORY, Verdict.HOLDS),
        (TOP, "modules", Kind.LINK, Verdict.LEFT_OVER),
        (TOP, "modules", Kind.FILE, Verdict.STRANGER),
        (TOP, "dummy", Kind.DIRECTORY, Verdict.STRANGER),
        (TOP, ".new-0", Kind.DIRECTORY, Verdict.STRANGER),
        (CACHE, "inventory.json", Kind.FILE, Verdict.GOES),
        (CACHE, "inventory.json", Kind.LINK, Verdict.GOES),
        (CACHE, "inventory.json", Kind.DIRECTORY, Verdict.STRANGER),
        (CACHE, "environments", Kind.DIRECTORY, Verdict.HOLDS),
        (CACHE, "notes", Kind.FILE, Verdict.STRANGER),
    ],
)
def test_what_becomes_of_an_entry(place: Place, name: str, kind: Kind, expected: Verdict) -> None:
    assert judge(place, name, kind) == expected


def test_files_of_others_stay_and_are_named_in_one_line(built: Site) -> None:
    directories = ["environments/theirs", "bare/attic", "clone/lost+found", "clone/modules/-odd", "cache/attic"]
    names = ["environments/README", "bare/modules/NOTES", "clone/notes", "cache/notes.json", "cache/environments/a-b"]
    for name in directories:
        (built.root / name).mkdir()
        (built.root / name / "precious").write_text("precious")
    for name in names:
        (built.root / name).write_text("precious")
    (built.root / "environments" / "dev").symlink_to("production")
    os.mkfifo(built.root / "clone" / "common" / "fifo")
    (built.root / "cache" / "new\nline").write_text("precious")
    stays = {*directories, *names, "environments/dev", "clone/common/fifo", "cache/new\nline"}
    outcome = reset(built, "-y")
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[-1] == SAD
    [line] = outcome.stderr.splitlines()
    assert "WARNING" in line
    for name in stays:
        assert f"'{built.root / name}'".replace("\n", "\\n") in line
    assert line.count(str(built.root)) == len(stays)
    assert set(built.listing(*MADE)) == EMPTY | stays | {f"{name}/precious" for name in directories}
    assert len(reset(built).stderr.splitlines()) == 1, "without --yes it is told as well"


def test_environments_without_a_remembered_definition_are_known_by_their_links(built: Site) -> None:
    shutil.rmtree(built.root / "cache" / "environments")
    (built.root / "environments" / "theirs" / "modules").mkdir(parents=True)
    outcome = reset(built, "-y")
    assert outcome.code == 0
    assert built.environments() == ["theirs"]
    assert str(built.root / "environments" / "theirs") in outcome.stderr


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory outside the instance, with names that Jens uses."""
    path = tmp_path / "outside"
    for name in ("modules", "master", "dummy", "data"):
        (path / name).mkdir(parents=True)
        (path / name / "precious").write_text("precious")
        (path / name / ".trash-0").write_text("precious")
    (path / "test").write_text("default: qa\n")
    (path / ".new-0").write_text("precious")
    return path


def tree(path: Path) -> dict[Path, bytes | None]:
    return {found: found.read_bytes() if found.is_file() else None for found in path.rglob("*")}


@pytest.mark.parametrize(
    ("told", "names"),
    [
        pytest.param(True, ("bare/modules", "clone/modules", "cache/environments"), id="outer"),
        pytest.param(
            True,
            (
                "bare/modules/dummy",
                "bare/hostgroups/more",
                "clone/modules/dummy",
                "clone/modules/more",
                "cache/environments/production",
                "cache/inventory.json",
                "cache/repositories",
                "environments/production",
            ),
            id="inner",
        ),
        pytest.param(
            False,
            (
                "bare/modules/dummy/objects",
                "bare/common/.trash-link",
                "clone/modules/dummy/master",
                "clone/modules/.new-link",
                "cache/environments/.new-link",
                "environments/test/modules",
                "environments/.trash-link",
            ),
            id="innermost, and left-overs",
        ),
    ],
)
def test_a_link_to_elsewhere_goes_and_what_it_leads_to_stays(
    built: Site, outside: Path, names: tuple[str, ...], told: bool
) -> None:
    before = tree(outside)
    for name in names:
        files.remove_tree(built.root / name)
        (built.root / name).symlink_to(outside)
    outcome = reset(built, "-y")
    assert (outcome.code, outcome.stdout.splitlines()[-1]) == (0, SAD)
    assert len(outcome.stderr.splitlines()) == told
    assert all(f"'{built.root / name}'" in outcome.stderr for name in names if told)
    assert tree(outside) == before
    assert set(built.listing(*MADE)) == EMPTY
    assert built.update("--strict").code == 0
    assert tree(outside) == before


def test_an_environment_that_would_dangle_goes_though_its_definition_is_not_remembered(built: Site) -> None:
    (built.root / "environments" / "production" / "site").unlink()
    shutil.rmtree(built.root / "cache")
    (built.root / "cache").mkdir()
    assert_done(reset(built, "-y"))
    assert set(built.listing(*MADE)) <= EMPTY


def test_a_configured_directory_may_be_a_link(built: Site, tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    for name in MADE:
        (built.root / name).rename(volumes / name)
        (built.root / name).symlink_to(volumes / name)
    assert_done(reset(built, "-y"))
    assert all((built.root / name).is_symlink() for name in MADE)
    assert {str(path.relative_to(volumes)) for path in volumes.glob("*/**/*")} == {*EMPTY, "cache/history.sqlite"}


def test_configured_directories_inside_each_other_stay(built: Site) -> None:
    moved = {
        "main.environmentsmetadatadir": ("metadata/environments", "bare/common/environments"),
        "main.logdir": ("log", "cache/log"),
        "messaging.queuedir": ("spool", "clone/modules/queue"),
        "filelock.lockdir": ("lock", "environments/lock"),
    }
    for key, (old, new) in moved.items():
        (built.root / old).rename(built.root / new)
        built.settings[key] = str(built.root / new)
    kept = built.listing("bare/common/environments", "cache/log", "clone/modules/queue")
    assert_done(reset(built, "-y"))
    assert built.listing("bare/common/environments", "cache/log", "clone/modules/queue") == kept
    assert built.environments() == ["lock"]


def test_an_installation_of_jens_1_goes_as_well_and_its_pickle_is_never_loaded(site: Site) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(site.root / "trapped"),))

    _site_of_jens_1(site)
    (site.root / "cache" / "repositories").write_bytes(pickle.dumps(Trap()))
    assert_done(reset(site, "-y"))
    assert set(site.listing(*MADE)) == EMPTY
    assert not (site.root / "trapped").exists()
    assert site.update("--strict").code == 0
    assert site.environments() == ["production", "snap", "test"]


# Interruptions


def test_killed_at_any_instant_nothing_dangles_and_the_next_run_finishes(site: Site) -> None:
    module = {**{f"code/file{number}": "x\n" for number in range(30)}, "data/x": "x\n"}
    for number in range(4):
        site.add(f"modules/m{number}", module)
    for repo in site.urls:
        site.remotes[repo].push({"code/one": "1\n", "code/two": "1\n"})
    site.publish()
    site.define("other")
    site.settings["main.retention"] = "0"
    assert site.update("--strict").code == 0
    config, pristine, expected = str(site.config), site.root.parent / "pristine", contents(site)
    _copy(site.root, pristine)
    chance, killed = random.Random(), 0
    with warm(site.root / "output") as tools:
        usual = []
        for _ in range(2):
            begin = time.monotonic()
            assert tools.run("reset", "-y", "-c", config) == 0
            usual.append(time.monotonic() - begin)
            _copy(pristine, site.root)
        for number in range(KILLS):
            run, seconds = tools.start("reset", "-y", "-c", config), chance.uniform(0, min(usual))
            time.sleep(seconds)
            os.kill(run.pid, signal.SIGKILL)
            if run.wait() == -signal.SIGKILL:
                killed += 1
            else:  # it is faster now than it was
                usual.append(seconds)
            assert look(site.root / "environments") == []
            if number % 4:
                assert tools.run("reset", "-y", "-c", config) == 0
                assert set(site.listing(*MADE)) == EMPTY
                _copy(pristine, site.root)
            else:
                assert tools.run("update", "--strict", "-c", config) == 0
                assert contents(site) == expected
    assert killed > KILLS / 4


def _copy(top: Path, to: Path) -> None:
    """Replace everything that Jens makes in ``to`` with copies from ``top``."""
    to.mkdir(exist_ok=True)
    subprocess.run(["rm", "-rf", *(str(to / name) for name in MADE)], check=True)
    subprocess.run(["cp", "-a", *(str(top / name) for name in MADE), str(to)], check=True)


def _interrupted(_path: Path) -> None:
    raise KeyboardInterrupt


def test_exit_130_interrupted_and_begun_anew(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(files, "remove_tree", _interrupted)
        assert_complaint(reset(built, "-y"), 130, "Interrupted")
    assert_done(reset(built, "-y"))
    assert set(built.listing(*MADE)) == EMPTY


def _refusing(refused: Path) -> Callable[[Path, Path], None]:
    rename = os.rename

    def instead(path: Path, to: Path) -> None:
        if path == refused:
            raise PermissionError(13, os.strerror(13), str(path))
        rename(path, to)

    return instead


def test_exit_10_as_long_as_an_environment_stays_so_does_what_it_uses(
    built: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = built.root / "environments" / "test"
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", _refusing(stuck))
        assert_complaint(reset(built, "-y"), 10, str(stuck), "Permission denied")
    assert built.environments() == ["test"]
    assert built.dangling("test") == []
    assert_done(reset(built, "-y"))


def test_exit_10_one_bare_that_stays_holds_up_nothing_else(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = built.root / "bare" / "common" / "site"
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", _refusing(stuck))
        assert_complaint(reset(built, "-y"), 10, str(stuck))
    left = {name for name in built.listing(*MADE) if not name.startswith("bare/common/site")}
    assert left == EMPTY
    assert_done(reset(built, "-y"))
    assert set(built.listing(*MADE)) == EMPTY


def test_what_cannot_be_deleted_yet_is_out_of_sight_and_told(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(removal, "remove_directory", lambda name, _parent: OSError(errno.EBUSY, "busy", name))
        outcome = reset(built, "-y")
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[-1] == SAD
    [line] = outcome.stderr.splitlines()
    assert "could not be deleted yet" in line
    assert {name.startswith(".trash-") for name in built.environments()} == {True}
    assert_done(reset(built, "-y"))
    assert set(built.listing(*MADE)) == EMPTY


# Exit codes


@pytest.mark.parametrize("arguments", [[], ["-y"]])
def test_exit_2_the_configuration_cannot_be_used(bare_site: Site, arguments: list[str]) -> None:
    bare_site.settings["main.debuglevel"] = "LOUD"
    assert_complaint(reset(bare_site, *arguments), 2, "debuglevel")


def test_a_typo_in_the_configuration_is_reported(bare_site: Site) -> None:
    bare_site.settings["main.clonedri"] = "/srv/clone"
    outcome = reset(bare_site)
    assert outcome.code == 10
    assert "clonedri" in outcome.stderr


@pytest.mark.parametrize("name", ["bare", "clone", "cache", "environments", "log", "metadata/environments"])
def test_exit_3_a_directory_is_missing(bare_site: Site, name: str) -> None:
    (bare_site.root / name).rename(bare_site.root / "away")
    assert bare_site.config.is_file()
    before = bare_site.listing(".")
    for arguments in ([], ["-y"]):
        assert_complaint(reset(bare_site, *arguments), 3, str(bare_site.root / name))
    assert bare_site.listing(".") == before


def test_exit_50_somebody_else_holds_the_lock(built: Site) -> None:
    before = built.listing(*MADE)
    with run_lock(load_config(built.config)):
        assert_complaint(reset(built, "-y"), 50, "held")
    assert built.listing(*MADE) == before


def test_exit_51_the_lock_cannot_be_tried(built: Site) -> None:
    before = built.listing(*MADE)
    (built.root / "lock" / "jens").unlink()
    (built.root / "lock").rmdir()
    assert_complaint(reset(built, "-y"), 51, "could not be tried")
    assert built.listing(*MADE) == before


def _process(site: Site, *arguments: str) -> list[str]:
    return [sys.executable, str(TREE / "bin" / "jens-reset"), "-c", str(site.config), *arguments]


@pytest.mark.parametrize("arguments", [[], ["-y"]])
def test_whoever_reads_only_the_first_line_gets_no_complaint(built: Site, arguments: list[str]) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.close()
        done = subprocess.run(
            _process(built, *arguments),
            stdout=writer.fileno(),
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TREE)},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (set(built.listing(*MADE)) == EMPTY) == bool(arguments)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("arguments", [[], ["-y"]])
def test_exit_3_whoever_may_not_write_changes_nothing(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user nobody must be able to enter
        site = Site(Path(directory) / "site", capfd)
        call = ["-c", str(site.config), *arguments]
        before = site.listing(".")
        assert as_nobody(lambda: command.main(call)) == 3
        assert site.listing(".") == before
    captured = capfd.readouterr()
    assert captured.out == ""
    assert ("belongs to 'root'" if arguments else "cannot be written") in captured.err


def as_nobody(work: Callable[[], int]) -> int:
    """Run a tool as the user nobody, in a process of its own; return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_knows_its_version_and_its_options(bare_site: Site) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            command.main([option])
        assert caught.value.code == 0
    assert "--yes" in bare_site.capture.readouterr().out
    with pytest.raises(SystemExit) as caught:
        command.main(["--force"])
    assert caught.value.code == 2
