"""Several instances on one shared directory, and the fail-over between them, as in docs/installation.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from tests import TREE
from tests.conftest import Site, git
from tests.reader import look, reading
from tests.system.services import commands, documented, required

SECTION = "## Several instances on a share"
NODES = ("node1.example.org", "node2.example.org")


def _version(number: int, name: str = "dummy") -> dict[str, str | None]:
    manifest = f"class {name} {{\n  $version = {number}\n}}\n"
    return {"code/one": f"{number}\n", "code/manifests/init.pp": manifest, "code/two": f"{number}\n"}


@dataclass
class Share:
    """The share, mounted on two nodes and all Puppet servers."""

    site: Site
    root: Path

    @property
    def environments(self) -> Path:
        """The environmentpath of the servers."""
        return self.root / "environments"

    def primary(self) -> str:
        return os.readlink(self.root / "aijens").rstrip("/")

    def config(self, node: str) -> Path:
        return self.site.root / node / "main.conf"

    def run(self, script: str, node: str = NODES[0]) -> subprocess.CompletedProcess[str]:
        """Run a documented script on a node, without its sudo and with the test's paths."""
        text = script.replace("sudo -u jens ", "").replace("/mnt/puppet", shlex.quote(str(self.root)))
        elsewhere = [path for path in re.findall(r"(?<![\w./~'-])/[a-z]\S*", text) if not path.startswith("/opt/jens/")]
        assert [path for path in elsewhere if not path.startswith(str(self.root))] == []
        for tool in ("jens-update", "jens-compare"):
            text = text.replace(f"/opt/jens/bin/{tool}", shlex.join([sys.executable, str(TREE / "bin" / tool)]))
        text = text.replace("jens-update --", f"jens-update -c {shlex.quote(str(self.config(node)))} --")
        environ = {**os.environ, "PYTHONPATH": str(TREE)}
        return subprocess.run(
            ["bash", "-e"], input=text, env=environ, capture_output=True, text=True, check=False, timeout=600
        )

    def update(self, node: str) -> None:
        done = self.run("/opt/jens/bin/jens-update --strict", node)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def steps() -> list[str]:
    """The steps of the documented fail-over, each with its comment."""
    block = commands(documented("installation.md", SECTION), "mv -T")
    found = re.split(r"^(?=# \d)", block, flags=re.MULTILINE)[1:]
    assert [step[:4] for step in found] == ["# 1.", "# 2.", "# 3."]
    return found


@pytest.fixture
def share(site: Site, tmp_path: Path) -> Share:
    """Two nodes, up to date, node1 the primary."""
    share = Share(site, tmp_path / "mnt" / "puppet")
    done = share.run(commands(documented("installation.md", SECTION), "mkdir -p"))
    assert done.returncode == 0, done.stderr
    settings = [
        line.strip()
        for line in documented("installation.md", SECTION).splitlines()
        if line.startswith(("    clonedir = ", "    environmentsdir = "))
    ]
    assert len(settings) == 2
    site.remotes["modules/dummy"].push(_version(0))
    site.remotes["hostgroups/myapp"].push(_version(0, "hg_myapp"))
    for node in NODES:
        local = site.root / node
        for name in ("bare", "cache", "log", "lock", "spool"):
            (local / name).mkdir(parents=True)
        for name, remote in (("environments", site.definitions), ("repository", site.library)):
            git("clone", "-q", remote.url, str(local / "metadata" / name), directory=site.root)
        text = site.config.read_text().replace(str(site.root), str(local))
        for setting in settings:
            key, _, value = setting.replace(NODES[0], node).replace("/mnt/puppet", str(share.root)).partition(" = ")
            text, changed = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert changed == 1
        share.config(node).write_text(text.replace("[main]\n", "[main]\ndirectory_environments = True\n"))
        share.update(node)
    return share


def test_the_share_is_laid_out_as_documented(share: Share) -> None:
    assert os.readlink(share.root / "environments") == "aijens/environments/"
    assert os.readlink(share.root / "aijens") == "node1.example.org/"
    for node in NODES:
        assert sorted(path.name for path in (share.root / node).iterdir()) == ["clone", "environments"]
        assert sorted(path.name for path in (share.site.root / node).iterdir()) == sorted(
            ["bare", "cache", "lock", "log", "main.conf", "metadata", "spool"]
        )
    assert look(share.environments) == []
    assert (share.environments / "production/modules/dummy/one").read_text() == "0\n"


def test_each_node_works_for_itself(share: Share) -> None:
    share.site.remotes["modules/dummy"].push(_version(1))
    share.update(NODES[1])
    assert (share.environments / "production/modules/dummy/one").read_text() == "0\n"
    assert (share.root / NODES[1] / "environments/production/modules/dummy/one").read_text() == "1\n"
    done = share.run(steps()[1])
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"modules/dummy master: \w+ in A, \w+ in B \(production\)\n", done.stdout)
    share.update(NODES[0])
    assert share.run(steps()[1]).returncode == 0


def test_the_share_may_be_mounted_elsewhere(share: Share, tmp_path: Path) -> None:
    """All links are relative: Puppet servers may mount it where they like."""
    (tmp_path / "srv").mkdir()
    share.root.rename(tmp_path / "srv" / "elsewhere")
    assert look(tmp_path / "srv" / "elsewhere" / "environments") == []
    assert (tmp_path / "srv/elsewhere/environments/production/modules/dummy/one").read_text() == "0\n"


def test_a_reader_misses_nothing_during_a_fail_over(
    share: Share, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    site = share.site
    site.remotes["modules/dummy"].push(_version(1))
    site.define("test")
    share.update(NODES[0])  # node2 lags behind
    with reading(share.environments, tmp_path) as met:
        began = time.monotonic()
        done = share.run("".join(steps()), NODES[1])
        took = time.monotonic() - began
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert share.primary() == NODES[1]
        site.remotes["modules/dummy"].push(_version(2))
        share.update(NODES[1])
        # Back again, with the nodes exchanged in the same script.
        back = "".join(steps()).replace(NODES[1], NODES[0])
        done = share.run(back, NODES[0])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert share.primary() == NODES[0]
        # Only flips, as fast as possible.
        for number in range(100):
            assert share.run(steps()[2].replace(NODES[1], NODES[number % 2])).returncode == 0
    assert met[:-1] == []
    assert int(met[-1]) > 10
    assert (share.environments / "production/modules/dummy/one").read_text() == "2\n"
    assert (share.environments / "test").is_dir()
    measured("fail-over between two instances on a share", f"{took:.1f} s, nothing missed in {met[-1]} looks")


def test_a_fail_over_stops_where_the_nodes_differ(share: Share) -> None:
    """People type these commands; with sh -e the script must not flip to a node that shows something else."""
    share.site.define("test")
    share.update(NODES[0])
    script = "".join(steps()[1:])
    done = share.run(script, NODES[1])
    assert done.returncode == 1
    assert "missing in B" in done.stdout
    assert share.primary() == NODES[0]


def test_puppet_compiles_through_the_share(share: Share, tmp_path: Path) -> None:
    """With the modulepath of environment.conf, and with the same one as an option."""
    puppet = required("puppet", "puppet-agent")
    options = [f"--confdir={tmp_path}/puppet", f"--vardir={tmp_path}/var", f"--environmentpath={share.environments}"]
    production = share.environments / "production"
    code = 'include dummy, hg_myapp notify { "from ${dummy::version}": }'
    for more in ([], [f"--modulepath={production}/hostgroups:{production}/modules"]):
        done = subprocess.run(
            [puppet, "apply", "--noop", "--color=false", *options, *more, "-e", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert "Notify[from 0]" in done.stdout
