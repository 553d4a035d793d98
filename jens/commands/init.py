"""jens-init: makes a private instance in one directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import OK
from jens.commands.runner import run_tool
from jens.tools import instance


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-init``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    urls = (arguments.environments, arguments.repositories)
    if arguments.example == any(urls) or (any(urls) and not all(urls)):
        parser.error("expected either --example, or both --environments and --repositories")
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Lay out a private instance of Jens in a directory: configuration, directories, and clones of both "
        "metadata repositories. Then jens-update runs there as an ordinary user.",
        with_config=False,
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="a new or an empty directory")
    parser.add_argument("--environments", metavar="URL", help="the repository of the environments' definitions")
    parser.add_argument("--repositories", metavar="URL", help="the repository of the library, repositories.yaml")
    parser.add_argument("--example", action="store_true", help="make example repositories in DIR and use those")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    if arguments.example:
        config = instance.lay_out_example(arguments.directory)
    else:
        config = instance.lay_out(arguments.directory, arguments.environments, arguments.repositories)
    print(f"Instance ready. Bring it up to date with: jens-update -c {config}")
    return OK
