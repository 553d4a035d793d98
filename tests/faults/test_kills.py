"""SIGKILL at any instant: what Puppet reads stays whole, and one more run makes everything as it should be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign

#: Kills in each of the two tests, which can be run at the same time.
KILLS = 75


@pytest.mark.parametrize("half", [1, 2])
def test_whenever_a_run_is_killed_readers_miss_nothing_and_the_next_run_makes_up_for_it(
    tmp_path: Path, half: int
) -> None:
    seed = random.SystemRandom().randrange(2**32) + half
    campaign = Campaign(tmp_path, seed)
    with campaign.going_on():
        for _ in campaign.rounds(KILLS):
            pass
    assert campaign.looks > KILLS
