"""Types of resources: what ``puppet generate types`` wrote fits the types that there are, whatever happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jens.commands import compare
from jens.config import load_config
from jens.delivery import marks, types
from jens.delivery.deliver import next_due
from jens.layout import Layout
from jens.system import processes
from tests import TREE
from tests.conftest import Site, definition, git
from tests.system.services import required

DUMMY = "modules/dummy"
TYPES = "code/lib/puppet/type"
WROTE = "Generating types of resources"


def of_type(name: str, *parameters: str) -> str:
    """The source of a type."""
    more = "".join(f"  newparam(:{parameter})\n" for parameter in parameters)
    return f"Puppet::Type.newtype(:{name}) do\n  newparam(:name, namevar: true)\n{more}end\n"


@pytest.fixture
def typed(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose module has a type, with what Puppet wrote of it."""
    required("puppet", "puppet-agent")
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    site.settings["puppetserver.generate_types"] = "True"
    site.settings["main.directory_environments"] = "True"
    site.remotes[DUMMY].push({f"{TYPES}/thing.rb": of_type("thing", "size")})
    tell(site)
    assert [*wrote(site)] == ["thing.pp"]
    return site


def tell(site: Site, code: int = 0) -> str:
    """A run, and the delivery after it. Returns the log of the delivery."""
    assert site.update("--strict").code == 0
    outcome = site.deliver()
    assert outcome.code == code, outcome
    return outcome.log


def wrote(site: Site, environment: str = "production") -> dict[str, str]:
    """The files that Puppet wrote."""
    top = site.root / "environments" / environment / ".resource_types"
    return {path.name: path.read_text() for path in sorted(top.iterdir())} if top.exists() else {}


def test_what_puppet_wrote_fits_the_types_that_there_are(typed: Site) -> None:
    remote = typed.remotes[DUMMY]
    first = remote.commit()
    assert "'size'" in wrote(typed)["thing.pp"]
    mode = (typed.root / "environments" / "production" / ".resource_types").stat().st_mode
    assert mode & 0o777 == 0o755

    remote.push({f"{TYPES}/other.rb": of_type("other"), f"{TYPES}/thing.rb": of_type("thing", "colour")})
    assert WROTE in tell(typed)
    assert [*wrote(typed)] == ["other.pp", "thing.pp"]
    assert "'colour'" in wrote(typed)["thing.pp"]

    git("update-ref", "refs/heads/master", first, directory=remote.path)  # back to an older commit
    tell(typed)
    assert [*wrote(typed)] == ["thing.pp"]
    assert "'size'" in wrote(typed)["thing.pp"]

    remote.push({f"{TYPES}/thing.rb": None})
    tell(typed)
    assert wrote(typed) == {}


def test_nothing_else_has_puppet_run(typed: Site) -> None:
    before = wrote(typed)
    typed.remotes[DUMMY].push({"code/manifests/init.pp": "# more\n"})
    assert WROTE not in tell(typed)
    typed.remotes["hostgroups/myapp"].push({"code/manifests/init.pp": "# more\n"})
    assert WROTE not in tell(typed)
    typed.define("production", definition("master", more="parser: future\n"))
    assert WROTE not in tell(typed)
    (typed.root / "cache" / "deliveries.json").unlink()
    assert WROTE in tell(typed)  # nobody knows of what it was
    assert {name: text.partition("\n")[2] for name, text in wrote(typed).items()} == {
        name: text.partition("\n")[2] for name, text in before.items()
    }


def test_only_the_environments_concerned_have_puppet_run(typed: Site) -> None:
    typed.remotes[DUMMY].branch("dev")
    typed.define("dev", definition("master", {DUMMY: "dev"}))
    log = tell(typed)
    assert "for ['dev']" in log
    assert [*wrote(typed, "dev")] == ["thing.pp"]
    typed.remotes[DUMMY].push({f"{TYPES}/thing.rb": of_type("thing", "weight")}, "dev")
    assert "for ['dev']" in tell(typed)
    assert "'weight'" in wrote(typed, "dev")["thing.pp"]
    assert "'size'" in wrote(typed)["thing.pp"]
    typed.retire("dev")
    tell(typed)
    assert typed.environments() == ["production"]
    typed.define("dev", definition("master", {DUMMY: "dev"}))
    tell(typed)
    assert [*wrote(typed, "dev")] == ["thing.pp"]
    typed.retire("dev")
    typed.update()
    typed.define("dev", definition("master", {DUMMY: "dev"}))
    tell(typed)  # it was made anew between two deliveries
    assert [*wrote(typed, "dev")] == ["thing.pp"]


def test_runs_keep_the_types_and_do_not_mind_them(typed: Site, tmp_path: Path) -> None:
    tell(typed)  # the directory is new: this run looks at everything, once
    before = wrote(typed)
    outcome = typed.update()
    assert (outcome.has("Refreshing environments..."), outcome.code) == (False, 0)
    assert outcome.lines("WARNING") == []
    for text in ("# more\n", "# even more\n"):
        typed.remotes[DUMMY].push({"code/manifests/init.pp": text})
        tell(typed)
    typed.define("production", definition("master", more="parser: future\n"))
    typed.update()
    assert wrote(typed) == before

    modules = typed.root / "environments" / "production" / "modules"
    shutil.rmtree(modules)
    modules.write_text("in the way")
    typed.update()  # the environment is made anew
    assert wrote(typed) == before
    other = tmp_path / "other"
    shutil.copytree(typed.root, other, symlinks=True)
    shutil.rmtree(other / "environments" / "production" / ".resource_types")
    assert compare.main([str(typed.root), str(other)]) == 0


BROKEN = "raise 'no luck'\n"


def test_a_type_that_is_broken_holds_back_no_other_and_is_told(typed: Site) -> None:
    remote = typed.remotes[DUMMY]
    remote.push({f"{TYPES}/broken.rb": BROKEN, f"{TYPES}/thing.rb": of_type("thing", "colour")})
    typed.update()
    outcome = typed.deliver()
    assert outcome.code == 60
    [warning] = outcome.lines("WARNING")
    assert "puppet generate types" in warning
    assert "environment 'production': Error: Failed to load custom type 'broken'" in warning
    assert "'colour'" in wrote(typed)["thing.pp"]

    typed.update()
    [fault] = json.loads((typed.root / "cache" / "last-run.json").read_text())["content"]["faults"]
    assert "no luck" in fault["text"]
    assert typed.deliver().lines("WARNING") == []

    remote.push({f"{TYPES}/broken.rb": of_type("broken")})
    typed.update()
    assert typed.deliver().code == 0
    assert [*wrote(typed)] == ["broken.pp", "thing.pp"]
    assert typed.update("--strict").code == 0

    good = remote.commit()
    remote.push({f"{TYPES}/broken.rb": BROKEN})
    typed.update()
    assert typed.deliver().code == 60
    git("update-ref", "refs/heads/master", good, directory=remote.path)
    typed.update()
    outcome = typed.deliver()
    assert (outcome.code, outcome.has("puppet generate types works again"), outcome.has(WROTE)) == (0, True, False)


def test_puppet_that_hangs_is_ended(typed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_WHOLE", 3)
    monkeypatch.setattr(types, "_LEAST", 1)
    typed.remotes[DUMMY].push({f"{TYPES}/slow.rb": "sleep 1000\n"})
    typed.update()
    begin = time.monotonic()
    outcome = typed.deliver()
    assert outcome.code == 60
    assert "it was ended, because it took too long" in outcome.stderr
    assert time.monotonic() - begin < 60
    assert marked(typed) == []
    assert [*wrote(typed)] == ["thing.pp"]

    typed.update()  # nobody waits for it once more
    outcome = typed.deliver()
    assert (outcome.code, outcome.has(WROTE)) == (60, False)
    assert "it took too long, it is tried again when its types change, or 10 minutes later" in outcome.stderr
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now + types._REST)
        assert WROTE in typed.deliver().log
    monkeypatch.setattr(types, "_WHOLE", 60)
    typed.remotes[DUMMY].push({f"{TYPES}/slow.rb": of_type("slow")})
    typed.update()
    assert typed.deliver().code == 0
    assert [*wrote(typed)] == ["slow.pp", "thing.pp"]
    typed.remotes[DUMMY].push({f"{TYPES}/slow.rb": None})
    typed.update()
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert "there is no program 'puppet' in PATH" in typed.deliver().stderr


def marked(site: Site) -> list[str]:
    """The processes that deliveries have started."""
    mark = f"{marks.NAME}={site.root / 'cache'} ".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_what_there_is_no_time_for_is_done_next(typed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_LEAST", types._WHOLE + 1)
    for name in ("one", "two"):
        typed.define(name)
    typed.update()
    whole = types._generate_all
    rounds: list[list[str]] = []

    def counted(layout: Layout, names: list[str]) -> object:
        rounds.append(names)
        if len(rounds) == 2:
            monkeypatch.setattr(types, "_LEAST", 1)
        return whole(layout, names)

    monkeypatch.setattr(types, "_generate_all", counted)
    assert typed.deliver().code == 0
    assert rounds == [["one", "two"], ["one", "two"]]
    assert [*wrote(typed, "one"), *wrote(typed, "two")] == ["thing.pp", "thing.pp"]
    assert next_due(load_config(typed.config)) is None


def test_a_delivery_that_is_to_end_ends_its_puppets(typed: Site) -> None:
    reached = typed.root / "reached"
    for name in ("one", "two", "three"):
        typed.define(name)
    typed.remotes[DUMMY].push({f"{TYPES}/slow.rb": f"File.write('{reached}', '')\nsleep 1000\n"})
    typed.update()
    command = [sys.executable, "-c", "import sys; from jens.commands.deliver import main; sys.exit(main())"]
    process = subprocess.Popen([*command, "-c", str(typed.config)], env={**os.environ, "PYTHONPATH": str(TREE)})
    try:
        deadline = time.monotonic() + 60
        while not reached.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=30) == 130
        assert marked(typed) == []
    finally:
        process.kill()


def test_a_commit_that_only_its_checkout_has_is_no_obstacle(typed: Site) -> None:
    commit = typed.remotes[DUMMY].commit()
    typed.define("pinned", definition("master", {DUMMY: f"commit/{commit}"}))
    typed.update()
    shutil.rmtree(typed.root / "bare" / DUMMY)
    assert typed.deliver().code == 0
    assert [*wrote(typed, "pinned")] == ["thing.pp"]
