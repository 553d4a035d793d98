"""jens-purge-queue: removes what crashed writers left in the queue of hints."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, OK
from jens.commands.logs import set_up_logging
from jens.commands.runner import complain, run_tool
from jens.config import load_config
from jens.errors import QueueError
from jens.events import tell
from jens.messaging.queue import Queue

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-purge-queue``."""
    parser = argument_parser(
        "Clear away what writers and readers that crashed have left in the queue of hints. Good hints stay; "
        "producers and jens-update may be at work meanwhile."
    )
    add_as_root(parser)
    arguments = parse_arguments(parser, argv)
    return run_tool(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_queue_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-purge-queue")
    preflight.check_queue(config)
    log.info("Purging the queue of hints '%s'...", config.messaging.queuedir)
    try:
        events = Queue(config.messaging.queuedir).purge()
    except QueueError as error:
        return complain(str(error), FAILED)
    failures = tell(log, events)
    if failures:
        return complain(f"{len(failures)} left-overs could not be removed: {failures[0]}", FAILED)
    log.info("Done")
    return OK
