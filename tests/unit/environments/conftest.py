"""Fixtures for tests of environments."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.layout import Layout
from tests.values import layout_in


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_in(tmp_path / "instance")
