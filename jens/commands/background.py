"""Starts the tools that go on when a run has ended: by systemd's path unit, or as processes of their own."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from jens import deliveries, locking
from jens.config import Config
from jens.layout import Layout
from jens.messaging import wake
from jens.repositories import transfers
from jens.system import processes

log = logging.getLogger(__name__)

#: systemd sets it for services, whose processes it ends with them.
_SERVICE = "INVOCATION_ID"
#: Seconds after which a path unit has not seen that its tool is asked for.
_UNHEARD = 50.0
_PROGRAM = "import sys; from jens.commands.{module} import main; sys.argv[0] = '{name}'; sys.exit(main())"


class _Tool(NamedTuple):
    """A tool by its module, what its path unit looks for (``wake``), and the lock that it holds when it is at work."""

    module: str
    wake: Path
    lock: Path

    @property
    def name(self) -> str:
        return f"jens-{self.module}"

    def command(self) -> list[str]:
        """The tool as it is beside this program, or its function, if there is none."""
        beside = Path(sys.argv[0]).resolve().with_name(self.name)
        program = _PROGRAM.format(module=self.module, name=self.name)
        return [sys.executable, str(beside)] if beside.is_file() else [sys.executable, "-c", program]


def start_others(config: Config, *, as_root: bool) -> None:
    """Start what has something to do after a run: jens-transfer, jens-deliver. They outlive this process."""
    for start in (_start_transfer, _start_delivery):
        try:
            start(config, as_root)
        except OSError as error:
            log.error("Unable to start what comes after a run: %s", error)


def _start_transfer(config: Config, as_root: bool) -> None:
    layout = Layout.of(config)
    tool = _Tool("transfer", layout.transfers / wake.NAME, transfers.at_work(layout))
    if transfers.asked_for(layout) and not locking.is_held(tool.lock):
        _start(tool, config, as_root=as_root)


def _start_delivery(config: Config, as_root: bool) -> None:
    """Start jens-deliver if receivers have not been told of all that is in the history.

    One that is at work looks once more when it is done.
    """
    if not config.has_receivers:
        return
    layout = Layout.of(config)
    record = deliveries.load(layout)
    if deliveries.fingerprint(layout) != record.history or record.is_due(time.time()):
        _start(_Tool("deliver", layout.deliver, layout.delivery_lock), config, as_root=as_root)


def _start(tool: _Tool, config: Config, *, as_root: bool) -> None:
    asked = _age(tool.wake)
    wake.make(tool.wake.parent, tool.wake.name)
    if locking.is_held(tool.lock):
        return
    if _SERVICE in os.environ and asked < _UNHEARD:
        return  # the path unit starts it
    if _SERVICE in os.environ:
        log.warning("%s.path does not look at '%s', or is not started", tool.name, tool.wake)
    log.info("Starting %s", tool.name)
    options = ["--as-root"] if as_root else []
    processes.start_detached([*tool.command(), "-c", str(config.path.absolute()), *options])


def _age(path: Path) -> float:
    """Seconds since something was made; 0 when it is not there."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0
