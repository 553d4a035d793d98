"""A push is told at once: who adds a hint asks for a run, and a run that begins removes what asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens import locking
from jens.commands import purge_queue
from jens.config import load_config
from jens.gitlabproducer import create_app
from jens.messaging import wake
from tests import TREE
from tests.conftest import Site


@pytest.fixture
def ondemand(site: Site) -> Site:
    site.settings["main.mode"] = "ONDEMAND"
    site.update()
    return site


def wake_of(site: Site) -> Path:
    return site.root / "spool" / "wake"


def push(site: Site) -> int:
    """Push to modules/dummy, and call the producer as a Git server does. Returns the status of its answer."""
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": f"# {time.time()}\n"})
    payload = {"object_kind": "push", "project": {"git_http_url": site.urls["modules/dummy"]}}
    with create_app(load_config(site.config)).test_client() as client:
        return client.post("/gitlab", json=payload).status_code


def test_a_hint_of_the_producer_asks_for_a_run_which_removes_what_asked_for_it(ondemand: Site) -> None:
    assert push(ondemand) == 201
    assert wake_of(ondemand).exists()
    assert ondemand.hinted() == ["modules/dummy"]
    ondemand.update("--dry-run")
    assert wake_of(ondemand).exists()
    assert ondemand.update("--strict").code == 0
    assert not wake_of(ondemand).exists()
    assert ondemand.hinted() == []


def test_a_push_that_concerns_no_repository_asks_for_no_run(ondemand: Site) -> None:
    ondemand.urls["modules/dummy"] = "https://git.example.org/unknown"
    assert push(ondemand) == 200
    assert not wake_of(ondemand).exists()


@pytest.mark.parametrize("mode", ["POLL", "ONDEMAND"])
def test_a_run_that_fails_has_removed_what_asked_for_it(site: Site, mode: str) -> None:
    site.settings["main.mode"] = mode
    site.update()
    wake.make(site.root / "spool")
    site.definitions.go_away()
    assert site.update().code == 20
    assert not wake_of(site).exists()


def test_a_hint_that_must_stay_asks_for_no_run(ondemand: Site) -> None:
    push(ondemand)
    ondemand.remotes["modules/dummy"].go_away()
    assert ondemand.update("--strict").code == 60
    assert ondemand.hinted() == ["modules/dummy"]
    assert not wake_of(ondemand).exists()


def test_a_hint_that_arrives_during_a_run_asks_for_one_more(ondemand: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = wake.remove

    def remove_and_push(queue: Path) -> None:
        remove(queue)
        push(ondemand)

    monkeypatch.setattr(wake, "remove", remove_and_push)
    ondemand.update()
    assert wake_of(ondemand).exists()


def test_what_asks_for_a_run_is_no_hint_and_no_left_over(ondemand: Site) -> None:
    wake.make(ondemand.root / "spool")
    assert ondemand.queue.count() == 0
    assert purge_queue.main(["-c", str(ondemand.config)]) == 0
    assert wake_of(ondemand).exists()


def test_where_nobody_can_be_woken_the_hint_is_there_all_the_same(
    ondemand: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "NAME", "temporary/nobody/wake")
    assert push(ondemand) == 201
    assert ondemand.hinted() == ["modules/dummy"]
    assert ondemand.update("--strict").code == 0


def test_a_file_of_that_name_asks_for_a_run_as_well(ondemand: Site) -> None:
    wake_of(ondemand).touch()
    assert push(ondemand) == 201
    assert ondemand.update("--strict").code == 0
    assert not wake_of(ondemand).exists()


def test_a_run_waits_for_another_one_when_it_is_told_to(site: Site) -> None:
    site.update()
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# waited\n"})
    with locking.run_lock(load_config(site.config)):
        assert site.update().code == 50
        assert site.update("--wait", "0.2").code == 50
        program = "import sys; from jens.commands import update; sys.exit(update.main(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "-c", str(site.config), "--wait", "300"]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE)
        log = site.root / "log" / "jens-update.log"
        before = log.read_text().count("Updated ref")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        assert log.read_text().count("Updated ref") == before
    assert waiting.wait(120) == 0
    assert site.read("production/modules/dummy/manifests/init.pp") == "# waited\n"


@pytest.mark.parametrize("arguments", [(), ("--wait", "0.1"), ("--dry-run",)])
def test_on_a_terminal_a_run_says_who_holds_the_lock(site: Site, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ours, terminal = os.openpty()
    with locking.run_lock(load_config(site.config)), open(ours, "rb", buffering=0) as screen:
        try:
            ended = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, env=environment, check=False)
        finally:
            os.close(terminal)
        held = f"Lock '{site.root / 'lock' / 'jens'}' is held by another process ({os.getpid()})"
        assert (ended.returncode, ended.stdout) == (50, b"")
        assert screen.read(4096).decode() == f"jens-update: {held}\r\n"
        silent = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (silent.returncode, silent.stdout, silent.stderr) == (50, b"", b"")


@pytest.mark.parametrize("text", ["", "soon", "-1", "inf", "nan"])
def test_a_time_to_wait_that_is_none_is_refused(site: Site, text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        site.update("--wait", text)
    assert ended.value.code == 2
    assert "expected a number of seconds" in site.capture.readouterr().err
