"""How much time has passed, whatever happens to the clock: somebody may set it a year ahead, or back.

What Jens notes, it notes together with how long the machine has run since its start, which nobody can set.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import NamedTuple

#: Seconds by which a clock may be wrong without harm: less than any time limit that matters.
_SLACK = 1.0
#: The clock by which Linux notes changes of files; it goes on in steps. Python has no name for it: clock_gettime(2).
_CLOCK_REALTIME_COARSE = 5
#: Seconds after which such a step must have come: Linux has at least a hundred a second.
_LONGEST_STEP = 0.1


class Moment(NamedTuple):
    """A moment: the clock in seconds since the epoch, and for how many seconds the machine had run since its start.

    ``boot`` is the id of that start, '' when it is not known.
    """

    wall: float
    up: float
    boot: str


def now() -> Moment:
    """This moment."""
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot_id())


@functools.cache
def boot_id() -> str:
    """The id of this start of the system, '' when nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def elapsed(before: Moment, after: Moment) -> float:
    """The seconds that have passed between two moments: never more than the machine has run.

    The earlier moment may be of another start, or of another host that uses the same files.
    """
    if before.boot and before.boot == after.boot:
        return max(0.0, after.up - before.up)
    return min(max(0.0, after.wall - before.wall), after.up)


def translate(time_noted: float, noted: Moment, moment: Moment) -> float:
    """What a time by the clock as it was when it was ``noted`` is by the clock of this ``moment``."""
    jump = moment.wall - noted.wall - elapsed(noted, moment)
    return time_noted + jump if abs(jump) > _SLACK else time_noted


def wait_for_step() -> None:
    """Wait until changes of files get another time than those so far: a few milliseconds.

    Two changes within one step of the clock have the same time, and so the second one could not be seen.
    """
    step, end = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE), time.monotonic() + _LONGEST_STEP
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) == step and time.monotonic() < end:
        time.sleep(0.0005)
