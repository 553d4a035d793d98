"""The status page behind waitress: few connections, short requests."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Callable

from jens.web import waitress_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Connections at once; each may have a page in memory.
_CONNECTIONS = 200
#: A request that is not complete, and a connection on which nothing moves, is ended after so many seconds.
_SECONDS = 20.0
#: Threads that make pages: Python makes them one after the other, but some wait for Git or for the history.
_THREADS = 8
#: Bytes of a body, which no request needs.
_LONGEST_BODY = 2**10


def make(app: WSGIApplication, listener: socket.socket) -> Callable[[], None]:
    """The main loop of a server."""
    return waitress_server.make(
        app,
        listener,
        _SECONDS,
        threads=_THREADS,
        connection_limit=_CONNECTIONS,
        max_request_body_size=_LONGEST_BODY,
    )
