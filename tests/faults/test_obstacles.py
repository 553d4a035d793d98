"""Obstacles in the place of a directory, a link or a file: Jens removes them where it may, and names the others."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from jens.commands import update
from tests.conftest import Site, definition
from tests.faults.users import NOBODY, as_user, give, instance_of, needs_root

DUMMY, MYAPP = "modules/dummy", "hostgroups/myapp"
INIT = "code/manifests/init.pp"


@pytest.fixture
def built(site: Site) -> Site:
    """A site with two environments, after its first run."""
    site.settings["main.directory_environments"] = "True"
    site.define("team", definition(overrides={DUMMY: "master"}, more="parser: current\n"))
    assert site.update("--strict").code == 0
    return site


def push(site: Site, text: str = "new") -> None:
    """Push to each repository."""
    for repo, remote in site.remotes.items():
        remote.push({INIT: f"# {text} in {repo}\n"})


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def put(kind: str, path: Path) -> None:
    """Put an obstacle at this path."""
    if os.path.lexists(path):
        remove(path)
    if kind == "file":
        path.write_text("Somebody's notes\n")
    elif kind == "directory":
        (path / "with").mkdir(parents=True)
        (path / "with" / "file").touch()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)


def assert_right(site: Site, text: str = "new") -> None:
    """Check that all environments show the last push, and nothing dangles."""
    for name in site.environments():
        assert site.dangling(name) == []
        assert site.read(f"{name}/modules/dummy/manifests/init.pp") == f"# {text} in modules/dummy\n"
        assert site.read(f"{name}/hostgroups/hg_myapp/manifests/init.pp") == f"# {text} in hostgroups/myapp\n"


KINDS = ("file", "directory", "dangling link", "link to itself", "pipe")
PLACES = (
    "environments/team/modules/dummy",
    "environments/team/site",
    "environments/team/modules",
    "environments/team/hieradata/fqdns",
    "environments/team/environment.conf",
    "clone/modules/dummy/master",
    "bare/modules/dummy",
    "cache/inventory.json",
    "cache/last-run.json",
    "cache/unreferenced.json",
    "cache/absent-refs.json",
    "cache/dangling.json",
    "cache/refusals.json",
    "cache/baseline.json",
    "cache/environments/team",
)


@pytest.mark.parametrize("path", PLACES)
def test_an_obstacle_in_the_place_of_something_of_jens_is_removed(built: Site, path: str) -> None:
    control = {name: built.links(name) for name in built.environments()}
    for kind in KINDS:
        put(kind, built.root / path)
        push(built, kind)
        outcome = built.update()
        assert outcome.code == 0, (kind, outcome.log)
        outcome = built.update("--strict")
        assert (outcome.code, outcome.lines("WARNING")) == (0, []), (kind, outcome.log)
        assert {name: built.links(name) for name in built.environments()} == control
        assert_right(built, kind)


@pytest.mark.parametrize("path", ["clone/modules/dummy", "clone/modules", "bare/modules", "environments/team"])
def test_an_obstacle_in_the_place_of_a_directory_is_named_once_and_stops_nothing_else(built: Site, path: str) -> None:
    control = {name: built.links(name) for name in built.environments()}
    place = built.root / path
    for kind in ("file", "dangling link", "link to itself", "pipe"):
        put(kind, place)
        push(built, kind)
        outcome = built.update("--strict")
        assert outcome.code in (0, 3, 60), (kind, outcome.log)
        if outcome.code == 3:
            assert str(place) in outcome.stderr
            assert outcome.stderr.count("\n") == 1
        elif outcome.code == 60:
            assert any(str(place) in line for line in outcome.lines("ERROR"))
            assert built.read("production/hostgroups/hg_myapp/manifests/init.pp") == f"# {kind} in hostgroups/myapp\n"
        if outcome.code:
            remove(place)
        assert built.update().code == 0
        outcome = built.update("--strict")
        assert (outcome.code, outcome.lines("WARNING")) == (0, []), (kind, outcome.log)
        assert {name: built.links(name) for name in built.environments()} == control
        assert_right(built, kind)


@needs_root
@pytest.mark.parametrize(
    ("path", "mode", "expected"),
    [
        ("bare/modules/dummy", 0o000, 0),  # made anew
        ("bare/modules/dummy/objects", 0o000, 0),
        ("bare/modules/dummy", 0o500, 60),
        ("clone/modules/dummy", 0o000, 60),
        ("clone/modules/dummy", 0o500, 60),
        ("environments/production", 0o500, 0),  # put right, as all below
        ("environments/production", 0o000, 0),
        ("environments/production/modules", 0o500, 0),
        ("environments/production/modules", 0o000, 0),
    ],
    ids=str,
)
def test_what_jens_may_not_read_or_write_is_named_and_all_else_is_done(
    open_site: Site, path: str, mode: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_site
    site.define("team")
    config, log = str(site.config), site.root / "log" / "jens-update.log"
    assert site.update("--strict").code == 0
    log.unlink()
    site.add("modules/late")
    site.publish()
    push(site)
    for part in (site.root / "remotes", *instance_of(site)):
        give(part, NOBODY)
    monkeypatch.setenv("HOME", str(site.root))
    place = site.root / path
    place.chmod(mode)
    code = as_user(NOBODY, lambda: update.main(["-c", config, "--strict"]))
    text = log.read_text()
    assert (code, "Traceback" in text) == (expected, False), text
    errors = [line for line in text.splitlines() if " ERROR " in line]
    repo = "/".join(path.split("/")[1:3])
    assert bool(expected) == any(str(place) in line or repo in line for line in errors), text
    assert site.read("team/hostgroups/hg_myapp/manifests/init.pp") == "# new in hostgroups/myapp\n"
    assert site.read("team/modules/late/manifests/init.pp") == "# new in modules/late\n"
    place.chmod(0o755)
    log.unlink()
    assert as_user(NOBODY, lambda: update.main(["-c", config, "--strict"])) == 0
    assert_right(site)
    assert site.read("production/modules/late/manifests/init.pp") == "# new in modules/late\n"


# What somebody else made in the place of an environment. Puppet Server makes an empty, closed production.

PUPPET = 12345


@pytest.fixture
def shared_site(open_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose instance belongs to a user that is not root; nothing has been built."""
    site = open_site
    site.settings["main.directory_environments"] = "True"
    site.define("team")
    for path in (site.root / "remotes", *instance_of(site)):
        give(path, NOBODY)
    monkeypatch.setenv("HOME", str(site.root))
    return site


def make(path: Path, mode: int, *content: str) -> None:
    """Make a directory that belongs to Puppet Server."""
    path.mkdir()
    for name in content:
        (path / name).write_text("precious\n")
    give(path, PUPPET)
    path.chmod(mode)


def run(site: Site, *arguments: str) -> tuple[int, str]:
    """Run jens-update as the owner of the instance. Returns the exit code and what it logged."""
    log, config = site.root / "log" / "jens-update.log", str(site.config)
    log.unlink(missing_ok=True)
    code = as_user(NOBODY, lambda: update.main(["-c", config, *arguments]))
    return code, log.read_text()


def told(text: str, level: str) -> list[str]:
    """The lines of this level, but for the one that each first run logs."""
    lines = [line for line in text.splitlines() if f" {level} " in line]
    return [line for line in lines if "Inventory on disk not found" not in line]


def assert_taken_over(site: Site, name: str = "production") -> None:
    """The environment is there, with the owner and the modes that Jens gives."""
    top = site.root / "environments" / name
    directories = [path for path in (top, *top.rglob("*")) if path.is_dir() and not path.is_symlink()]
    assert len(directories) == 7
    for path in directories:
        assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (NOBODY, 0o755), path
    assert (top / "environment.conf").stat().st_mode & 0o777 == 0o644
    assert site.links(name).keys() == site.links("team").keys()
    assert site.exists(f"{name}/modules/dummy/manifests/init.pp")


@needs_root
@pytest.mark.parametrize("mode", [0o750, 0o755, 0o700, 0o1777], ids=oct)
def test_an_empty_directory_of_somebody_else_gives_way_to_the_environment(shared_site: Site, mode: int) -> None:
    site, top = shared_site, shared_site.root / "environments"
    make(top / "production", mode)
    code, text = run(site, "--strict")
    assert (code, told(text, "ERROR")) == (0, [])
    if mode == 0o1777:  # everybody can use it, so it stays
        assert told(text, "WARNING") == []
    else:
        [line] = told(text, "WARNING")
        assert all(word in line for word in ("'production'", str(top / "production"), f"'#{PUPPET}'", f"{mode:04o}"))
        assert_taken_over(site)
    assert sorted(os.listdir(top)) == ["production", "team"]
    code, text = run(site, "--strict")
    assert (code, told(text, "WARNING")) == (0, [])


@needs_root
def test_what_somebody_else_has_written_there_is_kept_aside_and_told(shared_site: Site) -> None:
    site, top = shared_site, shared_site.root / "environments"
    make(top / "production", 0o750, "site.pp")
    code, text = run(site, "--strict")
    assert (code, told(text, "ERROR")) == (0, [])
    [line] = told(text, "WARNING")
    [kept] = [path for path in top.iterdir() if path.name not in ("production", "team")]
    assert f"'{kept}'" in line
    assert (kept / "site.pp").read_text() == "precious\n"
    assert_taken_over(site)
    assert run(site, "--strict")[0] == 0
    assert kept.exists()


@needs_root
def test_a_directory_that_cannot_be_replaced_is_told_in_one_line_and_all_else_is_made(shared_site: Site) -> None:
    site, top = shared_site, shared_site.root / "environments"
    make(top / "production", 0o750)
    os.chown(top, 4242, NOBODY)
    top.chmod(0o1775)  # whoever owns neither the directory nor what is in it cannot rename that
    for _ in range(2):
        code, text = run(site, "--strict")
        assert code == 60
        [line] = told(text, "ERROR")
        expected = (str(top / "production"), f"'#{PUPPET}'", "0750", "expected", "'nobody'", "0755", "remove it")
        assert all(word in line for word in expected), line
        assert told(text, "WARNING") == []
        assert sorted(os.listdir(top)) == ["production", "team"]
        assert site.exists("team/modules/dummy/manifests/init.pp")
    (top / "production").rmdir()
    assert run(site, "--strict")[0] == 0
    assert_taken_over(site)


@needs_root
@pytest.mark.parametrize("part", ["", "hieradata", "hieradata/fqdns"])
def test_an_environment_that_was_given_away_is_made_anew(shared_site: Site, part: str) -> None:
    site, top = shared_site, shared_site.root / "environments"
    assert run(site, "--strict")[0] == 0
    give(top / "production" / part, PUPPET)
    (top / "production" / part).chmod(0o750)
    code, text = run(site, "--strict", "--dry-run")
    assert code == 0, text
    assert (top / "production" / part).stat().st_uid == PUPPET
    code, text = run(site, "--strict")
    assert (code, told(text, "ERROR")) == (0, [])
    assert_taken_over(site)


@needs_root
def test_modes_that_somebody_changed_are_put_right_and_links_are_left_alone(shared_site: Site) -> None:
    site, top = shared_site, shared_site.root / "environments" / "production"
    assert run(site, "--strict")[0] == 0
    before = {path: path.lstat().st_ino for path in top.rglob("*")}
    changed = {"hieradata/fqdns": 0, "hieradata": 0o700, "hostgroups": 0o777, "environment.conf": 0o600, "": 0o711}
    for name, mode in changed.items():
        (top / name).chmod(mode)
    code, text = run(site, "--strict", "--dry-run")
    assert (code, top.stat().st_mode & 0o777) == (0, 0o711)
    code, text = run(site, "--strict")
    assert (code, told(text, "ERROR")) == (0, [])
    [line] = told(text, "WARNING")
    assert all(f"'{name or '.'}'" in line for name in ("production", *changed))
    assert_taken_over(site)
    assert {path: path.lstat().st_ino for path in top.rglob("*")} == before
    code, text = run(site, "--strict")
    assert (code, told(text, "WARNING")) == (0, [])


@needs_root
def test_root_puts_the_modes_of_what_somebody_else_made_right(site: Site) -> None:
    make(site.root / "environments" / "production", 0o750)
    assert site.update("--strict").code == 0
    assert (site.root / "environments" / "production").stat().st_mode & 0o777 == 0o755
    assert site.exists("production/modules/dummy/manifests/init.pp")


@needs_root
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o750, "Would make environment 'production' anew, in the place of what is there"),
        (0o700, "Would put right the modes of ['.'] in environment 'production'"),
        (0o000, "Would put right the modes of ['.'] in environment 'production'"),
    ],
)
def test_a_dry_run_tells_of_a_directory_in_the_place_of_an_environment(shared_site: Site, mode: int, said: str) -> None:
    site, place = shared_site, shared_site.root / "environments" / "production"
    if mode == 0o750:
        make(place, mode)
    else:
        assert run(site, "--strict")[0] == 0
        place.chmod(mode)
    output, config = site.root / "log" / "output", str(site.config)
    before = place.lstat()

    def dry_run() -> int:
        with open(output, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            return update.main(["-c", config, "--dry-run"])

    assert as_user(NOBODY, dry_run) == 0
    assert said in output.read_text()
    after = place.lstat()
    assert (after.st_ino, after.st_mode, after.st_ctime_ns) == (before.st_ino, before.st_mode, before.st_ctime_ns)


@needs_root
def test_what_no_definition_declares_is_left_to_who_made_it(shared_site: Site) -> None:
    place = shared_site.root / "environments" / "somebodys"
    make(place, 0o750, "site.pp")
    assert run(shared_site, "--strict")[0] == 0
    assert (place.stat().st_uid, place.stat().st_mode & 0o777, os.listdir(place)) == (PUPPET, 0o750, ["site.pp"])
