"""Whole runs: what teams push, and what Puppet then sees. The tests look at the disk."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from jens import preflight
from jens.commands import idle, update
from jens.git import history, wrapper
from jens.git.remotes import Remotes
from jens.git.workers import results, workers
from jens.layout import Layout
from jens.repositories import prepare as repositories_prepare
from jens.repositories.model import Prepared, Request
from tests import TREE
from tests.conftest import Site, definition, git, let_pass


def test_production_shows_exactly_the_links_of_the_layout(site: Site) -> None:
    assert site.update().code == 0
    assert site.links("production") == {
        "modules/dummy": "../../../clone/modules/dummy/master/code",
        "hieradata/module_names/dummy": "../../../../clone/modules/dummy/master/data",
        "hostgroups/hg_myapp": "../../../clone/hostgroups/myapp/master/code",
        "hieradata/hostgroups/myapp": "../../../../clone/hostgroups/myapp/master/data/hostgroup",
        "hieradata/fqdns/myapp": "../../../../clone/hostgroups/myapp/master/data/fqdns",
        "site": "../../clone/common/site/master/code",
        "hieradata/common.yaml": "../../../clone/common/hieradata/master/data/common.yaml",
        "hieradata/environments": "../../../clone/common/hieradata/master/data/environments",
        "hieradata/hardware": "../../../clone/common/hieradata/master/data/hardware",
        "hieradata/operatingsystems": "../../../clone/common/hieradata/master/data/operatingsystems",
    }
    assert site.read("production/modules/dummy/manifests/init.pp") == "class dummy {}\n"


def test_a_push_is_visible_after_one_run(site: Site) -> None:
    site.update()
    before = site.remotes["modules/dummy"].commit()
    commit = site.remotes["modules/dummy"].push({"code/manifests/init.pp": "class dummy { notice(1) }\n"})
    outcome = site.update()
    assert site.read("production/modules/dummy/manifests/init.pp") == "class dummy { notice(1) }\n"
    assert site.expanded("modules/dummy") == {"master": commit}
    assert outcome.has(f"INFO Updated ref '{site.root}/clone/modules/dummy/master' ({before[:7]}..{commit[:7]})")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")


NOTHING = ["INFO Nothing new", "INFO Done"]


def test_a_run_with_nothing_to_do_logs_two_lines(site: Site) -> None:
    assert len(site.update().lines()) > 20
    for arguments in ([], ["--poll"], ["--allow-purge"]):
        assert site.update(*arguments).lines() == NOTHING
    verbose = site.update("-v").lines()
    assert verbose[0] == "INFO Obtaining lock 'jens' (attempt: 1)..."
    assert verbose[-3:] == ["INFO Releasing lock 'jens'...", *NOTHING]
    site.settings["main.debuglevel"] = "DEBUG"
    assert len(site.update().lines()) > len(NOTHING)
    site.settings["main.debuglevel"] = "WARNING"
    assert site.update().lines() == []


def _push(site: Site) -> None:
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "class dummy { notice(2) }\n"})


def _change_the_address(site: Site) -> None:
    site.define("production", definition(mail="bob"))


def _lose_a_branch(site: Site) -> None:
    site.remotes["modules/dummy"].delete("qa")


def _damage_an_environment(site: Site) -> None:
    (site.root / "environments/production/modules/dummy").unlink()


def _fail(site: Site) -> None:
    site.remotes["modules/dummy"].go_away()


def _push_what_no_environment_uses(site: Site) -> None:
    site.remotes["modules/dummy"].branch("aside")


def _follow_another_url(site: Site) -> None:
    remote = site.remotes["modules/dummy"]
    shutil.copytree(remote.path, site.root / "remotes/elsewhere.git")
    site.urls["modules/dummy"] = f"file://{site.root}/remotes/elsewhere.git"
    site.publish()


@pytest.mark.parametrize(
    ("happen", "line"),
    [
        (_push, "INFO Updating ref"),
        (_change_the_address, "INFO Recreating environment 'production'"),
        (_lose_a_branch, "INFO Removing"),
        (_damage_an_environment, "INFO Refreshing not changed environments..."),
        (_fail, "ERROR Unable to fetch 'dummy'"),
        (_push_what_no_environment_uses, "INFO Fetched modules/dummy"),
        (_follow_another_url, "INFO Fetched modules/dummy"),
        (lambda site: site.retire("team"), "INFO Deleting environment 'team'"),
    ],
)
def test_a_run_that_does_something_logs_all_lines(site: Site, happen: Callable[[Site], None], line: str) -> None:
    site.remotes["modules/dummy"].branch("qa")
    site.define("team", definition(overrides={"modules/dummy": "qa"}))
    site.update()
    happen(site)
    outcome = site.update("--poll")
    assert outcome.lines()[0] == "INFO Obtaining lock 'jens' (attempt: 1)..."
    assert outcome.has(line)
    assert not outcome.has("Nothing new")


@pytest.mark.parametrize("arguments", [[], ["--allow-purge"]], ids=["pushed", "everything"])
def test_a_run_that_removes_an_expired_checkout_logs_all_lines(
    site: Site, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.update()
    [old] = site.checkouts("modules/dummy")
    _push(site)
    site.update()
    assert site.update(*arguments).lines() == NOTHING
    let_pass(monkeypatch, 301)
    outcome = site.update(*arguments)
    assert outcome.has(f"INFO Removed '{site.path('modules/dummy', f'.{old}')}', its retention is over")
    assert outcome.lines()[0] == "INFO Obtaining lock 'jens' (attempt: 1)..."
    assert not outcome.has("Nothing new")


def test_a_warning_of_every_run_stands_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    monkeypatch.setattr(preflight, "filesystem_doubts", lambda _config: ["it is odd"])
    lines = site.update().lines()
    assert lines == ["INFO Obtaining lock 'jens' (attempt: 1)...", "WARNING it is odd", *NOTHING]


def test_a_run_that_found_a_hint_logs_all_lines(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    site.update()
    assert site.update().lines() == NOTHING
    site.hint("modules/dummy")
    assert site.update().has("INFO 1 messages found")


def _wait_for(log: Path, text: str) -> bool:
    """Wait until the log has a text, bounded widely."""
    for _attempt in range(3000):
        if text in log.read_text():
            return True
        time.sleep(0.01)
    return False


def test_the_log_tells_where_a_run_is_that_takes_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    log = site.root / "log/jens-update.log"
    log.write_text("")
    monkeypatch.setattr(idle, "HELD_BACK", 0.01)
    found: list[bool] = []

    def wait(*_: object) -> list[str]:
        found.append(_wait_for(log, "Obtaining lock 'jens'"))
        return []

    monkeypatch.setattr(preflight, "filesystem_doubts", wait)
    assert site.update().lines()[-2:] == NOTHING
    assert found == [True]


def test_what_a_run_begins_is_in_the_log_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.update()
    site.add("modules/later")
    site.publish()
    log = site.root / "log/jens-update.log"
    log.write_text("")
    monkeypatch.setattr(idle, "HELD_BACK", 3600)
    clone, found = wrapper.clone, []

    def wait_and_clone(staging: Path, url: str, options: wrapper.GitOptions) -> None:
        found.append(_wait_for(log, "INFO Cloning and expanding modules/later..."))
        clone(staging, url, options)

    monkeypatch.setattr(wrapper, "clone", wait_and_clone)
    site.update()
    assert found == [True]


def test_a_run_that_is_killed_leaves_in_the_log_what_it_did(site: Site) -> None:
    site.update()
    log = site.root / "log/jens-update.log"
    log.write_text("")
    program = f"""
import os, signal, sys
from jens.commands import update
from jens.repositories import publish
publish.move_links = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(update.main(["-c", {str(site.config)!r}]))
"""
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(TREE)}, check=False)
    assert done.returncode == -signal.SIGKILL
    lines = log.read_text().splitlines()
    assert "Obtaining lock 'jens' (attempt: 1)..." in lines[0]
    assert any("Updated ref" in line for line in lines)
    times = [line[:23] for line in lines]
    assert times == sorted(times)


def _on_a_terminal(site: Site, *arguments: str) -> list[str]:
    """What somebody sees of a run, line by line; what a line shows one after the other counts as lines."""
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), *arguments]
    ours, terminal = os.openpty()
    process = subprocess.Popen(command, stderr=terminal, env={**os.environ, "PYTHONPATH": str(TREE)})
    os.close(terminal)
    shown = b""
    with process, open(ours, "rb", buffering=0) as screen, suppress(OSError):  # at the end the terminal is closed
        while piece := screen.read(4096):
            shown += piece
    assert process.returncode == 0, shown
    return [line for line in shown.decode().replace("\r", "\n").split("\n") if line]


def test_on_a_terminal_a_run_says_what_came_of_it_and_where_to_look(site: Site) -> None:
    progress = re.compile(r"(Asking|Preparing) repositories: (\d+) of (\d+)")
    assert _on_a_terminal(site)[-1] == "Changed: repositories 4, environments 1."
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    assert _on_a_terminal(site)[-1] == "Changed: repositories 1, environments 0."
    for remote in site.remotes.values():
        remote.go_away()
    *lines, last = _on_a_terminal(site, "--poll")
    assert last == (
        "Changed: repositories 0, environments 0. Failed: 4. Open faults: 4, "
        f"see jens-stats and {site.root}/log/jens-update.log."
    )
    counted = [match.groups() for match in map(progress.fullmatch, lines) if match]
    assert len(counted) == len(lines)
    numbers = [str(number) for number in range(1, 5)]
    assert counted == [(what, number, "4") for what in ("Asking", "Preparing") for number in numbers]


def test_the_log_tells_from_where_to_where_a_branch_has_moved(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, log_of = site.remotes["modules/dummy"], f"{site.root}/clone/modules/dummy"
    first = remote.commit()
    assert site.update().has(f"INFO Populating new ref '{log_of}/master' ({first[:7]})")
    second = remote.push({"code/manifests/init.pp": "# second\n"})
    third = remote.push({"code/manifests/init.pp": "# third\n"})
    assert site.update().has(f"INFO Updated ref '{log_of}/master' ({first[:7]}..{third[:7]})")
    git("update-ref", "refs/heads/master", second, directory=remote.path)
    assert site.update().has(f"INFO Updated ref '{log_of}/master' ({third[:7]}..{second[:7]}, forced)")
    rewritten = remote.push({"code/manifests/init.pp": "# rewritten\n"}, rewrite=True)
    asked: list[str] = []
    is_rewritten = history.is_rewritten

    def ask(bare: Path, old: str, new: str) -> bool:
        asked.append(new)
        return is_rewritten(bare, old, new)

    monkeypatch.setattr(history, "is_rewritten", ask)
    assert site.update().has(f"INFO Updated ref '{log_of}/master' ({second[:7]}..{rewritten[:7]}, forced)")
    shutil.rmtree(site.root / "bare" / "modules" / "dummy")  # the new mirror does not have the old commit
    last = remote.push({"code/manifests/init.pp": "# last\n"}, rewrite=True)
    assert site.update().has(f"INFO Updated ref '{log_of}/master' ({rewritten[:7]}..{last[:7]}, forced)")
    site.update()
    assert asked == [rewritten, last], "Git is asked once for a branch that moves, and not for others"


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_every_configured_directory_may_be_a_symbolic_link(site: Site, mode: str) -> None:
    site.settings["main.mode"] = mode
    for name in ("bare", "clone", "cache", "environments", "log", "lock", "spool", "metadata"):
        (site.root / name).rename(site.root / f"real-{name}")
        (site.root / name).symlink_to(site.root / f"real-{name}")
    assert site.update("--strict").code == 0
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.hint("modules/dummy")
    assert site.update("--strict").code == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# new\n"


@pytest.mark.parametrize("columns", ["", "0", "-5", "many", "40", "100"])
def test_help_is_as_wide_as_the_terminal_if_that_is_known(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        update.main(["--help"])
    expected = int(columns) if columns in ("40", "100") else 80
    assert expected - 20 < max(map(len, capsys.readouterr().out.splitlines())) < expected


def test_when_a_worker_fails_nobody_waits_for_the_others() -> None:
    released = Event()
    with workers(2) as pool:
        futures: list[Future[object]] = [pool.submit(released.wait, 60), pool.submit(int, "nonsense")]
        with pytest.raises(ValueError, match="nonsense"):
            results(futures)
        released.set()
        assert results(futures[:1]) == [True]


def test_the_largest_repositories_are_prepared_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of files is that of the present checkout; for a new repository it is not known."""
    site.add("modules/large", {f"code/{number}.pp": "# one of many\n" for number in range(40)})
    site.publish()
    site.settings["git.jobs"] = "1"
    assert site.update("--strict").code == 0
    begun: list[str] = []
    prepare = repositories_prepare.prepare

    def noted(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
        begun.append(str(request.repo))
        return prepare(layout, remotes, request)

    monkeypatch.setattr(repositories_prepare, "prepare", noted)
    for repo in ("modules/dummy", "modules/large", "hostgroups/myapp"):
        site.remotes[repo].push({"code/new.pp": "# new\n"})
    assert site.update("--strict").code == 0
    assert begun[0] == "modules/large"
    assert sorted(begun) == ["hostgroups/myapp", "modules/dummy", "modules/large"]


def test_a_run_with_local_remotes_imports_nothing_that_speaks_to_servers(site: Site) -> None:
    site.update()
    program = (
        "import sys; from jens.commands.update import main; code = main(sys.argv[1:]);"
        "print(code, [name for name in ('ssl', 'http.client', 'jens.git.web', 'jens.git.websettings', 'queue')"
        " if name in sys.modules])"
    )
    for mode in ("POLL", "ONDEMAND"):
        site.settings["main.mode"] = mode
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", program, "-c", str(site.config)],
                env={**os.environ, "PYTHONPATH": str(TREE)},
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout == "0 []\n"
