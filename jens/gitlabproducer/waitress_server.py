"""The producer behind waitress: requests have a limit of time, and bodies are counted before they reach a disk."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Callable

from jens.gitlabproducer import limits
from jens.web import waitress_server
from jens.web.waitress_server import Channel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: What a chunked body has besides its content, in bytes.
_FRAMES = 2**18


class _Channel(Channel):
    """A connection that ends when the bodies of all connections take too much memory together."""

    def received(self, data: bytes) -> bool:
        """Receive data. Ends a connection whose body does not fit into the memory for all of them."""
        is_good = super().received(data)
        size = 0 if self.request is None else self.request.body_bytes_received
        if size > limits.SMALL_BODY and _size(self.server) > limits.MOST_BYTES:
            self.logger.warning("ended a connection, as bodies take more than %d bytes", limits.MOST_BYTES)
            self.will_close = True
        return is_good


def _size(server: Any) -> int:
    """The bytes of all large bodies that are being received, or wait for a thread."""
    requests = [
        request for channel in server.active_channels.values() for request in (channel.request, *channel.requests)
    ]
    sizes = [request.body_bytes_received for request in requests if request is not None]
    return sum(size for size in sizes if size > limits.SMALL_BODY)


def make(app: WSGIApplication, listener: socket.socket) -> Callable[[], None]:
    """The main loop of a server."""
    return waitress_server.make(
        app,
        listener,
        limits.REQUEST_SECONDS,
        _Channel,
        connection_limit=limits.room_for_connections(),
        max_request_body_size=limits.LARGEST_BODY + _FRAMES,  # the application counts what is content
        inbuf_overflow=2 * limits.LARGEST_BODY,  # in memory, never in a file
    )
