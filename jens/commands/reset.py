"""jens-reset: removes everything that Jens has made, so that the next update starts from nothing."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, LOCKED, OK
from jens.commands.runner import complain, load, run_tool, warn
from jens.config import DEFAULT_PATH, Config
from jens.environments import hold
from jens.errors import LockHeldError
from jens.layout import Layout
from jens.locking import run_lock
from jens.repositories import transfers
from jens.text import one_line
from jens.tools import reset
from jens.tools.reset import ResetPlan


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-reset``."""
    parser = argument_parser(
        "Remove all environments, protected ones too, all checkouts, mirrors and whatever else Jens keeps of them, so "
        "that the next jens-update makes everything anew. Until then Puppet finds no environment. The metadata "
        "repositories, hints and logs stay."
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do it; without this, only say what would be done")
    add_as_root(parser)
    arguments = parse_arguments(parser, argv)
    return run_tool(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    if arguments.yes:
        preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    preflight.check_directories(config)
    if not arguments.yes:
        return _preview(config)
    try:
        with run_lock(config):
            return _reset(config)
    except LockHeldError as error:
        return complain(str(error), LOCKED)


def _preview(config: Config) -> int:
    planned = reset.plan(config)
    _warn(config, planned)
    print("Would remove:")
    _list(config, planned)
    # With the path of the configuration, so that a copied command does not reset another instance.
    options = [] if config.path == DEFAULT_PATH else ["-c", str(config.path)]
    print(f"Nothing was removed. To do it: {one_line(shlex.join(['jens-reset', *options, '--yes']))}")
    return FAILED


def _reset(config: Config) -> int:
    transfers.clear(Layout.of(config))
    planned = reset.plan(config)
    _warn(config, planned)
    remains = reset.carry_out(Layout.of(config), planned)
    if remains.undeleted:
        warn(f"out of sight, but could not be deleted yet: {_quoted(remains.undeleted)}")
    if remains.failures:
        more = f" (and {len(remains.failures) - 1} more)" if remains.failures[1:] else ""
        return complain(f"{remains.failures[0]}{more}", FAILED)
    if problem := reset.record_reset(config):
        warn(problem)
    print("Removed:")
    _list(config, planned)
    print("Done -- Jens is sad now")
    return OK


def _warn(config: Config, planned: ResetPlan) -> None:
    if held := _held(config):
        warn(f"these environments stay held (jens-release ends that): {', '.join(held)}")
    if planned.links:
        warn(f"links go, and what they lead to stays: {_quoted(planned.links)}")
    if planned.foreign:
        warn(f"left in place, as Jens cannot have made it: {_quoted(planned.foreign)}")


def _held(config: Config) -> list[str]:
    try:
        return hold.names(Layout.of(config))
    except OSError:
        return []


def _quoted(paths: Iterable[Path]) -> str:
    return ", ".join(f"'{path}'" for path in paths)


def _list(config: Config, planned: ResetPlan) -> None:
    main = config.main
    repositories = _count(len(planned.clones), "repositor", "y", "ies")
    lines = [
        f"{_count(len(planned.environments) - planned.versions, 'environment')} in {main.environmentsdir}",
        *([f"{_count(planned.versions, 'version')} of environments"] if planned.versions else []),
        f"{_count(planned.checkouts, 'checkout')} of {repositories} in {main.clonedir}",
        f"{_count(len(planned.bares), 'bare')} in {main.baredir}",
        f"{_count(len(planned.definitions), 'remembered definition')}, inventory and memory of runs in {main.cachedir}",
    ]
    lines += [f"{_count(len(planned.left_overs), 'left-over')} of earlier runs"] if planned.left_overs else []
    for line in lines:
        print(f"\t{one_line(line)}")


def _count(number: int, noun: str, one: str = "", many: str = "s") -> str:
    return f"{number} {noun}{one if number == 1 else many}"
