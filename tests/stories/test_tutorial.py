"""The tutorial, word for word: each command prints what the tutorial shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import TREE

#: The sources that a reader has before the first command, and that `make .venv` needs.
COPIED = ("Makefile", "setup.py", "bin", "conf", "examples", "jens")

PLACES = (
    "/etc/jens",
    "/var/lib/jens",
    "/var/log/jens",
    "/var/spool/jens-update",
    "/run/lock/jens",
    "/tmp/example-repositories",
)
#: The port of the producer in the tutorial.
_PORT = "8431"
_PLACE = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, PLACES))})(?![\w-])")
_FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_ABSOLUTE = re.compile(r"(?<![\w.*}$-])/(?:etc|home|opt|root|run|srv|tmp|usr|var)\b[^\s'\"]*")
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[\d+\]"), "TIME [PROCESS]"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "COMMIT"),
    (re.compile(r"\b[0-9a-f]{7}\b"), "COMMIT"),
    (re.compile(r"\b\d+\.\d s after the push"), "SECONDS s after the push"),
)

pytestmark = pytest.mark.skipif(not (shutil.which("make") and shutil.which("curl")), reason="the tutorial uses them")


class Step(NamedTuple):
    """Commands, and all that they print."""

    commands: str
    output: str


def steps() -> list[Step]:
    found: list[Step] = []
    for fence in _FENCE.finditer((TREE / "docs" / "tutorial.md").read_text("utf-8")):
        if fence["kind"] == "sh":
            found.append(Step(fence["text"], ""))
        else:
            assert fence["kind"] == "text", fence["kind"]
            assert not found[-1].output, f"two outputs for {found[-1].commands}"
            found[-1] = found[-1]._replace(output=fence["text"])
    return found


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def needs_curl(step: Step) -> bool:
    """Whether a step is about the producer, from its start to its end."""
    return _PORT in step.commands or "kill %1" in step.commands


@dataclass(frozen=True)
class Sandbox:
    """A directory that replaces the root of the file system in the tutorial's paths, and a port that is free."""

    root: Path
    port: str = field(default_factory=_free_port)

    @property
    def tree(self) -> Path:
        return self.root / "home" / "jens"

    def moved(self, text: str) -> str:
        return _PLACE.sub(lambda match: f"{self.root}{match[1]}", text).replace(_PORT, self.port)

    def copy(self, name: str) -> None:
        """Copy a part of the sources; all paths in its text are moved, also that of the configuration file."""
        source = TREE / name
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for path in files:
            if path.suffix == ".pyc":
                continue
            copy = self.tree / path.relative_to(TREE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(self.moved(path.read_text("utf-8")), "utf-8")

    def install(self) -> None:
        """Do what `make .venv` does, without a network; make then finds that .installed is up to date."""
        scripts = self.tree / ".venv" / "bin"
        scripts.mkdir(parents=True)
        (scripts / "python").symlink_to(sys.executable)
        for script in (self.tree / "bin").iterdir():
            wrapper = scripts / script.name
            wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{self.tree}" exec "{sys.executable}" "{script}" "$@"\n')
            wrapper.chmod(0o755)
        (self.tree / ".venv" / ".installed").touch()

    def run(self, tutorial: list[Step]) -> list[str]:
        """Type all commands into one shell; return the output of each step."""
        script = "".join(
            f"exec >'{self.root}/{number}.out' 2>&1\n{self.moved(step.commands)}"
            for number, step in enumerate(tutorial)
        )
        elsewhere = [path for path in _ABSOLUTE.findall(script) if not path.startswith(str(self.root))]
        assert elsewhere == [], "the tutorial would leave its sandbox"
        home = self.root / "home"
        (home / ".gitconfig").write_text("[init]\n\tdefaultBranch = main\n")
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        code = _in_a_session(["bash", "-e"], script, self.tree, environment)
        outputs = [self.root / f"{number}.out" for number in range(len(tutorial))]
        printed = [path.read_text("utf-8").replace(str(self.root), "") for path in outputs if path.exists()]
        assert code == 0, f"{tutorial[len(printed) - 1].commands}\n{printed[-1]}"
        return printed


def _in_a_session(command: list[str], script: str, directory: Path, environment: dict[str, str]) -> int:
    """Run a shell, and end whatever it has left in the background. Returns its exit code."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, cwd=directory, env=environment, text=True, start_new_session=True
    ) as process:
        try:
            process.communicate(script, timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def normalised(text: str) -> str:
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    sandbox = Sandbox(tmp_path / "root")
    for place in PLACES:
        (sandbox.root / place[1:]).parent.mkdir(parents=True, exist_ok=True)
    (sandbox.root / "var" / "lib").mkdir(exist_ok=True)
    for name in COPIED:
        sandbox.copy(name)
    sandbox.install()
    return sandbox


def links(environment: Path) -> set[str]:
    return {str(path.relative_to(environment)) for path in environment.rglob("*") if path.is_symlink()}


def test_readers_see_what_the_tutorial_shows(sandbox: Sandbox) -> None:
    tutorial = steps()
    printed = sandbox.run(tutorial)
    assert list(map(normalised, printed)) == [normalised(step.output) for step in tutorial]

    environments = sandbox.root / "var" / "lib" / "jens" / "environments"
    expected = {
        "hieradata/common.yaml",
        "hieradata/environments",
        "hieradata/fqdns/myapp",
        "hieradata/hardware",
        "hieradata/hostgroups/myapp",
        "hieradata/module_names/dummy",
        "hieradata/operatingsystems",
        "hostgroups/hg_myapp",
        "modules/dummy",
        "site",
    }
    assert sorted(path.name for path in environments.iterdir()) == ["production", "test"]
    for name in ("production", "test"):
        assert links(environments / name) == expected
        assert all((environments / name / link).exists() for link in expected)
    assert (environments / "test" / "modules" / "dummy" / "manifests" / "foo.pp").is_file()
    assert not (environments / "production" / "modules" / "dummy" / "manifests" / "foo.pp").exists()


def test_the_tutorial_is_the_one_of_the_shipped_configuration() -> None:
    commands = "".join(step.commands for step in steps())
    assert "cp conf/main.conf /etc/jens/main.conf\n" in commands
    assert re.findall(r"^jens-update\b.*", commands, re.MULTILINE) == ["jens-update"] * 3
