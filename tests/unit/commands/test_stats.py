"""What jens-stats says first."""

from __future__ import annotations

import re

from jens.commands import stats
from jens.lastrun import LastRun
from jens.model import Fault, OpenFault


def _lines(failures: tuple[str, ...], *faults: Fault) -> list[str]:
    opened = tuple(OpenFault(fault, "2026-03-03T14:20:38+00:00") for fault in faults)
    lines = stats._last_run_text(LastRun(1772547939.0, 0.9, 0, failures, opened))
    return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", line) for line in lines]


def test_what_is_wrong_comes_before_what_failed() -> None:
    fault = Fault("dangling link", "no branch 'x'", "team", "modules/dummy", addresses=("ann@example.org",))
    assert _lines(("Unable to fetch 'a'", "Unable to\nfetch 'b'"), fault) == [
        "Last run: TIME, 0.9 s, exit status 0",
        "There are 1 open faults",
        "\t- dangling link team modules/dummy since TIME: no branch 'x' (ann@example.org)",
        "There are 2 failures in the last run",
        "\t- Unable to fetch 'a'",
        "\t- Unable to\\nfetch 'b'",
    ]


def test_without_failures_there_is_no_word_of_them() -> None:
    assert _lines(()) == ["Last run: TIME, 0.9 s, exit status 0", "There are 0 open faults"]
    assert list(stats._last_run_text(None)) == ["Last run: never, or nothing tells of it"]
