"""jens-update: does one run, under the lock."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Callable

from jens import deferred, lastrun, preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments, seconds
from jens.commands.exitcodes import (
    ENVIRONMENTS,
    HINTS,
    INTERRUPTED,
    METADATA,
    NOT_ALL_WELL,
    OK,
    PURGE_REFUSED,
    REPOSITORIES,
    status_of,
)
from jens.commands.idle import STANDING, lines_held_back
from jens.commands.logs import set_up_logging
from jens.commands.runner import complain, run_tool
from jens.config import Config, load_config
from jens.git.workers import Progress, no_progress
from jens.lastrun import LastRun
from jens.layout import Layout
from jens.locking import run_lock
from jens.messaging import wake
from jens.model import Fault, OpenFault, Report
from jens.update import run
from jens.update.options import Options, is_on_demand

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-update``."""
    arguments = _arguments(argv)
    return run_tool(lambda: _main(arguments))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argument_parser(
        "Bring the Puppet environments up to date: mirror what changed, lay out the commits that environments "
        "need, and build each environment as a tree of links."
    )
    parser.add_argument("-p", "--poll", action="store_true", help="ask every remote, whatever the configured mode")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="look at everything, print what would change, change nothing"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="copy the log to stderr")
    parser.add_argument(
        "--strict", action="store_true", help=f"exit {NOT_ALL_WELL} when anything failed or a fault is open"
    )
    parser.add_argument("--allow-purge", action="store_true", help="remove even more at once than purgelimit allows")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=seconds, default=0, help="wait so long for another run to end (default: 0)"
    )
    add_as_root(parser)
    return parse_arguments(parser, argv)


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-update", verbose=arguments.verbose)
    options = Options(allow_purge=arguments.allow_purge, poll=arguments.poll, progress=_progress())
    preflight.check_directories(config)
    if is_on_demand(config, options):
        preflight.check_queue(config)
    do = _dry_run if arguments.dry_run else _run
    with lines_held_back() as lines:
        with run_lock(config, wait=arguments.wait):
            if not arguments.dry_run:
                wake.remove(config.messaging.queuedir)
            preflight.make_directories(config)
            for doubt in preflight.filesystem_doubts(config):
                log.warning("%s", doubt, extra=STANDING)
            try:
                code, is_idle = do(config, options, strict=arguments.strict)
            finally:
                if not arguments.dry_run:
                    _start_others(config, as_root=arguments.as_root)
        if is_idle and lines.is_idle():
            lines.drop()
            log.info("Nothing new")
    log.info("Done")
    return code


def _dry_run(config: Config, options: Options, *, strict: bool) -> tuple[int, bool]:
    """The exit code, and that all is to be logged."""
    preview = deferred.preview.run(config, options)
    for line in preview.lines:
        print(line)
    return OK if preview.is_well or not strict else NOT_ALL_WELL, False


def _run(config: Config, options: Options, *, strict: bool) -> tuple[int, bool]:
    """The exit code, and whether the run had nothing to do."""
    begin, start = time.time(), time.monotonic()
    try:
        report = run.run(config, options)
    except BaseException as error:
        status, text = status_of(error), str(error) or type(error).__name__
        took = time.monotonic() - start
        _record(config, lambda: LastRun(begin, took, status, (text,), _faults_of(config, status, text)))
        raise
    code = _code(report, strict=strict)
    took = time.monotonic() - start
    _record(config, lambda: LastRun(begin, took, code, report.failures, report.faults))
    if code and report.deployment is not None:
        deferred.deployment.finish(config, report.deployment, code, took)
    _summarise(config, report)
    return code, report.is_idle


def _start_others(config: Config, *, as_root: bool) -> None:
    """Have jens-transfer work off what runs have left, and jens-deliver tell what has changed. Most have nothing."""
    if config.has_receivers or os.path.lexists(Layout.of(config).transfers):
        deferred.background.start_others(config, as_root=as_root)


#: The kind of fault that a run is which did not come to its end, by exit code; any other code is one of "run".
_FAULTS = {METADATA: "metadata", HINTS: "hints queue", REPOSITORIES: "repositories", ENVIRONMENTS: "environments"}


def _faults_of(config: Config, status: int, text: str) -> tuple[OpenFault, ...]:
    """The faults that are open when a run did not come to its end: it did not look at most of them."""
    found = [] if status == INTERRUPTED else [Fault(_FAULTS.get(status, "run"), text)]
    before, now = lastrun.load_faults(Layout.of(config)), lastrun.timestamp(time.time())
    faults = lastrun.still_open(found, before, lambda _fault: False, now)
    if config.history.days and {opened.fault for opened in faults} != {opened.fault for opened in before}:
        deferred.deployment.record_faults(config, faults)
    return faults


def _summarise(config: Config, report: Report) -> None:
    """Tell on a terminal what came of the run, and where to look."""
    if not sys.stderr.isatty():
        return
    repositories, environments = report.changed
    line = f"Changed: repositories {repositories}, environments {environments}."
    if report.failures or report.faults:
        line += f" Failed: {len(report.failures)}. Open faults: {len(report.faults)}, see jens-stats"
        line += f" and {config.main.logdir}/jens-update.log."
    print(line, file=sys.stderr)


def _code(report: Report, *, strict: bool) -> int:
    if report.purge_refused:
        return complain(
            "More would be removed than purgelimit allows, nothing of it was; see --allow-purge", PURGE_REFUSED
        )
    return NOT_ALL_WELL if strict and (report.failures or report.faults) else OK


def _record(config: Config, last_run: Callable[[], LastRun]) -> None:
    try:
        lastrun.save(Layout.of(config), last_run())
    except OSError as error:
        log.error("Unable to remember how this run went: %s", error)


def _progress() -> Progress:
    """A line on stderr that counts repositories, but only on a terminal. It never counts any twice."""
    if not sys.stderr.isatty():
        return no_progress
    most: dict[str, int] = {}

    def show(what: str, done: int, total: int) -> None:
        if done <= most.get(what, 0):  # the run looks at them again, after it has seen more than it had expected
            return
        most[what] = done
        end = "\n" if done == total else ""
        print(f"\r{what} repositories: {done} of {total}", end=end, file=sys.stderr, flush=True)

    return show
