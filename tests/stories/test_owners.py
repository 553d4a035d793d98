"""Who runs a tool that writes: only the owner of the instance, and root when it says so."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from flask.testing import FlaskClient

from jens.commands import gc, gitlab_producer_runner, purge_queue, reset, stats, status_runner, update
from tests.conftest import Site
from tests.faults.users import NOBODY, as_user, give, instance_of, needs_root

pytestmark = needs_root

Tool = Callable[[list[str]], int]

WRITERS: dict[str, tuple[Tool, list[str]]] = {
    "update": (update.main, []),
    "poll": (update.main, ["--poll", "--verbose"]),
    "dry run": (update.main, ["--dry-run"]),
    "gc": (gc.main, ["--all"]),
    "reset": (reset.main, ["--yes"]),
    "purge-queue": (purge_queue.main, []),
}
HIDER = 4242  # a user without a name


@pytest.fixture
def built(capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """A site of root after a run, in a directory that every user may enter; its log is empty."""
    top = Path(tempfile.mkdtemp())
    try:
        top.chmod(0o755)
        site = Site(top / "site", capfd)
        for repo in ("common/hieradata", "common/site", "hostgroups/myapp", "modules/dummy"):
            site.add(repo)
        site.publish()
        site.define("production")
        assert site.update("--strict").code == 0
        (site.root / "log" / "jens-update.log").unlink()
        capfd.readouterr()
        yield site
    finally:
        shutil.rmtree(top)


def everything(site: Site) -> dict[Path, tuple[int, int]]:
    """Each path of the instance, with its inode and ctime."""
    states = {path: path.lstat() for path in site.root.rglob("*")}
    return {path: (state.st_ino, state.st_ctime_ns) for path, state in states.items()}


def refused(site: Site, tool: Tool, arguments: list[str], user: int = 0) -> str:
    """Run a tool that must be refused, and touch nothing. Returns its one line."""
    call = ["-c", str(site.config), *arguments]
    before = everything(site)
    assert (as_user(user, lambda: tool(call)) if user else tool(call)) == 3
    assert everything(site) == before
    captured = site.capture.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


@pytest.mark.parametrize("name", WRITERS)
def test_root_by_mistake_writes_nothing_and_is_told_what_to_run(built: Site, name: str) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    tool, arguments = WRITERS[name]
    line = refused(built, tool, arguments)
    key = "queuedir" if name == "purge-queue" else "baredir"
    command = " ".join(["sudo -u nobody jens-test -c", str(built.config), *arguments])
    assert all(word in line for word in (f"{key} '", "belongs to 'nobody'", "not 'root'", command, "--as-root")), line


@pytest.mark.parametrize("name", WRITERS)
def test_root_on_purpose_does_the_work(built: Site, name: str) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    tool, arguments = WRITERS[name]
    assert tool(["-c", str(built.config), *arguments, "--as-root"]) == 0
    assert "belongs" not in built.capture.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--as-root"]])
@pytest.mark.parametrize("name", WRITERS)
def test_another_user_is_refused_whatever_it_says(built: Site, name: str, arguments: list[str]) -> None:
    for path in (built.root, *built.root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777)  # the modes would let it
    for path in instance_of(built):
        give(path, HIDER)
    tool, more = WRITERS[name]
    line = refused(built, tool, [*more, *arguments], NOBODY)
    assert all(word in line for word in (f"belongs to '#{HIDER}'", "not 'nobody'", f"sudo -u '#{HIDER}' jens-test")), (
        line
    )
    assert "or add" not in line


def test_directories_of_root_that_let_others_write_are_an_instance_of_others(built: Site) -> None:
    """As a volume is mounted: its top belongs to root."""
    for path in (*instance_of(built), built.root / "remotes"):
        give(path, NOBODY)
    for name in ("bare", "cache"):
        os.chown(built.root / name, 0, 0)
        (built.root / name).chmod(0o777)
    config = str(built.config)
    assert as_user(NOBODY, lambda: update.main(["-c", config])) == 0


@pytest.mark.parametrize("is_hidden", [False, True], ids=["closed", "hidden"])
@pytest.mark.parametrize("name", WRITERS)
def test_an_instance_of_root_is_roots(built: Site, name: str, is_hidden: bool) -> None:
    tool, arguments = WRITERS[name]
    if is_hidden:
        for part in ("bare", "cache", "spool"):
            (built.root / "closed").mkdir(0o700, exist_ok=True)
            (built.root / part).rename(built.root / "closed" / part)
        for key, part in (("main.baredir", "bare"), ("main.cachedir", "cache"), ("messaging.queuedir", "spool")):
            built.settings[key] = str(built.root / "closed" / part)
    line = refused(built, tool, arguments, NOBODY)
    assert all(word in line for word in ("belongs to 'root'", "not 'nobody'", "sudo -u root jens-test")), line
    assert "or add" not in line


def test_a_producer_of_the_wrong_user_is_told_whose_the_queue_is(built: Site) -> None:
    line = refused(built, gitlab_producer_runner.main, [], NOBODY)
    expected = "belongs to 'root', expected that 'root' runs the producer, or that 'nobody' may write to it"
    assert line.endswith(f"queuedir '{built.root / 'spool'}': {expected}")
    (built.root / "spool").chmod(0o777)
    assert "log 'jens-gitlab-producer.log' cannot be written" in refused(built, gitlab_producer_runner.main, [], NOBODY)


def test_an_instance_that_is_hidden_from_a_user_names_its_owner(built: Site) -> None:
    for path in instance_of(built):
        give(path, HIDER)
    (built.root / "var").mkdir()
    for name in ("bare", "cache"):
        (built.root / name).rename(built.root / "var" / name)
        built.settings[f"main.{name}dir"] = str(built.root / "var" / name)
    give(built.root / "var", HIDER)
    (built.root / "var").chmod(0o700)
    line = refused(built, update.main, [], NOBODY)
    assert all(word in line for word in (str(built.root / "var" / "bare"), f"belongs to '#{HIDER}'")), line


@pytest.mark.parametrize("part", ["bare", "cache"])
def test_mirrors_and_cache_of_two_owners_are_nobodys(built: Site, part: str) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    os.chown(built.root / part, HIDER, HIDER)
    line = refused(built, update.main, [], NOBODY)
    assert all(word in line for word in (f"{part}dir", "'nobody'", f"'#{HIDER}'", "expected one owner", "chown")), line


def test_for_the_queue_its_own_owner_counts(built: Site) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    os.chown(built.root / "spool", 0, 0)
    assert purge_queue.main(["-c", str(built.config)]) == 0
    built.settings["main.mode"] = "POLL"
    config = str(built.config)
    give(built.root / "remotes", NOBODY)
    (built.root / "log" / "jens-purge-queue.log").unlink()
    assert as_user(NOBODY, lambda: update.main(["-c", config])) == 0


def test_root_runs_no_producer_on_the_queue_of_another_user(built: Site) -> None:
    """What root writes there, jens-update could not remove."""
    give(built.root / "spool", NOBODY)
    assert "queuedir" in refused(built, gitlab_producer_runner.main, [])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert gitlab_producer_runner.main(["-c", str(built.config), "-p", port, "--as-root"]) == 10


@pytest.mark.parametrize("part", ["spool", "bare", "cache"])
def test_root_runs_no_producer_for_another_user_behind_any_wsgi_server(built: Site, part: str) -> None:
    """A WSGI server can give no option."""
    give(built.root / part, NOBODY)
    config = str(built.config)
    before = everything(built)
    with pytest.raises(SystemExit) as caught:
        gitlab_producer_runner.application(config)
    assert caught.value.code == 3
    assert everything(built) == before
    [line] = built.capture.readouterr().err.splitlines()
    key = {"spool": "queuedir", "bare": "baredir", "cache": "cachedir"}[part]
    assert all(word in line for word in (f"{key} '", "belongs to 'nobody'", "gunicorn --user=nobody", "user=nobody")), (
        line
    )


def test_root_runs_the_producer_of_its_own_instance(built: Site) -> None:
    assert callable(gitlab_producer_runner.application(str(built.config)))


def test_the_owner_runs_the_producer_behind_any_wsgi_server(built: Site) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    config = str(built.config)
    assert as_user(NOBODY, lambda: int(not callable(gitlab_producer_runner.application(config)))) == 0


def test_root_may_serve_the_status_page_of_anybody(built: Site) -> None:
    """It writes nothing."""
    for path in instance_of(built):
        give(path, NOBODY)
    client = FlaskClient(status_runner.application(str(built.config)))
    before = everything(built)
    commit = built.remotes["modules/dummy"].commit()
    pages = ["/", "/environments/production", "/repositories/modules/dummy", "/history", f"/commits/{commit}"]
    pages += ["/healthz", "/metrics"]
    assert {page: client.get(page).status_code for page in pages} == dict.fromkeys(pages, 200)
    assert everything(built) == before


def test_root_may_read(built: Site) -> None:
    for path in instance_of(built):
        give(path, NOBODY)
    config = str(built.config)
    before = everything(built)
    assert stats.main(["-c", config, "--all"]) == 0
    assert reset.main(["-c", config]) == 10
    assert everything(built) == before
