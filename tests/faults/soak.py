"""The campaign of kills, with many kills: ``make soak``, or ``make soak KILLS=500 SEED=1``.

Several campaigns go on at the same time. After a hundred kills a campaign ends, and a new one begins with another
site. Exits 1 with all details as soon as something is wrong, and when the time is up.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tests.faults.campaign import Campaign, CampaignError

#: Kills of each campaign.
_SHARE = 100
#: Seconds between two lines of progress; seconds without progress after which a campaign counts as hanging.
_PAUSE, _STUCK = 10.0, 180.0


class Soak:
    """Campaigns side by side, and their results."""

    def __init__(self, top: Path, kills: int, seed: int, minutes: float) -> None:
        self._top = top
        self._wanted = kills
        self._shares = [min(_SHARE, kills - begin) for begin in range(0, kills, _SHARE)]
        self._seed = seed
        self._campaigns: list[Campaign] = []
        self._stopped = False
        self._begin = time.monotonic()
        self._end = self._begin + minutes * 60

    def run(self, workers: int) -> int:
        """Run all campaigns; return the exit status."""
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._campaign, number) for number in range(len(self._shares))]
            waiting, last, since = set(futures), -1, time.monotonic()
            while waiting and not self._is_stopped():
                done, waiting = wait(waiting, _PAUSE, FIRST_EXCEPTION)
                self._tell()
                if self.kills != last:
                    last, since = self.kills, time.monotonic()
                is_stuck = time.monotonic() - since > _STUCK
                if is_stuck or time.monotonic() > self._end or any(future.exception() for future in done):
                    self._stop(at_once=is_stuck)
        problems = [problem for problem in (future.exception() for future in futures) if problem]
        for problem in problems:
            lines = traceback.format_exception(type(problem), problem, problem.__traceback__)
            print(problem if isinstance(problem, CampaignError) else "".join(lines))
        return 1 if problems or self.kills < self._wanted else 0

    def _is_stopped(self) -> bool:
        return self._stopped

    def _stop(self, *, at_once: bool) -> None:
        self._stopped = True
        if at_once:
            print(f"Nothing has happened for {_STUCK:.0f} seconds.")
            for campaign in self._campaigns:
                campaign.abort()

    @property
    def kills(self) -> int:
        return sum(campaign.kills for campaign in self._campaigns)

    def _campaign(self, number: int) -> None:
        if self._is_stopped():
            return
        top = self._top / str(number)
        top.mkdir()
        campaign = Campaign(top, self._seed + number)
        self._campaigns.append(campaign)
        with campaign.going_on():
            for _ in campaign.rounds(self._shares[number]):
                if self._is_stopped():
                    return
        shutil.rmtree(top)

    def _tell(self) -> None:
        seconds = time.monotonic() - self._begin
        sites = f"{len(self._campaigns)} of {len(self._shares)} sites"
        print(f"{self.kills} of {self._wanted} kills, {self.kills / seconds:.2f} a second, {sites}", flush=True)

    def summary(self, status: int) -> str:
        seconds = time.monotonic() - self._begin
        result = "something was wrong" if status else "all was well"
        looks = sum(campaign.looks for campaign in self._campaigns)
        return f"{self.kills} kills in {seconds:.0f} seconds, {looks} looks of the readers: {result}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs of jens-update at random instants, again and again.")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--sites", type=int, default=os.cpu_count() or 1, help="how many suffer at the same time")
    parser.add_argument("--minutes", type=float, default=120, help="it takes no longer, done or not")
    arguments = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="jens-soak-"))
    os.environ["HOME"] = str(top)  # the user's configuration of Git must not count
    print(f"seed {arguments.seed}, in {top}", flush=True)
    soak = Soak(top, arguments.kills, arguments.seed, arguments.minutes)
    status = soak.run(arguments.sites)
    print(soak.summary(status))
    if status:
        print(f"What there is of it stays in {top}")
    else:
        shutil.rmtree(top)
    return status


if __name__ == "__main__":
    sys.exit(main())
