"""The status page: a Flask application that only reads, for teams and administrators.

Each page is a document. Programs get it as JSON: with ``.json`` behind the address, or when they ask for it. A template
shows people the same.
"""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

from flask import Flask, Response, render_template, request, send_from_directory
from werkzeug.exceptions import HTTPException

from jens.config import Config
from jens.errors import JensError
from jens.status import commits, deployments, environments, health, metrics, overview, repositories, templating
from jens.status.links import Links
from jens.status.memory import Memory
from jens.status.page import LONGEST_ARGUMENT, Page, RefusedError
from jens.status.sources import Sources
from jens.text import one_line

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

#: A page is remembered for so many seconds, and so are so many of them, of so many bytes.
_LASTS, _MOST_PAGES, _MOST_BYTES = 2.0, 500, 64 * 2**20
#: So many pages are made at once; who waits longer than this many seconds for a turn is told to come back.
_AT_ONCE, _TURN = 2, 10.0

_STATIC, _STATIC_LASTS = Path(__file__).parent / "static", 3600

_JSON, _HTML = "application/json", "text/html"
_TEXT = "text/plain; charset=utf-8"
#: Where the format is in the environment of a request whose address says it.
_ASKED = "jens.format"

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: Makes a page from what the address names and its arguments.
View = Callable[[Sources, Mapping[str, str], Mapping[str, str]], Page]


class Rule(NamedTuple):
    """An address, the view that makes its page, and the arguments that the view knows."""

    address: str
    view: View
    arguments: tuple[str, ...] = ()


#: All pages. A new one gets a row here, and in docs/status.md.
RULES = (
    Rule("/", lambda sources, _, __: overview.look(sources)),
    Rule("/environments", lambda sources, _, asked: environments.look(sources, asked), ("page",)),
    Rule(
        "/environments/<name>",
        lambda sources, named, asked: environments.look_at_one(sources, named["name"], asked),
        ("compare",),
    ),
    Rule("/repositories", lambda sources, _, asked: repositories.look(sources, asked), ("page",)),
    Rule(
        "/repositories/<partition>/<name>",
        lambda sources, named, _: repositories.look_at_one(sources, f"{named['partition']}/{named['name']}"),
    ),
    Rule("/history", lambda sources, _, asked: deployments.look(sources, asked), deployments.ARGUMENTS),
    Rule(
        "/history/<number>",
        lambda sources, named, asked: deployments.look_at_one(sources, named["number"], asked),
        ("page",),
    ),
    Rule("/commits/<digits>", lambda sources, named, _: commits.look(sources, named["digits"])),
    Rule("/search", lambda sources, _, asked: commits.search(sources, asked), ("q",)),
)


def create_app(config: Config) -> Flask:
    """The application."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 0
    app.wsgi_app = _Formats(app.wsgi_app)  # type: ignore[method-assign]
    templating.set_up(app, config)
    sources, pages = Sources(config), _Pages()
    for rule in RULES:
        _add(app, rule.address, _shown(rule, sources, pages))
    _add(app, "/healthz", lambda **_: _health(sources))
    _add(app, "/metrics", lambda **_: _metrics(sources, pages))
    _add(app, "/static/<name>", lambda name: send_from_directory(_STATIC, name, max_age=_STATIC_LASTS))
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _unforeseen)
    app.after_request(_with_headers)
    return app


def _add(app: Flask, address: str, view: Callable[..., Response]) -> None:
    app.add_url_rule(address, address, view, methods=["GET"], strict_slashes=False, provide_automatic_options=False)


class _Formats:
    """Takes ``.json`` and ``.html`` from the end of an address, and remembers what it was."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        path = environ.get("PATH_INFO", "")
        for suffix, kind in ((".json", _JSON), (".html", _HTML)):
            if path.endswith(suffix) and not path.startswith("/static/"):
                environ["PATH_INFO"] = path[: -len(suffix)] if path not in ("/index.json", "/index.html") else "/"
                environ[_ASKED] = kind
                break
        return self._app(environ, start_response)


def _format() -> str:
    """What the client asks for: JSON, or HTML."""
    asked: str | None = request.environ.get(_ASKED)
    return asked or request.accept_mimetypes.best_match([_HTML, _JSON], _HTML)


# Pages


class _Made(NamedTuple):
    """A page as it is sent."""

    body: bytes
    status: int
    kind: str


class _Pages:
    """Makes pages, a few at a time, and remembers each one for a moment."""

    def __init__(self) -> None:
        self._memory = Memory[_Made](_LASTS, _MOST_PAGES, _MOST_BYTES)
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def get(self, key: tuple[object, ...], make: Callable[[], _Made]) -> _Made:
        """A page. Raises RefusedError when too many others are being made."""
        return self._memory.get(key, lambda: self._in_turn(make), size=lambda made: len(made.body))

    def _in_turn(self, make: Callable[[], _Made]) -> _Made:
        if not self._turns.acquire(timeout=_TURN):
            raise RefusedError(503, "Too many pages are asked for at once. Try again in a moment.")
        try:
            return make()
        finally:
            self._turns.release()


def _shown(rule: Rule, sources: Sources, pages: _Pages) -> Callable[..., Response]:
    def show(**named: str) -> Response:
        arguments = {name: request.args[name] for name in rule.arguments if request.args.get(name)}
        kind = _format()
        try:
            if any(len(text) > LONGEST_ARGUMENT for text in (*arguments.values(), *named.values())):
                raise RefusedError(400, f"expected no more than {LONGEST_ARGUMENT} characters")
            key = (request.script_root, rule.address, kind, *named.items(), *arguments.items())
            made = pages.get(key, lambda: _made(rule.view(sources, named, arguments), kind, arguments))
        except RefusedError as error:
            made = _made(_problem_page(error.status, error.problem), kind)
        except JensError as error:
            log.error("%s", error)
            made = _made(_problem_page(503, sources.redaction.text(one_line(str(error)))), kind)
        except OSError as error:
            log.error("%s", error)
            made = _made(_problem_page(503, f"What this page shows cannot be read: {error.strerror}."), kind)
        return _response(made)

    return show


def _problem_page(status: int, problem: str) -> Page:
    return Page("problem.html", {"version": 1, "status": status, "problem": problem}, status)


def _made(page: Page, kind: str, arguments: Mapping[str, str] | None = None) -> _Made:
    """A page in the format that is asked for. With the ``arguments`` of a page, that links to its JSON."""
    if kind == _JSON:
        return _Made(f"{json.dumps(page.document, sort_keys=True)}\n".encode("ascii"), page.status, _JSON)
    to = Links(request.script_root)
    as_json = None if arguments is None else to.json(request.path, arguments)
    text = render_template(page.template, page=page.document, to=to, as_json=as_json)
    return _Made(text.encode("utf-8", "replace"), page.status, f"{_HTML}; charset=utf-8")


def _response(made: _Made) -> Response:
    response = Response(made.body, made.status, content_type=made.kind)
    response.headers["Vary"] = "Accept"
    if made.status == 503:
        response.headers["Retry-After"] = "5"
    return response


# For monitoring


def _health(sources: Sources) -> Response:
    problems = health.problems(sources)
    status = 503 if problems else 200
    if _format() == _JSON:
        body = json.dumps({"version": 1, "status": status, "problems": problems}, sort_keys=True)
        return Response(f"{body}\n", status, content_type=_JSON)
    return Response("\n".join(problems or ["OK"]) + "\n", status, content_type=_TEXT)


def _metrics(sources: Sources, pages: _Pages) -> Response:
    try:
        return _response(pages.get(("metrics",), lambda: _measured(sources)))
    except metrics.MetricsMissingError as error:
        return Response(f"{error}\n", 501, content_type=_TEXT)
    except RefusedError as error:
        return Response(f"{error.problem}\n", error.status, content_type=_TEXT)


def _measured(sources: Sources) -> _Made:
    body, kind = metrics.render(metrics.collect(sources))
    return _Made(body, 200, kind)


# Failures


def _refused(error: HTTPException) -> Response:
    status = error.code or 500
    problem = {404: "There is no such page.", 405: "Only GET and HEAD are allowed."}.get(status, error.name)
    response = _response(_made(_problem_page(status, problem), _format()))
    for name, value in error.get_headers():
        if name.lower() in ("allow", "location"):
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    # The text of the exception is not logged: it may quote what a reader wrote.
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("Unforeseen %s at %s", type(error).__name__, " > ".join(places))
    return Response("Internal Server Error\n", 500, content_type=_TEXT)


def _with_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-cache")
    return response
