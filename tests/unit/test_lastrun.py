"""The record of the last run: how much of what went wrong is saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens import lastrun, statefile
from jens.lastrun import LastRun
from jens.model import Fault, OpenFault
from tests.values import layout_in


def _faults(count: int) -> tuple[OpenFault, ...]:
    return tuple(OpenFault(Fault("definition", "x" * 2000, f"e{number:05}"), "now") for number in range(count))


@pytest.mark.parametrize(("count", "saved"), [(0, 0), (1000, 1000), (1001, 1001), (1002, 1001), (90_000, 1001)])
def test_a_record_is_not_longer_than_somebody_can_read(tmp_path: Path, count: int, saved: int) -> None:
    layout = layout_in(tmp_path)
    record = LastRun(1.0, 1.0, 0, tuple(f"{number} {'y' * 2000}" for number in range(count)), _faults(count))
    lastrun.save(layout, record)
    found = lastrun.load(layout)
    assert found is not None
    assert len(found.faults) == saved
    assert len(found.failures) == min(count, 1001)
    if count > 1001:
        assert found.faults[-1].fault.kind == "more"
        assert str(count - 1000) in found.faults[-1].fault.text
        assert str(count - 1000) in found.failures[-1]
    assert statefile.state_path(layout, statefile.LAST_RUN).stat().st_size < 4_000_000


def test_a_fault_has_not_a_thousand_addresses() -> None:
    fault = OpenFault(Fault("definition", "x", addresses=("a" * 9000,) * 9000), "now")
    assert len(str(lastrun.encode_fault(fault))) < 30_000
