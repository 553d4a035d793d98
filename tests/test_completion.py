"""Bash completes the options of every tool, with argcomplete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
COMMANDS = sorted((TREE / "bin").glob("jens-*"))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_bash_completes_options(command: Path) -> None:
    pytest.importorskip("argcomplete")
    line = f"{command.name} --ver"
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
    assert "--version" in done.stdout.decode().split()
