"""How much memory bodies may take together."""

from __future__ import annotations

import resource

import pytest

from jens.gitlabproducer import limits
from jens.gitlabproducer.limits import Budget, BusyError


def test_small_bodies_always_fit_and_large_ones_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SMALL_BODY", 10)
    monkeypatch.setattr(limits, "MOST_BYTES", 100)
    budget = Budget()
    with budget.share() as first, budget.share() as second, budget.share() as small:
        first.take(50)
        first.take(50)
        second.take(20)
        small.take(10)
        with pytest.raises(BusyError):
            second.take(1)
    with budget.share() as again:
        again.take(110)
        with pytest.raises(BusyError):
            again.take(1)
    with budget.share() as everything:
        everything.take(110)


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "room"),
    [
        (1024, 4096, 2064, 2000),
        (1024, 1024, 1024, 960),
        (1024, resource.RLIM_INFINITY, 2064, 2000),
        (4096, 4096, None, 2000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 2000),
        (16, 16, 16, 1),
    ],
)
def test_there_is_room_for_as_many_connections_as_there_may_be_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, room: int
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: set_to.append(pair))
    assert limits.room_for_connections() == room
    assert set_to == ([] if raised is None else [(raised, hard)])
