"""Webhooks of Git servers: one row for each provider, chosen by the path of the request. No Flask, no queue.

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

from jens.messaging.message import MOST_MOVES, Move, is_move
from jens.model import Library, RepoId
from jens.urls import location_of

#: Header names are in lower case.
Headers = Mapping[str, str]
Payload = Mapping[str, Any]

#: A signed timestamp may differ from the time by so many seconds.
TOLERANCE = 300


class MalformedError(ValueError):
    """A request that its provider would not send. The text quotes nothing of it."""


@dataclass(frozen=True)
class Pushed:
    """The repository of a push: its clone URLs, or the end of their path when a server sends no URLs."""

    urls: tuple[str, ...] = ()
    path_end: str = ""


@dataclass(frozen=True)
class Provider:
    """One kind of Git server: how it proves its identity, and how it names the repository of a push.

    ``authenticate`` takes the secret, the headers, the body and the time (seconds since the epoch).
    """

    name: str
    authenticate: Callable[[str, Headers, bytes, float], bool]
    is_push: Callable[[Headers, Payload], bool]
    pushed: Callable[[Payload], Pushed]
    moves: Callable[[Payload], tuple[Move, ...]]


def parse(body: bytes) -> Payload:
    """Parse the body of a request as JSON, whatever its content type says. Raises MalformedError."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the body is no JSON") from error
    if not isinstance(payload, dict):
        raise MalformedError("the body is no JSON object")
    return payload


# Authentication


def _raw(value: str) -> bytes:
    """The bytes of a header as they were sent: WSGI decodes them as Latin-1 (PEP 3333)."""
    return value.encode("latin-1", "backslashreplace")


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), _raw(given))


def _signed_with(*headers: str, prefix: str = "") -> Callable[[str, Headers, bytes, float], bool]:
    """A function that tells whether one of the headers has the HMAC-SHA256 of the body, in hexadecimal digits."""

    def authenticate(secret: str, found: Headers, body: bytes, _now: float) -> bool:
        expected = prefix + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return any(_same(expected, found.get(header, "")) for header in headers)

    return authenticate


def _gitlab(secret: str, headers: Headers, body: bytes, now: float) -> bool:
    if _same(secret, headers.get("x-gitlab-token", "")):
        return True
    return secret.startswith("whsec_") and _standard_webhooks(secret, headers, body, now)


def _standard_webhooks(secret: str, headers: Headers, body: bytes, now: float) -> bool:
    """Standard Webhooks: the secret is ``whsec_`` and the key in base64; the header may have several signatures."""
    sender, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (sender and timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 20):
        return False
    if abs(now - int(timestamp)) > TOLERANCE:
        return False
    key, signed = _key(secret), b".".join((_raw(sender), _raw(timestamp), body))
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return bool(key) and any(_same(expected, given) for given in headers.get("webhook-signature", "").split(" "))


def _key(secret: str) -> bytes:
    text = secret[len("whsec_") :]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


# Is it a push?


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
    """A function that tells whether a header names one of these events. A script without such a header means a push."""

    def is_push(found: Headers, _payload: Payload) -> bool:
        named = [found[header] for header in headers if header in found]
        return not named or any(name in events for name in named)

    return is_push


# The repository of a push


def _at(payload: Any, *path: str) -> Any:
    """The value at a path of keys, None when there is none."""
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
    urls.append(_at(payload, "repository", "links", "html", "href"))  # the only URL that Bitbucket Cloud sends
    key, slug = _at(payload, "repository", "project", "key"), _at(payload, "repository", "slug")
    if not any(urls) and key and slug and isinstance(key, str) and isinstance(slug, str):
        return Pushed(path_end=f"{key}/{slug}")
    return _pushed(urls)


# The branches of a push, and where they are now


_HEADS = "refs/heads/"


def _moves(payload: Payload) -> tuple[Move, ...]:
    """The moves in a push of GitLab, GitHub, Gitea or Forgejo, or in a repository update of GitLab's system hooks."""
    changes = payload.get("changes")
    return _checked(_move(change) for change in (changes if isinstance(changes, list) else [payload]))


def _move(change: Any) -> Move | None:
    ref, before, after = (_at(change, key) for key in ("ref", "before", "after"))
    if not isinstance(ref, str) or not ref.startswith(_HEADS) or after is None:
        return None
    return Move(ref[len(_HEADS) :], _commit(before), _commit(after))


def _bitbucket_moves(payload: Payload) -> tuple[Move, ...]:
    """The moves in a push of Bitbucket Cloud or Data Center."""
    cloud, center = _at(payload, "push", "changes"), payload.get("changes")
    found = [_cloud_move(change) for change in cloud] if isinstance(cloud, list) else []
    found += [_center_move(change) for change in center] if isinstance(center, list) else []
    return _checked(found)


def _cloud_move(change: Any) -> Move | None:
    old, new = _at(change, "old"), _at(change, "new")
    sides = [side for side in (new, old) if _at(side, "type") == "branch"]
    name = _at(sides[0], "name") if sides else None
    if not isinstance(name, str):
        return None
    return Move(name, _commit(_at(old, "target", "hash")), _commit(_at(new, "target", "hash")))


def _center_move(change: Any) -> Move | None:
    ref = _at(change, "refId") or _at(change, "ref", "id")
    return _move({"ref": ref, "before": _at(change, "fromHash"), "after": _at(change, "toHash")})


def _commit(value: Any) -> str:
    """The id of a commit, '' for the zeros of a branch that was not there, or is not there any more."""
    return str(value or "").strip("0") and str(value)


def _checked(moves: Iterable[Move | None]) -> tuple[Move, ...]:
    """The moves that are well-formed. They are no more than help, so the others are left out."""
    return tuple(move for move in moves if move is not None and is_move(move))[:MOST_MOVES]


_GITHUB_URLS = _urls_at(("repository", "ssh_url"), ("repository", "clone_url"))

#: GitHub and Gitea also send events of their own when a branch is created or deleted.
_GITHUB_EVENTS = ("push", "create", "delete")

PROVIDERS = (
    Provider(
        "gitlab",
        _gitlab,
        _is_gitlab_push,
        _urls_at(*((part, key) for part in ("project", "repository") for key in ("git_ssh_url", "git_http_url"))),
        _moves,
    ),
    Provider(
        "github",
        _signed_with("x-hub-signature-256", prefix="sha256="),
        _event_in(*_GITHUB_EVENTS, headers=("x-github-event",)),
        _GITHUB_URLS,
        _moves,
    ),
    Provider(
        "gitea",
        _signed_with("x-gitea-signature", "x-forgejo-signature"),
        _event_in(*_GITHUB_EVENTS, headers=("x-gitea-event", "x-forgejo-event")),
        _GITHUB_URLS,
        _moves,
    ),
    Provider(
        "bitbucket",
        _signed_with("x-hub-signature", prefix="sha256="),
        _event_in("repo:push", "repo:refs_changed", headers=("x-event-key",)),
        _bitbucket,
        _bitbucket_moves,
    ),
)


# The repositories of the library that match


class Index:
    """The repositories of the library by normalised URL (``location_of``)."""

    def __init__(self, library: Library) -> None:
        self._by_location: dict[str, list[RepoId]] = {}
        self._by_path_end: dict[str, list[RepoId]] = {}
        for repo, url in sorted(library.urls.items()):
            location = location_of(url)
            self._by_location.setdefault(location, []).append(repo)
            self._by_path_end.setdefault(_last_two(location), []).append(repo)

    def matching(self, pushed: Pushed) -> list[RepoId]:
        """All repositories that match a push, sorted."""
        return sorted(set(self._matching(pushed)))

    def _matching(self, pushed: Pushed) -> Iterator[RepoId]:
        for url in pushed.urls:
            yield from self._by_location.get(location_of(url), ())
        if pushed.path_end:
            yield from self._by_path_end.get(_last_two(f"/{pushed.path_end}"), ())


def _last_two(location: str) -> str:
    # Bitbucket writes project keys in upper case in payloads, but accepts any case in URLs.
    return "/".join(location.split("/")[1:][-2:]).lower()
