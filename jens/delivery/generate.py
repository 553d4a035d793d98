"""Runs ``puppet generate types`` for an environment, and puts what it writes in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from jens.delivery import marks
from jens.layout import Layout
from jens.links import ENVIRONMENT_CONF, RESOURCE_TYPES
from jens.model import HOSTGROUPS, MODULES
from jens.system import files, programs

#: Where Puppet is, besides PATH: systemd has another one than a login shell.
_PUPPET_PATH = "/opt/puppetlabs/bin"
#: How the line begins with which each file tells when it was written.
_STAMP = b"# This file was automatically generated on"


class Done(NamedTuple):
    """What came of an environment: a problem, or ''; whether its files are others now.

    Whether Puppet took too long, and whether there was no time for it.
    """

    problem: str = ""
    is_changed: bool = False
    is_slow: bool = False
    is_left: bool = False


def generate(layout: Layout, name: str, seconds: float) -> Done:
    """Run Puppet for one environment, and put what it writes in place. Raises OSError.

    Puppet writes elsewhere, in a directory with links to the environment: a server that reads meanwhile finds whole
    files, and those of before where Puppet fails.
    """
    puppet = shutil.which("puppet", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_PUPPET_PATH}")
    if puppet is None:
        return Done(f"there is no program 'puppet' in PATH, nor in {_PUPPET_PATH}")
    environment = layout.tree(name)
    with tempfile.TemporaryDirectory(prefix="jens-types-") as scratch:
        top = Path(scratch)
        (top / "environments" / name).mkdir(parents=True)
        for part in (MODULES, HOSTGROUPS, ENVIRONMENT_CONF):
            (top / "environments" / name / part).symlink_to(environment / part)
        command = [puppet, "generate", "types", "--force", "--environment", name]
        command += ["--environmentpath", str(top / "environments"), "--color", "false", "--log_level", "err"]
        command += ["--confdir", str(top / "conf"), "--vardir", str(top / "var")]
        variables = {marks.NAME: marks.new(layout), "HOME": scratch}
        ended = programs.run(command, b"", seconds, variables)
        is_changed = take_over(top / "environments" / name / RESOURCE_TYPES, environment, ended.status == 0)
    errors = [line for line in ended.output.splitlines() if line.startswith("Error")]
    problem = ended.problem and (errors[0] if errors and ended.status else ended.problem)
    return Done(problem, is_changed, is_slow=ended.status is None)


def take_over(made: Path, environment: Path, is_whole: bool) -> bool:
    """Put the files that Puppet has made into an environment; those that it did not make go, when it made all.

    Returns whether something is another than before. Raises OSError.
    """
    new = {path.name: path.read_bytes() for path in made.glob("*.pp")} if made.is_dir() else {}
    place = environment / RESOURCE_TYPES
    before = {path.name: files.read_if_there(path) or b"" for path in place.iterdir()} if place.is_dir() else {}
    other = {place / name: text for name, text in new.items() if _body(text) != _body(before.get(name))}
    gone = [place / name for name in before if name not in new] if is_whole else []
    if not environment.is_dir():  # a run has removed it
        return False
    if made.is_dir() and not place.is_dir():
        place.mkdir(0o755)  # also for no types at all: so nobody thinks that Puppet was not run
    if other:
        files.write_files(place, other)
    for path in gone:
        files.remove_tree(path)
    return bool(other or gone)


def _body(text: bytes | None) -> bytes | None:
    """What a file says, without the time at which it was written."""
    return text and b"\n".join(line for line in text.split(b"\n") if not line.startswith(_STAMP))
