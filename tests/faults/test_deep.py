"""Trees that are deeper than any path, and than a process may open files: they go, and what stays is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jens.commands import gc, purge_queue, reset
from tests.conftest import Site, let_pass
from tests.unit.system.test_removal import DEEP, make_deep

DUMMY = "modules/dummy"


@pytest.fixture(autouse=True)
def _nothing_deep_stays(site: Site) -> object:
    """A test's directory is removed by pytest, which could not remove these."""
    yield
    subprocess.run(["rm", "-rf", site.root], check=True)


def test_an_element_of_the_queue_of_any_depth_goes(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    name = site.hint(DUMMY)
    make_deep(site.root / "spool" / name / "deep", DEEP)
    for place in ("temporary", "obsolete"):
        (site.root / "spool" / place).mkdir(exist_ok=True)
        make_deep(site.root / "spool" / place / "0123456789abcd", DEEP)
        os.utime(site.root / "spool" / place / "0123456789abcd", (0, 0))
    assert site.update("--strict").code == 0
    assert site.hinted() == []
    assert purge_queue.main(["-c", str(site.config)]) == 0
    assert [len(os.listdir(site.root / "spool" / place)) for place in ("temporary", "obsolete")] == [0, 0]


@pytest.mark.parametrize("tool", ["update", "gc", "reset"])
def test_a_checkout_of_any_depth_goes(site: Site, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.update("--strict").code == 0
    old = site.path(DUMMY, f".{site.expanded(DUMMY)['master']}")
    make_deep(old / "code" / "deep", DEEP)
    site.remotes[DUMMY].push({"code/manifests/init.pp": "# new\n"})
    assert site.update("--strict").code == 0
    let_pass(monkeypatch, 301)
    if tool == "update":
        assert site.update("--strict").code == 0
    elif tool == "gc":
        assert gc.main(["-c", str(site.config), "--clones"]) == 0
    else:
        assert reset.main(["-c", str(site.config), "--yes"]) == 0
    assert not old.exists()
    assert left_overs(site) == []


@pytest.mark.parametrize("depth", [1900, DEEP])
def test_a_tree_without_git_in_the_place_of_a_branch_goes(site: Site, depth: int) -> None:
    assert site.update("--strict").code == 0
    link = site.path(DUMMY, "master")
    link.unlink()
    make_deep(link, depth)
    make_deep(site.root / "environments" / ".new-0123456789ab", depth)
    for _ in range(2):
        assert site.update("--strict").code == 0
    assert link.is_symlink()
    assert left_overs(site) == []


def test_what_stays_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.update("--strict").code == 0
    busy = site.root / "environments" / ".trash-0123456789ab" / "a" / "busy"
    busy.parent.mkdir(parents=True)
    busy.touch()
    unlink = os.unlink

    def refuse_or_unlink(name: str | Path, **more: int) -> None:
        if name == "busy":
            raise OSError(16, "Device or resource busy", name)
        unlink(name, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse_or_unlink)
        outcome = site.update("--strict")
    assert outcome.lines("WARNING") == [f"WARNING Unable to remove '{busy}' yet: Device or resource busy"]
    assert site.update("--strict").lines("WARNING") == []
    assert not busy.exists()


def left_overs(site: Site) -> list[Path]:
    return [path for path in site.root.glob("*/**/.*-????????????") if path.name.startswith((".new-", ".trash-"))]
