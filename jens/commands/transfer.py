"""jens-transfer: works off the repositories that runs have left, because they took longer than a run has patience."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import OK
from jens.commands.logs import set_up_logging
from jens.commands.runner import locked, run_tool
from jens.config import load_config
from jens.layout import Layout
from jens.messaging import wake
from jens.repositories import transfers
from jens.update import transfer

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-transfer``."""
    parser = argument_parser(
        "Clone and fetch the repositories that jens-update has left, because they took longer than it has patience. "
        "jens-update starts this by itself, and runs meanwhile as usual."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="copy the log to stderr")
    add_as_root(parser)
    arguments = parse_arguments(parser, argv)
    return run_tool(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-transfer", verbose=arguments.verbose)
    preflight.check_directories(config)
    layout = Layout.of(config)
    wake.remove(layout.transfers)
    os.environ[transfers.MARK] = str(layout.cachedir)  # of all that this process starts
    if not transfer.run(config):
        return locked("Another jens-transfer is at work")
    log.info("Done")
    return OK
