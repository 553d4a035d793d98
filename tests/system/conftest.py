"""Fixtures for the tests with real servers."""

from __future__ import annotations

import contextlib

import pytest

from tests.system import crond
from tests.system.sshd import silent as silent  # noqa: PLC0414 - fixtures
from tests.system.sshd import ssh_site as ssh_site  # noqa: PLC0414 - fixtures
from tests.system.sshd import sshd as sshd  # noqa: PLC0414

_CROND = pytest.StashKey[crond.Crond]()
_NEEDS_CRON = "tests/system/test_cron.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the test that waits for cron last."""
    items.sort(key=lambda item: item.nodeid.startswith(_NEEDS_CRON))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start cron before all tests: it does something only once a minute, and the others run meanwhile."""
    wanted = any(item.nodeid.startswith(_NEEDS_CRON) for item in session.items)
    if wanted and not session.config.option.collectonly and not crond.missing():
        with contextlib.suppress(AssertionError, IndexError, OSError):  # the test will meet and report the same error
            _start(session.config)


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
