"""jens-gc: removes checkouts, records and mirrors that are no longer needed, and packs the other mirrors."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, LOCKED, OK
from jens.commands.logs import set_up_logging
from jens.commands.runner import bound_git, complain, run_tool
from jens.config import load_config
from jens.errors import LockHeldError
from jens.text import one_line
from jens.tools import gc
from jens.tools.gc import Orders, Result

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-gc``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    if not (arguments.all or arguments.bare or arguments.clones):
        parser.error("expected --all, --bare or --clones")
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Give back disk space: remove checkouts, worktree records and mirrors that are not needed, and have Git pack "
        "the mirrors that stay. jens-update may run meanwhile: it waits for no mirror that is being packed."
    )
    parser.add_argument("-a", "--all", action="store_true", help="both --bare and --clones")
    parser.add_argument("-b", "--bare", action="store_true", help="have Git pack the mirrors (git gc)")
    parser.add_argument(
        "-l", "--clones", action="store_true", help="remove checkouts, their records and mirrors that are not needed"
    )
    parser.add_argument(
        "-g", "--aggressive", action="store_true", help="with --bare: pack better, which takes much longer"
    )
    add_as_root(parser)
    return parser


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-gc")
    bound_git(config)
    preflight.check_directories(config)
    orders = Orders(arguments.all or arguments.bare, arguments.all or arguments.clones, arguments.aggressive)
    try:
        result = gc.collect(config, orders)
    except LockHeldError as error:
        return complain(str(error), LOCKED)
    for line in _summary(orders, result):
        log.info("%s", line)
    if result.failures:
        more = f" (and {len(result.failures) - 1} more, see the log)" if result.failures[1:] else ""
        # Not with complain, which would log it again: each failure is in the log already.
        print(f"{Path(sys.argv[0]).name}: {one_line(result.failures[0])}{more}", file=sys.stderr)
        return FAILED
    log.info("Done")
    return OK


def _summary(orders: Orders, result: Result) -> list[str]:
    lines = []
    if orders.clones:
        lines.append(f"Removed: checkouts {result.checkouts}, records {result.records}, mirrors {result.bares}")
    if orders.bares:
        sizes = f"{result.after / 1024:.1f}KiB, before {result.before / 1024:.1f}KiB"
        lines.append(f"Packed: mirrors {result.packed}, {sizes}")
    return lines
