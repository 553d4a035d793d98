"""What a Puppet server is owed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from jens.delivery.puppetserver import EVERYTHING, MOST, RULE, Owed, plan_flush
from tests import TREE

NOW, INTERVAL = 1000.0, 60.0
MANY = [f"e{number}" for number in range(MOST + 1)]


def owed(*names: str, again: Mapping[str, float] | None = None) -> Owed:
    return Owed(frozenset(names), again or {})


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (owed(), []),
        (owed("b", "a"), ["a", "b"]),
        (owed(*MANY[1:]), sorted(MANY[1:])),
        (owed().more(MANY), [EVERYTHING]),
        (owed("a", EVERYTHING), [EVERYTHING]),
        (owed("a", again={"b": NOW, "c": NOW + 1}), ["a", "b"]),
        (owed("a", again={"b": NOW + INTERVAL, "c": NOW + INTERVAL + 1}), ["a", "c"]),  # the clock was set back
        (owed(*MANY[2:], again={MANY[0]: NOW, MANY[1]: NOW}), [EVERYTHING]),
    ],
)
def test_what_is_flushed(found: Owed, names: list[str]) -> None:
    assert plan_flush(found, NOW, INTERVAL) == names


@pytest.mark.parametrize(
    ("before", "done", "interval", "after"),
    [
        (owed("a", "b"), ["a"], 0, owed("b")),
        (owed("a", "b"), ["a", "b"], 0, owed()),
        (owed("a", "b"), [EVERYTHING], 0, owed()),
        (owed("a", "b"), ["a"], INTERVAL, owed("b", again={"a": NOW + INTERVAL})),
        (owed(EVERYTHING), [EVERYTHING], INTERVAL, owed(again={EVERYTHING: NOW + INTERVAL})),
        # Flushed again, and not another time.
        (owed(again={"a": NOW, "b": NOW + 1}), ["a"], INTERVAL, owed(again={"b": NOW + 1})),
        (owed(again={"a": NOW, "b": NOW + 1}), [EVERYTHING], INTERVAL, owed(again={"b": NOW + 1})),
        # It changed once more before it was flushed again.
        (owed("a", again={"a": NOW + 1}), ["a"], INTERVAL, owed(again={"a": NOW + INTERVAL})),
        # There is nothing to flush again any more.
        (owed(again={"a": NOW + 1}), ["a"], 0, owed()),
    ],
)
def test_what_is_still_owed(before: Owed, done: Iterable[str], interval: float, after: Owed) -> None:
    left = before
    for name in done:
        left = left.flushed(name, NOW, interval)
    assert left == after


@pytest.mark.parametrize("memory", [{"owed": 1}, {"again": []}, {"again": {"a": "soon"}}])
def test_a_memory_that_nobody_understands_is_everything(memory: Mapping[str, Any]) -> None:
    assert Owed.of(memory) == owed(EVERYTHING)


def test_a_memory_is_read_back() -> None:
    for each in (owed(), owed("a", again={"b": NOW})):
        assert Owed.of(each.memory()) == each


def test_the_documented_rule_is_the_one_that_is_told() -> None:
    text = (TREE / "docs" / "after-a-run.md").read_text("utf-8")
    told = RULE.format(path="/puppet-admin-api/v1/environment-cache", name="jens.example.org")
    documented = text.split("```hocon\n")[1].split("```")[0]
    assert re.sub(r"\s+", "", documented) == re.sub(r"\s+", "", told) + ","
