"""What Git servers send: one row a provider, told apart by the path; no Flask, no queue.

Sources: the webhook documentation of GitLab, GitHub, Gitea, Forgejo, Bitbucket Cloud and Data Center, and the
Standard Webhooks specification.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from jens.model import Library, RepoId
from jens.urls import location_of

#: Header names are in lower case.
Headers = Mapping[str, str]
Payload = Mapping[str, Any]

#: A signed timestamp may be so many seconds off.
TOLERANCE = 300


class MalformedError(ValueError):
    """A request is not what its provider sends; the text quotes nothing of it."""


@dataclass(frozen=True)
class Pushed:
    """What was pushed to: clone URLs, or, where a server sends none, the end of their path."""

    urls: tuple[str, ...] = ()
    path_end: str = ""


@dataclass(frozen=True)
class Provider:
    """How one kind of Git server proves who it is, and says what was pushed to.

    ``authenticate`` takes secret, headers, body and the time (seconds since the epoch).
    """

    name: str
    authenticate: Callable[[str, Headers, bytes, float], bool]
    is_push: Callable[[Headers, Payload], bool]
    pushed: Callable[[Payload], Pushed]


def parse(body: bytes) -> Payload:
    """The payload of a request, which is JSON whatever its content type says. Raises MalformedError."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the body is no JSON") from error
    if not isinstance(payload, dict):
        raise MalformedError("the body is no JSON object")
    return payload


# Who sends it


def _raw(value: str) -> bytes:
    """A header as it was sent: WSGI hands it on as Latin-1 (PEP 3333)."""
    return value.encode("latin-1", "backslashreplace")


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), _raw(given))


def _signed_with(*headers: str, prefix: str = "") -> Callable[[str, Headers, bytes, float], bool]:
    """Whether one of the headers has the HMAC-SHA256 of the body, in hexadecimal digits."""

    def authenticate(secret: str, found: Headers, body: bytes, _now: float) -> bool:
        expected = prefix + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return any(_same(expected, found.get(header, "")) for header in headers)

    return authenticate


def _gitlab(secret: str, headers: Headers, body: bytes, now: float) -> bool:
    if _same(secret, headers.get("x-gitlab-token", "")):
        return True
    return secret.startswith("whsec_") and _standard_webhooks(secret, headers, body, now)


def _standard_webhooks(secret: str, headers: Headers, body: bytes, now: float) -> bool:
    """Standard Webhooks: what is behind ``whsec_`` is the key in base64; several signatures may be given."""
    sender, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (sender and stamp.isascii() and stamp.isdigit() and len(stamp) < 20 and abs(now - int(stamp)) <= TOLERANCE):
        return False
    key, signed = _key(secret), b".".join((_raw(sender), _raw(stamp), body))
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return bool(key) and any(_same(expected, given) for given in headers.get("webhook-signature", "").split(" "))


def _key(secret: str) -> bytes:
    text = secret[len("whsec_") :]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


# Whether it is a push


_GITLAB_HEADERS = ("Push Hook", "Tag Push Hook")
_GITLAB_NAMES = ("push", "tag_push", "repository_update")


def _is_gitlab_push(headers: Headers, payload: Payload) -> bool:
    event = headers.get("x-gitlab-event")
    if event == "System Hook":
        return payload.get("event_name") in _GITLAB_NAMES
    if event is not None:
        return event in _GITLAB_HEADERS
    named = [payload[key] for key in ("object_kind", "event_name") if key in payload]
    return not named or any(name in _GITLAB_NAMES for name in named)


def _event_in(*events: str, headers: tuple[str, ...]) -> Callable[[Headers, Payload], bool]:
    """Whether a header names one of these events; scripts that send none mean a push."""

    def is_push(found: Headers, _payload: Payload) -> bool:
        named = [found[header] for header in headers if header in found]
        return not named or any(name in events for name in named)

    return is_push


# What was pushed to


def _at(payload: Any, *path: str) -> Any:
    """What is at a path of keys, None when there is nothing."""
    for key in path:
        payload = payload.get(key) if isinstance(payload, dict) else None
    return payload


def _urls_at(*paths: tuple[str, ...]) -> Callable[[Payload], Pushed]:
    def pushed(payload: Payload) -> Pushed:
        return _pushed(_at(payload, *path) for path in paths)

    return pushed


def _pushed(urls: Iterable[Any]) -> Pushed:
    found = tuple(url for url in urls if isinstance(url, str) and url)
    if not found:
        raise MalformedError("the payload has no URL of a repository")
    return Pushed(found)


def _bitbucket(payload: Payload) -> Pushed:
    clone = _at(payload, "repository", "links", "clone")
    urls = [_at(link, "href") for link in clone] if isinstance(clone, list) else []
    urls.append(_at(payload, "repository", "links", "html", "href"))  # all that Bitbucket Cloud sends
    key, slug = _at(payload, "repository", "project", "key"), _at(payload, "repository", "slug")
    if not any(urls) and key and slug and isinstance(key, str) and isinstance(slug, str):
        return Pushed(path_end=f"{key}/{slug}")
    return _pushed(urls)


_GITHUB_URLS = _urls_at(("repository", "ssh_url"), ("repository", "clone_url"))

#: GitHub and Gitea tell of branches that come and go with events of their own, too.
_GITHUB_EVENTS = ("push", "create", "delete")

PROVIDERS = (
    Provider(
        "gitlab",
        _gitlab,
        _is_gitlab_push,
        _urls_at(*((part, key) for part in ("project", "repository") for key in ("git_ssh_url", "git_http_url"))),
    ),
    Provider(
        "github",
        _signed_with("x-hub-signature-256", prefix="sha256="),
        _event_in(*_GITHUB_EVENTS, headers=("x-github-event",)),
        _GITHUB_URLS,
    ),
    Provider(
        "gitea",
        _signed_with("x-gitea-signature", "x-forgejo-signature"),
        _event_in(*_GITHUB_EVENTS, headers=("x-gitea-event", "x-forgejo-event")),
        _GITHUB_URLS,
    ),
    Provider(
        "bitbucket",
        _signed_with("x-hub-signature", prefix="sha256="),
        _event_in("repo:push", "repo:refs_changed", headers=("x-event-key",)),
        _bitbucket,
    ),
)


# Which repositories of the library that is


class Index:
    """The library by where its URLs lead, however they are written."""

    def __init__(self, library: Library) -> None:
        self._by_location: dict[str, list[RepoId]] = {}
        self._by_path_end: dict[str, list[RepoId]] = {}
        for repo, url in sorted(library.urls.items()):
            location = location_of(url)
            self._by_location.setdefault(location, []).append(repo)
            self._by_path_end.setdefault(_last_two(location), []).append(repo)

    def matching(self, pushed: Pushed) -> list[RepoId]:
        """Every repository that was pushed to, sorted."""
        return sorted(set(self._matching(pushed)))

    def _matching(self, pushed: Pushed) -> Iterator[RepoId]:
        for url in pushed.urls:
            yield from self._by_location.get(location_of(url), ())
        if pushed.path_end:
            yield from self._by_path_end.get(_last_two(f"/{pushed.path_end}"), ())


def _last_two(location: str) -> str:
    # Bitbucket writes project keys in upper case in payloads, and as one likes in URLs.
    return "/".join(location.split("/")[1:][-2:]).lower()
