"""What tests of faults share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: begun last, they would keep one processor busy alone."""
    items.sort(key=lambda item: "test_kills" not in item.nodeid)


@pytest.fixture
def open_site(capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """A site that every user can reach."""
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
