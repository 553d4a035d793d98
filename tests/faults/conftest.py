"""Fixtures for the tests of faults."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first; at the end they would keep only one processor busy."""
    items.sort(key=lambda item: "test_kills" not in item.nodeid)


@pytest.fixture
def open_site(capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """A site in a directory that every user may enter."""
    top = Path(tempfile.mkdtemp())
    try:
        top.chmod(0o755)
        site = Site(top / "site", capsys)
        for repo in ("common/hieradata", "common/site", "hostgroups/myapp", "modules/dummy"):
            site.add(repo)
        site.publish()
        site.define("production")
        yield site
    finally:
        shutil.rmtree(top)
