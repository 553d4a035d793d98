"""What web applications behind waitress share: requests have a limit of time.

waitress receives whole requests and sends answers in one thread, and has other threads make the answers. So a sender
that drips, or a reader that is slow, holds up nobody, but its connection stays until it ends. Here it ends in time.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Callable

from waitress import create_server
from waitress.channel import HTTPChannel

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Bytes of the headers of a request.
_LONGEST_HEADERS = 2**15


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no types
    """A connection. Its last activity is the beginning of its request, so a request that drips counts as idle."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._begun = time.time()

    def received(self, data: bytes) -> bool:
        """Receive data."""
        is_good: bool = super().received(data)
        if self.request is None:
            self._begun = time.time()
        else:
            self.last_activity = self._begun
        return is_good


def make(
    app: WSGIApplication, listener: socket.socket, seconds: float, channel: type[Channel] = Channel, **settings: Any
) -> Callable[[], None]:
    """The main loop of a server. A request that is not complete after so many seconds is ended.

    ``settings`` are those of waitress, such as ``connection_limit``.
    """
    server = create_server(
        app,
        sockets=[listener],
        ident=None,
        asyncore_use_poll=True,  # select(2) has no room for many connections
        channel_timeout=seconds,
        cleanup_interval=1,
        max_request_header_size=_LONGEST_HEADERS,
        **settings,
    )
    server.channel_class = channel
    run: Callable[[], None] = server.run
    return run
