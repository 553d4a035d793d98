"""The arguments that all tools have, and their completion in a shell."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from jens import __version__
from jens.commands.exitcodes import FAILED
from jens.commands.runner import run_in_utf8
from jens.config import DEFAULT_PATH
from jens.layout import version_of
from jens.model import RepoId
from jens.names import is_environment_name, parse_repository
from jens.text import UNITS, one_line, parse_moment


def argument_parser(description: str, *, with_config: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every tool has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_formatter)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    if with_config:
        help_text = f"configuration file (default: {DEFAULT_PATH})"
        parser.add_argument("-c", "--config", metavar="FILE", type=Path, default=DEFAULT_PATH, help=help_text)
    return parser


def add_as_root(parser: argparse.ArgumentParser) -> None:
    """Add the option with which root may write to what belongs to another user."""
    help_text = "let root write to an instance that belongs to another user"
    parser.add_argument("--as-root", action="store_true", help=help_text)


def seconds(text: str) -> float:
    """A number of seconds, zero or more. Raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")


def moment(text: str) -> float:
    """A time, as ``parse_moment`` reads it. Raises ArgumentTypeError."""
    try:
        return parse_moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def future(text: str) -> float:
    """A time to come in seconds since the epoch: in so long (``90m``), or ISO 8601, as ``moment`` takes it.

    Raises ArgumentTypeError.
    """
    now, number = time.time(), text[:-1]
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if text[-1:] in UNITS and number.isascii() and number.isdecimal():
            meant = now + int(number) * UNITS[text[-1]]
        else:
            meant = moment(text)
        datetime.fromtimestamp(meant)
        datetime.fromtimestamp(meant, timezone.utc)  # in which it may be the year 10000
        if meant > now:
            return meant
    expected = "a time to come, such as 90m, 2d or 2026-03-03T14:05"
    raise argparse.ArgumentTypeError(f"expected {expected}, not {one_line(text)!r}")


def moment_or_deployment(text: str) -> float | int | str:
    """A time in seconds since the epoch that is over, a deployment's number (int), or a version's name (str).

    Raises ArgumentTypeError.
    """
    if text.isascii() and text.isdecimal():
        return int(text)
    if version_of(text):
        return text
    meant = moment(text)
    if meant > time.time():
        raise argparse.ArgumentTypeError(
            f"expected a time that is over, such as 1h or 2026-03-03T14:05, not {one_line(text)!r}"
        )
    return meant


def repository(text: str) -> RepoId:
    """A repository such as ``modules/dummy``. Raises ArgumentTypeError."""
    try:
        return parse_repository(text)
    except ValueError:
        expected = "expected a repository such as modules/dummy"
        raise argparse.ArgumentTypeError(f"{expected}, not {one_line(text)!r}") from None


def environment(text: str) -> str:
    """The name of an environment. Raises ArgumentTypeError."""
    if not is_environment_name(text):
        raise argparse.ArgumentTypeError(f"{one_line(text)!r} is no name of an environment")
    return text


def _formatter(prog: str) -> argparse.HelpFormatter:
    """The usual formatter with a given width. To find the width itself, it would import more than argparse needs."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    with contextlib.suppress(OSError):
        width = width or os.get_terminal_size().columns
    return argparse.HelpFormatter(prog, width=(width or 80) - 2)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments of a tool; ``command`` in the result is the whole command, to be repeated.

    When a shell asks for completions, argcomplete prints these and exits instead.
    """
    if "_ARGCOMPLETE" in os.environ:
        try:
            importlib.import_module("argcomplete").autocomplete(parser)
        except ImportError:
            sys.exit(FAILED)  # a TAB in the shell must not start the tool
    if argv is None:
        run_in_utf8()
    arguments = parser.parse_args(argv)
    arguments.command = [sys.argv[0], *(sys.argv[1:] if argv is None else argv)]
    return arguments
