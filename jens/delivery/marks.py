"""Marks what jens-deliver starts, so that whatever a killed delivery has left at work is found and ended.

Who is told by a program (the hook, Puppet) must not be told twice at the same time. What a program that has ended well
has left in the background is nobody's business.
"""

from __future__ import annotations

import itertools
import os

from jens.layout import Layout
from jens.system import processes

#: The variable that all these processes have in their environment.
NAME = "JENS_DELIVERY"

_numbers = itertools.count()


def _prefix(layout: Layout, pid: int) -> str:
    return f"{layout.cachedir} {pid} "


def new(layout: Layout) -> str:
    """A mark for a program: the value of the variable."""
    return f"{_prefix(layout, os.getpid())}{next(_numbers)}"


def end(mark: str) -> None:
    """Kill what was started with this mark, and all that this has started."""
    processes.kill_marked(NAME, mark)


def end_all(layout: Layout, pid: int | None = None) -> None:
    """Kill all that a delivery has started: this one, or the one that had this process id."""
    processes.kill_marked(NAME, _prefix(layout, pid or os.getpid()), is_prefix=True)
