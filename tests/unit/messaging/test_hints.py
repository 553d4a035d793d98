"""What becomes of hints after a run: they go, stay, or are renewed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jens.messaging import hints
from jens.messaging.queue import Queue
from jens.model import RepoId

A, B, C = (RepoId("modules", name) for name in "abc")

#: The messages, what failed, what is left to jens-transfer; the messages after the run, and the level of what it told.
RUNS: dict[str, tuple[list[set[RepoId]], set[RepoId], set[RepoId], list[set[RepoId]], int]] = {
    "all is done": ([{A}, {B}], set(), set(), [], 0),
    "one has failed": ([{A}, {A, B}], {A}, set(), [{A}], logging.WARNING),
    "one is left": ([{A}, {B}], {A}, {A}, [{A}], 0),
    "one of the same message is left": ([{A, B}], {A}, {A}, [{A}], logging.INFO),
    "there are many for one that is left": ([{A}, {A}, {A}], {A}, {A}, [{A}], logging.INFO),
    "two are left": ([{A}, {B}, {C}], {A, B}, {A, B}, [{A, B}], logging.INFO),
    "two are left, in one message": ([{A, B}, {C}], {A, B}, {A, B}, [{A, B}], 0),
    "what was taken up is still left": ([{A}], set(), {A}, [{A}], 0),
    "one is left, one has failed": ([{A}, {B}], {A, B}, {A}, [{A}, {B}], logging.WARNING),
    "what is left has no hint": ([{B}], {A}, {A}, [], 0),
}


@pytest.mark.parametrize("what", RUNS)
def test_what_becomes_of_hints(tmp_path: Path, what: str) -> None:
    messages, failed, left, expected, level = RUNS[what]
    queue = Queue(tmp_path)
    names = [queue.add(repos) for repos in messages]
    events = hints.finish(tmp_path, queue.take(), failed, (), left)
    assert [event.level for event in events] == ([level] if level else [])
    found = [{repo for repo in (A, B, C) if not queue.is_without(name, {repo})} for name in queue.names()]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    if not level and expected:
        assert set(queue.names()) <= set(names)  # nothing was renewed


@pytest.mark.parametrize(
    ("messages", "left", "waits"), [([{A}], {A, B}, True), ([{A, B}], {A}, False), ([{A}, {B}], {A, B}, True)]
)
def test_a_run_knows_when_hints_only_wait(
    tmp_path: Path, messages: list[set[RepoId]], left: set[RepoId], waits: bool
) -> None:
    for repos in messages:
        Queue(tmp_path).add(repos)
    found = Queue(tmp_path).take()
    assert hints.only_wait(found, left) is waits
    assert not hints.only_wait(found._replace(found=found.found + 1), left)
