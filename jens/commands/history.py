"""jens-history: prints what became visible when, and what is broken since when."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import Any

from jens import lastrun, preflight
from jens.commands.arguments import argument_parser, environment, moment, parse_arguments, repository
from jens.commands.exitcodes import DIRECTORY, OK
from jens.commands.runner import complain, load, run_tool
from jens.config import Config
from jens.history import queries
from jens.history.queries import FaultLife, Filter
from jens.history.store import Reader
from jens.text import one_line
from jens.tools import history


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-history``."""
    arguments = parse_arguments(_parser(), argv)
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Print what became visible, the newest first: which commits, in which environments, who wrote them, and how "
        "long it took since the push; which environments were made, changed and deleted. Or what is broken, since when."
    )
    parser.add_argument(
        "environments",
        metavar="ENVIRONMENT",
        nargs="*",
        type=environment,
        help="only what concerns these environments",
    )
    parser.add_argument(
        "-r", dest="repository", metavar="PARTITION/NAME", type=repository, help="only what concerns this repository"
    )
    parser.add_argument(
        "--since", metavar="TIME", type=moment, help="only what happened since: 90m, 1h, 1d ago, or a local ISO time"
    )
    parser.add_argument("--until", metavar="TIME", type=moment, help="only what happened before")
    parser.add_argument("-n", dest="count", metavar="COUNT", type=_count, help="no more than so many lines")
    parser.add_argument(
        "--faults", action="store_true", help="what is broken now, since when; with --since also what was mended"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, a list")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a number, not {one_line(text)!r}")
    return int(text)


def _main(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    preflight.check_readable(config, ["cachedir"])
    repository = arguments.repository and str(arguments.repository)
    wanted = Filter(tuple(arguments.environments), repository, arguments.since, arguments.until)
    with history.opened(config) as reader:
        if arguments.faults:
            _print_faults(reader, arguments, wanted)
        else:
            wanted = history.with_versions(reader, wanted)
            _print_entries(reader, config, arguments, wanted)
        unknown = queries.unknown(reader, wanted)
    return complain(f"the history has nothing of {', '.join(unknown)}", DIRECTORY) if unknown else OK


def _print_entries(reader: Reader, config: Config, arguments: argparse.Namespace, wanted: Filter) -> None:
    if arguments.json:
        _print_list(history.encoded(reader, config, wanted, arguments.count))
        return
    for line in history.lines(reader, config, wanted, arguments.count):
        print(line)


def _print_faults(reader: Reader, arguments: argparse.Namespace, wanted: Filter) -> None:
    since, until = (None if time is None else lastrun.timestamp(time) for time in (wanted.since, wanted.until))
    found: list[FaultLife] = queries.faults(reader, wanted.environments, wanted.repository, since, until)
    found = found[: arguments.count]
    if arguments.json:
        _print_list(map(history.encode_fault, found))
        return
    for line in history.fault_lines(found):
        print(line)


def _print_list(items: Iterable[dict[str, Any]]) -> None:
    """Print a JSON list, one item a line: a year would take much memory at once."""
    before = "["
    for item in items:
        print(f"{before}\n{json.dumps(item, sort_keys=True)}", end="")
        before = ","
    print("[]" if before == "[" else "\n]")
