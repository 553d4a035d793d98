"""A real Puppet Server with ``environment_timeout = unlimited`` compiles what is visible, once it is told of it."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from jens.system import processes
from tests.conftest import Outcome, Site, definition
from tests.system.agents import agent
from tests.system.puppetserver import JENS, OTHER, PuppetServer, notices
from tests.system.test_types import TYPES, of_type

DUMMY = "modules/dummy"
CLASSES, NOTICES = 100, 3
TIMES = 2


def says(text: str) -> dict[str, str | None]:
    """The module, which says something."""
    return {"code/manifests/init.pp": f"class dummy {{\n  notify {{ 'dummy': message => '{text}' }}\n}}\n"}


@pytest.fixture
def served(site: Site, puppet_server: PuppetServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose environments the server reads, and which flushes it."""
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    site.settings["main.directory_environments"] = "True"
    site.settings["puppetserver.urls"] = puppet_server.url
    site.settings["puppetserver.ssl_ca"] = str(puppet_server.certificates.ca)
    use(site, puppet_server, JENS)
    site.remotes["common/site"].push({"code/site.pp": "node default {\n  include dummy\n}\n"})
    site.remotes[DUMMY].push(says("one"))
    puppet_server.read(site.root / "environments")
    run(site)
    return site


def use(site: Site, server: PuppetServer, name: str) -> None:
    site.settings["puppetserver.ssl_cert"] = str(server.certificates.cert(name))
    site.settings["puppetserver.ssl_key"] = str(server.certificates.key(name))


def run(site: Site) -> None:
    """A run, and the delivery after it."""
    assert site.update("--strict").code == 0
    tell(site)


def tell(site: Site, code: int = 0) -> Outcome:
    outcome = site.deliver()
    assert outcome.code == code, outcome
    return outcome


def message(server: PuppetServer, environment: str = "production") -> str:
    return notices(server.catalog(environment))["dummy"]


def test_a_push_is_in_the_next_catalog_after_the_flush_and_not_before(
    served: Site, puppet_server: PuppetServer
) -> None:
    assert message(puppet_server) == "one"
    served.remotes[DUMMY].push(says("two"))
    served.update()
    assert message(puppet_server) == "one"
    tell(served)
    assert message(puppet_server) == "two"

    # The same for an environment of its own, and others are left alone.
    served.remotes[DUMMY].branch("dev")
    served.define("dev", definition("master", {DUMMY: "dev"}))
    run(served)
    assert message(puppet_server, "dev") == "two"
    served.remotes[DUMMY].push(says("three"), "dev")
    run(served)
    assert (message(puppet_server, "dev"), message(puppet_server)) == ("three", "two")
    served.retire("dev")
    served.update()
    assert message(puppet_server, "dev") == "three"  # it goes on with what it has kept
    tell(served)
    assert puppet_server.catalog("dev")["environment"] == "production"


def test_the_machines_of_a_deleted_environment_move_to_production_unless_they_are_strict(
    served: Site, puppet_server: PuppetServer, tmp_path: Path
) -> None:
    """As docs/environments.md tells it."""
    served.remotes[DUMMY].branch("dev")
    served.define("dev", definition("master", {DUMMY: "dev"}))
    served.remotes[DUMMY].push(says("of dev"), "dev")
    run(served)

    def asks(name: str, named: str = "", *, is_strict: bool = False) -> tuple[int, str]:
        return agent(puppet_server, tmp_path / name, "dev", named, is_strict=is_strict)

    assert message(puppet_server, "dev") == "of dev"
    # A server that has loaded the environment already may answer an agent with production, unless the agent names it.
    for name, is_strict in (("before", False), ("strict-before", True)):
        status, said = asks(name, "dev", is_strict=is_strict)
        assert (status, "of dev" in said) == (0, True), said
    served.retire("dev")
    run(served)
    status, said = asks("after")
    assert (status, "of dev" in said) == (0, False), said
    assert "environment 'production'" in said  # "Local environment: 'dev' doesn't match …", or "Using …"
    assert "should be 'one'" in said
    status, said = asks("strict-after", is_strict=True)
    assert status == 1, said
    assert "Environment 'dev' not found on server, aborting run." in said
    assert "Notify" not in said
    status, said = asks("named-after", "dev")
    assert status == 0, said
    assert "Environment 'dev' not found on server, skipping initial pluginsync." in said


def test_only_the_certificate_of_the_documented_rule_may_flush(served: Site, puppet_server: PuppetServer) -> None:
    assert message(puppet_server) == "one"
    served.remotes[DUMMY].push(says("two"))
    served.update()
    use(served, puppet_server, OTHER)
    [error] = tell(served, 60).lines("ERROR")
    assert "403 Forbidden, its auth.conf needs the rule { match-request:" in error
    assert f'allow: ["{OTHER}"]' in error
    assert message(puppet_server) == "one"
    use(served, puppet_server, JENS)
    assert tell(served).has("works again, and was told")
    assert message(puppet_server) == "two"


def test_thirty_environments_at_once(served: Site, puppet_server: PuppetServer) -> None:
    served.definitions.push({f"e{number}.yaml": definition() for number in range(30)})
    run(served)
    assert message(puppet_server, "e3") == "one"
    assert message(puppet_server, "e29") == "one"
    served.remotes[DUMMY].push(says("two"))
    run(served)
    assert message(puppet_server, "e3") == "two"
    assert message(puppet_server, "e29") == "two"


def test_each_environment_has_its_own_version_of_a_type(served: Site, puppet_server: PuppetServer) -> None:
    served.settings["puppetserver.generate_types"] = "True"

    def thing(parameter: str) -> dict[str, str | None]:
        use_it = f"class dummy {{\n  thing {{ 'x': {parameter} => '1' }}\n}}\n"
        return {"code/manifests/init.pp": use_it, f"{TYPES}/thing.rb": of_type("thing", parameter)}

    def things(environment: str = "production") -> Any:
        [found] = [each for each in puppet_server.catalog(environment)["resources"] if each["type"] == "Thing"]
        return found["parameters"]

    served.remotes[DUMMY].push(thing("size"))
    served.remotes[DUMMY].branch("dev")
    served.define("dev", definition("master", {DUMMY: "dev"}))
    run(served)
    assert things() == {"size": "1"}
    served.remotes[DUMMY].push(thing("weight"), "dev")
    run(served)
    assert things("dev") == {"weight": "1"}
    assert things() == {"size": "1"}
    served.remotes[DUMMY].push(thing("colour"))
    run(served)
    assert (things("dev"), things()) == ({"weight": "1"}, {"colour": "1"})


def test_how_long_a_catalog_takes(
    served: Site, puppet_server: PuppetServer, measured: Callable[[str, str], None]
) -> None:
    """Flushed before each catalog, a server does what it does with ``environment_timeout = 0``."""
    names = [f"dummy::c{number}" for number in range(CLASSES)]
    says_it = "  notify {{ \"${{title}} {line}\": message => \"${{facts['networking']['fqdn']}}\" }}\n"
    body = "".join(says_it.format(line=line) for line in range(NOTICES))
    files: dict[str, str | None] = {
        f"code/manifests/{name.partition('::')[2]}.pp": f"class {name} {{\n{body}}}\n" for name in names
    }
    files["code/manifests/init.pp"] = "class dummy {\n" + "".join(f"  include {name}\n" for name in names) + "}\n"
    served.remotes[DUMMY].push(files)
    run(served)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    puppet_server.catalog()
    for _ in range(TIMES):
        for is_flushed in (True, False):
            if is_flushed:
                assert puppet_server.flush() == 204
            begin = time.monotonic()
            assert len(notices(puppet_server.catalog())) == CLASSES * NOTICES
            seconds[is_flushed].append(time.monotonic() - begin)
    parsed, kept = (statistics.median(seconds[is_flushed]) for is_flushed in (True, False))
    measured(f"a catalog of {CLASSES} classes with environment_timeout = 0", f"{parsed:.2f} s")
    measured(f"a catalog of {CLASSES} classes with unlimited", f"{kept:.2f} s")
    assert kept < parsed
