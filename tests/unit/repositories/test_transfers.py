"""What is left to jens-transfer: read from the disk, and from who holds which lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens import locking
from jens.layout import Layout
from jens.model import RepoId
from jens.repositories import transfers

A, B = RepoId("modules", "a"), RepoId("modules", "b")
SERVER = "git://h.example.org"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.at(tmp_path)
    (made.baredir / "modules").mkdir(parents=True)
    made.cachedir.mkdir()
    return made


def ended(layout: Layout) -> dict[RepoId, bool]:
    return {repo: left.is_ended for repo, left in transfers.left(layout).items()}


def test_what_is_asked_for_is_left_until_it_is_withdrawn(layout: Layout) -> None:
    assert ended(layout) == {}
    transfers.ask_for(layout, A, SERVER)
    transfers.ask_for(layout, B)
    assert ended(layout) == {A: False, B: False}
    assert (transfers.silent(layout), transfers.slow(layout)) == ({A: SERVER}, set())
    transfers.withdraw_silent(layout, SERVER)
    assert ended(layout) == {B: False}


def test_what_somebody_works_on_is_left_whatever_is_asked_for(layout: Layout) -> None:
    with locking.holding(layout.transfer_lock(A)):
        assert ended(layout) == {A: False}
        transfers.ask_for(layout, A)
        transfers.mark_slow(layout, A)
        assert ended(layout) == {A: False}
    assert ended(layout) == {A: True}


def test_a_slow_remote_stays_left_and_runs_take_up_what_was_brought(layout: Layout) -> None:
    transfers.ask_for(layout, A, SERVER)
    transfers.mark_silent(layout, A)
    assert ended(layout) == {A: False}  # it has never answered
    transfers.mark_slow(layout, A)
    assert (ended(layout), transfers.slow(layout), transfers.silent(layout)) == ({A: True}, {A}, {A: SERVER})
    transfers.mark_silent(layout, A)
    assert (ended(layout), transfers.slow(layout), transfers.silent(layout)) == ({A: True}, set(), {A: SERVER})
    transfers.ask_for(layout, A)  # a run has found that it hangs
    assert ended(layout) == {A: False}
