"""Replaced checkouts stay for a while: servers may still be reading them."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jens.layout import Layout
from jens.model import RepoId
from jens.repositories import retention
from jens.repositories.retention import Unreferenced, is_over, plan_retention
from jens.statefile import UNREFERENCED, state_path
from tests.conftest import let_pass
from tests.values import DUMMY, MYAPP, A, B, C, layout_in


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_in(tmp_path / "instance")


def _lay_out(layout: Layout, repo: RepoId, *commits: str, **links: str) -> None:
    for commit in commits:
        layout.checkout(repo, commit).mkdir(parents=True)
        (layout.checkout(repo, commit) / "file").write_text(commit)
    for name, commit in links.items():
        (layout.clone(repo) / name).symlink_to(f".{commit}")


def _commits(layout: Layout, repo: RepoId) -> set[str]:
    return {name[1:] for name in os.listdir(layout.clone(repo)) if name.startswith(".")}


@pytest.mark.parametrize(
    ("since", "now", "seconds", "expected"),
    [
        pytest.param(1000, 1299, 300, False, id="a second before"),
        pytest.param(1000, 1300, 300, True, id="to the second"),
        pytest.param(1000, 5000, 300, True, id="long ago"),
        pytest.param(1000, 1000, 300, False, id="just now"),
        pytest.param(1000, 1000, 0, True, id="retention 0"),
        pytest.param(9000, 1000, 300, False, id="a time in the future means now"),
        pytest.param(9000, 1000, 0, True, id="a time in the future, retention 0"),
    ],
)
def test_a_checkout_may_go_once_its_time_is_over(since: float, now: float, seconds: float, expected: bool) -> None:
    assert is_over(since, now, seconds) == expected


_NOW = 10_000.0


@pytest.mark.parametrize(
    ("needed", "before", "waiting", "over"),
    [
        pytest.param({DUMMY: {A, B}}, {}, {}, [], id="needed ones do not wait"),
        pytest.param({DUMMY: {A}}, {}, {(DUMMY, B): _NOW}, [], id="time begins when it is needed no more"),
        pytest.param({DUMMY: {A}}, {(DUMMY, B): 9900.0}, {(DUMMY, B): 9900.0}, [], id="time goes on"),
        pytest.param({DUMMY: {A}}, {(DUMMY, B): 9700.0}, {}, [(DUMMY, B)], id="time is over"),
        pytest.param({DUMMY: {A}}, {(DUMMY, B): 90_000.0}, {(DUMMY, B): _NOW}, [], id="a time in the future means now"),
        pytest.param({DUMMY: {A, B}}, {(DUMMY, B): 0.0}, {}, [], id="needed again: its time is forgotten"),
        pytest.param({DUMMY: {A, B}}, {(DUMMY, C): 0.0}, {}, [], id="one that is not there any more is forgotten"),
        pytest.param({}, {}, {(DUMMY, A): _NOW, (DUMMY, B): _NOW}, [], id="a repository that is gone"),
        pytest.param({MYAPP: {A, B}}, {(MYAPP, A): 0.0}, {(DUMMY, A): _NOW, (DUMMY, B): _NOW}, [], id="each its own"),
    ],
)
def test_which_checkouts_wait_and_which_go(
    needed: Mapping[RepoId, set[str]], before: Unreferenced, waiting: Unreferenced, over: list[tuple[RepoId, str]]
) -> None:
    assert plan_retention({DUMMY: {A, B}}, needed, before, _NOW, 300) == (waiting, over)


def test_with_retention_0_everything_unneeded_goes_at_once() -> None:
    assert plan_retention({DUMMY: {B, A}}, {}, {}, _NOW, 0) == ({}, [(DUMMY, A), (DUMMY, B)])


def test_times_are_loaded_as_they_were_saved(layout: Layout) -> None:
    retention.save(layout, {(DUMMY, A): 1.5, (MYAPP, B): 2.0})
    assert retention.load(layout) == {(DUMMY, A): 1.5, (MYAPP, B): 2.0}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no file"),
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(json.dumps({"version": 2, "content": {f"modules/dummy/{A}": 1}}).encode(), id="another version"),
        pytest.param(json.dumps({"version": 1, "content": [1]}).encode(), id="a list"),
        pytest.param(json.dumps({"version": 1, "content": {"modules": 1}}).encode(), id="no commit"),
        pytest.param(json.dumps({"version": 1, "content": {f"modules/dummy/{A}": "x"}}).encode(), id="no time"),
        pytest.param(json.dumps({"version": 1, "content": {f"modules/dummy/{A}": None}}).encode(), id="null"),
    ],
)
def test_when_times_are_lost_each_retention_begins_anew(layout: Layout, content: bytes | None) -> None:
    if content is not None:
        state_path(layout, UNREFERENCED).write_bytes(content)
    assert retention.load(layout) == {}


@pytest.mark.parametrize(
    "key", [f"modules/../{A}", f"../../{A}", f"other/dummy/{A}", "modules/dummy/x", "modules/d//x"]
)
def test_a_name_that_leads_elsewhere_is_not_loaded(layout: Layout, key: str) -> None:
    state_path(layout, UNREFERENCED).write_text(json.dumps({"version": 1, "content": {key: 0.0}}))
    assert retention.load(layout) == {}


def test_a_run_begins_with_the_removal_of_expired_checkouts_and_left_overs(layout: Layout) -> None:
    _lay_out(layout, DUMMY, A, B, C, master=C)
    retention.save(layout, {(DUMMY, A): time.time() - 400, (DUMMY, B): time.time() - 100})
    left_overs = [
        layout.clone(DUMMY) / ".new-1",
        layout.clone(DUMMY) / ".trash-1",
        layout.baredir / "modules" / ".new-1",
        layout.clonedir / "hostgroups" / ".trash-1",
        layout.environmentsdir / ".new-1",
        layout.cachedir / ".new-1",
        layout.definitions / ".new-1",
    ]
    for path in left_overs:
        path.mkdir()
        (path / "file").write_text("x")
    retention.clear_left_overs(layout, 300)
    assert _commits(layout, DUMMY) == {B, C}
    assert not any(path.exists() for path in left_overs)


def test_a_checkout_that_a_branch_link_points_to_stays_whatever_is_on_record(layout: Layout) -> None:
    _lay_out(layout, DUMMY, A, master=A)
    retention.save(layout, {(DUMMY, A): 0.0})
    retention.clear_left_overs(layout, 300)
    assert _commits(layout, DUMMY) == {A}
    assert retention.retire_checkouts(layout, {DUMMY: set()}, set(), 0) == []
    assert _commits(layout, DUMMY) == {A}


def test_a_record_of_a_repository_that_is_gone_does_no_harm(layout: Layout) -> None:
    retention.save(layout, {(DUMMY, A): 0.0})
    retention.clear_left_overs(layout, 300)


def test_the_time_of_a_commit_that_is_needed_again_is_forgotten(layout: Layout) -> None:
    retention.save(layout, {(DUMMY, A): 1.0, (DUMMY, B): 2.0, (MYAPP, A): 3.0})
    retention.reclaim(layout, {DUMMY: {A}})
    assert retention.load(layout) == {(DUMMY, B): 2.0, (MYAPP, A): 3.0}


def test_a_replaced_checkout_stays_for_retention_then_goes(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    _lay_out(layout, DUMMY, A, B, master=B)
    let_pass(monkeypatch, 0)
    retention.retire_checkouts(layout, {DUMMY: {B}}, set(), 300)
    let_pass(monkeypatch, 250)
    retention.retire_checkouts(layout, {DUMMY: {B}}, set(), 300)
    assert _commits(layout, DUMMY) == {A, B}
    let_pass(monkeypatch, 300)
    retention.retire_checkouts(layout, {DUMMY: {B}}, set(), 300)
    assert _commits(layout, DUMMY) == {B}


def test_a_clock_that_was_wrong_does_not_keep_a_checkout_forever(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lay_out(layout, DUMMY, A)
    retention.save(layout, {(DUMMY, A): time.time() + 1_000_000})
    for later in (0, 301):
        let_pass(monkeypatch, later)
        retention.retire_checkouts(layout, {DUMMY: set()}, set(), 300)
    assert _commits(layout, DUMMY) == set()


def test_no_checkout_goes_when_the_needs_of_its_repository_are_unknown(layout: Layout) -> None:
    _lay_out(layout, DUMMY, A)
    _lay_out(layout, MYAPP, A)
    retention.retire_checkouts(layout, {DUMMY: set(), MYAPP: set()}, {DUMMY}, 0)
    assert (_commits(layout, DUMMY), _commits(layout, MYAPP)) == ({A}, set())


def test_the_directory_of_a_repository_that_is_gone_goes_once_it_is_empty(layout: Layout) -> None:
    _lay_out(layout, DUMMY, A)
    _lay_out(layout, MYAPP)
    layout.clone(MYAPP).mkdir()
    retention.retire_checkouts(layout, {}, set(), 300)
    assert layout.clone(DUMMY).is_dir()
    assert not layout.clone(MYAPP).exists()
    retention.retire_checkouts(layout, {}, set(), 0)
    assert not layout.clone(DUMMY).exists()


def test_the_mirror_forgets_a_checkout_that_goes(layout: Layout) -> None:
    _lay_out(layout, DUMMY, A)
    record = layout.bare(DUMMY) / "worktrees" / A
    record.mkdir(parents=True)
    retention.remove_checkout(layout, DUMMY, A)
    assert not record.exists()


def _refuse_to_rename(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    rename = os.rename

    def refuse(source: Any, target: Any) -> None:
        if str(source).endswith(commit):
            raise OSError(16, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)


def test_one_checkout_that_cannot_go_is_an_error_and_the_rest_goes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lay_out(layout, DUMMY, A, B)
    _refuse_to_rename(monkeypatch, A)
    failed, removed = retention.retire_checkouts(layout, {DUMMY: set()}, set(), 0)
    assert (failed.level, removed.level) == (logging.ERROR, logging.INFO)
    assert A in failed.text
    assert B in removed.text
    assert _commits(layout, DUMMY) == {A}


def test_one_checkout_that_cannot_go_does_not_end_the_run(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    _lay_out(layout, DUMMY, A, B)
    retention.save(layout, {(DUMMY, A): 0.0, (DUMMY, B): 0.0})
    _refuse_to_rename(monkeypatch, A)
    retention.clear_left_overs(layout, 300)
    assert _commits(layout, DUMMY) == {A}


def test_on_a_full_disk_those_that_have_waited_longest_are_saved(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.cachedir.mkdir(parents=True, exist_ok=True)
    real = retention.save

    def save(where: Layout, unreferenced: Unreferenced) -> None:
        if len(unreferenced) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(where, unreferenced)

    monkeypatch.setattr(retention, "save", save)
    retention.save_what_fits(layout, {(DUMMY, A): 3.0, (DUMMY, B): 1.0, (DUMMY, C): 2.0})
    assert retention.load(layout) == {(DUMMY, B): 1.0}


def test_what_is_needed_again_is_forgotten_even_if_nothing_can_be_saved(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next run could delete what is in use."""
    layout.cachedir.mkdir(parents=True, exist_ok=True)
    retention.save(layout, {(DUMMY, A): 1.0, (DUMMY, B): 1.0})

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(retention, "save", fail)
    retention.reclaim(layout, {DUMMY: {A}})
    assert retention.load(layout) == {}
