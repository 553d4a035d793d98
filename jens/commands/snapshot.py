"""jens-snapshot: prints a definition that pins what an environment holds now."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime

from jens import names, text
from jens.commands.arguments import argument_parser, moment_or_deployment, parse_arguments
from jens.commands.exitcodes import NOT_ALL_WELL, OK
from jens.commands.runner import complain, load, run_tool
from jens.tools import snapshot


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-snapshot``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    for name in (arguments.environment, arguments.name):
        if name is not None and not names.is_environment_name(name):
            parser.error(f"{text.one_line(name)!r} is no name of an environment: letters, digits and '_' are expected")
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Print a definition that pins every repository of an environment to the commit that it shows now. Saved as "
        "NAME.yaml in the environment metadata it makes an environment that stays as it is while the other moves on."
    )
    parser.add_argument("environment", metavar="ENVIRONMENT", help="the environment to pin, as it is on disk")
    parser.add_argument("--name", metavar="NEW", help="the name of the snapshot; a comment then says how to save it")
    parser.add_argument(
        "--at",
        metavar="TIME|DEPLOYMENT",
        type=moment_or_deployment,
        help="pin what it was then, by the history: 1h ago, a local ISO time, or after the deployment of this number",
    )
    parser.add_argument("--json", action="store_true", help="print the same facts as JSON")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    environment: str = arguments.environment
    name = arguments.name or environment
    if arguments.at is None:
        taken = snapshot.take(config, environment, name, datetime.now())
    else:
        taken = snapshot.take_at(config, environment, name, arguments.at, datetime.now())
    for doubt in taken.doubts:
        complain(f"environment '{environment}': {doubt}", NOT_ALL_WELL)
    if arguments.json:
        print(json.dumps(taken.encode(), sort_keys=True, indent=1))
    else:
        print(taken.render(config.main.prefixes), end="")
    return NOT_ALL_WELL if taken.doubts else OK
