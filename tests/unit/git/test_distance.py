"""When a server counts as far away, and how many questions it gets then."""

from __future__ import annotations

import pytest

from jens.git.distance import Distance
from jens.git.webslots import Turns


@pytest.mark.parametrize(
    ("seconds", "is_far"),
    [
        ([], False),
        ([0.1, 0.1, 0.1], False),
        ([0.1, 0.1, 0.1, 0.1], True),
        ([0.1, 0.1, 0.1, 0.001], False),
        ([0.001, 0.1, 0.1, 0.1, 0.1, 0.1], False),
        ([0.051, 5, 5, 5], True),
        ([0.049, 5, 5, 5], False),
    ],
)
def test_the_shortest_of_some_ways_tells_how_far_away_a_server_is(seconds: list[float], is_far: bool) -> None:
    distance = Distance()
    for each in seconds:
        distance.measure(each)
    assert distance.is_far == is_far


def take_all(turns: Turns) -> int:
    """Take all that there are; returns how many."""
    count = 0
    while turns.acquire(timeout=0):
        count += 1
    return count


def test_a_server_that_is_far_away_gets_many_questions_until_it_refuses_them() -> None:
    turns = Turns(2, 6)
    assert take_all(turns) == 2
    for _ in range(4):
        turns.distance.measure(0.1)
    assert take_all(turns) == 4
    turns.refuse()
    for _ in range(5):
        turns.release()
    assert take_all(turns) == 1


def test_who_wants_few_gets_few_however_far_away_a_server_is() -> None:
    turns = Turns(2, 2)
    for _ in range(4):
        turns.distance.measure(1)
    assert not turns.are_many
    assert take_all(turns) == 2
