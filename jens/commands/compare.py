"""jens-compare: tells whether Puppet sees the same in two instances."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from jens import names, text
from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import DIFFERENT, OK
from jens.commands.runner import run_tool
from jens.tools import compare
from jens.tools.compare import Difference

#: At most so many environments are named in a line; more are only counted.
_NAMED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-compare``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    for name in arguments.environments:
        if not names.is_environment_name(name):
            parser.error(f"'{text.one_line(name)}' is no name of an environment: letters, digits and '_' are expected")
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Compare what two instances of Jens show to Puppet: every environment, every link, every commit. What differs "
        "is printed, and the exit status is 1; when nothing does, nothing is printed, and it is 0.",
        with_config=False,
    )
    help_text = "the root of an instance: a directory with 'clone' and 'environments', or a link to one"
    parser.add_argument("a", metavar="A", type=Path, help=help_text)
    parser.add_argument("b", metavar="B", type=Path, help="the root of the other")
    help_text = "compare only these (default: all)"
    # Without this default, argparse would also list it among the missing arguments.
    parser.add_argument("environments", metavar="ENVIRONMENT", nargs="*", default=(), help=help_text)
    parser.add_argument("--json", action="store_true", help="print the same facts as JSON")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    found = compare.compare(arguments.a, arguments.b, arguments.environments)
    if arguments.json:
        document = {
            "a": str(arguments.a),
            "b": str(arguments.b),
            "differences": [difference.encode() for difference in found],
            "equal": not found,
        }
        print(json.dumps(document, sort_keys=True, indent=1))
    else:
        for difference in found:
            print(text.one_line(_line(difference)))
    return DIFFERENT if found else OK


def _line(difference: Difference) -> str:
    """A difference as it is printed."""
    states = f"{difference.a} in A, {difference.b} in B"
    if difference.kind == compare.ENVIRONMENT:
        return f"environment {difference.subject}: {states}"
    kind = "" if difference.kind == compare.REF else f"{difference.kind} "
    return f"{kind}{difference.subject}: {states} ({_where(difference.environments)})"


def _where(environments: Sequence[str]) -> str:
    return ", ".join(environments) if len(environments) <= _NAMED else f"{len(environments)} environments"
