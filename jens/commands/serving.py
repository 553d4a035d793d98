"""What commands share that serve an application themselves: where they listen, with what, and how they end."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable, NoReturn

from werkzeug.serving import make_server

from jens.commands.exitcodes import FAILED, INTERRUPTED, OK
from jens.commands.runner import complain

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: gunicorn stops when a worker ends with this exit status. With others it starts the worker again and again.
CANNOT_START = 3

log = logging.getLogger(__name__)


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the options for the address to listen at."""
    help_text = f"port, 0 for any that is free (default: {port})"
    parser.add_argument("-p", "--port", type=_port, default=port, help=help_text)
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="address (default: 127.0.0.1)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError("expected a number from 0 to 65535")
    return int(text)


def serve(app: WSGIApplication, host: str, port: int, waitress_server: str) -> int:
    """Serve an application with waitress, as this module of ours sets it up, or else with Flask's own server.

    Returns the exit code.
    """
    try:
        listener = _listen(host, port)
    except OSError as error:
        return complain(f"Unable to listen on {host} port {port}: {error.strerror}", FAILED)
    with listener:
        return _serve(listener, _server(app, listener, waitress_server))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket at the first address of a host. Raises OSError."""
    family, _kind, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family)


def _server(app: WSGIApplication, listener: socket.socket, waitress_server: str) -> Callable[[], None]:
    """The main loop of a WSGI server: waitress, or else Flask's own."""
    try:
        loop: Callable[[], None] = importlib.import_module(waitress_server).make(app, listener)
        return loop
    except ImportError:
        _say("waitress is not installed; this is Flask's own server, which is for tests only")
        host, port = listener.getsockname()[:2]
        return make_server(host, port, app, threaded=True, fd=listener.fileno()).serve_forever


def _say(text: str) -> None:
    log.info("%s", text)
    print(text, file=sys.stderr, flush=True)


def _serve(listener: socket.socket, loop: Callable[[], None]) -> int:
    """Serve until SIGTERM, the normal end of a service, or SIGINT, an interruption. Returns the exit code."""
    host, port = listener.getsockname()[:2]
    with _stopped_by() as numbers, suppress(KeyboardInterrupt):
        _say(f"Listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        loop()
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
