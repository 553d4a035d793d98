"""jens-gitlab-producer-runner: the producer with its own web server, and the application for other WSGI servers."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NoReturn

from werkzeug.serving import make_server

from jens import preflight
from jens.commands.arguments import add_as_root, argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, INTERRUPTED, OK
from jens.commands.logs import LogFile, set_up_logging
from jens.commands.runner import bound_git, complain, run_tool
from jens.config import DEFAULT_PATH, Config, load_config
from jens.errors import DirectoryError, JensError
from jens.gitlabproducer.app import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOG = "jens-gitlab-producer"

#: gunicorn stops when a worker ends with this exit status. With others it starts the worker again and again.
_CANNOT_START = 3

log = logging.getLogger(__name__)


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
        sys.exit(_CANNOT_START)


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
    parser.add_argument("-p", "--port", type=_port, default=8000, help="port, 0 for any that is free (default: 8000)")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="address (default: 127.0.0.1)")
    add_as_root(parser)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError("expected a number from 0 to 65535")
    return int(text)


def _main(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    if os.geteuid() == 0:  # another user may share the queue with its owner, by an ACL
        preflight.check_queue_owner(config, arguments.command, as_root=arguments.as_root)
        preflight.check_instance_owner(config, arguments.command, as_root=arguments.as_root)
    app = _application(config)
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        return complain(f"Unable to listen on {arguments.host} port {arguments.port}: {error.strerror}", FAILED)
    with listener:
        return _serve(listener, _server(app, listener))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket at the first address of a host. Raises OSError."""
    family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _server(app: WSGIApplication, listener: socket.socket) -> Callable[[], None]:
    """The main loop of a WSGI server: waitress, or else Flask's own."""
    try:
        serve: Callable[[], None] = importlib.import_module("jens.gitlabproducer.waitress_server").make(app, listener)
        return serve
    except ImportError:
        _say("waitress is not installed; this is Flask's own server, which is for tests only")
        host, port = listener.getsockname()[:2]
        return make_server(host, port, app, threaded=True, fd=listener.fileno()).serve_forever


def _say(text: str) -> None:
    log.info("%s", text)
    print(text, file=sys.stderr, flush=True)


def _serve(listener: socket.socket, serve: Callable[[], None]) -> int:
    """Serve until SIGTERM, the normal end of a service, or SIGINT, an interruption. Returns the exit code."""
    host, port = listener.getsockname()[:2]
    with _stopped_by() as numbers, suppress(KeyboardInterrupt):
        _say(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        serve()
    if signal.SIGINT in numbers:
        return complain("Interrupted", INTERRUPTED)
    log.info("Done")
    return OK


@contextmanager
def _stopped_by() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, and raise KeyboardInterrupt. Both servers then end, but may not pass it on."""
    numbers: list[int] = []

    def stop(number: int, _frame: object) -> NoReturn:
        numbers.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
