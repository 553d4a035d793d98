"""SIGKILL at any instant: what Puppet reads stays whole, and the next run makes up for everything."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign

#: Kills in each of the tests, which may run at the same time. A busy machine needs minutes for so many.
KILLS, PARTS = 30, 5


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", range(PARTS))
def test_whenever_a_run_is_killed_readers_miss_nothing_and_the_next_run_makes_up_for_it(
    tmp_path: Path, part: int
) -> None:
    seed = random.SystemRandom().randrange(2**32) + part
    campaign = Campaign(tmp_path, seed)
    with campaign.going_on():
        for _ in campaign.rounds(KILLS):
            pass
    assert campaign.looks > KILLS
