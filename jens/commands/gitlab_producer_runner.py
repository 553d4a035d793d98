"""jens-gitlab-producer-runner: the producer without a web server of one's own; and the way in for those that have."""

from __future__ import annotations

import argparse
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

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import FAILED, INTERRUPTED, OK
from jens.commands.logs import LogFile, set_up_logging
from jens.commands.runner import complain, run_tool
from jens.config import DEFAULT_PATH, load_config
from jens.errors import JensError
from jens.gitlabproducer.app import LARGEST_BODY, create_app

try:
    from waitress import create_server
except ImportError:  # pragma: no cover - depends on what is installed
    create_server = None

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOG = "jens-gitlab-producer"

#: gunicorn starts a worker again and again, unless it ends with this status.
_CANNOT_START = 3

log = logging.getLogger(__name__)


class _LastingLog(LogFile, WatchedFileHandler):
    """A log that is opened anew when it is gone: a producer runs for months."""


def application(path: str | None = None) -> WSGIApplication:
    """The application for a WSGI server.

    Its configuration is at ``path``, or what the environment variable JENS_CONFIG names, or in the usual place.
    """
    try:
        return _application(Path(path or os.environ.get("JENS_CONFIG") or DEFAULT_PATH))
    except JensError as error:
        print(f"{LOG}: {error}", file=sys.stderr, flush=True)
        sys.exit(_CANNOT_START)


def _application(path: Path) -> WSGIApplication:
    config = load_config(path)
    set_up_logging(config, LOG, log_file=_LastingLog)
    # Werkzeug's own server would log whole request lines, and a secret may be in a query.
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
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError("expected a number from 0 to 65535")
    return int(text)


def _main(arguments: argparse.Namespace) -> int:
    app = _application(arguments.config)
    try:
        listener = _listen(arguments.host, arguments.port)
    except OSError as error:
        return complain(f"Unable to listen on {arguments.host} port {arguments.port}: {error.strerror}", FAILED)
    with listener:
        return _serve(listener, _server(app, listener))


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the first address of a host. Raises OSError."""
    family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _server(app: WSGIApplication, listener: socket.socket) -> Callable[[], None]:
    """The main loop of a server."""
    if create_server is None:
        _say("waitress is not installed; this is Flask's own server, which is for tests only")
        host, port = listener.getsockname()[:2]
        return make_server(host, port, app, threaded=True, fd=listener.fileno()).serve_forever
    # A larger body is refused by waitress itself, before it fills the disk.
    server = create_server(app, sockets=[listener], ident=None, max_request_body_size=2 * LARGEST_BODY)
    run: Callable[[], None] = server.run
    return run


def _say(text: str) -> None:
    log.info("%s", text)
    print(text, file=sys.stderr, flush=True)


def _serve(listener: socket.socket, serve: Callable[[], None]) -> int:
    """Serve until a signal comes: SIGTERM is how a service ends, SIGINT is an interruption."""
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
    """Which signals have come; both servers end their loop at a KeyboardInterrupt, and may not pass it on."""
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
