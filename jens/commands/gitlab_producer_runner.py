"""jens-gitlab-producer-runner: the producer with its own web server, and the application for other WSGI servers."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.logs import LogFile, set_up_logging
from jens.commands.runner import bound_git, run_tool
from jens.commands.serving import CANNOT_START, add_address, serve
from jens.config import DEFAULT_PATH, Config, load_config
from jens.errors import DirectoryError, JensError
from jens.gitlabproducer.app import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOG = "jens-gitlab-producer"


class _LastingLog(LogFile, WatchedFileHandler):
    """A log that is reopened after a rotation, as a producer runs for months."""


def application(path: str | None = None) -> WSGIApplication:
    """The application for a WSGI server. Exits with 3 when it cannot be made.

    The configuration is at ``path``, else at the path in the environment variable JENS_CONFIG, else at DEFAULT_PATH.
    """
    try:
        config = load_config(Path(path or os.environ.get("JENS_CONFIG") or DEFAULT_PATH))
        preflight.check_producer(config)
        return _application(config)
    except JensError as error:
        print(f"{LOG}: {error}", file=sys.stderr, flush=True)
        sys.exit(CANNOT_START)


def _application(config: Config) -> WSGIApplication:
    try:
        set_up_logging(config, LOG, log_file=_LastingLog)
    except DirectoryError:
        preflight.check_queue_access(config)  # the wrong user may write neither: the queue says who is the right one
        raise
    bound_git(config)
    # Werkzeug's own server would log whole request lines, and their queries may have secrets.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    return create_app(config)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-gitlab-producer-runner``."""
    arguments = parse_arguments(_parser(), argv)
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Receive webhooks of GitLab, GitHub, Gitea and Bitbucket, and leave hints for jens-update in mode ONDEMAND. "
        "Needs a reverse proxy in front of it for anything but plain HTTP."
    )
    add_address(parser, 8000)
    add_as_root(parser)
    return parser


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    if os.geteuid() == 0:  # another user may share the queue with its owner, by an ACL
        preflight.check_queue_owner(config, arguments.command, as_root=arguments.as_root)
        preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    return serve(_application(config), arguments.host, arguments.port, "jens.gitlabproducer.waitress_server")
