"""Nobody's push waits for another repository: a run leaves to jens-transfer what takes longer than it has patience."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from jens import locking
from jens.config import Config
from jens.layout import Layout
from jens.messaging import wake
from jens.model import RepoId
from jens.repositories import transfers
from jens.repositories.model import Left
from jens.system import processes
from jens.update.options import Context

log = logging.getLogger(__name__)

#: systemd sets it for services, whose processes it ends with them.
_SERVICE = "INVOCATION_ID"
#: Seconds after which jens-transfer.path has not seen that it is asked for.
_UNHEARD = 50.0
_PROGRAM = "import sys; from jens.commands.transfer import main; sys.argv[0] = 'jens-transfer'; sys.exit(main())"


def left(context: Context) -> Mapping[RepoId, Left]:
    """What is left to jens-transfer. Servers that it found silent are asked nothing. Raises OSError."""
    found = transfers.left(context.layout)
    if found:
        context.remotes.silence(transfers.silent_servers(context.layout))
    return found


def start_transfer(config: Config, *, as_root: bool) -> None:
    """Start jens-transfer if it has something to do and is not at work. It outlives this process. Raises OSError."""
    layout = Layout.of(config)
    if not transfers.asked_for(layout) or locking.is_held(transfers.at_work(layout)):
        return
    asked = _age(layout.transfers / wake.NAME)
    wake.make(layout.transfers)
    if _SERVICE in os.environ and asked < _UNHEARD:
        return  # jens-transfer.path starts it
    if _SERVICE in os.environ:
        log.warning("jens-transfer.path does not look at '%s', or is not started", layout.transfers / wake.NAME)
    log.info("Starting jens-transfer")
    options = ["--as-root"] if as_root else []
    processes.start_detached([*_command(), "-c", str(config.path.absolute()), *options])


def _age(path: Path) -> float:
    """Seconds since something was made; 0 when it is not there."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _command() -> list[str]:
    """jens-transfer as it is beside this program, or its function, if there is none."""
    beside = Path(sys.argv[0]).resolve().with_name("jens-transfer")
    return [sys.executable, str(beside)] if beside.is_file() else [sys.executable, "-c", _PROGRAM]
