"""jens-deliver: tells those who are to be told what runs have changed."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jens import locking, preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import LOCKED, NOT_ALL_WELL, OK
from jens.commands.logs import set_up_logging
from jens.commands.runner import bound_git, complain, locked, run_tool
from jens.config import Config, load_config
from jens.delivery import marks
from jens.delivery.deliver import deliver, forget_positions, next_due
from jens.layout import Layout
from jens.messaging import wake

log = logging.getLogger(__name__)

#: It looks so many times at most: the next run asks again.
_MOST_ROUNDS = 100
#: Seconds until a server is due for which a delivery waits, instead of leaving it to a run; and between two looks.
_SOON, _PAUSE = 60.0, 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-deliver``."""
    parser = argument_parser(
        "Tell the hook, the Puppet servers, and the people whom the configuration names, what they have not been told "
        "yet. jens-update starts this by itself, and does not wait for it."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="copy the log to stderr")
    parser.add_argument(
        "--all", action="store_true", help="tell that every environment has changed: after a fail-over, for example"
    )
    add_as_root(parser)
    arguments = parse_arguments(parser, argv)
    return run_tool(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    bound_git(config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-deliver", verbose=arguments.verbose)
    preflight.check_writable("cachedir", config.main.cachedir)
    if not config.has_receivers:
        for warning in config.warnings:
            complain(warning, OK)
        return complain("Nobody is to be told: [hook], [puppetserver] and [notify] are not set", OK)
    layout = Layout.of(config)
    problems: Mapping[str, str] = {}
    anew = arguments.all
    for _ in range(_MOST_ROUNDS):
        orphaned = locking.last_holder(layout.delivery_lock)
        with locking.holding(layout.delivery_lock) as is_alone:
            if not is_alone:
                return _busy(is_order=arguments.all)
            if orphaned:
                marks.end_all(layout, orphaned)
            problems = _deliver(config, anew=anew)
            must_look, anew = _wait_until_due(config), False
        if not must_look and not os.path.lexists(layout.deliver):
            break  # else a run that has ended just now left it to us
    for name, problem in problems.items():
        print(f"{Path(sys.argv[0]).name}: Unable to tell {name}: {problem}", file=sys.stderr)  # the log has it
    log.info("Done")
    return NOT_ALL_WELL if problems else OK


def _busy(*, is_order: bool) -> int:
    """Say that another one is at work. Who has given an order must know that it was not heard."""
    if is_order:
        return complain("Another jens-deliver is at work, try again when it has ended", LOCKED)
    return locked("Another jens-deliver is at work")


def _deliver(config: Config, *, anew: bool) -> Mapping[str, str]:
    layout = Layout.of(config)
    _is_asked(layout)
    if anew:
        forget_positions(layout)
    try:
        return deliver(config, lambda: _is_asked(layout))
    except KeyboardInterrupt:
        marks.end_all(layout)
        raise


def _is_asked(layout: Layout) -> bool:
    """Whether somebody asks for a delivery; from now on nobody does."""
    if not os.path.lexists(layout.deliver):
        return False
    wake.remove(layout.deliver.parent, layout.deliver.name)
    return not os.path.lexists(layout.deliver)  # what cannot be removed must not ask for ever


def _wait_until_due(config: Config) -> bool:
    """Wait for a server that is due soon. Returns whether one is due; False when somebody asks for a delivery.

    So a short ``flush_again`` is kept to the second, and nobody else waits for it. Who is at a terminal does not want
    to wait: the next run does it.
    """
    due, asked = next_due(config), Layout.of(config).deliver
    while due is not None and not os.path.lexists(asked):
        left = due - time.time()
        if left <= 0:
            return True
        if left > _SOON or sys.stdin.isatty():
            break
        time.sleep(min(left, _PAUSE))
    return False
