"""jens-status-runner: the status page with its own web server, and the application for other WSGI servers."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.runner import bound_git, run_tool
from jens.commands.serving import CANNOT_START, add_address, serve
from jens.config import DEFAULT_PATH, Config, load_config
from jens.errors import JensError
from jens.status.app import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_NAME = "jens-status"


def application(path: str | None = None) -> WSGIApplication:
    """The application for a WSGI server. Exits with 3 when it cannot be made.

    The configuration is at ``path``, else at the path in the environment variable JENS_CONFIG, else at DEFAULT_PATH.
    """
    try:
        return _application(load_config(Path(path or os.environ.get("JENS_CONFIG") or DEFAULT_PATH)))
    except JensError as error:
        print(f"{_NAME}: {error}", file=sys.stderr, flush=True)
        sys.exit(CANNOT_START)


def _application(config: Config) -> WSGIApplication:
    """The application. It only reads, so it has no log: what goes wrong is told on stderr."""
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(logging.Formatter(f"{_NAME}: %(levelname)s %(message)s"))
    logging.getLogger("jens.status").addHandler(to_stderr)
    # Werkzeug's own server would log whole request lines.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    bound_git(config)
    return create_app(config)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-status-runner``."""
    arguments = parse_arguments(_parser(), argv)
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Serve the status page: what runs where, what is broken, since when and why. It only reads, and has no users "
        "of its own: put a web server in front of it that knows who may read it."
    )
    add_address(parser, 8001)
    return parser


def _main(arguments: argparse.Namespace) -> int:
    app = _application(load_config(arguments.config))
    return serve(app, arguments.host, arguments.port, "jens.status.waitress_server")
