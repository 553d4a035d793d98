"""Settings for gunicorn: ``gunicorn --config python:jens.gitlabproducer.gunicorn_settings …``.

gunicorn has a thread for each request that is under way, and waits for senders without a limit of time. So a few
senders that drip would take all threads for ever. With these settings there are many threads, and each request has a
limit of time.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from jens.gitlabproducer import limits


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A worker with threads that ends connections whose request takes too long."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._begun: dict[int, tuple[float, Any]] = {}

    def handle(self, conn: Any) -> Any:
        """Handle one request of a connection, in a thread."""
        self._begun[id(conn)] = (time.monotonic(), conn)
        try:
            return super().handle(conn)
        finally:
            del self._begun[id(conn)]

    def notify(self) -> None:
        """Tell that the worker lives, which it does about every second, and end what takes too long."""
        super().notify()
        for begun, connection in [*self._begun.values()]:
            if time.monotonic() - begun > limits.REQUEST_SECONDS:
                with suppress(OSError):  # it has just ended
                    connection.sock.shutdown(socket.SHUT_RDWR)  # the thread that waits for data finds the end of them


# Names that gunicorn reads: https://docs.gunicorn.org/en/stable/settings.html

worker_class = f"{__name__}.Worker"
worker_connections = limits.room_for_connections()
#: Threads are made when they are needed.
threads = max(worker_connections - 50, 1)
keepalive = 2
graceful_timeout = 10
