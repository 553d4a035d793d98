"""The producer behind waitress: requests have a limit of time, and bodies are counted before they reach a disk.

waitress receives whole requests in one thread, and gives them to others then. So a sender that drips holds up nobody,
but its connection and its body stay until it ends. Here they end.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Callable

from waitress import create_server
from waitress.channel import HTTPChannel

from jens.gitlabproducer import limits

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: What a chunked body has besides its content, in bytes.
_FRAMES = 2**18
#: Bytes of the headers of a request.
_LONGEST_HEADERS = 2**15


class _Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """A connection. Its last activity is the beginning of its request, so a request that drips counts as idle."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._begun = time.time()

    def received(self, data: bytes) -> bool:
        """Receive data. Ends a connection whose body does not fit into the memory for all of them."""
        is_good: bool = super().received(data)
        if self.request is None:
            self._begun = time.time()
        else:
            self.last_activity = self._begun
            if self.request.body_bytes_received > limits.SMALL_BODY and _size(self.server) > limits.MOST_BYTES:
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
    server = create_server(
        app,
        sockets=[listener],
        ident=None,
        connection_limit=limits.room_for_connections(),
        asyncore_use_poll=True,  # select(2) has no room for many connections
        channel_timeout=limits.REQUEST_SECONDS,
        cleanup_interval=1,
        max_request_header_size=_LONGEST_HEADERS,
        max_request_body_size=limits.LARGEST_BODY + _FRAMES,  # the application counts what is content
        inbuf_overflow=2 * limits.LARGEST_BODY,  # in memory, never in a file
    )
    server.channel_class = _Channel
    run: Callable[[], None] = server.run
    return run
