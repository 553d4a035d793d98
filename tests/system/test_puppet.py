"""Puppet compiles from environments that Jens made, also while Jens changes them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from jens.layout import Layout
from tests import TREE
from tests.conftest import Site, git
from tests.stories.test_from_r10k import make_site
from tests.stories.test_tutorial import COPIED, PLACES, Sandbox, steps
from tests.system.services import commands, documented, required

COMPILE_LOOP = Path(__file__).with_name("compile_loop.rb")
UPDATES = 100
VERSIONED_UPDATES = 40

#: The facts of a machine in a sub-hostgroup.
FACTS: Mapping[str, object] = {
    "networking": {"fqdn": "web01.example.org", "hostname": "web01", "domain": "example.org"},
    "os": {"name": "Debian", "family": "Debian", "release": {"major": "12", "full": "12.5"}},
    "dmi": {"manufacturer": "Acme"},
    "virtual": "kvm",
    "datacentre": "north",
    "encgroup_0": "myapp",
    "encgroup_1": "frontend",
    "encgroup_2": "blue",
    "encgroup_3": "canary",
    "encgroup_4": "first",
}

#: Files that the skeletons lack: repository, file, and the value in it.
MORE_DATA = (
    ("hostgroup-myapp", "data/fqdns/cert01.yaml", "certificate cert01"),
    ("hostgroup-myapp", "data/hostgroup/myapp/frontend/blue/canary/first.yaml", "hostgroup level 5"),
    ("hostgroup-myapp", "data/hostgroup/myapp/frontend/blue/canary.yaml", "hostgroup level 4"),
    ("hostgroup-myapp", "data/hostgroup/myapp/frontend/blue.yaml", "hostgroup level 3"),
    ("common-hieradata", "data/datacentres/north.yaml", "datacentre north, for all"),
    ("common-hieradata", "data/hardware/Acme.yaml", "hardware Acme"),
)
LEVELS = [
    ("Machine", "machine web01.example.org"),
    ("Machine", "certificate cert01"),
    ("Hostgroup", "hostgroup level 5"),
    ("Hostgroup", "hostgroup level 4"),
    ("Hostgroup", "hostgroup level 3"),
    ("Hostgroup", "hostgroup myapp/frontend"),
    ("Hostgroup", "hostgroup myapp"),
    ("Datacentre", "datacentre north"),
    ("Datacentre", "datacentre north, for all"),
    ("Operating system", "operating system Debian 12"),
    ("Operating system", "operating system family Debian"),
    ("Environment", "environment production"),
    ("Module", "module dummy"),
    ("Hardware", "hardware Acme"),
    ("Hardware", "hardware kvm"),
    ("Common", "common"),
]


@dataclass(frozen=True)
class Tutorial:
    """The tutorial's instance, and a Puppet that reads from it."""

    sandbox: Sandbox

    @property
    def root(self) -> Path:
        return self.sandbox.root

    def commit(self, repository: str, name: str, text: str, branch: str = "master") -> None:
        directory = self.root / "tmp" / "example-repositories" / repository
        git("checkout", "-q", branch, directory=directory)
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
        git("add", ".", directory=directory)
        git("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "-qm", "More", directory=directory)

    def update(self) -> None:
        command = [str(self.sandbox.tree / ".venv" / "bin" / "jens-update"), "--strict"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @property
    def options(self) -> list[str]:
        """The settings of a server's puppet.conf, as options."""
        return [
            *("--confdir", str(self.root / "puppet"), "--vardir", str(self.root / "puppet-var")),
            *("--environmentpath", str(self.root / "var/lib/jens/environments")),
            *("--hiera_config", str(self.root / "hiera.yaml"), "--pluginfactdest", str(self.root / "facts.d")),
            *("--certname", "cert01", "--color", "false"),
        ]

    def puppet(
        self, *arguments: str, environment: str = "production", facts: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["puppet", *arguments, *self.options, "--environment", environment]
        variables = {f"FACTER_{name}": value for name, value in (facts or {}).items()}
        environ = {"HOME": str(self.root / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **variables}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)

    def catalog(self, environment: str = "production") -> tuple[set[str], dict[str, str]]:
        """The classes in the machine's catalog, and its notify resources with their messages."""
        done = self.puppet("catalog", "compile", "cert01", "--log_level", "err", environment=environment)
        assert done.returncode == 0, done.stderr
        resources: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])["resources"]
        classes = {resource["title"] for resource in resources if resource["type"] == "Class"}
        notifies = [resource for resource in resources if resource["type"] == "Notify"]
        return classes, {each["title"]: each.get("parameters", {}).get("message", "") for each in notifies}


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    """The tutorial as README.md has it, then what docs/installation.md says for Puppet servers."""
    required("puppet", "puppet-agent")
    required("make", "make")
    required("curl", "curl")
    sandbox = Sandbox(tmp_path_factory.mktemp("tutorial") / "root")
    for place in (*PLACES, "/var/lib/jens"):
        (sandbox.root / place[1:]).parent.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        sandbox.copy(name)
    sandbox.install()
    sandbox.run(steps())

    made = Tutorial(sandbox)
    config = sandbox.root / "etc/jens/main.conf"
    text = config.read_text().replace("mode = ONDEMAND", "mode = POLL")
    config.write_text(text.replace("operatingsystems, common.yaml", "operatingsystems, common.yaml, datacentres"))
    (sandbox.root / "hiera.yaml").write_text(sandbox.moved((TREE / "examples" / "hiera.yaml").read_text()))
    (sandbox.root / "facts.d").mkdir()
    (sandbox.root / "facts.d" / "machine.json").write_text(json.dumps(FACTS))
    for repository, name, says in MORE_DATA:
        made.commit(repository, name, f"---\ndummy::levels:\n  - '{says}'\n")
    made.update()
    return made


def test_puppet_apply_goes_down_the_hostgroup(tutorial: Tutorial) -> None:
    manifest = tutorial.root / "var/lib/jens/environments/production/site/site.pp"
    done = tutorial.puppet("apply", "--noop", str(manifest))
    assert done.returncode == 0, done.stderr
    for message in (
        "Notify[hg_myapp]/message: current_value 'absent', should be 'port=8080 contact=admins@example.org ",
        "verbosity=warning mirror=https://mirror.north.example.org ca_bundle=/etc/ssl/certs/ca-certificates.crt ",
        "Notify[hg_myapp::frontend]/message: current_value 'absent', should be 'workers=8'",
        "Notify[dummy]/message: current_value 'absent', should be 'Hello from the frontend of myapp. Data from: ",
    ):
        assert message in done.stdout


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("puppet apply", "Notify[hg_myapp]"),
        ("puppet lookup", '"module dummy"'),
    ],
)
def test_the_documented_commands_show_that_it_works(tutorial: Tutorial, command: str, shows: str) -> None:
    block = commands(documented("installation.md", "## Let Puppet servers read"), command)
    assert "/etc/puppetlabs/puppet/hiera.yaml" in block
    block = block.replace("/etc/puppetlabs/puppet/hiera.yaml", str(tutorial.root / "hiera.yaml"))
    script = f'puppet() {{ command puppet "$@" {shlex.join(tutorial.options)}; }}\n{tutorial.sandbox.moved(block)}'
    environ = {"HOME": str(tutorial.root / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-ec", script], env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert shows in done.stdout


def test_puppet_catalog_compile_has_the_classes_of_hostgroup_and_module(tutorial: Tutorial) -> None:
    classes, notified = tutorial.catalog()
    assert {"Hg_myapp", "Hg_myapp::Frontend", "Dummy"} <= classes
    assert notified["dummy"].endswith("Data from: " + ", ".join(says for _, says in LEVELS))


def test_puppet_lookup_finds_a_key_at_every_level(tutorial: Tutorial) -> None:
    done = tutorial.puppet("lookup", "--explain", "dummy::levels", facts={"lookup_module": "dummy"})
    assert done.returncode == 0, done.stderr
    explained = done.stdout.split('Searching for "dummy::levels"')[1]
    entries = re.split(r'^ *Hierarchy entry "', explained, flags=re.MULTILINE)[1:]
    found = [
        (entry.partition('"')[0], says)
        for entry in entries
        for says in re.findall(r'Found key: "dummy::levels" value: \[\n\s*"([^"]*)"', entry)
    ]
    assert found == LEVELS


def test_without_the_fact_lookup_skips_the_modules_level_alone(tutorial: Tutorial) -> None:
    done = tutorial.puppet("lookup", "--render-as", "json", "dummy::levels")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [says for _, says in LEVELS if says != "module dummy"]


def test_an_override_environment_has_the_overridden_class(tutorial: Tutorial) -> None:
    tutorial.commit(
        "module-dummy",
        "code/manifests/init.pp",
        "class dummy {\n  include dummy::foo\n  notify { 'dummy': message => 'the branch' }\n}\n",
        "test",
    )
    tutorial.update()
    classes, notified = tutorial.catalog("test")
    assert "Dummy::Foo" in classes
    assert notified["dummy"] == "the branch"
    classes, notified = tutorial.catalog("production")
    assert "Dummy::Foo" not in classes
    assert notified["dummy"].startswith("Hello from")


def test_a_parser_in_environment_conf_is_only_a_warning(tutorial: Tutorial) -> None:
    text = "---\ndefault: master\nnotifications: ann@example.org\nparser: future\n"
    tutorial.commit("environments", "future.yaml", text)
    tutorial.update()
    environments = tutorial.root / "var/lib/jens/environments"
    assert "parser = future" in (environments / "future/environment.conf").read_text()
    done = tutorial.puppet("apply", "--noop", str(environments / "future/site/site.pp"), environment="future")
    assert done.returncode == 0, done.stderr
    warning = "The following unknown setting(s) are being ignored: parser"
    assert warning in done.stdout + done.stderr
    assert warning in documented("installation.md", "## Let Puppet servers read").replace("\n  ", " ")
    assert "Notify[hg_myapp]" in done.stdout


def test_puppet_ignores_a_module_whose_branch_is_gone(tutorial: Tutorial) -> None:
    text = "---\ndefault: master\nnotifications: ann@example.org\noverrides:\n  modules:\n    dummy: nowhere\n"
    tutorial.commit("environments", "gone.yaml", text)
    command = [str(tutorial.sandbox.tree / ".venv" / "bin" / "jens-update")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=600).returncode == 0
    link = tutorial.root / "var/lib/jens/environments/gone/modules/dummy"
    assert link.is_symlink()
    assert not link.exists()
    done = tutorial.puppet("apply", "--noop", "-e", "notify { 'compiled': }", environment="gone")
    assert done.returncode == 0, done.stderr
    assert "Notify[compiled]" in done.stdout
    done = tutorial.puppet("apply", "--noop", "-e", "include dummy", environment="gone")
    assert done.returncode == 1
    assert "Could not find class ::dummy" in done.stderr
    tutorial.commit("environments", "gone.yaml", "---\ndefault: master\nnotifications: ann@example.org\n")


# Compiling while Jens works


def _version(number: int) -> dict[str, str | None]:
    """A module of five files; each contains the version."""
    part = f"notify {{ 'part one': message => '{number}' }}\n  include dummy::two"
    data = "notify { 'part three': message => $data }\n  notify { 'part four': message => epp('dummy/four.epp') }"
    return {
        "code/manifests/init.pp": f"class dummy {{\n  {part}\n}}\n",
        "code/manifests/two.pp": f"class dummy::two {{\n  notify {{ 'part two': message => '{number}' }}\n"
        "  include dummy::three\n}\n",
        "code/manifests/three.pp": f"class dummy::three (String $data) {{\n  {data}\n}}\n",
        "code/templates/four.epp": f"{number}",
        "data/dummy.yaml": f"---\ndummy::three::data: '{number}'\n",
    }


def _compile_meanwhile(site: Site, scratch: Path, hiera: Path, updates: int, *arguments: str) -> tuple[int, int, float]:
    """Compile catalogs all the time while a module is updated: how many there are, how many mixed, and the seconds."""
    required("puppet", "puppet-agent")
    ruby = required("ruby", "ruby")
    stop = scratch / "stop"
    paths = (COMPILE_LOOP, scratch / "puppet", site.root / "environments", hiera, stop)
    began = time.monotonic()
    with subprocess.Popen([ruby, *map(str, paths), *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "compiling\n"
            for number in range(1, updates + 1):
                site.remotes["modules/dummy"].push(_version(number % 2))
                assert site.update("--strict").code == 0
            stop.touch()
            *failures, catalogs, mixed, versions = process.communicate(timeout=600)[0].splitlines()
        finally:
            process.kill()
    assert failures == []
    assert versions == "2", "no catalog was compiled from one of the versions"
    assert int(catalogs) > updates // 10, "hardly a catalog was compiled meanwhile"
    return int(catalogs), int(mixed), time.monotonic() - began


def test_a_compilation_never_meets_a_missing_file(
    site: Site, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    site.settings["main.directory_environments"] = "True"
    site.remotes["common/site"].push({"code/site.pp": "node default {\n  include hg_myapp\n}\n"})
    site.remotes["hostgroups/myapp"].push({"code/manifests/init.pp": "class hg_myapp {\n  include dummy\n}\n"})
    site.remotes["modules/dummy"].push(_version(0))
    site.update()
    hiera = (TREE / "examples" / "hiera.yaml").read_text()
    (tmp_path / "hiera.yaml").write_text(hiera.replace("/var/lib/jens/environments", str(site.root / "environments")))
    catalogs, mixed, took = _compile_meanwhile(site, tmp_path, tmp_path / "hiera.yaml", UPDATES)
    measured(f"catalogs compiled during {UPDATES} updates of a module", f"{catalogs} in {took:.0f} s, none failed")
    measured("of these, catalogs that mixed two versions of the module", str(mixed))


# Versions


def test_no_compilation_mixes_versions(site: Site, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    example = TREE / "examples" / "versioned"
    lines = [line for line in (example / "main.conf").read_text().splitlines() if " = " in line and line[0] != "#"]
    site.settings.update({f"main.{key}": value for key, value in (line.split(" = ") for line in lines)})
    site.remotes["common/site"].push({"code/site.pp": (example / "site.pp").read_text()})
    site.remotes["hostgroups/myapp"].push({"code/manifests/init.pp": "class hg_myapp {\n  include dummy\n}\n"})
    site.remotes["modules/dummy"].push(_version(0))
    site.update()
    catalogs, mixed, took = _compile_meanwhile(site, tmp_path, example / "hiera.yaml", VERSIONED_UPDATES, "versioned")
    assert mixed == 0
    measured(f"catalogs compiled during {VERSIONED_UPDATES} new versions", f"{catalogs} in {took:.0f} s, none mixed")


def test_puppet_compiles_a_versioned_environment_with_and_without_its_setting(site: Site, tmp_path: Path) -> None:
    required("puppet", "puppet-agent")
    site.settings.update({"main.versionedenvironments": "production,", "main.directory_environments": "True"})
    site.remotes["common/site"].push({"code/site.pp": (TREE / "examples" / "versioned" / "site.pp").read_text()})
    site.remotes["modules/dummy"].push(_version(7))
    site.remotes["hostgroups/myapp"].push({"code/manifests/init.pp": "class hg_myapp {\n  include dummy\n}\n"})
    site.settings["main.config_version"] = "True"
    site.update("--strict")
    environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    for with_setting in (False, True):
        if with_setting:
            (tmp_path / "confdir").mkdir(exist_ok=True)
            settings = (TREE / "examples" / "versioned" / "puppet.conf").read_text()
            assert "versioned_environment_dirs = true" in settings
            (tmp_path / "confdir" / "puppet.conf").write_text("[main]\nversioned_environment_dirs = true\n")
        options = [
            *("--confdir", str(tmp_path / "confdir"), "--vardir", str(tmp_path / "var"), "--color", "false"),
            *("--environmentpath", str(site.root / "environments"), "--environment", "production"),
            *("--hiera_config", str(TREE / "examples" / "versioned" / "hiera.yaml"), "--log_level", "err"),
        ]
        command = ["puppet", "catalog", "compile", "cert01", *options]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        catalog = json.loads(done.stdout[done.stdout.index("{") :])
        assert catalog["version"] == "production_1"
        notified = {
            each["title"]: each["parameters"]["message"] for each in catalog["resources"] if each["type"] == "Notify"
        }
        assert notified == dict.fromkeys(("part one", "part two", "part three", "part four"), "7")


# The hierarchy that comes with an environment


_OWN_HIERARCHY = """\
---
version: 5
defaults: {datadir: hieradata, data_hash: yaml_data}
hierarchy:
  - {name: "Level of %s", path: "%s.yaml"}
"""


@pytest.mark.parametrize("versioned", [False, True])
def test_data_and_hierarchy_move_together(site: Site, tmp_path: Path, versioned: bool) -> None:
    required("puppet", "puppet-agent")
    site.settings.update({"main.environment_hiera": "site", "main.directory_environments": "True"})
    site.settings["main.environment_conf"] = "environment_timeout = 5m, rich_data = true, config_version = /bin/echo it"
    if versioned:
        site.settings.update({"main.versionedenvironments": "production,", "main.config_version": "True"})
    site.remotes["common/site"].push({"code/site.pp": "node default {\n  notify { lookup('who'): }\n}\n"})
    site.remotes["common/hieradata"].push({"data/common.yaml": "who: common\n", "data/hardware/kvm.yaml": "who: kvm\n"})
    (tmp_path / "confdir").mkdir()
    (tmp_path / "confdir" / "puppet.conf").write_text(f"[main]\nversioned_environment_dirs = {versioned}\n".lower())
    options = [
        *("--confdir", str(tmp_path / "confdir"), "--vardir", str(tmp_path / "var"), "--color", "false"),
        *("--environmentpath", str(site.root / "environments"), "--environment", "production"),
    ]
    environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def puppet(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["puppet", *arguments, *options]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)

    for number, name in enumerate(("common", "hardware/kvm"), 1):
        site.remotes["common/site"].push({"hiera.yaml": _OWN_HIERARCHY % (name, name)})
        assert site.update("--strict").code == 0
        done = puppet("catalog", "compile", "cert01", "--log_level", "warning")
        assert done.returncode == 0, done.stderr
        assert "environment.conf" not in done.stdout + done.stderr  # it takes each line
        catalog = json.loads(done.stdout[done.stdout.index("{") :])
        notified = [each["title"] for each in catalog["resources"] if each["type"] == "Notify"]
        assert notified == [name.rpartition("/")[2]]
        assert catalog["version"] == (f"production_{number}" if versioned else "it")
        explained = puppet("lookup", "--explain", "who")
        assert explained.returncode == 0, explained.stderr
        place = Layout.at(site.root).tree("production") if versioned else site.root / "environments" / "production"
        for part in (f'Using configuration "{place}/hiera.yaml"', f'Hierarchy entry "Level of {name}"'):
            assert part in explained.stdout
        assert f'Found key: "who" value: "{notified[0]}"' in explained.stdout
    site.remotes["common/site"].push({"hiera.yaml": None})
    assert site.update("--strict").code == 0
    explained = puppet("lookup", "--explain", "who")
    assert "Level of" not in explained.stdout
    assert puppet("catalog", "compile", "cert01").returncode != 0  # nobody knows such a key now
    # A link that dangles is as good as none.
    (site.root / "environments" / "production" / "hiera.yaml").symlink_to("nowhere")
    dangling = puppet("lookup", "--explain", "who")
    assert (dangling.returncode, dangling.stdout) == (explained.returncode, explained.stdout)


def test_a_site_that_comes_from_r10k_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public modules at their tags, a control repository, and the hierarchy that comes with it."""
    required("puppet", "puppet-agent")
    made, _ = make_site(tmp_path, monkeypatch)
    options = [
        *("--confdir", str(tmp_path / "confdir"), "--vardir", str(tmp_path / "var"), "--color", "false"),
        *("--environmentpath", str(made / "jens" / "environments"), "--environment", "test"),
    ]
    environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def puppet(*arguments: str) -> str:
        command = ["puppet", *arguments, *options]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = puppet("catalog", "compile", "web01.example.org", "--log_level", "err")
    resources = json.loads(said[said.index("{") :])["resources"]
    shown = {each["title"]: each["parameters"] for each in resources if each["type"] == "File"}
    assert shown["/etc/motd"]["content"] == "Managed by Puppet\n"
    assert shown["/etc/localtime"]["target"] == "/usr/share/zoneinfo/Europe/Zurich"
    assert shown["/etc/issue.net"]["content"] == "----\nOnly for staff\n----\n"
    explained = puppet("lookup", "--explain", "motd::content")
    assert f'Using configuration "{made}/jens/environments/test/hiera.yaml"' in explained
    assert 'Found key: "motd::content" value: "Managed by Puppet"' in explained


def test_the_two_shipped_hierarchies_are_the_same() -> None:
    one, other = ((TREE / "examples" / name).read_text() for name in ("hiera.yaml", "versioned/hiera.yaml"))
    begin = "# Beside Facter's own facts"
    assert other.partition(begin)[2] == one.partition(begin)[2].replace(
        "/var/lib/jens/environments/%{environment}/hieradata", "/%{jens_root}/hieradata"
    )
