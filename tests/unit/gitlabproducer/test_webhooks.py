"""Webhooks of Git servers: authentication, pushes, their repositories, and the repositories of the library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Callable

import pytest

from jens.gitlabproducer.webhooks import PROVIDERS, TOLERANCE, Index, MalformedError, Provider, Pushed, parse
from jens.messaging.message import Move
from jens.model import HOSTGROUPS, MODULES, Library, RepoId

_PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in PROVIDERS}
_NOW = 1_700_000_000
_NOBODY = "0" * 40
_BEFORE, _AFTER = "95790bf891e76fee5e1747ab589903a6a1f80f22", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"

SSH, HTTP = "git@git.example.org:hostgroups/foo.git", "https://git.example.org/hostgroups/foo.git"
PAGE = "https://git.example.org/hostgroups/foo"
BODY = '{"what": "was pushed, ä"}'.encode()


# Payloads, as in the documentation of the servers

_GITLAB_PROJECT = {
    "id": 15,
    "name": "foo",
    "web_url": PAGE,
    "git_ssh_url": SSH,
    "git_http_url": HTTP,
    "namespace": "Hostgroups",
    "visibility_level": 0,
    "path_with_namespace": "hostgroups/foo",
    "default_branch": "master",
    "ssh_url": SSH,
    "http_url": HTTP,
}
_GITLAB_REPOSITORY = {"name": "foo", "url": SSH, "homepage": PAGE, "git_http_url": HTTP, "git_ssh_url": SSH}
GITLAB_PUSH: dict[str, Any] = {
    "object_kind": "push",
    "event_name": "push",
    "before": _BEFORE,
    "after": _AFTER,
    "ref": "refs/heads/master",
    "checkout_sha": _AFTER,
    "user_id": 4,
    "user_name": "Ann",
    "user_email": "ann@example.org",
    "project_id": 15,
    "project": _GITLAB_PROJECT,
    "repository": _GITLAB_REPOSITORY,
    "commits": [
        {
            "id": _AFTER,
            "message": "Fix the größte bug",
            "timestamp": "2015-12-10T14:43:01+01:00",
            "author": {"name": "Ann", "email": "ann@example.org"},
            "added": [],
            "modified": ["code/manifests/init.pp"],
            "removed": [],
        }
    ],
    "total_commits_count": 1,
}
_GITLAB_TAG_PUSH = {**GITLAB_PUSH, "object_kind": "tag_push", "event_name": "tag_push", "ref": "refs/tags/v1.0"}
_GITLAB_DELETION = {**GITLAB_PUSH, "after": _NOBODY, "checkout_sha": None, "commits": [], "total_commits_count": 0}
_GITLAB_MERGE_REQUEST = {
    "object_kind": "merge_request",
    "event_type": "merge_request",
    "user": {"id": 1, "username": "ann"},
    "project": _GITLAB_PROJECT,
    "repository": {"name": "foo", "url": SSH, "homepage": PAGE},
    "object_attributes": {"id": 99, "iid": 1, "target_branch": "master", "source_branch": "fix", "state": "opened"},
}
_SYSTEM_PUSH = {key: value for key, value in GITLAB_PUSH.items() if key != "object_kind"}
_SYSTEM_TAG_PUSH = {**_SYSTEM_PUSH, "event_name": "tag_push", "ref": "refs/tags/v1.0"}
_SYSTEM_UPDATE = {
    "event_name": "repository_update",
    "user_id": 1,
    "project_id": 15,
    "project": _GITLAB_PROJECT,
    "changes": [{"before": _BEFORE, "after": _AFTER, "ref": "refs/heads/master"}],
    "refs": ["refs/heads/master"],
}
_SYSTEM_CREATION = {
    "event_name": "project_create",
    "created_at": "2015-12-10T14:43:01Z",
    "name": "foo",
    "path": "foo",
    "path_with_namespace": "hostgroups/foo",
    "project_id": 15,
    "project_visibility": "private",
}
_SYSTEM_MERGE_REQUEST = {**_GITLAB_MERGE_REQUEST, "event_name": "merge_request"}
_SCRIPT = {"repository": {"git_ssh_url": SSH}}

_GITHUB_REPOSITORY = {
    "id": 186853002,
    "name": "foo",
    "full_name": "hostgroups/foo",
    "private": True,
    "owner": {"login": "hostgroups", "id": 21031067},
    "html_url": PAGE,
    "url": PAGE,
    "git_url": "git://git.example.org/hostgroups/foo.git",
    "ssh_url": SSH,
    "clone_url": HTTP,
    "default_branch": "master",
}
GITHUB_PUSH: dict[str, Any] = {
    "ref": "refs/heads/master",
    "before": _BEFORE,
    "after": _AFTER,
    "created": False,
    "deleted": False,
    "forced": False,
    "compare": f"{PAGE}/compare/95790bf891e7...da1560886d4f",
    "commits": [{"id": _AFTER, "message": "Fix it", "distinct": True}],
    "repository": _GITHUB_REPOSITORY,
    "pusher": {"name": "ann", "email": "ann@example.org"},
    "sender": {"login": "ann", "id": 1},
}
_GITHUB_DELETION = {**GITHUB_PUSH, "after": _NOBODY, "deleted": True, "commits": [], "head_commit": None}
_GITHUB_CREATE = {"ref": "fix", "ref_type": "branch", "master_branch": "master", "repository": _GITHUB_REPOSITORY}
_GITHUB_DELETE = {"ref": "fix", "ref_type": "branch", "pusher_type": "user", "repository": _GITHUB_REPOSITORY}
_GITHUB_PING = {"zen": "Keep it logically awesome.", "hook_id": 30, "hook": {"type": "Organization", "active": True}}
_GITHUB_ISSUES = {"action": "opened", "issue": {"number": 1, "title": "Broken"}, "repository": _GITHUB_REPOSITORY}

_GITEA_REPOSITORY = {key: _GITHUB_REPOSITORY[key] for key in ("id", "name", "full_name", "html_url")}
GITEA_PUSH: dict[str, Any] = {
    "ref": "refs/heads/master",
    "before": _BEFORE,
    "after": _AFTER,
    "compare_url": f"{PAGE}/compare/{_BEFORE}...{_AFTER}",
    "commits": [],
    "total_commits": 0,
    "repository": {**_GITEA_REPOSITORY, "ssh_url": SSH, "clone_url": HTTP, "empty": False},
    "pusher": {"id": 1, "login": "ann", "email": "ann@example.org"},
}
_GITEA_DELETE = {**_GITHUB_DELETE, "repository": GITEA_PUSH["repository"]}
_GITEA_ISSUES = {**_GITHUB_ISSUES, "repository": GITEA_PUSH["repository"]}

_CLOUD_REPOSITORY = {
    "type": "repository",
    "uuid": "{673a6070-3421-46c9-9d48-90745f7bfe8e}",
    "name": "foo",
    "full_name": "hostgroups/foo",
    "links": {
        "self": {"href": "https://api.git.example.org/2.0/repositories/hostgroups/foo"},
        "html": {"href": PAGE},
        "avatar": {"href": f"{PAGE}/avatar/32/"},
    },
    "project": {"type": "project", "key": "HG", "name": "Hostgroups"},
    "is_private": True,
}
_CLOUD_BRANCH = {"type": "branch", "name": "master", "target": {"type": "commit", "hash": _AFTER}}
CLOUD_PUSH: dict[str, Any] = {
    "actor": {"type": "user", "nickname": "ann"},
    "repository": _CLOUD_REPOSITORY,
    "push": {"changes": [{"old": _CLOUD_BRANCH, "new": _CLOUD_BRANCH, "created": False, "closed": False}]},
}
_CLOUD_DELETION = {**CLOUD_PUSH, "push": {"changes": [{"old": _CLOUD_BRANCH, "new": None, "closed": True}]}}
_CLOUD_PULL_REQUEST = {"actor": {"nickname": "ann"}, "pullrequest": {"id": 1}, "repository": _CLOUD_REPOSITORY}

_CENTER_HTTP = "https://git.example.org/scm/hostgroups/foo.git"
_CENTER_SSH = "ssh://git@git.example.org:7999/hostgroups/foo.git"
_CENTER_REPOSITORY = {
    "slug": "foo",
    "id": 84,
    "name": "Foo",
    "scmId": "git",
    "state": "AVAILABLE",
    "project": {"key": "HOSTGROUPS", "id": 84, "name": "Hostgroups", "public": False, "type": "NORMAL"},
    "public": False,
}
_CENTER_LINKS = {
    "clone": [{"href": _CENTER_SSH, "name": "ssh"}, {"href": _CENTER_HTTP, "name": "http"}],
    "self": [{"href": "https://git.example.org/projects/HOSTGROUPS/repos/foo/browse"}],
}
CENTER_PUSH: dict[str, Any] = {
    "eventKey": "repo:refs_changed",
    "date": "2015-12-10T14:43:01+0100",
    "actor": {"name": "ann", "emailAddress": "ann@example.org", "type": "NORMAL"},
    "repository": {**_CENTER_REPOSITORY, "links": _CENTER_LINKS},
    "changes": [{"refId": "refs/heads/master", "fromHash": _BEFORE, "toHash": _AFTER, "type": "UPDATE"}],
}
CENTER_BARE_PUSH: dict[str, Any] = {**CENTER_PUSH, "repository": _CENTER_REPOSITORY}
_PERSONAL = {"key": "~ann", "id": 101, "name": "Ann", "type": "PERSONAL", "owner": {"name": "ann"}}
_CENTER_PERSONAL_PUSH = {**CENTER_PUSH, "repository": {**_CENTER_REPOSITORY, "project": _PERSONAL}}
_CENTER_PING = {"test": True}

_GITLAB, _SYSTEM, _GITHUB, _GITEA, _FORGEJO, _BITBUCKET = (
    *("x-gitlab-event", "system", "x-github-event", "x-gitea-event", "x-forgejo-event", "x-event-key"),
)


# Authentication


def digits(secret: str, body: bytes) -> str:
    """The HMAC-SHA256 of a body in hexadecimal digits."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


#: A way of authentication: provider, header, and the prefix of its signature (None: it has the secret itself).
WAYS: dict[str, tuple[str, str, str | None]] = {
    "GitLab": ("gitlab", "x-gitlab-token", None),
    "GitHub": ("github", "x-hub-signature-256", "sha256="),
    "Gitea": ("gitea", "x-gitea-signature", ""),
    "Forgejo": ("gitea", "x-forgejo-signature", ""),
    "Bitbucket": ("bitbucket", "x-hub-signature", "sha256="),
}


def proof(way: str, secret: str, body: bytes) -> str:
    """The header's value as WSGI decodes it."""
    prefix = WAYS[way][2]
    value = secret if prefix is None else prefix + digits(secret, body)
    return value.encode().decode("latin-1")


def _is_let_in(way: str, secret: str, value: str | None, body: bytes = BODY) -> bool:
    provider, header, _ = WAYS[way]
    headers = {"content-type": "application/json"} if value is None else {header: value}
    return _PROVIDERS[provider].authenticate(secret, headers, body, float(_NOW))


@pytest.mark.parametrize("secret", ["s3cret", "pässwörd", "секрет 日本", "a b;c=d", "x" * 300, "sha256="], ids=ascii)
@pytest.mark.parametrize("way", WAYS)
def test_who_knows_the_secret_is_let_in(way: str, secret: str) -> None:
    assert _is_let_in(way, secret, proof(way, secret, BODY))
    assert _is_let_in(way, secret, proof(way, secret, b""), b"")


_GOOD_SECRET = "s3cret"
_SPOILT: Mapping[str, Callable[[str], str | None]] = {
    "missing": lambda _good: None,
    "empty": lambda _good: "",
    "another": lambda good: "".join(chr(ord(c) ^ 1) for c in good),
    "backwards": lambda good: good[::-1],
    "the first half": lambda good: good[: len(good) // 2],
    "all but the last character": lambda good: good[:-1],
    "a character more": lambda good: good + "0",
    "a space behind": lambda good: good + " ",
    "a newline behind": lambda good: good + "\n",
    "a NUL behind": lambda good: good + "\0",
    "with the prefix of another algorithm": lambda good: "sha1=" + good.removeprefix("sha256="),
    "with a prefix too many": lambda good: "sha256=" + good,
    "with a word in front": lambda good: "Bearer " + good,
    "twice": lambda good: f"{good}, {good}",
    "the prefix alone": lambda _good: "sha256=",
    "not ASCII": lambda good: good + "\xe9",
    "not ASCII and no UTF-8": lambda _good: "\xff\xfe",
    "beyond Latin-1": lambda good: good + "\u20ac\udcff",
}


@pytest.mark.parametrize("how", _SPOILT)
@pytest.mark.parametrize("way", WAYS)
def test_a_spoilt_proof_is_refused(way: str, how: str) -> None:
    assert not _is_let_in(way, _GOOD_SECRET, _SPOILT[how](proof(way, _GOOD_SECRET, BODY)))


@pytest.mark.parametrize("way", [way for way, (_, _, prefix) in WAYS.items() if prefix])
def test_a_signature_without_its_prefix_is_refused(way: str) -> None:
    assert not _is_let_in(way, _GOOD_SECRET, digits(_GOOD_SECRET, BODY))


@pytest.mark.parametrize("way", WAYS)
def test_the_proof_of_another_secret_is_refused(way: str) -> None:
    for other in ("S3cret", "s3cre", "s3cret ", ""):
        assert not _is_let_in(way, _GOOD_SECRET, proof(way, other, BODY))


@pytest.mark.parametrize("way", [way for way, (_, _, prefix) in WAYS.items() if prefix is not None])
def test_the_signature_of_another_body_is_refused_and_so_is_the_secret_in_its_place(way: str) -> None:
    for other in (b"", BODY + b" ", BODY[:-1], BODY.replace(b"pushed", b"Pushed")):
        assert not _is_let_in(way, _GOOD_SECRET, proof(way, _GOOD_SECRET, other))
    assert not _is_let_in(way, _GOOD_SECRET, _GOOD_SECRET)


@pytest.mark.parametrize("way", WAYS)
def test_a_proof_in_the_header_of_another_server_is_none(way: str) -> None:
    provider, header, _ = WAYS[way]
    for name in {header for _, header, _ in WAYS.values()} - {header}:
        if way in ("Gitea", "Forgejo") and name in ("x-gitea-signature", "x-forgejo-signature"):
            continue  # Forgejo is a fork of Gitea
        headers = {name: proof(way, _GOOD_SECRET, BODY)}
        assert not _PROVIDERS[provider].authenticate(_GOOD_SECRET, headers, BODY, _NOW)


# GitLab's signatures: Standard Webhooks

_KEY = bytes(range(32))
_WHSEC = "whsec_" + base64.b64encode(_KEY).decode()
_ID = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def standard(
    key: bytes = _KEY,
    body: bytes = BODY,
    *,
    sender: str = _ID,
    timestamp: str = str(_NOW),
    changes: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """The headers of a signed request. ``changes`` are made after signing; None removes a header."""
    signed = b".".join((sender.encode("latin-1"), timestamp.encode("latin-1"), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers: dict[str, str | None] = {"webhook-id": sender, "webhook-timestamp": timestamp}
    headers.update({"webhook-signature": f"v1,{signature}", **(changes or {})})
    return {name: value for name, value in headers.items() if value is not None}


def _is_accepted(headers: Mapping[str, str], secret: str = _WHSEC, body: bytes = BODY) -> bool:
    return _PROVIDERS["gitlab"].authenticate(secret, headers, body, float(_NOW))


_SIGNATURE = standard()["webhook-signature"]
_OF_ANOTHER = standard(b"another key")["webhook-signature"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(standard(), id="just so"),
        pytest.param(standard(timestamp=str(_NOW - 299)), id="299 s old"),
        pytest.param(standard(timestamp=str(_NOW + 299)), id="299 s in the future"),
        pytest.param(standard(sender="ä!"), id="an id that is not ASCII"),
        pytest.param(standard(changes={"webhook-signature": f"{_SIGNATURE} {_OF_ANOTHER}"}), id="the first of two"),
        pytest.param(standard(changes={"webhook-signature": f"{_OF_ANOTHER} {_SIGNATURE}"}), id="the second of two"),
        pytest.param(
            standard(changes={"webhook-signature": f"v1a,AAAA v2,x {_OF_ANOTHER}  {_SIGNATURE} v1,"}),
            id="among others of other versions",
        ),
        pytest.param({"x-gitlab-token": _WHSEC}, id="the plain token"),
        pytest.param(
            {**standard(changes={"webhook-signature": _OF_ANOTHER}), "x-gitlab-token": _WHSEC},
            id="the plain token, with a signature of something else",
        ),
        pytest.param({**standard(), "x-gitlab-token": "rotated"}, id="a signature, with a token of something else"),
    ],
)
def test_a_signed_request_of_gitlab_is_accepted(headers: Mapping[str, str]) -> None:
    assert _is_accepted(headers)


def _with(header: str, value: str | None) -> dict[str, str]:
    return standard(changes={header: value})


_ARABIC = str(_NOW).translate({48 + digit: 0x660 + digit for digit in range(10)})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing at all"),
        pytest.param(standard(timestamp=str(_NOW - TOLERANCE - 1)), id="301 s old"),
        pytest.param(standard(timestamp=str(_NOW + TOLERANCE + 1)), id="301 s in the future"),
        pytest.param(standard(timestamp="0"), id="of 1970"),
        *(
            pytest.param(standard(timestamp=given), id=f"timestamp {given!a}")
            for given in ("", "soon", "nan", "inf", "1.7e9", f"{_NOW}.0", f" {_NOW}", f"-{_NOW}", f"+{_NOW}", "\xb2")
        ),
        pytest.param(standard(timestamp="9" * 5000), id="an enormous timestamp"),
        pytest.param(_with("webhook-timestamp", _ARABIC), id="a timestamp in other digits"),
        pytest.param(_with("webhook-timestamp", None), id="timestamp missing"),
        pytest.param(_with("webhook-timestamp", str(_NOW + 1)), id="timestamp changed"),
        pytest.param(_with("webhook-id", None), id="id missing"),
        pytest.param(standard(sender=""), id="id empty"),
        pytest.param(_with("webhook-id", _ID + "x"), id="id changed"),
        pytest.param(standard(body=BODY + b" "), id="body changed"),
        pytest.param(standard(b"another key"), id="another key"),
        pytest.param(standard(b""), id="an empty key"),
        pytest.param(standard(_WHSEC.encode()), id="the whole secret as the key"),
        pytest.param(standard(_WHSEC[6:].encode()), id="the key not decoded"),
        pytest.param(_with("webhook-signature", None), id="signature missing"),
        pytest.param(_with("webhook-signature", ""), id="signature empty"),
        pytest.param(_with("webhook-signature", "v1,"), id="signature without content"),
        pytest.param(_with("webhook-signature", _SIGNATURE[3:]), id="signature without version"),
        pytest.param(_with("webhook-signature", "v2" + _SIGNATURE[2:]), id="signature of another version"),
        pytest.param(_with("webhook-signature", _SIGNATURE[:-1]), id="signature truncated"),
        pytest.param(_with("webhook-signature", f"{_SIGNATURE},{_SIGNATURE}"), id="signatures not split by a space"),
        pytest.param(_with("webhook-signature", _SIGNATURE + "\xe9"), id="signature that is not ASCII"),
        pytest.param(_with("webhook-signature", "v1," + digits(_WHSEC, BODY)), id="hexadecimal digits"),
        pytest.param({"x-gitlab-token": _WHSEC[6:]}, id="the plain token without its prefix"),
    ],
)
def test_a_signed_request_of_gitlab_that_is_not_quite_right_is_refused(headers: Mapping[str, str]) -> None:
    assert not _is_accepted(headers)


def test_a_secret_without_the_prefix_takes_no_signature() -> None:
    secret = _WHSEC[6:]
    assert not _is_accepted(standard(), secret)
    assert not _is_accepted(standard(secret.encode()), secret)
    assert _is_accepted({"x-gitlab-token": secret}, secret)


@pytest.mark.parametrize("secret", ["whsec_no base64!", "whsec_AAA", "whsec_schlüssel", "whsec_日本"], ids=ascii)
def test_a_secret_whose_key_is_no_base64_is_a_plain_token_still_and_signatures_break_nothing(secret: str) -> None:
    assert _is_accepted({"x-gitlab-token": secret.encode().decode("latin-1")}, secret)
    assert not _is_accepted(standard(), secret)


def test_the_prefix_alone_is_no_key_that_anybody_could_sign_with() -> None:
    assert not _is_accepted(standard(b""), "whsec_")


# Is it a push?


@pytest.mark.parametrize(
    ("provider", "headers", "payload", "expected"),
    [
        pytest.param("gitlab", {_GITLAB: "Push Hook"}, GITLAB_PUSH, True, id="gitlab push"),
        pytest.param("gitlab", {_GITLAB: "Tag Push Hook"}, _GITLAB_TAG_PUSH, True, id="gitlab tag push"),
        pytest.param("gitlab", {_GITLAB: "Push Hook"}, _GITLAB_DELETION, True, id="gitlab deletion"),
        pytest.param(
            "gitlab", {_GITLAB: "Merge Request Hook"}, _GITLAB_MERGE_REQUEST, False, id="gitlab merge request"
        ),
        pytest.param("gitlab", {_GITLAB: ""}, GITLAB_PUSH, False, id="gitlab empty event"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, _SYSTEM_PUSH, True, id="system hook push"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, _SYSTEM_TAG_PUSH, True, id="system hook tag push"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, _SYSTEM_UPDATE, True, id="system hook repository update"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, _SYSTEM_CREATION, False, id="system hook project creation"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, _SYSTEM_MERGE_REQUEST, False, id="system hook merge request"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, {"object_kind": "push"}, False, id="system hook, no event"),
        pytest.param("gitlab", {_GITLAB: "System Hook"}, {"event_name": ["push"]}, False, id="system hook, a list"),
        pytest.param("gitlab", {}, GITLAB_PUSH, True, id="gitlab push without a header"),
        pytest.param("gitlab", {}, {"object_kind": "tag_push"}, True, id="gitlab object kind alone"),
        pytest.param("gitlab", {}, _SYSTEM_UPDATE, True, id="gitlab event name alone"),
        pytest.param("gitlab", {}, _SYSTEM_CREATION, False, id="gitlab project creation without a header"),
        pytest.param("gitlab", {}, _GITLAB_MERGE_REQUEST, False, id="gitlab merge request without a header"),
        pytest.param("gitlab", {}, {"object_kind": None, "event_name": {}}, False, id="gitlab kinds of wrong types"),
        pytest.param("gitlab", {}, _SCRIPT, True, id="gitlab script"),
        pytest.param("github", {_GITHUB: "push"}, GITHUB_PUSH, True, id="github push"),
        pytest.param("github", {_GITHUB: "push"}, _GITHUB_DELETION, True, id="github push that deletes"),
        pytest.param("github", {_GITHUB: "create"}, _GITHUB_CREATE, True, id="github create"),
        pytest.param("github", {_GITHUB: "delete"}, _GITHUB_DELETE, True, id="github delete"),
        pytest.param("github", {_GITHUB: "ping"}, _GITHUB_PING, False, id="github ping"),
        pytest.param("github", {_GITHUB: "issues"}, _GITHUB_ISSUES, False, id="github issues"),
        pytest.param("github", {}, GITHUB_PUSH, True, id="github script"),
        pytest.param("gitea", {_GITEA: "push", _GITHUB: "push"}, GITEA_PUSH, True, id="gitea push"),
        pytest.param("gitea", {_GITEA: "delete", _GITHUB: "delete"}, _GITEA_DELETE, True, id="gitea delete"),
        pytest.param("gitea", {_GITEA: "issues", _GITHUB: "issues"}, _GITEA_ISSUES, False, id="gitea issues"),
        pytest.param("gitea", {_FORGEJO: "push", _GITEA: "push"}, GITEA_PUSH, True, id="forgejo push"),
        pytest.param("gitea", {_FORGEJO: "push"}, GITEA_PUSH, True, id="forgejo push with its own header alone"),
        pytest.param("gitea", {_FORGEJO: "issues"}, _GITEA_ISSUES, False, id="forgejo issues"),
        pytest.param("bitbucket", {_BITBUCKET: "repo:push"}, CLOUD_PUSH, True, id="cloud push"),
        pytest.param("bitbucket", {_BITBUCKET: "repo:push"}, _CLOUD_DELETION, True, id="cloud deletion"),
        pytest.param(
            "bitbucket", {_BITBUCKET: "pullrequest:created"}, _CLOUD_PULL_REQUEST, False, id="cloud pull request"
        ),
        pytest.param("bitbucket", {_BITBUCKET: "repo:refs_changed"}, CENTER_PUSH, True, id="data center push"),
        pytest.param("bitbucket", {_BITBUCKET: "diagnostics:ping"}, _CENTER_PING, False, id="data center ping"),
        pytest.param("bitbucket", {}, CENTER_BARE_PUSH, True, id="bitbucket script"),
    ],
)
def test_whether_it_is_a_push(
    provider: str, headers: Mapping[str, str], payload: Mapping[str, Any], expected: bool
) -> None:
    assert _PROVIDERS[provider].is_push(headers, payload) is expected


# The repository of a push


@pytest.mark.parametrize(
    ("provider", "payload", "urls", "path_end"),
    [
        pytest.param("gitlab", GITLAB_PUSH, {SSH, HTTP}, "", id="gitlab push"),
        pytest.param("gitlab", _GITLAB_TAG_PUSH, {SSH, HTTP}, "", id="gitlab tag push"),
        pytest.param("gitlab", _GITLAB_DELETION, {SSH, HTTP}, "", id="gitlab deletion"),
        pytest.param("gitlab", _SYSTEM_PUSH, {SSH, HTTP}, "", id="system hook push"),
        pytest.param("gitlab", _SYSTEM_UPDATE, {SSH, HTTP}, "", id="system hook repository update"),
        pytest.param("gitlab", _SCRIPT, {SSH}, "", id="gitlab script"),
        pytest.param("gitlab", {"project": {"git_http_url": HTTP}}, {HTTP}, "", id="gitlab project's http url alone"),
        pytest.param("gitlab", {"project": {"git_ssh_url": SSH}, "repository": None}, {SSH}, "", id="gitlab null part"),
        pytest.param(
            "gitlab",
            {"project": {"git_ssh_url": 7, "git_http_url": ""}, "repository": {"git_http_url": HTTP}},
            {HTTP},
            "",
            id="gitlab one good URL among bad ones",
        ),
        pytest.param("github", GITHUB_PUSH, {SSH, HTTP}, "", id="github push"),
        pytest.param("github", _GITHUB_DELETION, {SSH, HTTP}, "", id="github push that deletes"),
        pytest.param("github", _GITHUB_CREATE, {SSH, HTTP}, "", id="github create"),
        pytest.param("github", _GITHUB_DELETE, {SSH, HTTP}, "", id="github delete"),
        pytest.param("gitea", GITEA_PUSH, {SSH, HTTP}, "", id="gitea push"),
        pytest.param("gitea", _GITEA_DELETE, {SSH, HTTP}, "", id="gitea delete"),
        pytest.param("bitbucket", CLOUD_PUSH, {PAGE}, "", id="cloud push"),
        pytest.param("bitbucket", _CLOUD_DELETION, {PAGE}, "", id="cloud deletion"),
        pytest.param("bitbucket", CENTER_PUSH, {_CENTER_SSH, _CENTER_HTTP}, "", id="data center with links"),
        pytest.param("bitbucket", CENTER_BARE_PUSH, set(), "HOSTGROUPS/foo", id="data center without links"),
        pytest.param("bitbucket", _CENTER_PERSONAL_PUSH, set(), "~ann/foo", id="data center personal project"),
        pytest.param(
            "bitbucket",
            {"repository": {**_CENTER_REPOSITORY, "links": {"clone": None, "html": None}}},
            set(),
            "HOSTGROUPS/foo",
            id="data center with null links",
        ),
    ],
)
def test_what_was_pushed_to(provider: str, payload: Mapping[str, Any], urls: set[str], path_end: str) -> None:
    pushed = _PROVIDERS[provider].pushed(payload)
    assert (set(pushed.urls), pushed.path_end) == (urls, path_end)


# Malformed requests


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"   \n", id="blank"),
        pytest.param(b"hunter2", id="no JSON"),
        pytest.param(b"payload=%7B%22hunter2%22%7D", id="a form"),
        pytest.param(b"<hunter2/>", id="XML"),
        pytest.param(b'{"hunter2": ', id="truncated"),
        pytest.param(b'{"hunter2": 1}}', id="something behind"),
        pytest.param(b'["hunter2"]', id="a list"),
        pytest.param(b'"hunter2"', id="a string"),
        pytest.param(b"4711", id="a number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" * 200_000, id="deep nesting"),
        pytest.param(b'{"hunter2":' * 200_000, id="deep nesting of objects"),
        pytest.param(b"9" * 10_000, id="a number of ten thousand digits"),
        pytest.param(b'{"a": ' + b"9" * 10_000 + b"}", id="such a number within an object"),
        pytest.param(b'{"hunter2": "\xff\xfe"}', id="no UTF-8"),
        pytest.param(b'\xff\xfe{"hunter2"', id="half of UTF-16"),
        pytest.param(b'{"hunter2": "a\nb"}', id="a raw newline in a string"),
    ],
)
def test_a_body_that_is_no_json_object_is_malformed_and_not_quoted(body: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(body)
    assert_quotes_nothing(caught.value)


def assert_quotes_nothing(error: MalformedError) -> None:
    text = str(error)
    assert text
    assert not any(piece in text for piece in ("hunter2", "4711", "999", "[[", "\\x"))
    assert text.isprintable()


@pytest.mark.parametrize("text", ["{}", ' {"a": "ä"}\n', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', '\t{"a": NaN}'])
def test_a_json_object_is_a_payload(text: str) -> None:
    assert isinstance(parse(text.encode()), dict)


_WRONG_TYPES = [None, "", 4711, 1.5, True, ["hunter2"], {"hunter2": "hunter2"}, [], {}]


def _gitlab_with(value: Any) -> dict[str, Any]:
    urls = {"git_ssh_url": value, "git_http_url": value}
    return {"project": urls, "repository": urls}


def _github_with(value: Any) -> dict[str, Any]:
    return {"repository": {"ssh_url": value, "clone_url": value}}


def _bitbucket_with(value: Any) -> dict[str, Any]:
    links = {"clone": [{"href": value}, value], "html": {"href": value}}
    return {"repository": {"links": links, "project": {"key": value}, "slug": value}}


@pytest.mark.parametrize("value", _WRONG_TYPES, ids=repr)
@pytest.mark.parametrize(
    ("provider", "payload_with"),
    [
        pytest.param("gitlab", _gitlab_with, id="gitlab"),
        pytest.param("github", _github_with, id="github"),
        pytest.param("gitea", _github_with, id="gitea"),
        pytest.param("bitbucket", _bitbucket_with, id="bitbucket"),
    ],
)
def test_urls_of_wrong_types_are_malformed_and_not_quoted(provider: str, payload_with: Any, value: Any) -> None:
    with pytest.raises(MalformedError) as caught:
        _PROVIDERS[provider].pushed(payload_with(value))
    assert_quotes_nothing(caught.value)


@pytest.mark.parametrize("part", [None, "hunter2", 4711, ["hunter2"], {}, {"name": "hunter2"}], ids=repr)
@pytest.mark.parametrize("provider", _PROVIDERS)
def test_parts_that_are_null_or_of_wrong_types_are_malformed(provider: str, part: Any) -> None:
    payloads: list[Any] = [{}, {"project": part}, {"project": part, "repository": part}]
    payloads += [{"repository": {"links": part}}, {"repository": {"links": {"clone": part, "html": part}}}]
    payloads += [{"repository": {"project": part, "slug": "foo"}}, {"repository": {"slug": "foo"}}]
    for payload in payloads:
        with pytest.raises(MalformedError) as caught:
            _PROVIDERS[provider].pushed(payload)
        assert_quotes_nothing(caught.value)


# The repositories of the library that match

_APACHE, _MYAPP, _OTHER = RepoId(MODULES, "apache"), RepoId(HOSTGROUPS, "myapp"), RepoId(MODULES, "other")

_SPELLINGS = [
    "git@h.example.org:g/p.git",
    "h.example.org:g/p",
    "git@h.example.org:/g/p.git",
    "ssh://git@h.example.org:22/g/p.git",
    "ssh://h.example.org/g/p/",
    "https://h.example.org/g/p",
    "https://H.Example.ORG/g/p.git",
    "https://u@h.example.org/g/p.git/",
    "https://u:p@ss@h.example.org:8443/g/p.git",
    "http://h.example.org:8080/g/p",
    "git://h.example.org/g/p.git",
]
_LOCAL = ["file:///srv/x.git", "/srv/x.git", "/srv/x", "file:///srv/x/", "/srv/x.git/"]


def _matching(pushed: str | Pushed, *urls: str) -> list[RepoId]:
    library = dict(zip((_APACHE, _MYAPP, _OTHER), urls))
    return Index(Library(library, {})).matching(Pushed((pushed,)) if isinstance(pushed, str) else pushed)


@pytest.mark.parametrize("pushed", _SPELLINGS)
@pytest.mark.parametrize("url", _SPELLINGS)
def test_every_spelling_of_a_url_meets_every_other(url: str, pushed: str) -> None:
    assert _matching(pushed, url, "https://h.example.org/g/other") == [_APACHE]


@pytest.mark.parametrize("pushed", _LOCAL)
@pytest.mark.parametrize("url", _LOCAL)
def test_every_spelling_of_a_local_path_meets_every_other(url: str, pushed: str) -> None:
    assert _matching(pushed, url) == [_APACHE]


@pytest.mark.parametrize("spelling", ["git@{}:{}.git", "ssh://git@{}:22/{}", "https://{}/{}.git"])
@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("h.example.org", "g/p2"),
        ("h.example.org", "g2/p"),
        ("h2.example.org", "g/p"),
        ("h.example.org", "g/P"),
        ("h.example.org", "G/p"),
        ("h.example.org", "p"),
        ("h.example.org", "g"),
        ("h.example.org", "g/p/wiki"),
        ("h.example.org", "x/g/p"),
        ("xh.example.org", "g/p"),
        ("h.example.org.evil.example.org", "g/p"),
        ("example.org", "g/p"),
        ("h.example.org", "g/p.wiki"),
        ("h.example.org", "g/pxgit"),
    ],
)
def test_near_misses_do_not_match(host: str, path: str, spelling: str) -> None:
    for url in _SPELLINGS:
        assert _matching(spelling.format(host, path), url) == []
        assert _matching(url, spelling.format(host, path)) == []


@pytest.mark.parametrize(
    "url",
    ["", "/", "https://", "h.example.org", "g/p", "://", "file://", ":", "@", "\ud800", "https://h.example.org\n"],
)
def test_what_is_no_url_matches_nothing(url: str) -> None:
    assert _matching(url, *_SPELLINGS[:2], "/srv/x.git") == []


def test_a_local_path_is_on_no_server() -> None:
    assert _matching("/g/p.git", "https://h.example.org/g/p.git") == []
    assert _matching("https://h.example.org/srv/x.git", "/srv/x.git") == []


def test_all_repositories_with_the_pushed_url_match_and_each_once() -> None:
    pushed = Pushed(("https://h.example.org/g/p", "git@h.example.org:g/p.git", "https://elsewhere.example.org/g/p"))
    assert _matching(pushed, "ssh://git@h.example.org/g/p", "https://h.example.org/g/p.git", "/srv/x") == [
        _MYAPP,
        _APACHE,
    ]


def test_repositories_at_different_urls_of_one_push_match() -> None:
    pushed = Pushed(("https://h.example.org/scm/g/p.git", "ssh://git@h.example.org:7999/g/p.git"))
    assert _matching(pushed, "https://h.example.org/scm/g/p.git", "ssh://git@h.example.org:7999/g/p.git") == [
        _MYAPP,
        _APACHE,
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://git.example.org/scm/HG/foo.git", True),
        ("https://git.example.org/scm/hg/foo.git", True),
        ("https://git.example.org/bitbucket/scm/hg/foo", True),
        ("ssh://git@git.example.org:7999/hg/foo.git", True),
        ("git@git.example.org:HG/foo.git", True),
        ("/srv/hg/foo.git", True),
        ("https://git.example.org/scm/xhg/foo.git", False),
        ("https://git.example.org/scm/hg/xfoo.git", False),
        ("https://git.example.org/scm/hg/foo2.git", False),
        ("https://git.example.org/scm/hg2/foo.git", False),
        ("https://git.example.org/scm/hg/foo/more.git", False),
        ("https://git.example.org/foo.git", False),
        ("https://git.example.org/hg", False),
        ("https://hg/foo.git", False),
        ("git@hg:foo.git", False),
    ],
)
def test_the_end_of_a_path_matches_the_last_two_components_whole(url: str, expected: bool) -> None:
    assert _matching(Pushed(path_end="HG/foo"), url) == ([_APACHE] if expected else [])


def test_the_end_of_a_path_of_a_personal_project_matches() -> None:
    pushed = _PROVIDERS["bitbucket"].pushed(_CENTER_PERSONAL_PUSH)
    urls = ["https://git.example.org/scm/~ann/foo.git", "ssh://git@git.example.org:7999/~ANN/foo.git"]
    assert _matching(pushed, *urls, "https://git.example.org/scm/ann/foo.git") == [_MYAPP, _APACHE]


@pytest.mark.parametrize(
    ("provider", "payload", "url"),
    [
        ("gitlab", GITLAB_PUSH, "ssh://git@git.example.org:22/hostgroups/foo"),
        ("github", GITHUB_PUSH, "https://git.example.org/hostgroups/foo"),
        ("gitea", GITEA_PUSH, "git@git.example.org:hostgroups/foo"),
        ("bitbucket", CLOUD_PUSH, "git@git.example.org:hostgroups/foo.git"),
        ("bitbucket", CENTER_PUSH, "https://git.example.org/scm/hostgroups/foo"),
        ("bitbucket", CENTER_PUSH, "ssh://git@git.example.org:7999/hostgroups/foo"),
        ("bitbucket", CENTER_BARE_PUSH, "https://git.example.org/scm/hostgroups/foo.git"),
    ],
)
def test_from_the_body_to_the_repository(provider: str, payload: Mapping[str, Any], url: str) -> None:
    pushed = _PROVIDERS[provider].pushed(parse(json.dumps(payload).encode()))
    assert _matching(pushed, url, "https://git.example.org/hostgroups/other") == [_APACHE]


# The branches of a push


_MOVED, _DELETED = Move("master", _BEFORE, _AFTER), Move("master", _BEFORE, "")


@pytest.mark.parametrize(
    ("provider", "payload", "expected"),
    [
        pytest.param("gitlab", GITLAB_PUSH, (_MOVED,), id="GitLab"),
        pytest.param("gitlab", _GITLAB_DELETION, (_DELETED,), id="a deletion, GitLab"),
        pytest.param("gitlab", {**GITLAB_PUSH, "before": _NOBODY}, (Move("master", "", _AFTER),), id="a new branch"),
        pytest.param("gitlab", _GITLAB_TAG_PUSH, (), id="a tag, GitLab"),
        pytest.param("gitlab", _SYSTEM_UPDATE, (_MOVED,), id="several refs, GitLab"),
        pytest.param("github", GITHUB_PUSH, (_MOVED,), id="GitHub"),
        pytest.param("github", _GITHUB_DELETION, (_DELETED,), id="a deletion, GitHub"),
        pytest.param("github", _GITHUB_CREATE, (), id="an event of its own for a new branch"),
        pytest.param("gitea", GITEA_PUSH, (_MOVED,), id="Gitea"),
        pytest.param("bitbucket", CLOUD_PUSH, (Move("master", _AFTER, _AFTER),), id="Bitbucket Cloud"),
        pytest.param("bitbucket", _CLOUD_DELETION, (Move("master", _AFTER, ""),), id="a deletion, Bitbucket Cloud"),
        pytest.param("bitbucket", CENTER_PUSH, (_MOVED,), id="Bitbucket Data Center"),
        pytest.param("gitlab", {"ref": "refs/heads/x"}, (), id="without commits"),
        pytest.param("gitlab", {"ref": 5, "after": _AFTER}, (), id="a ref that is no text"),
        pytest.param("gitlab", {**GITLAB_PUSH, "after": "HEAD"}, (), id="no commit"),
        pytest.param("gitlab", {**GITLAB_PUSH, "after": ["x"]}, (), id="a list for a commit"),
        pytest.param("gitlab", {**GITLAB_PUSH, "ref": "refs/heads/../x"}, (), id="no branch"),
        pytest.param("gitlab", {"changes": [GITLAB_PUSH, 5, None, []]}, (_MOVED,), id="one good change of several"),
        pytest.param("gitlab", {"changes": [GITLAB_PUSH] * 500}, (_MOVED,) * 100, id="very many"),
        pytest.param("bitbucket", {"push": {"changes": [5, {"new": {"type": "tag", "name": "v1"}}]}}, (), id="a tag"),
        pytest.param("bitbucket", {"push": 5, "changes": "x"}, (), id="nothing of the kind"),
    ],
)
def test_the_moves_of_branches_in_a_push(provider: str, payload: Mapping[str, Any], expected: tuple[Move, ...]) -> None:
    assert _PROVIDERS[provider].moves(payload) == expected
