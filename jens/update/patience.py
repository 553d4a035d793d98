"""Nobody's push waits for another repository: a run leaves to jens-transfer what takes longer than it has patience."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from jens import locking
from jens.config import Config
from jens.layout import Layout
from jens.messaging import wake
from jens.model import RepoId
from jens.repositories import transfers
from jens.system import processes
from jens.update.options import Context

log = logging.getLogger(__name__)

#: systemd sets it for services, whose processes it ends with them.
_SERVICE = "INVOCATION_ID"
_PROGRAM = "import sys; from jens.commands.transfer import main; sys.argv[0] = 'jens-transfer'; sys.exit(main())"


def left(context: Context) -> Mapping[RepoId, float]:
    """What is left to jens-transfer, and since when. Servers that it found silent are asked nothing. Raises OSError."""
    found = transfers.left(context.layout)
    if found:
        context.remotes.silence(transfers.silent_servers(context.layout))
    return found


def start_transfer(config: Config) -> None:
    """Start jens-transfer if it has something to do and is not at work. It outlives this process. Raises OSError."""
    layout = Layout.of(config)
    if not transfers.asked_for(layout) or locking.is_held(transfers.at_work(layout)):
        return
    wake.make(layout.transfers)
    if _SERVICE in os.environ:
        return  # jens-transfer.path starts it
    log.info("Starting jens-transfer")
    processes.start_detached([*_command(), "-c", str(config.path)])


def _command() -> list[str]:
    """jens-transfer as it is beside this program, or its function, if there is none."""
    beside = Path(sys.argv[0]).resolve().with_name("jens-transfer")
    return [sys.executable, str(beside)] if beside.is_file() else [sys.executable, "-c", _PROGRAM]
