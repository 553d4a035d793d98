"""A real Puppet Server compiles each catalog from one version of an environment, whatever is flipped meanwhile."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.system import processes
from tests import TREE
from tests.conftest import HIERADATA, Site
from tests.system.agents import agent
from tests.system.puppetserver import JENS, PuppetServer, notices

ONE, OTHER, HIERA, SITE = "modules/dummy", "modules/second", "common/hieradata", "common/site"
CATALOGS, AGENTS = (300, 20) if os.environ.get("JENS_SOAK") else (12, 1)

pytestmark = pytest.mark.timeout(1800 if os.environ.get("JENS_SOAK") else 300)


def push(site: Site, number: int) -> None:
    """Push the next version of two modules, of the manifest and of the common data: each part says its number."""
    for repo in (ONE, OTHER):
        name = repo.partition("/")[2]
        body = "".join(
            f"  notify {{ '{name} {what}': message => String({value}) }}\n"
            for what, value in (
                ("class", f"'{number}'"),
                ("template", f"epp('{name}/number.epp')"),
                ("function", f"{name}::number()"),
                ("data", f"lookup('{name}::number')"),
            )
        )
        site.remotes[repo].push(
            {
                "code/manifests/init.pp": f"class {name} {{\n{body}}}\n",
                "code/templates/number.epp": f"{number}",
                "code/functions/number.pp": f"function {name}::number() {{ '{number}' }}\n",
                f"data/{name}.yaml": f"{name}::number: '{number}'\n",
            }
        )
    site.remotes[HIERA].push({"data/common.yaml": f"number: '{number}'\n"})
    first = (TREE / "examples" / "versioned" / "site.pp").read_text().partition("node default")[0]
    node = f"  include dummy\n  include second\n  notify {{ 'site': message => '{number}' }}\n"
    node += "  notify { 'data': message => lookup('number') }\n"
    site.remotes[SITE].push({"code/site.pp": f"{first}node default {{\n{node}}}\n"})


@pytest.fixture
def served(site: Site, puppet_server: PuppetServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with examples/versioned/, whose server caches environments and is flushed."""
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    certificates = puppet_server.certificates
    site.settings |= {
        "main.directory_environments": "True",
        "main.versionedenvironments": "production,",
        "main.config_version": "True",
        "puppetserver.urls": puppet_server.url,
        "puppetserver.ssl_ca": str(certificates.ca),
        "puppetserver.ssl_cert": str(certificates.cert(JENS)),
        "puppetserver.ssl_key": str(certificates.key(JENS)),
    }
    site.add(OTHER, {"code/manifests/init.pp": "class second {}\n", "data/second.yaml": "--- {}\n"})
    site.remotes[HIERA].push({**HIERADATA})
    site.publish()
    push(site, 0)
    puppet_server.read(site.root / "environments")
    assert site.update("--strict").code == 0
    assert site.deliver().code == 0
    return site


def flips(site: Site, done: threading.Event) -> Iterator[int]:
    """Push, run and deliver until it is done. Each number is one that became visible."""
    number = 0
    while not done.is_set():
        number += 1
        push(site, number)
        assert site.update("--strict").code == 0
        assert site.deliver().code == 0
        yield number


@pytest.mark.parametrize("timeout", ["unlimited", "0"])
def test_no_catalog_mixes_two_versions_and_none_fails(served: Site, puppet_server: PuppetServer, timeout: str) -> None:
    """Flushed before each catalog, a server does what it does with ``environment_timeout = 0``."""
    done = threading.Event()
    found: list[tuple[str, set[str]]] = []
    problems: list[object] = []

    def compile_all() -> None:
        try:
            for _ in range(CATALOGS):
                if timeout == "0":
                    puppet_server.flush("production")
                catalog = puppet_server.catalog()
                said = notices(catalog)
                assert len(said) == 10, said
                found.append((str(catalog["version"]), set(said.values())))
        except BaseException as error:  # noqa: BLE001 - the test tells
            problems.append(error)
        finally:
            done.set()

    compiler = threading.Thread(target=compile_all)
    compiler.start()
    numbers = [*flips(served, done)]
    compiler.join()
    assert problems == []
    assert [said for _, said in found if len(said) != 1] == []
    assert len({version for version, _ in found}) > 1, (numbers, found)
    assert all(version.startswith("production_") for version, _ in found)
    last = puppet_server.catalog()
    assert set(notices(last).values()) == {str(numbers[-1])}


def test_agents_apply_one_version_and_report_it(served: Site, puppet_server: PuppetServer, tmp_path: Path) -> None:
    done = threading.Event()
    runs: list[tuple[int, str]] = []

    def run_agents() -> None:
        try:
            runs.extend(agent(puppet_server, tmp_path / str(number)) for number in range(AGENTS))
        finally:
            done.set()

    agents = threading.Thread(target=run_agents)
    agents.start()
    assert [*flips(served, done)]
    agents.join()
    for status, output in runs:
        assert status == 0, output
        assert re.search(r"Applying configuration version 'production_[0-9]+'", output)
        said = re.findall(r"/Notify\[.*?current_value '?absent'?, should be '?(\d+)'?", output)
        assert len(said) == 10, output
        assert len({*said}) == 1, output
