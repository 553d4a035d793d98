"""jens-release: ends the hold of an environment, and brings it up to date in one run of jens-update."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from jens import preflight
from jens.commands import update
from jens.commands.arguments import add_as_root, argument_parser, environment, parse_arguments
from jens.commands.exitcodes import DIRECTORY, FAILED, LOCKED, OK, PURGE_REFUSED
from jens.commands.hold import PATIENCE, describe, unless_locked, waiting_run_lock
from jens.commands.logs import set_up_logging
from jens.commands.runner import complain, run_tool
from jens.config import load_config
from jens.environments import hold
from jens.layout import Layout
from jens.system import files

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-release``."""
    parser = argument_parser(
        "End the hold of an environment. A run of jens-update then brings it to where its definition and its branches "
        "are by now, in one switch."
    )
    parser.add_argument("environment", metavar="ENVIRONMENT", type=environment, help="a held environment")
    add_as_root(parser)
    arguments = parse_arguments(parser, argv)
    code = run_tool(lambda: unless_locked(lambda: _release(arguments)))
    if code != OK:
        return code
    code = _update(arguments)
    return run_tool(lambda: _tell(arguments, code))


def _release(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-hold")
    preflight.check_instance(config)
    layout, name = Layout.of(config), arguments.environment
    with waiting_run_lock(config):
        if not files.is_there(hold.path_of(layout, name)):
            return complain(f"Environment '{name}' is not held (jens-hold --list prints those that are)", DIRECTORY)
        try:
            held = hold.end(layout, name)
        except OSError as error:
            return complain(f"Unable to end the hold of environment '{name}': {error}", FAILED)
        log.info("Releasing environment '%s'", name)
    print(f"The hold of environment '{name}' ends{f' ({describe(held)})' if held else ''}.")
    return OK


def _update(arguments: argparse.Namespace) -> int:
    """Run jens-update. Returns its exit code."""
    print("A run of jens-update brings it up to date.", flush=True)
    options = ["-c", str(arguments.config), "--wait", str(PATIENCE), *(["--as-root"] if arguments.as_root else [])]
    return update.main(options)


def _tell(arguments: argparse.Namespace, code: int) -> int:
    """Tell what came of the run. If another one is at work all the time, that one began after the hold was over."""
    if code == LOCKED:
        print("Another run is at work, which began after that.")
        return OK
    path = hold.path_of(Layout.of(load_config(arguments.config)), arguments.environment)
    if code not in (OK, PURGE_REFUSED) or files.is_there(path):
        text = "is not up to date yet: it stays as it was held until a run of jens-update succeeds"
        return complain(f"Environment '{arguments.environment}' {text}", code)
    return code
