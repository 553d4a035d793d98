"""Names are the same bytes on disk, whatever the locale of the host or of whoever runs a tool."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import TREE
from tests.conftest import Site, definition

DUMMY = "modules/dummy"
INIT = "code/manifests/init.pp"
LOCALE = "en_US.ISO-8859-1"
#: Branches that Latin-1 does not have, that it has, and that are no text in it.
BRANCHES = ("zażółć", "grün", "日本/x")
#: What localedef makes a locale from.
CHARMAPS = Path("/usr/share/i18n/charmaps")


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The variables of a locale whose names are not UTF-8."""
    localedef = shutil.which("localedef", path=f"{os.environ['PATH']}:/usr/bin")
    if localedef is None or not CHARMAPS.is_dir():
        pytest.skip("localedef, or what it makes locales from, is not installed (package locales)")
    top = tmp_path_factory.mktemp("locales")
    subprocess.run([localedef, "-i", "en_US", "-f", "ISO-8859-1", str(top / LOCALE)], check=True, capture_output=True)
    variables = {"LOCPATH": str(top), "LC_ALL": LOCALE, "PYTHONUTF8": "0", "PYTHONPATH": str(TREE)}
    said = subprocess.check_output(
        [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"], env={**os.environ, **variables}
    )
    assert said.strip() == b"iso8859-1"
    return variables


def run(variables: Mapping[str, str], tool: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(TREE / "bin" / tool), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False)


@pytest.fixture
def branchy(site: Site) -> Site:
    """A site whose environments use branches of all kinds of names."""
    for number, branch in enumerate(BRANCHES):
        site.remotes[DUMMY].push({INIT: f"# {branch}\n"}, branch, onto="master")
        site.define(f"env{number}", definition(overrides={DUMMY: branch}))
    return site


def assert_is_complete(site: Site) -> None:
    for number, branch in enumerate(BRANCHES):
        assert site.dangling(f"env{number}") == []
        assert site.read(f"env{number}/modules/dummy/manifests/init.pp") == f"# {branch}\n"
    assert sorted(site.expanded(DUMMY)) == sorted(["master", *(branch.replace("/", "~") for branch in BRANCHES)])


def test_branches_have_the_same_names_in_every_locale(branchy: Site, latin1: Mapping[str, str]) -> None:
    done = run(latin1, "jens-update", "--strict", "-c", branchy.config)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert_is_complete(branchy)
    before = branchy.listing("environments", "clone")
    outcome = branchy.update("--strict")
    assert (outcome.code, outcome.lines("WARNING")) == (0, [])
    branchy.remotes[DUMMY].push({INIT: "# pushed\n"}, "grün")
    assert run(latin1, "jens-update", "--strict", "-c", branchy.config).returncode == 0
    assert branchy.read("env1/modules/dummy/manifests/init.pp") == "# pushed\n"
    assert branchy.listing("environments").keys() == {path for path in before if path.startswith("environments")}
    for tool, arguments in (
        ("jens-stats", ("-a",)),
        ("jens-snapshot", ("env0",)),
        ("jens-show", ("environment", "env0")),
        ("jens-show", ("repository", DUMMY)),
        ("jens-gc", ("--all",)),
    ):
        usual = run({"PYTHONPATH": str(TREE)}, tool, "-c", branchy.config, *arguments)
        done = run(latin1, tool, "-c", branchy.config, *arguments)
        said = [line for line in done.stdout.splitlines() if not line.startswith(b"# Snapshot created on")]
        assert (done.returncode, done.stderr) == (usual.returncode, usual.stderr)
        assert said == [line for line in usual.stdout.splitlines() if not line.startswith(b"# Snapshot created on")]


def test_a_working_environment_does_not_dangle_after_a_run_in_another_locale(
    branchy: Site, latin1: Mapping[str, str]
) -> None:
    assert branchy.update("--strict").code == 0
    before = branchy.listing("environments", "clone")
    shutil.rmtree(branchy.root / "cache")
    (branchy.root / "cache").mkdir()
    assert run(latin1, "jens-update", "-c", branchy.config).returncode == 0
    assert branchy.listing("environments", "clone") == before


def test_arguments_may_be_outside_the_locale(branchy: Site, latin1: Mapping[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "zażółć grün"
    directory.mkdir()
    config = shutil.copy(branchy.config, directory / "main.conf")
    done = run(latin1, "jens-update", "-c", config, "--no-such-option")
    assert done.returncode == 2
    assert run(latin1, "jens-update", "-c", config).returncode == 0
    assert_is_complete(branchy)


PROGRAM = """
import os, sys
from jens.commands.runner import run_in_utf8
run_in_utf8()
print(sys.getfilesystemencoding(), os.getpid(), sys.argv[1:], sys.flags.no_user_site)
"""


@pytest.mark.parametrize("way", ["a command", "a file", "a module"])
def test_the_interpreter_is_started_anew_as_it_was_and_in_the_same_process(
    way: str, latin1: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    how = {"a command": ["-c", PROGRAM], "a file": ["program.py"], "a module": ["-m", "program"]}[way]
    process = subprocess.Popen(
        [sys.executable, "-s", *how, "a b", "", "-c"],
        cwd=tmp_path,
        env={**os.environ, **latin1},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert said == f"utf-8 {process.pid} ['a b', '', '-c'] 1\n"


def test_who_insists_on_the_locale_gets_no_endless_loop(latin1: Mapping[str, str]) -> None:
    command = [sys.executable, "-X", "utf8=0", "-c", PROGRAM]
    done = subprocess.run(command, env={**os.environ, **latin1}, capture_output=True, check=True, timeout=60)
    assert done.stdout.split()[0] in (b"utf-8", b"iso8859-1")


def test_signals_end_a_tool_in_another_locale_as_ever(site: Site, latin1: Mapping[str, str]) -> None:
    program = """
import sys, time
from jens.commands import update
update._main = lambda *_: (print("at work", flush=True), *(time.sleep(0.1) for _ in range(600)))
sys.exit(update.main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-c", str(site.config)],
        env={**os.environ, **latin1},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "-c: Interrupted\n")


def test_the_producer_of_another_wsgi_server_works_in_any_locale(site: Site, latin1: Mapping[str, str]) -> None:
    odd = site.root / "zażółć grün"
    for name in ("metadata", "log", "spool"):
        shutil.copytree(site.root / name, odd / name)
    site.settings.update({
        "main.logdir": str(odd / "log"),
        "main.repositorymetadatadir": str(odd / "metadata" / "repository"),
        "main.repositorymetadata": str(odd / "metadata" / "repository" / "repositories.yaml"),
        "messaging.queuedir": str(odd / "spool"),
    })  # fmt: skip
    site.urls[DUMMY] = "https://git.example.org/zażółć/grün.git"
    site.publish()
    subprocess.run(["git", "pull", "-q"], cwd=odd / "metadata" / "repository", check=True)
    program = """
import sys
from jens.commands.gitlab_producer_runner import application
client = application(sys.argv[1]).test_client()
url = "https://git.example.org/za\\u017c\\u00f3\\u0142\\u0107/gr\\u00fcn.git"
print(client.get("/healthz").status_code)
push = {"project": {"git_ssh_url": url}}
print(client.post("/gitlab", json=push, headers={"X-Gitlab-Event": "Push Hook"}).status_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(site.config)],
        env={**os.environ, **latin1},
        capture_output=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == ([b"200", b"201"], b"")
    assert len([path for path in (odd / "spool").glob("*/*") if path.is_dir()]) == 1
