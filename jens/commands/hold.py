"""jens-hold: keeps an environment as it is, or as it was, whatever is pushed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable

from jens import preflight
from jens.commands import background
from jens.commands.arguments import (
    add_as_root,
    argument_parser,
    environment,
    future,
    moment_or_deployment,
    parse_arguments,
    repository,
)
from jens.commands.exitcodes import ENVIRONMENTS, LOCKED, NOT_ALL_WELL, OK
from jens.commands.logs import set_up_logging
from jens.commands.runner import complain, load, run_tool, warn
from jens.config import Config, load_config
from jens.environments.hold import Hold
from jens.errors import LockHeldError
from jens.locking import run_lock
from jens.system.users import name_of
from jens.text import one_line, shortened
from jens.tools import history, hold
from jens.tools.hold import Move, Plan, Wish
from jens.update import holding

#: Seconds to wait for the run lock.
PATIENCE = 60
#: So many repositories that move are named.
_MOST_NAMED = 20
_DIGITS = 7


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-hold``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    _check(parser, arguments)
    return run_tool(lambda: _list(arguments) if arguments.list else unless_locked(lambda: _main(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Keep an environment as it is, or as it was, whatever is pushed, redeclared or deleted, until jens-release or "
        "--until. It is done when the command ends: Puppet sees it from then on."
    )
    parser.add_argument("environment", metavar="ENVIRONMENT", nargs="?", type=environment, help="what to hold")
    parser.add_argument(
        "--at",
        metavar="TIME|DEPLOYMENT",
        type=moment_or_deployment,
        help="as it was then, by the history: 1h ago, a local ISO time, or after the deployment of this number",
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for those who wonder")
    parser.add_argument(
        "--until", metavar="TIME", type=future, help="when the hold ends by itself: in 90m, 2d, or a local ISO time"
    )
    parser.add_argument(
        "--except",
        dest="moving",
        metavar="PARTITION/NAME",
        type=repository,
        action="append",
        default=[],
        help="a repository that keeps moving; may be given several times",
    )
    parser.add_argument("--list", action="store_true", help="print which environments are held, since when, and why")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_as_root(parser)
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Check that the options go together. A mistake ends the program."""
    orders = (arguments.environment, arguments.at, arguments.until, *arguments.moving)
    if arguments.list and any(each is not None for each in orders):
        parser.error("--list takes no environment, and no other option but --json")
    if not arguments.list and arguments.environment is None:
        parser.error("which ENVIRONMENT? (--list prints those that are held)")


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    set_up_logging(config, "jens-hold")
    preflight.check_instance(config)
    with waiting_run_lock(config):
        preflight.make_directories(config)
        planned = hold.plan(config, _wish(arguments))
        if planned.lost:
            return _complain_of_lost(planned.hold, planned.lost, "nobody can tell what it should show")
        for doubt in planned.doubts:
            warn(doubt)
        outcome = holding.hold(config, planned.hold, planned.definition)
        background.start_others(config, as_root=arguments.as_root)
    if outcome.lost:
        count = len(outcome.lost)
        commits = "1 commit that it needs is" if count == 1 else f"{count} commits that it needs are"
        problem = f"{commits} nowhere any more, or cannot be laid out"
        return _complain_of_lost(planned.hold, sorted(outcome.lost.values()), problem)
    _print(config, planned, as_json=arguments.json)
    if outcome.failures:
        more = "the next run of jens-update goes on with it"
        return complain(f"Not all of it could be done, {more}: {'; '.join(outcome.failures)}", ENVIRONMENTS)
    return OK


def unless_locked(work: Callable[[], int]) -> int:
    """Do what somebody has typed. That a lock is held is said in any case, not only on a terminal as cron likes it."""
    try:
        return work()
    except LockHeldError as error:
        return complain(f"{error}. Nothing was changed", LOCKED)


@contextmanager
def waiting_run_lock(config: Config) -> Iterator[None]:
    """Hold the run lock; wait for it for a minute, and say so. Raises LockHeldError, LockFailedError."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run_lock(config))
        except LockHeldError as error:
            print(f"{Path(sys.argv[0]).name}: {error}: waiting for up to {PATIENCE} seconds", file=sys.stderr)
            stack.enter_context(run_lock(config, wait=PATIENCE))
        yield


def _wish(arguments: argparse.Namespace) -> Wish:
    moving = tuple(dict.fromkeys(arguments.moving))
    reason = one_line(shortened(arguments.reason))
    return Wish(*(arguments.environment, arguments.at, user(), time.time(), reason, arguments.until, moving))


def user() -> str:
    """The name of the person at the keyboard."""
    return one_line(os.environ.get("SUDO_USER") or name_of(os.getuid()))


def _complain_of_lost(wanted: Hold, lost: Sequence[str], problem: str) -> int:
    for line in lost:
        complain(line, NOT_ALL_WELL)
    text = f"Environment '{wanted.environment}' is not held, and nothing was changed: {problem} (see above)"
    return complain(text, NOT_ALL_WELL)


# For people; times are local


def _print(config: Config, planned: Plan, *, as_json: bool) -> None:
    if as_json:
        moves = [_encode(move, config) for move in planned.moves]
        print(json.dumps({"version": hold.VERSION, **hold.encode(planned.hold), "moves": moves}, indent=1))
        return
    for line in _lines(config, planned):
        print(line)


def _encode(move: Move, config: Config) -> dict[str, Any]:
    return {
        "repository": str(move.repository),
        "ref": history.declared(move.ref, config),
        "before": move.before,
        "now": move.then,
    }


def _lines(config: Config, planned: Plan) -> Iterator[str]:
    held = planned.hold
    then = held.then and f"was at {history.local(held.then.time)} (deployment {held.then.deployment})"
    yield f"Environment '{held.environment}' is held as it {then or 'is'}."
    if planned.replaced is not None:
        yield f"This replaces the hold {describe(planned.replaced)}"
    if held.moving:
        yield f"What keeps moving: {', '.join(map(str, held.moving))}"
    count = len(planned.moves)
    yield f"{count} of {len(held.repositories)} repositories show another commit now{':' if count else '.'}"
    for move in planned.moves[:_MOST_NAMED]:
        ref = one_line(history.declared(move.ref, config))
        yield f"\t{move.repository} {ref} {_short(move.before)}..{_short(move.then)}"
    if count > _MOST_NAMED:
        yield f"\tand {count - _MOST_NAMED} more: jens-show environment {held.environment}"
    end = f"It ends at {history.local(held.until)}, or" if held.until else "It ends"
    yield f"{end} with: jens-release {held.environment}"


def _short(commit: str | None) -> str:
    return commit[:_DIGITS] if commit else "-"


def describe(held: Hold) -> str:
    """Who holds an environment since when, until when, and why."""
    until = f" until {history.local(held.until)}" if held.until else ""  # 0: it was released
    return f"since {history.local(held.since)}{until} {held.why}"


def _list(arguments: argparse.Namespace) -> int:
    found = hold.load_all(load(arguments.config))
    if arguments.json:
        listed = [hold.encode(each) for each in found.listed]
        print(json.dumps({"version": hold.VERSION, "holds": listed, "damaged": {**found.damaged}}, indent=1))
        return OK
    for each in found.listed:
        then = (
            f", as it was at {history.local(each.then.time)} (deployment {each.then.deployment})" if each.then else ""
        )
        over = "; it is over, but the environment waits for a run of jens-update" if each.is_over else ""
        print(f"{each.environment}, held {describe(each)}{then}{over}")
        if each.moving:
            print(f"\texcept {', '.join(map(str, each.moving))}")
    for name, problem in found.damaged.items():
        complain(f"Environment '{name}' stays as it is, as its hold cannot be read: {problem}", OK)
    return OK
