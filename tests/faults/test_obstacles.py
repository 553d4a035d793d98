"""Obstacles in the place of a directory, a link or a file: Jens removes them where it may, and names the others."""

from __future__ import annotations

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
        ("environments/production", 0o500, 0),  # the run has nothing to do there
        ("environments/production/modules", 0o500, 60),
        ("environments/production/modules", 0o000, 60),
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
