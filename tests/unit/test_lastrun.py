"""The record of the last run: how much of what went wrong is saved."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

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


def test_on_a_full_disk_the_record_says_at_least_that_it_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_in(tmp_path)
    real = statefile.save

    def save(_layout: object, _file: object, content: Any) -> None:
        if len(content["faults"]) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(layout, statefile.LAST_RUN, content)

    monkeypatch.setattr(statefile, "save", save)
    with pytest.raises(OSError, match="No space left"):
        lastrun.save(layout, LastRun(1.0, 1.0, 60, ("a", "b"), _faults(2)))
    found = lastrun.load(layout)
    assert found is not None
    assert found.status == 60
    [opened] = found.faults
    assert "Unable to remember what is wrong" in opened.fault.text
