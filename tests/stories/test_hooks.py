"""The hooks in examples/: a line in a chat for each change, and copies of both trees on compile servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jens.commands import deliver
from jens.system import processes
from tests import TREE
from tests.conftest import Site, definition
from tests.everything import everything_below
from tests.receivers import http_server

DUMMY = "modules/dummy"
HOOKS = TREE / "examples" / "hooks"


@pytest.fixture
def site_with_hook(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    site.settings["hook.command"] = str(site.root / "hook")
    site.update()
    return site


def run(site: Site) -> int:
    site.update()
    return deliver.main(["-c", str(site.config)])


# The chat


def chat_lines(site: Site) -> list[str]:
    """What a delivery writes into the chat, which is a real HTTP server."""
    with http_server() as (server, posts):
        text = (HOOKS / "chat").read_text()
        text = text.replace("https://chat.example.org/hooks/change-me", f"http://127.0.0.1:{server.server_port}/hook")
        hook = site.root / "hook"
        hook.write_text(text.replace("/usr/bin/python3", sys.executable))
        hook.chmod(0o755)
        assert run(site) == 0
    return [line for post in posts for line in post["text"].splitlines()]


def test_the_chat_gets_a_line_for_each_change(site_with_hook: Site) -> None:
    site = site_with_hook
    assert chat_lines(site) == []  # that everything changed is no line
    before = site.remotes[DUMMY].commit()
    now = site.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
    site.define("dev", definition("master", {"modules/nothing": "dev"}))
    assert chat_lines(site) == [
        "environment dev created",
        f"{DUMMY} master {before[:7]}..{now[:7]} Ann: push -- production",
        "broken: void override dev modules/nothing: overrides modules 'nothing', which the library does not have",
    ]
    site.retire("dev")
    assert chat_lines(site) == [
        "environment dev deleted",
        "mended: void override dev modules/nothing: overrides modules 'nothing', which the library does not have",
    ]


def test_a_chat_that_is_down_is_told_later(site_with_hook: Site) -> None:
    site = site_with_hook
    chat_lines(site)
    site.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
    assert run(site) == 60
    pushed, failed = chat_lines(site)
    assert pushed.endswith("Ann: push -- production")
    assert failed.startswith("broken: delivery: hook ")


# Copies on compile servers


def below(top: Path) -> dict[str, str]:
    return {path[len(str(top)) :]: what for path, what in everything_below(top).items()}


class Copies:
    """A compile server with disks of its own, to which rsync copies: its remote shell is a script."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = site
        self.top = site.root / "puppet1"
        self.top.mkdir()
        shell = site.root / "shell"
        # The paths on the server are the same as here, so the script moves them aside.
        shell.write_text(f'#!/bin/sh\nshift\neval "exec $(echo "$*" | sed \'s#{site.root}/#{self.top}/#\')"\n')
        shell.chmod(0o755)
        for name in ("clone", "environments"):
            (self.top / name).mkdir()
        monkeypatch.setenv("RSYNC_RSH", str(shell))
        monkeypatch.setenv("SERVERS", "puppet1.example.org")
        monkeypatch.setenv("CLONE", str(site.root / "clone"))
        monkeypatch.setenv("ENVIRONMENTS", str(site.root / "environments"))
        shutil.copy(HOOKS / "rsync", site.root / "hook")

    def seen(self) -> dict[str, str]:
        """What Puppet reads there, by path: links are followed."""
        return {
            str(path.relative_to(self.top)): path.read_text()
            for directory, _, names in os.walk(self.top / "environments", followlinks=True)
            for path in (Path(directory) / name for name in names)
        }


@pytest.fixture
def copies(site_with_hook: Site, monkeypatch: pytest.MonkeyPatch) -> Copies:
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    return Copies(site_with_hook, monkeypatch)


def test_a_compile_server_gets_both_trees_as_they_are(copies: Copies) -> None:
    site = copies.site
    site.remotes[DUMMY].branch("dev")
    site.define("dev", definition("master", {DUMMY: "dev"}))
    assert run(site) == 0
    site.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
    site.retire("dev")
    assert run(site) == 0
    for name in ("clone", "environments"):
        assert below(copies.top / name) == below(site.root / name)
    assert "# more\n" in copies.seen().values()


def test_a_server_that_is_copied_to_never_misses_a_file(copies: Copies) -> None:
    site = copies.site
    assert run(site) == 0
    paths = {*copies.seen()}
    done = threading.Event()
    missing: list[str] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        while not done.is_set():
            missing.extend(path for path in paths if not (copies.top / path).exists())
            looks += 1

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(5):
            site.remotes[DUMMY].push({"code/manifests/init.pp": f"# {number}\n" * 1000})
            assert run(site) == 0
    finally:
        done.set()
        reader.join()
    assert missing == []
    assert looks > 10


def test_a_server_that_cannot_be_reached_fails_the_hook_and_others_are_copied_to(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = copies.site
    shell = Path(os.environ["RSYNC_RSH"])
    shell.write_text(shell.read_text().replace("shift\n", '[ "$1" = puppet0.example.org ] && exit 255\nshift\n'))
    monkeypatch.setenv("SERVERS", "puppet0.example.org puppet1.example.org")
    site.capture.readouterr()
    assert run(site) == 60
    assert "puppet0.example.org is not up to date" in site.capture.readouterr().err
    assert copies.seen()


def test_the_hooks_are_well_formed() -> None:
    assert subprocess.run(["bash", "-n", str(HOOKS / "rsync")], check=False).returncode == 0
    compile((HOOKS / "chat").read_text(), "chat", "exec")
