"""However a clock is set, no more time has passed than the machine has run."""

from __future__ import annotations

import pytest

from jens.system import clock
from jens.system.clock import Moment, elapsed, translate

YEAR = 31_536_000.0
NOTED = Moment(1000.0 + YEAR, 500.0, "a")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param(Moment(1060 + YEAR, 560, "a"), 60, id="a minute later"),
        pytest.param(Moment(1060 + 2 * YEAR, 560, "a"), 60, id="the clock was set a year ahead"),
        pytest.param(Moment(1060, 560, "a"), 60, id="the clock was set a year back"),
        pytest.param(Moment(1000 + YEAR, 490, "a"), 0, id="the machine cannot have run backwards"),
        pytest.param(Moment(1060 + YEAR, 40, "b"), 40, id="it was off for a while"),
        pytest.param(Moment(1060 + 2 * YEAR, 40, "b"), 40, id="it was off, and the clock was set a year ahead"),
        pytest.param(Moment(1060, 40, "b"), 0, id="it was off, and the clock was set a year back"),
        pytest.param(Moment(1060 + YEAR, YEAR, "b"), 60, id="another host, which has run for long"),
        pytest.param(Moment(1060 + YEAR, 560, ""), 60, id="nobody tells the start"),
    ],
)
def test_no_more_time_has_passed_than_the_machine_has_run(moment: Moment, expected: float) -> None:
    assert elapsed(NOTED, moment) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("moment", "age"),
    [
        pytest.param(Moment(1060 + YEAR, 560, "a"), 160, id="a minute later"),
        pytest.param(Moment(1060 + 2 * YEAR, 560, "a"), 160, id="the clock was set a year ahead"),
        pytest.param(Moment(1060, 560, "a"), 160, id="the clock was set a year back"),
        pytest.param(Moment(1060 + 2 * YEAR, 40, "b"), 140, id="it was off, and the clock was set a year ahead"),
        pytest.param(Moment(1060, 40, "b"), 100, id="it was off, and the clock was set a year back"),
    ],
)
def test_what_was_noted_is_as_old_as_the_time_that_has_passed(moment: Moment, age: float) -> None:
    assert moment.wall - translate(NOTED.wall - 100, NOTED, moment) == pytest.approx(age)


def test_a_clock_that_is_corrected_a_little_changes_nothing() -> None:
    assert translate(5.0, NOTED, NOTED._replace(wall=NOTED.wall + 0.5)) == 5.0


def test_moments_follow_one_another() -> None:
    before = clock.now()
    clock.wait_for_step()
    after = clock.now()
    assert 0 < elapsed(before, after) < 60
    assert before.boot == after.boot
