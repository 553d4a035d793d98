"""The producer: a Flask application that turns webhooks of Git servers into hints.

It shares only the library and the queue with jens-update.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Callable

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from jens.config import Config
from jens.errors import JensError, QueueError
from jens.gitlabproducer import webhooks
from jens.gitlabproducer.limits import LARGEST_BODY, Budget, BusyError
from jens.gitlabproducer.webhooks import Index, MalformedError, Provider
from jens.messaging import message, wake
from jens.messaging.message import Move
from jens.messaging.queue import Queue
from jens.metadata import clones, reader
from jens.urls import redact, url_problem

log = logging.getLogger(__name__)

_CHUNK = 2**16
_MALFORMED = "Malformed request"


def create_app(config: Config) -> Flask:
    """The application, with a path for each kind of Git server."""
    app = Flask(__name__, static_folder=None)
    queue, library = Queue(config.messaging.queuedir), _KnownLibrary(config)
    secret = config.gitlabproducer.secret_token
    if not secret:
        log.warning("%s: [gitlabproducer] secret_token is not set, every request is accepted", config.path)
    budget = Budget()
    views = {provider.name: _view(provider, secret, library, queue, budget) for provider in webhooks.PROVIDERS}
    for name, view in views.items():
        app.add_url_rule(
            f"/{name}", name, view, methods=["POST"], strict_slashes=False, provide_automatic_options=False
        )
    app.add_url_rule("/healthz", "healthz", lambda: _health(library, queue), methods=["GET"], strict_slashes=False)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _unforeseen)
    return app


class _KnownLibrary:
    """The library. Reads it again when the clone has another commit, but keeps the last usable one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guard = threading.Lock()
        self._commit = ""
        self._index: Index | None = None
        self._problem = ""

    def index(self) -> Index:
        """The library by URL. Raises JensError when there has never been a usable library."""
        with self._guard:
            try:
                self._read()
                self._problem = ""
            except JensError as error:
                if self._problem != str(error):
                    log.error("%s", error)
                self._problem = str(error)
                if self._index is None:
                    raise
            assert self._index is not None
            return self._index

    def _read(self) -> None:
        commit = clones.library_commit(self._config)
        if commit != self._commit:
            self._index = Index(reader.read_library(self._config, commit))
            self._commit = commit

    def problem(self) -> str:
        """Why the library is unusable now, '' when it is usable."""
        try:
            self.index()
        except JensError as error:
            return str(error)
        return self._problem


def _text(status: int, text: str) -> Response:
    return Response(text, status, content_type="text/plain; charset=utf-8")


def _view(
    provider: Provider, secret: str, library: _KnownLibrary, queue: Queue, budget: Budget
) -> Callable[[], Response]:
    def receive() -> Response:
        try:
            body = _body(budget)
        except BusyError:
            log.warning("/%s: refused a body, as those that are being received take too much memory", provider.name)
            return _text(503, "Busy")
        except OSError as error:
            log.warning(
                "/%s: %s did not send a whole body (%s)", provider.name, request.remote_addr, type(error).__name__
            )
            return _text(400, _MALFORMED)
        if body is None:
            log.warning("/%s: refused a body of more than %d bytes", provider.name, LARGEST_BODY)
            return _text(413, "Request too large")
        headers = {name.lower(): value for name, value in request.headers.items()}
        if secret and not provider.authenticate(secret, headers, body, time.time()):
            log.warning("/%s: refused a request of %s, it does not know the secret", provider.name, request.remote_addr)
            return _text(401, "Unauthorised")
        try:
            payload = webhooks.parse(body)
            if not provider.is_push(headers, payload):
                return _text(200, "Not a push")
            pushed, moves = provider.pushed(payload), provider.moves(payload)
        except MalformedError as error:
            log.warning("/%s: malformed request of %s: %s", provider.name, request.remote_addr, error)
            return _text(400, _MALFORMED)
        return _hint(provider, pushed, moves, library, queue)

    return receive


def _body(budget: Budget) -> bytes | None:
    """The request's body, None when it is too large. Counts the bytes that it reads, and ignores the headers.

    Raises BusyError when all bodies together are too large.
    """
    chunks, size = [], 0
    with budget.share() as share:
        while chunk := request.stream.read(_CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            share.take(len(chunk))
            if size > LARGEST_BODY:
                return None
        return b"".join(chunks)


def _hint(
    provider: Provider, pushed: webhooks.Pushed, moves: Sequence[Move], library: _KnownLibrary, queue: Queue
) -> Response:
    repos = library.index().matching(pushed)
    if not repos:
        log.info("/%s: no repository of the library is at %s", provider.name, _named(pushed))
        return _text(200, "Repository not found")
    try:
        for repo in repos:
            when = message.timestamp()
            log.info("%s - %s - '%s' added to the queue", when, repo, queue.add([repo], when, {repo: moves}))
            wake.make(queue.path)
    except QueueError as error:
        log.error("%s", error)
        return _text(500, "Queue not accessible")
    return _text(201, "OK")


def _named(pushed: webhooks.Pushed) -> list[str]:
    """The names that a sender gives a repository, for the log: only valid URLs, without what may be secret in them."""
    urls = (url for url in pushed.urls[:4] if url_problem(url) is None)
    return [text.partition("?")[0][:200] for text in (*map(redact, urls), pushed.path_end) if text]


def _health(library: _KnownLibrary, queue: Queue) -> Response:
    problems = [library.problem()]
    try:
        queue.check()
    except QueueError as error:
        problems.append(str(error))
    problems = [problem for problem in problems if problem]
    return _text(503, "\n".join(problems)) if problems else _text(200, "OK")


def _refused(error: HTTPException) -> Response:
    text = _MALFORMED if error.code == 400 else error.name
    response = Response(text, error.code, content_type="text/plain; charset=utf-8")
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    if isinstance(error, JensError):
        log.error("%s", error)
    else:
        # The text of the exception is not logged: it may quote what a sender wrote, or a secret.
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        log.error("Unforeseen %s at %s", type(error).__name__, " > ".join(places))
    return _text(500, "Internal Server Error!")
