"""Bash completes the options of every tool, with argcomplete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import TREE
from tests.conftest import Site

COMMANDS = sorted((TREE / "bin").glob("jens-*"))


def test_tab_starts_no_run_without_argcomplete(site: Site) -> None:
    shadow = site.root / "shadow"
    shadow.mkdir()
    (shadow / "argcomplete.py").write_text("raise ImportError('none')\n")
    environment = {**os.environ, "_ARGCOMPLETE": "1", "PYTHONPATH": f"{shadow}{os.pathsep}{TREE}"}
    command = [sys.executable, str(TREE / "bin" / "jens-update"), "-c", str(site.config)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (10, b"", b"")
    assert site.environments() == []


#: The tools that write to an instance.
WRITERS = (
    *("jens-update", "jens-hold", "jens-release", "jens-transfer", "jens-deliver"),
    *("jens-gc", "jens-reset", "jens-purge-queue", "jens-gitlab-producer-runner"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_bash_completes_options(command: Path) -> None:
    pytest.importorskip("argcomplete")
    assert "--version" in _completed(command, "--ver")
    assert ("--as-root" in _completed(command, "--as")) == (command.name in WRITERS)


def _completed(command: Path, typed: str) -> list[str]:
    """What bash offers for the beginning of an option."""
    line = f"{command.name} {typed}"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPATH": str(TREE),
    }
    done = subprocess.run([sys.executable, str(command)], env={**os.environ, **asked}, capture_output=True, check=False)
    return done.stdout.decode().split()
