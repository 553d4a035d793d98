"""Lines that are held back: written in their order, and dropped only when nothing was done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Event

import pytest

from jens.commands.idle import STANDING, HeldBack, is_routine

ROUTINE = ("Refreshing metadata...", "New environments: []")


class Written(logging.Handler):
    """What was written, and a signal when something is."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.has_some = Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.has_some.set()


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def held(written: Written) -> Iterator[HeldBack]:
    holding = HeldBack(written, 3600)
    yield holding
    holding.let_go()


def say(handler: HeldBack, *lines: str, level: int = logging.INFO, is_standing: bool = False) -> None:
    for line in lines:
        record = logging.LogRecord("jens", level, "", 0, "%s", (line,), None)
        record.__dict__.update(STANDING if is_standing else {})
        handler.emit(record)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Refreshing metadata...", True),
        ("Executed 'refresh_metadata' in 52.63 ms", True),
        ("Obtaining lock 'jens' (attempt: 2)...", True),
        ("New repositories: []", True),
        ("New repositories: ['dummy']", False),
        ("New environments: ['team']", False),
        ("Existing and changed environments: ['team']", False),
        ("0 messages found", True),
        ("Deleted environments: ['team']", True),
        ("Deleting environment 'team'", False),
        ("Fetched modules/dummy", False),
        ("Fetching modules/dummy upon demand...", False),
        ("Leaving modules/dummy to jens-transfer, as it takes long", False),
        ("", False),
    ],
)
def test_every_run_logs_some_lines(line: str, expected: bool) -> None:
    assert is_routine(line) is expected


def test_what_is_dropped_is_not_written(held: HeldBack, written: Written) -> None:
    say(held, *ROUTINE)
    held.drop()
    say(held, "Nothing new")
    assert written.lines == ["Nothing new"]


@pytest.mark.parametrize(("line", "level"), [("Fetched modules/dummy", logging.INFO), (ROUTINE[0], logging.WARNING)])
def test_the_first_line_of_something_done_writes_all(line: str, level: int, held: HeldBack, written: Written) -> None:
    say(held, *ROUTINE)
    say(held, line, level=level)
    say(held, *ROUTINE)
    held.drop()
    assert written.lines == [*ROUTINE, line, *ROUTINE]


def test_a_warning_of_every_run_lets_nothing_else_go(held: HeldBack, written: Written) -> None:
    say(held, ROUTINE[0])
    say(held, "odd", level=logging.WARNING, is_standing=True)
    say(held, ROUTINE[1])
    held.drop()
    assert written.lines == [ROUTINE[0], "odd"]


def test_no_line_waits_for_long_and_the_next_ones_are_held_back_again(written: Written) -> None:
    holding = HeldBack(written, 0.01)
    for line in ROUTINE:
        written.has_some.clear()
        say(holding, line)
        assert written.has_some.wait(60)
    assert written.lines == [*ROUTINE]
    holding.let_go()
