"""What is read of a repository's files while Git is at work in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from jens import gitwrapper
from tests.conftest import Site, git


@pytest.mark.parametrize("when", ["before the loose refs are read", "while they are read"])
def test_refs_that_are_packed_meanwhile_are_read_as_they_are_now(
    site: Site, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    remote = site.remotes["modules/dummy"]
    git("pack-refs", "--all", directory=remote.path)
    new = remote.push({"code/manifests/init.pp": "# new\n"})
    walk = os.walk

    def packing(top: str) -> Iterator[Any]:
        found = list(walk(top)) if when == "while they are read" else None
        git("pack-refs", "--all", directory=remote.path)
        yield from walk(top) if found is None else found

    monkeypatch.setattr(os, "walk", packing)
    assert gitwrapper.heads(remote.path) == {"master": new}
