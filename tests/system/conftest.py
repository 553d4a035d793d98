"""Fixtures for the tests with real servers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import crond, puppetserver
from tests.system.sshd import silent as silent  # noqa: PLC0414 - fixtures
from tests.system.sshd import ssh_site as ssh_site  # noqa: PLC0414 - fixtures
from tests.system.sshd import sshd as sshd  # noqa: PLC0414

_CROND = pytest.StashKey[crond.Crond]()
_NEEDS_CRON = "tests/system/test_cron.py"
_PUPPET_SERVER = pytest.StashKey[puppetserver.Shared]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests last that wait for a Puppet Server, and then the one that waits for cron."""
    items.sort(key=lambda item: (item.nodeid.startswith(_NEEDS_CRON), _needs_puppet_server(item)))
    for item in filter(_needs_puppet_server, items):
        item.add_marker(pytest.mark.timeout(3 * puppetserver.PATIENCE))  # it may wait for its start, and for its turn


def _needs_puppet_server(item: pytest.Item) -> bool:
    return "puppet_server" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start before all tests what takes its time, and let the others run meanwhile.

    cron does something only once a minute, and a Puppet Server takes most of a minute to start.
    """
    config = session.config
    if any(map(_needs_puppet_server, session.items)) and not config.option.collectonly and not puppetserver.missing():
        with contextlib.suppress(OSError):  # the test will meet and report the same error
            _puppet_server(config)
    wanted = any(item.nodeid.startswith(_NEEDS_CRON) for item in session.items)
    if wanted and not session.config.option.collectonly and not crond.missing():
        with contextlib.suppress(AssertionError, IndexError, OSError):  # the test will meet and report the same error
            _start(session.config)


def _puppet_server(config: pytest.Config) -> puppetserver.Shared:
    """The Puppet Server of this run, which begins to start unless it has."""
    if _PUPPET_SERVER not in config.stash:
        run = getattr(config, "workerinput", {}).get("testrunuid", f"of-{os.getpid()}")  # the same in all workers
        config.stash[_PUPPET_SERVER] = puppetserver.Shared(Path(tempfile.gettempdir(), f"jens-puppetserver-{run}"))
    return config.stash[_PUPPET_SERVER]


def _start(config: pytest.Config) -> None:
    started = config.stash[_CROND] = crond.Crond()
    config.add_cleanup(started.stop)


@pytest.fixture
def cron(pytestconfig: pytest.Config) -> crond.Crond:
    """The cron that has been running since the tests began."""
    why = crond.missing()
    if why:
        pytest.skip(why)
    if _CROND not in pytestconfig.stash:
        _start(pytestconfig)
    return pytestconfig.stash[_CROND]


@pytest.fixture
def puppet_server(pytestconfig: pytest.Config) -> Iterator[puppetserver.PuppetServer]:
    """A Puppet Server that works, for this test alone."""
    why = puppetserver.missing()
    if why:
        pytest.skip(why)
    with _puppet_server(pytestconfig).turn() as server:
        yield server
