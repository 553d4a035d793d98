"""The producer, from the request of a Git server to a hint in the queue; in one process and in real servers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import io
import json
import logging
import os
import pickle
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from werkzeug.test import Client, TestResponse

from jens.commands import gitlab_producer_runner
from jens.commands.gitlab_producer_runner import application
from jens.commands.logs import tear_down_logging
from jens.config import load_config
from jens.gitlabproducer.app import create_app
from jens.gitlabproducer.limits import LARGEST_BODY
from jens.gitlabproducer.webhooks import Index
from tests import TREE
from tests.conftest import Remote, Site, git
from tests.unit.gitlabproducer.test_webhooks import (
    CENTER_BARE_PUSH,
    CENTER_PUSH,
    CLOUD_PUSH,
    GITEA_PUSH,
    GITHUB_PUSH,
    GITLAB_PUSH,
    SSH,
    WAYS,
    proof,
)

FOO = "hostgroups/foo"
SECRET = "s3cret-Tok3n"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[\d+\] (DEBUG|INFO|WARNING|ERROR) .+")
ADDED = re.compile(r"INFO (\S+) - ([a-z]+/\w+) - '([0-9a-f]{8}/[0-9a-f]{14})' added to the queue")
PUSH_HEADER = {"X-Gitlab-Event": "Push Hook"}

OK, NOT_FOUND = (201, "OK"), (200, "Repository not found")
MALFORMED, UNAUTHORISED = (400, "Malformed request"), (401, "Unauthorised")
NO_QUEUE, FAILED = (500, "Queue not accessible"), (500, "Internal Server Error!")


@pytest.fixture
def site(bare_site: Site) -> Iterator[Site]:
    """A site whose library has one repository and has been fetched."""
    bare_site.urls[FOO] = SSH
    follow(bare_site)
    level = logging.getLogger().level
    yield bare_site
    tear_down_logging()
    logging.getLogger().setLevel(level)


def follow(site: Site, text: str | None = None) -> None:
    """Push the library, and fetch it without a run."""
    site.publish(text)
    take_over(site)


def take_over(site: Site) -> None:
    clone = site.root / "metadata" / "repository"
    git("fetch", "-q", directory=clone)
    git("reset", "-q", "--hard", "origin/master", directory=clone)


def client_of(site: Site) -> Client:
    return Client(create_app(load_config(site.config)))


def logging_client_of(site: Site) -> Client:
    return Client(application(str(site.config)))


def log_of(site: Site) -> list[str]:
    path = site.root / "log" / "jens-gitlab-producer.log"
    return path.read_bytes().decode().splitlines() if path.exists() else []


def messages_of(site: Site, level: str = "") -> list[str]:
    """The log's lines without time and process."""
    lines = [line.split("] ", 1)[1] for line in log_of(site)]
    return [line for line in lines if line.startswith(level)]


def said(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_data(as_text=True)


def post(
    client: Client, path: str = "/gitlab", payload: Any = GITLAB_PUSH, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Send a payload: bytes unchanged, anything else as JSON."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return said(client.post(path, data=body, headers=dict(headers or {})))


def signed(way: str, body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {WAYS[way][1]: proof(way, secret, body)}


def pushed_to(url: str) -> dict[str, Any]:
    return {"object_kind": "push", "project": {"git_http_url": url}}


# The statuses


def test_every_response_has_its_status_and_its_text(site: Site) -> None:
    site.settings["gitlabproducer.secret_token"] = SECRET
    client = client_of(site)
    token = {"X-Gitlab-Token": SECRET}
    assert {
        "a push": post(client, headers=token),
        "with its event": post(client, headers={**token, **PUSH_HEADER}),
        "with a slash behind the path": post(client, "/gitlab/", headers=token),
        "of a script": post(client, payload={"repository": {"git_ssh_url": SSH}}, headers=token),
        "not in the library": post(client, payload=pushed_to("https://git.example.org/other/x"), headers=token),
        "empty": post(client, payload=b"", headers=token),
        "no JSON": post(client, payload=b"payload=1", headers=token),
        "a list": post(client, payload=[GITLAB_PUSH], headers=token),
        "deep": post(client, payload=b"[" * 200_000, headers=token),
        "without a URL": post(client, payload={"object_kind": "push"}, headers=token),
        "without a token": post(client),
        "with an empty token": post(client, headers={"X-Gitlab-Token": ""}),
        "with a wrong token": post(client, headers={"X-Gitlab-Token": SECRET + "x"}),
        "with a token that is not ASCII": post(client, headers={"X-Gitlab-Token": "\xff\xe9"}),
        "malformed without a token": post(client, payload=b"["),
    } == {
        "a push": OK,
        "with its event": OK,
        "with a slash behind the path": OK,
        "of a script": OK,
        "not in the library": NOT_FOUND,
        "empty": MALFORMED,
        "no JSON": MALFORMED,
        "a list": MALFORMED,
        "deep": MALFORMED,
        "without a URL": MALFORMED,
        "without a token": UNAUTHORISED,
        "with an empty token": UNAUTHORISED,
        "with a wrong token": UNAUTHORISED,
        "with a token that is not ASCII": UNAUTHORISED,
        "malformed without a token": UNAUTHORISED,
    }
    assert site.hinted() == [FOO] * 4


def test_pings_and_events_that_are_no_push_are_fine_and_leave_no_hint(site: Site) -> None:
    client = client_of(site)
    for path, header, event in (
        ("/gitlab", "X-Gitlab-Event", "Merge Request Hook"),
        ("/github", "X-GitHub-Event", "ping"),
        ("/github", "X-GitHub-Event", "issues"),
        ("/gitea", "X-Gitea-Event", "issues"),
        ("/bitbucket", "X-Event-Key", "diagnostics:ping"),
        ("/bitbucket", "X-Event-Key", "pullrequest:created"),
    ):
        assert post(client, path, {"test": True}, {header: event})[0] == 200
    assert site.hinted() == []


def test_other_methods_are_405_with_those_that_are_allowed_and_other_paths_404(site: Site) -> None:
    client = client_of(site)
    for path in ("/gitlab", "/github", "/gitea", "/bitbucket"):
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = client.open(path, method=method)
            assert response.status_code == 405
            assert "POST" in response.headers["Allow"]
            assert "GET" not in response.headers["Allow"]
    response = client.post("/healthz")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    for path in ("/", "/gitlab/x", "/gitla", "/GITLAB", "/static/x", "/../gitlab", "/<script>"):
        response = client.post(path, data=json.dumps(GITLAB_PUSH))
        assert response.status_code == 404
        assert "script" not in response.get_data(as_text=True)
    assert site.hinted() == []


def test_the_body_is_json_whatever_its_content_type_says(site: Site) -> None:
    client = client_of(site)
    kinds = ["application/json", "application/json; charset=utf-8", "text/plain", "application/octet-stream", "x", ""]
    kinds += ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=x"]
    for kind in kinds:
        assert post(client, headers={"Content-Type": kind}) == OK, kind
    assert len(site.hinted()) == len(kinds)


def test_answers_are_plain_text_with_the_payload_nowhere_in_it(site: Site) -> None:
    client = client_of(site)
    for payload in (GITLAB_PUSH, pushed_to("https://git.example.org/<b>x</b>"), b"<b>"):
        body = payload if isinstance(payload, bytes) else json.dumps(payload)
        response = client.post("/gitlab", data=body)
        assert response.content_type == "text/plain; charset=utf-8"
        assert "<" not in response.get_data(as_text=True)


# The size


def padded(size: int) -> bytes:
    return json.dumps(GITLAB_PUSH).encode().ljust(size)


def test_a_body_of_5_mib_is_read_and_one_byte_more_is_refused(site: Site) -> None:
    client = client_of(site)
    assert LARGEST_BODY == 5 * 1024 * 1024
    assert post(client, payload=padded(LARGEST_BODY)) == OK
    assert post(client, payload=padded(LARGEST_BODY + 1))[0] == 413
    assert site.hinted() == [FOO]


def test_the_size_of_a_chunked_body_is_counted_whatever_the_headers_say(site: Site) -> None:
    client = client_of(site)

    def send(size: int, **headers: str) -> int:
        environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", **headers}
        stream = io.BytesIO(padded(size))
        return client.post("/gitlab", input_stream=stream, environ_overrides=environ).status_code

    assert send(LARGEST_BODY) == 201
    assert send(LARGEST_BODY + 1) == 413
    for length in ("0", "10", "99999999999999"):
        assert send(LARGEST_BODY, CONTENT_LENGTH=length) == 201
        assert send(LARGEST_BODY + 1, CONTENT_LENGTH=length) == 413
    assert site.hinted() == [FOO] * 4


# Hints


@dataclass(frozen=True)
class Sender:
    path: str
    way: str
    event: Mapping[str, str]
    payload: Mapping[str, Any]


SENDERS = {
    "GitLab": Sender("/gitlab", "GitLab", PUSH_HEADER, GITLAB_PUSH),
    "GitHub": Sender("/github", "GitHub", {"X-GitHub-Event": "push"}, GITHUB_PUSH),
    "Gitea": Sender("/gitea", "Gitea", {"X-Gitea-Event": "push", "X-GitHub-Event": "push"}, GITEA_PUSH),
    "Forgejo": Sender("/gitea", "Forgejo", {"X-Forgejo-Event": "push", "X-Gitea-Event": "push"}, GITEA_PUSH),
    "Bitbucket Cloud": Sender("/bitbucket", "Bitbucket", {"X-Event-Key": "repo:push"}, CLOUD_PUSH),
    "Bitbucket DC": Sender("/bitbucket", "Bitbucket", {"X-Event-Key": "repo:refs_changed"}, CENTER_PUSH),
    "Bitbucket DC without links": Sender(
        "/bitbucket", "Bitbucket", {"X-Event-Key": "repo:refs_changed"}, CENTER_BARE_PUSH
    ),
}


@pytest.mark.parametrize("name", SENDERS)
def test_from_the_request_of_a_server_to_a_hint_and_a_line_of_the_log(site: Site, name: str) -> None:
    sender = SENDERS[name]
    site.settings["gitlabproducer.secret_token"] = SECRET
    client = logging_client_of(site)
    body = json.dumps(sender.payload).encode()
    begin = datetime.now()
    assert post(client, sender.path, body, {**sender.event, **signed(sender.way, body)}) == OK
    assert post(client, sender.path, body + b" ", {**sender.event, **signed(sender.way, body, "other")}) == UNAUTHORISED
    end = datetime.now()

    queue = site.queue
    [element] = queue.names()
    assert queue.lock(element)
    fields = queue.get(element)
    assert pickle.loads(fields["data"]) == {"hostgroups": ["foo"]}  # noqa: S301 - our own
    assert begin - timedelta(seconds=1) <= datetime.fromisoformat(fields["time"]) <= end
    assert f"INFO {fields['time']} - hostgroups/foo - '{element}' added to the queue" in messages_of(site)


def test_whatever_the_secret_is_made_of_who_knows_it_is_let_in(site: Site) -> None:
    for secret in ("pässwörd", "секрет", "a, b # c", "100%s"):
        site.settings["gitlabproducer.secret_token"] = f'"{secret}"'
        client = client_of(site)
        for sender in SENDERS.values():
            body = json.dumps(sender.payload).encode()
            assert post(client, sender.path, body, {**sender.event, **signed(sender.way, body, secret)}) == OK
            assert post(client, sender.path, body, signed(sender.way, body, "other")) == UNAUTHORISED


def test_gitlab_may_sign_instead_of_sending_its_token(site: Site) -> None:
    key = bytes(range(24))
    site.settings["gitlabproducer.secret_token"] = secret = "whsec_" + base64.b64encode(key).decode()
    client = client_of(site)
    body = json.dumps(GITLAB_PUSH).encode()

    def headers(age: float) -> dict[str, str]:
        sent = str(int(time.time() - age))
        signature = hmac.new(key, f"msg_1.{sent}.".encode() + body, hashlib.sha256).digest()
        texts = ["v1," + base64.b64encode(text).decode() for text in (b"?" * 32, signature)]
        return {"webhook-id": "msg_1", "webhook-timestamp": sent, "webhook-signature": " ".join(texts), **PUSH_HEADER}

    assert post(client, payload=body, headers=headers(0)) == OK
    assert post(client, payload=body, headers=headers(290)) == OK
    assert post(client, payload=body, headers=headers(310)) == UNAUTHORISED
    assert post(client, payload=body, headers=headers(-310)) == UNAUTHORISED
    assert post(client, payload=body + b" ", headers=headers(0)) == UNAUTHORISED
    assert post(client, payload=body, headers={"X-Gitlab-Token": secret}) == OK
    assert site.hinted() == [FOO] * 3


def test_without_a_secret_every_request_is_accepted_and_a_warning_says_so_once(site: Site) -> None:
    client = logging_client_of(site)
    for sender in SENDERS.values():
        assert post(client, sender.path, sender.payload, sender.event) == OK
    assert post(client, headers={"X-Gitlab-Token": "anything"}) == OK
    assert len(site.hinted()) == len(SENDERS) + 1
    [line] = messages_of(site, "WARNING")
    assert "secret_token" in line
    assert str(site.root / "main.conf") in line


def test_with_a_secret_there_is_no_such_warning(site: Site) -> None:
    site.settings["gitlabproducer.secret_token"] = SECRET
    post(logging_client_of(site), headers={"X-Gitlab-Token": SECRET})
    assert messages_of(site, "WARNING") == []


def test_all_repositories_with_the_pushed_url_are_hinted_with_a_message_each(site: Site) -> None:
    site.urls["modules/foo"] = "ssh://git@git.example.org:22/hostgroups/foo"
    site.urls["modules/foo2"] = "https://git.example.org/hostgroups/foo2"
    follow(site)
    client = logging_client_of(site)
    assert post(client) == OK
    assert site.hinted() == [FOO, "modules/foo"]
    names = list(site.queue.names())
    assert len(names) == 2
    added = [match for match in map(ADDED.fullmatch, messages_of(site)) if match]
    assert {match.group(2): match.group(3) in names for match in added} == {FOO: True, "modules/foo": True}


def test_local_urls_are_matched_too(site: Site) -> None:
    site.urls["modules/local"] = "/srv/git/local.git"
    follow(site)
    assert post(client_of(site), payload=pushed_to("file:///srv/git/local")) == OK
    assert site.hinted() == ["modules/local"]


def test_a_hint_is_what_a_run_on_demand_works_from(site: Site) -> None:
    del site.urls[FOO]
    dummy = site.add("modules/dummy")
    follow(site)
    site.define("production")
    site.settings["main.mode"] = "ONDEMAND"
    assert site.update().code == 0
    commit = dummy.push({"code/manifests/init.pp": "# new\n"})
    assert post(client_of(site), payload=pushed_to(dummy.url)) == OK
    assert site.update("--strict").code == 0
    assert site.expanded("modules/dummy")["master"] == commit
    assert site.hinted() == []


# The library


def test_the_library_is_read_from_the_commit_not_from_the_work_tree(site: Site) -> None:
    client = client_of(site)
    payload = pushed_to("https://git.example.org/modules/new.git")
    path = site.root / "metadata" / "repository" / "repositories.yaml"
    text = path.read_text().replace("modules: {}", "modules: {new: 'git@git.example.org:modules/new.git'}")
    path.write_text(text)
    assert post(client, payload=payload) == NOT_FOUND
    path.unlink()
    assert post(client) == OK
    follow(site, text)
    assert post(client, payload=payload) == OK
    follow(site, text.replace("modules/new.git", "modules/moved.git"))
    assert post(client, payload=payload) == NOT_FOUND
    assert site.hinted() == [FOO, "modules/new"]


def test_a_library_that_is_pushed_but_not_taken_over_has_no_effect_yet(site: Site) -> None:
    client = client_of(site)
    site.urls["modules/new"] = "git@git.example.org:modules/new.git"
    site.publish()
    assert post(client, payload=pushed_to(site.urls["modules/new"])) == NOT_FOUND
    take_over(site)
    assert post(client, payload=pushed_to(site.urls["modules/new"])) == OK


def healthz(client: Client) -> tuple[int, str]:
    return said(client.get("/healthz"))


def test_a_new_library_that_is_unusable_leaves_the_last_good_one_in_use(site: Site) -> None:
    client = logging_client_of(site)
    assert post(client) == OK
    assert healthz(client) == (200, "OK")
    for number, text in enumerate(("nothing: here\n", "repositories: [\n", "", None), 1):
        if text is None:
            site.library.push({"repositories.yaml": None})
            take_over(site)
        else:
            follow(site, text)
        for _ in range(3):
            assert post(client) == OK
        status, why = healthz(client)
        assert status == 503
        assert str(site.root / "metadata" / "repository" / "repositories.yaml") in why
        errors = messages_of(site, "ERROR")
        assert len(errors) == number, "each problem is said once"
        assert why in errors[-1]
    follow(site)
    assert healthz(client) == (200, "OK")
    assert post(client) == OK


def test_a_clone_that_is_away_for_a_moment_leaves_the_last_good_library_in_use(site: Site) -> None:
    client = client_of(site)
    assert post(client) == OK
    clone = site.root / "metadata" / "repository"
    clone.rename(clone.with_name("away"))
    assert post(client) == OK
    assert healthz(client)[0] == 503
    clone.with_name("away").rename(clone)
    assert healthz(client) == (200, "OK")


def test_without_ever_a_usable_library_nothing_is_accepted_until_there_is_one(site: Site) -> None:
    follow(site, "nothing: here\n")
    client = logging_client_of(site)
    assert [post(client) for _ in range(2)] == [FAILED] * 2
    assert post(client, payload=b"[") == MALFORMED
    assert healthz(client)[0] == 503
    assert any("repositories.yaml" in line for line in messages_of(site, "ERROR"))
    assert not any("Traceback" in line for line in log_of(site))
    follow(site)
    assert post(client) == OK
    assert healthz(client) == (200, "OK")


# The queue


def test_a_queue_that_cannot_be_used_is_reported_and_used_again_when_it_is_back(site: Site) -> None:
    client = logging_client_of(site)
    spool = site.root / "spool"
    spool.rmdir()
    assert post(client) == NO_QUEUE
    status, why = healthz(client)
    assert (status, str(spool) in why) == (503, True)
    assert not spool.exists()
    spool.write_text("")
    assert post(client) == NO_QUEUE
    assert healthz(client)[0] == 503
    assert len(messages_of(site, "ERROR")) == 2
    assert not any(ADDED.fullmatch(line) for line in messages_of(site))
    assert post(client, payload=pushed_to("https://git.example.org/other/x")) == NOT_FOUND
    spool.unlink()
    spool.mkdir()
    assert post(client) == OK
    assert healthz(client) == (200, "OK")
    assert site.hinted() == [FOO]


def test_health_tells_of_library_and_queue_at_once_and_needs_no_secret(site: Site) -> None:
    site.settings["gitlabproducer.secret_token"] = SECRET
    client = client_of(site)
    assert healthz(client) == (200, "OK")
    follow(site, "nothing: here\n")
    (site.root / "spool").rmdir()
    status, why = healthz(client)
    assert status == 503
    assert "repositories.yaml" in why
    assert str(site.root / "spool") in why
    assert SECRET not in why


def test_a_request_for_health_changes_nothing_in_the_queue(site: Site) -> None:
    client = client_of(site)
    before = site.listing("spool")
    assert healthz(client) == (200, "OK")
    assert site.listing("spool") == before


# The log


def test_the_log_may_be_rotated_under_a_running_producer(site: Site) -> None:
    client = logging_client_of(site)
    assert post(client) == OK
    log = site.root / "log" / "jens-gitlab-producer.log"
    log.rename(log.with_name("jens-gitlab-producer.log.1"))
    before = log.with_name("jens-gitlab-producer.log.1").read_bytes()
    assert post(client) == OK
    assert [bool(ADDED.fullmatch(line)) for line in messages_of(site)] == [True]
    assert log.with_name("jens-gitlab-producer.log.1").read_bytes() == before


FORGED = "2015-12-10 14:43:01,705 [1] INFO forged"


def test_a_log_that_cannot_be_opened_anew_stops_nothing(site: Site) -> None:
    client = logging_client_of(site)
    path = site.root / "log" / "jens-gitlab-producer.log"
    path.unlink()
    path.mkdir()  # like a file of another user, it cannot be opened
    assert post(client) == OK
    assert post(client) == OK
    assert site.hinted() == [FOO] * 2
    assert len(site.capture.readouterr().err.splitlines()) == 1
    path.rmdir()
    assert post(client) == OK
    assert len(log_of(site)) == 1


class Broken(io.RawIOBase):
    """A body whose sender closes the connection."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise ConnectionResetError("gone")


def test_a_body_that_never_comes_is_malformed(site: Site) -> None:
    client = logging_client_of(site)
    length = {"CONTENT_LENGTH": "100"}
    assert said(client.post("/gitlab", environ_overrides={**length, "wsgi.input": Broken()}))[0] == 400
    assert said(client.post("/gitlab", environ_overrides={**length, "wsgi.input": io.BytesIO(b"{")})) == MALFORMED
    assert messages_of(site, "ERROR") == []


def test_a_full_disk_is_reported_and_leaves_no_incomplete_hint(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client, statvfs = client_of(site), os.statvfs
    for field in ("f_bavail", "f_favail"):

        def full(path: Path, field: str = field) -> object:
            found = statvfs(path)
            names = ("f_bavail", "f_favail", "f_files")
            return types.SimpleNamespace(**{**{name: getattr(found, name) or 1 for name in names}, field: 0})

        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", full)
            before = site.listing("spool")
            assert post(client) == (500, "Queue not accessible")
            code, text = healthz(client)
            assert (code, "No space left" in text) == (503, True)
            assert site.listing("spool") == before
        assert healthz(client) == (200, "OK")


def test_no_payload_can_forge_a_line_of_the_log(site: Site) -> None:
    site.settings["main.debuglevel"] = "DEBUG"
    client = logging_client_of(site)
    separators = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x1b[2J", "\b", "\u202e")
    for separator in (*separators, "\ud800", "\udcff"):
        url = f"https://git.example.org/x{separator}{FORGED}{separator}"
        assert post(client, payload=pushed_to(url)) == NOT_FOUND
        assert post(client, "/github", {"repository": {"ssh_url": f"git@git.example.org:{separator}{FORGED}"}}) == (
            NOT_FOUND
        )
        bare = {"repository": {"project": {"key": f"HG{separator}{FORGED}"}, "slug": f"x{separator}"}}
        assert post(client, "/bitbucket", bare) == NOT_FOUND
        post(client, f"/{separator!a}".replace("'", ""), headers={"X-Gitlab-Event": FORGED})
    lines = log_of(site)
    assert len(lines) > 3 * len(separators)
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line for line in lines if line.startswith(FORGED)] == []
    assert [line for line in lines if not line.isprintable()] == []


URLS_WITH_SECRETS = [
    "https://ann:hunter2@git.example.org/other/x",
    "https://ann:hun@hunter2@git.example.org/other/x",
    "https://ann:hunter2'\"@git.example.org/other/x",
    "https://ann:hunter2?@git.example.org/other/x",
    "ssh://ann:hunter2@git.example.org:22/other/x",
    "ann:hunter2@git.example.org:other/x",
    "https://git.example.org/other/x?private_token=hunter2",
    "https://git.example.org/other/x?" + "a" * 500 + "hunter2",
    "https://ann:hunter2\n@git.example.org/other/x",
    "https://ann:hun hunter2@git.example.org/other/x",
]


def test_user_names_and_passwords_in_urls_are_not_logged(site: Site) -> None:
    site.settings["main.debuglevel"] = "DEBUG"
    client = logging_client_of(site)
    for url in URLS_WITH_SECRETS:
        assert post(client, payload=pushed_to(url)) == NOT_FOUND
    lines = [line for line in messages_of(site) if "no repository of the library" in line]
    assert len(lines) == len(URLS_WITH_SECRETS)
    assert [line for line in messages_of(site) if "ann" in line or "hunter2" in line] == []


def test_an_enormous_url_makes_no_enormous_line_and_takes_no_time(site: Site) -> None:
    client = logging_client_of(site)
    begin = time.process_time()
    for piece in ("a", "@", ":", "a:@", "/", "'", " a@", "://", ".git/"):
        url = "https://git.example.org/" + piece * (2**20 // len(piece))
        assert post(client, payload=pushed_to(url)) == NOT_FOUND
        assert post(client, payload=pushed_to(url.partition("//")[2])) == NOT_FOUND
    assert time.process_time() - begin < 10
    assert max(len(line) for line in log_of(site)) < 2000


def test_no_secret_no_signature_and_no_payload_is_ever_logged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings.update({"gitlabproducer.secret_token": SECRET, "main.debuglevel": "DEBUG"})
    site.capture.readouterr()
    client = logging_client_of(site)
    used = {SECRET}

    def everything() -> set[int]:
        statuses = set()
        for sender in SENDERS.values():
            marked = {**sender.payload, "user_name": "marker-4711"}
            other = {"repository": {**sender.payload["repository"], "slug": "other"}, "user_name": "marker-4711"}
            for payload in (marked, {**other, "object_kind": "marker-4711"}, {"object_kind": "push"}, ["marker-4711"]):
                body = json.dumps(payload).encode()
                for headers in (signed(sender.way, body), signed(sender.way, body, "refused-T0ken"), {}):
                    used.update(headers.values())
                    headers.update({"X-Request": "marker-4711", "Authorization": "Bearer refused-T0ken"})
                    statuses.add(post(client, f"{sender.path}?token={SECRET}", body, headers)[0])
            body = b'{"marker-4711"'
            statuses.add(post(client, sender.path, body, signed(sender.way, body))[0])
            statuses.add(post(client, sender.path, body.ljust(LARGEST_BODY + 1), signed(sender.way, body))[0])
        return statuses

    assert everything() == {200, 201, 400, 401, 413}
    with monkeypatch.context() as patched:
        patched.setattr(Index, "matching", _quote)
        assert 500 in everything()
    shutil.rmtree(site.root / "spool")
    assert 500 in everything()
    follow(site, "nothing: here\n")
    everything()
    follow(site)

    text = (site.root / "log" / "jens-gitlab-producer.log").read_text()
    captured = site.capture.readouterr()
    assert text.count("\n") > 50
    for what in used | {"refused-T0ken", "marker-4711"}:
        for part in (what, what.removeprefix("sha256=")[:16]):
            assert part not in text
            assert part not in captured.out + captured.err
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []


def _quote(_index: Index, pushed: object) -> NoReturn:
    raise ValueError(f"cannot make anything of {pushed}\n{FORGED}\nmarker-4711")


def test_an_unforeseen_error_is_one_line_that_quotes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = logging_client_of(site)
    before = log_of(site)
    with monkeypatch.context() as patched:
        patched.setattr(Index, "matching", _quote)
        assert post(client) == FAILED
    lines = log_of(site)[len(before) :]
    [line] = [line for line in lines if " ERROR " in line]
    assert LINE.fullmatch(line)
    assert "ValueError" in line
    assert "gitlabproducer.py" in line
    assert "git.example.org" not in "".join(lines)
    assert "marker-4711" not in "".join(lines)
    assert "forged" not in "".join(lines)
    assert post(client) == OK


# Several applications


def test_two_applications_in_one_process_do_not_mix(site: Site) -> None:
    library = Remote.create(site.root / "remotes" / "other")
    text = "repositories: {common: {}, hostgroups: {}, modules: {theirs: 'https://git.example.org/hostgroups/foo'}}\n"
    library.push({"repositories.yaml": text})
    git("clone", "-q", library.url, str(site.root / "metadata" / "other"), directory=site.root)
    (site.root / "queue").mkdir()
    site.settings["gitlabproducer.secret_token"] = SECRET
    ours = client_of(site)
    site.settings["gitlabproducer.secret_token"] = "other"
    site.settings["messaging.queuedir"] = str(site.root / "queue")
    site.settings["main.repositorymetadatadir"] = str(site.root / "metadata" / "other")
    site.settings["main.repositorymetadata"] = str(site.root / "metadata" / "other" / "repositories.yaml")
    theirs = client_of(site)

    assert post(ours, headers={"X-Gitlab-Token": "other"}) == UNAUTHORISED
    assert post(theirs, headers={"X-Gitlab-Token": SECRET}) == UNAUTHORISED
    assert post(ours, headers={"X-Gitlab-Token": SECRET}) == OK
    assert site.listing("queue") == {}
    assert post(theirs, headers={"X-Gitlab-Token": "other"}) == OK
    assert site.hinted() == [FOO]
    [data] = [path.read_bytes() for path in (site.root / "queue").rglob("data")]
    assert pickle.loads(data) == {"modules": ["theirs"]}  # noqa: S301 - our own
    (site.root / "queue").rename(site.root / "away")
    assert healthz(theirs)[0] == 503
    assert healthz(ours) == (200, "OK")


WSGI = str(TREE / "wsgi" / "gitlab-producer.wsgi")


def test_the_wsgi_script_gives_a_working_application(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JENS_CONFIG", str(site.config))
    client = Client(runpy.run_path(WSGI)["application"])
    assert post(client) == OK
    assert site.hinted() == [FOO]
    assert any(ADDED.fullmatch(line) for line in messages_of(site))


def test_the_wsgi_script_without_a_usable_configuration_ends_with_one_line(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint(path: Path) -> str:
        monkeypatch.setenv("JENS_CONFIG", str(path))
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(WSGI)
        assert caught.value.code == 3, "gunicorn would start its workers again and again"
        text = site.capture.readouterr().err
        assert len(text.splitlines()) == 1
        return text

    missing = site.root / "missing.conf"
    assert str(missing) in complaint(missing)
    shutil.rmtree(site.root / "log")
    assert "logdir" in complaint(site.config)
    site.settings["main.debuglevel"] = "LOUD"
    assert "debuglevel" in complaint(site.config)


# Real servers

RUNNER = (sys.executable, str(TREE / "bin" / "jens-gitlab-producer-runner"))
LISTENING = rb"Listening on http://127\.0\.0\.1:(\d+)\n"


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def lines(self) -> list[str]:
        """The lines that it has written to stdout and stderr."""
        return self.output.read_text().splitlines()

    def post(self, body: bytes, headers: Mapping[str, str] | None = None, *, chunked: bool = False) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        pieces = [body[at : at + 2**16] for at in range(0, len(body), 2**16)]
        with contextlib.closing(connection):
            content = iter(pieces) if chunked else body
            connection.request("POST", "/gitlab", content, dict(headers or {}), encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def say(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes, which need not be HTTP, and return the response."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            response = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(2**16):
                    response += piece
            return response

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def environment(*first: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*first, TREE))), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def serving(
    site: Site, command: Sequence[str] = (), announcement: bytes = LISTENING, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server on a free port, and end it in any case."""
    output = site.root / "output"
    command = command or (*RUNNER, "-c", str(site.config), "-p", "0")
    with (
        open(output, "wb") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ or environment(), cwd=site.root
        ) as process,
    ):
        try:
            yield Server(process, _port(process, output, announcement), output)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(timeout=10)
            finally:
                process.kill()


def _port(process: subprocess.Popen[bytes], output: Path, announcement: bytes) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(announcement, output.read_bytes())
        if match:
            return int(match.group(1))
        time.sleep(0.02)
    pytest.fail(f"it does not listen: {output.read_text()}")


def without_waitress(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "waitress.py").write_text("raise ImportError('no waitress')\n")
    return environment(tmp_path / "shadow")


def test_a_signal_counts_from_the_moment_the_runner_listens(site: Site) -> None:
    command = [*RUNNER, "-c", str(site.config), "-p", "0"]
    for _ in range(4):
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), cwd=site.root) as process:
            assert process.stderr is not None
            assert re.search(LISTENING, process.stderr.readline() + b"\n")
            process.terminate()
            assert (process.wait(timeout=20), process.stderr.read()) == (0, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("server", ["waitress", "Flask's own"])
def test_the_runner_serves_until_a_signal_comes(
    site: Site, tmp_path: Path, server: str, number: signal.Signals, code: int
) -> None:
    if server == "waitress":
        pytest.importorskip("waitress")
    site.settings["gitlabproducer.secret_token"] = SECRET
    body = json.dumps(GITLAB_PUSH).encode()
    environ = environment() if server == "waitress" else without_waitress(tmp_path)
    with serving(site, environ=environ) as served:
        assert served.post(body, {"X-Gitlab-Token": SECRET}) == OK
        assert served.post(body, {"X-Gitlab-Token": SECRET}, chunked=True) == OK
        assert served.post(body, {"X-Gitlab-Token": "pässwörd"}) == UNAUTHORISED
        assert served.end(number) == code
        lines = served.lines()
    assert site.hinted() == [FOO] * 2
    assert "Traceback" not in "".join(lines)
    assert SECRET not in "".join((*lines, *log_of(site)))
    if server != "waitress":
        assert "waitress" in lines.pop(0)
    assert re.fullmatch(r"Listening on http://127\.0\.0\.1:\d+", lines.pop(0))
    assert [line.partition(": ")[2] for line in lines] == (["Interrupted"] if number == signal.SIGINT else [])
    assert [line for line in log_of(site) if not LINE.fullmatch(line)] == []


def refused(site: Site, *arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, list[str]]:
    """Run a runner that cannot serve; return its exit code and its lines on stderr."""
    command = [*RUNNER, "-c", str(site.config), *arguments]
    done = subprocess.run(command, capture_output=True, check=False, env=environ or environment(), timeout=20)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode().splitlines()


@pytest.mark.parametrize("server", ["waitress", "Flask's own"])
def test_exit_10_the_port_is_in_use(site: Site, tmp_path: Path, server: str) -> None:
    environ = environment() if server == "waitress" else without_waitress(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, lines = refused(site, "--port", port, environ=environ)
    lines = [line for line in lines if "waitress" not in line]
    assert (code, len(lines)) == (10, 1), lines
    assert port in lines[0]
    assert "in use" in lines[0]


@pytest.mark.parametrize("server", ["waitress", "Flask's own"])
def test_exit_10_the_address_is_none_of_ours(site: Site, tmp_path: Path, server: str) -> None:
    environ = environment() if server == "waitress" else without_waitress(tmp_path)
    for address in ("192.0.2.1", "256.256.256.256"):
        code, lines = refused(site, "-p", "0", "--host", address, environ=environ)
        lines = [line for line in lines if "waitress" not in line]
        assert (code, len(lines)) == (10, 1), lines
        assert address in lines[0]


def test_exit_2_the_configuration_cannot_be_used(site: Site) -> None:
    site.settings["main.debuglevel"] = "LOUD"
    code, [line] = refused(site, "-p", "0")
    assert code == 2
    assert "debuglevel" in line


@pytest.mark.parametrize("port", ["http", "-1", "65536", "1.5", "", "٣", "99999"], ids=ascii)
def test_exit_2_a_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gitlab_producer_runner.main([f"--port={port}"])
    assert caught.value.code == 2
    assert "65535" in capsys.readouterr().err


def test_the_runner_has_a_limit_whatever_the_headers_say_and_survives_wrong_headers(site: Site) -> None:
    pytest.importorskip("waitress")
    body = json.dumps(GITLAB_PUSH).encode()

    def lying(length: str, *more: str) -> bytes:
        lines = [
            "POST /gitlab HTTP/1.1",
            "Host: git.example.org",
            "Connection: close",
            *more,
            f"Content-Length: {length}",
        ]
        head = "\r\n".join((*lines, "", ""))
        return head.encode() + body

    def status(response: bytes) -> str:
        return response.partition(b"\r\n")[0].decode()[9:12]

    with serving(site) as server:
        for chunked in (False, True):
            assert server.post(padded(LARGEST_BODY), chunked=chunked) == OK
            assert server.post(padded(LARGEST_BODY + 1), chunked=chunked)[0] == 413
        assert site.hinted() == [FOO] * 2
        assert status(server.say(lying(str(10**11)))) == "413"
        assert status(server.say(lying(str(10**30)))) == "413"
        assert status(server.say(lying(str(len(body) - 1)))) == "400"
        assert status(server.say(lying("0"))) == "400"
        for length in ("-1", "many", "1e3", "", f"{len(body)}, {len(body)}"):
            assert status(server.say(lying(length), half_close=True)) in ("", "400"), length
        assert status(server.say(lying(str(len(body) + 1)), half_close=True)) in ("", "400")
        assert status(server.say(lying(str(len(body)), "Transfer-Encoding: chunked"), half_close=True)) in (
            "",
            "400",
        )
        tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"  # waitress before 3 takes this for a path
        assert status(server.say(tls_hello, half_close=True)) in ("", "400", "404")
        assert site.hinted() == [FOO] * 2
        assert server.post(body) == OK
        assert server.end() == 0
        assert "Traceback" not in server.output.read_text()
    assert site.hinted() == [FOO] * 3
    assert [line for line in log_of(site) if not LINE.fullmatch(line)] == []


def test_gunicorn_serves_it_with_several_processes(site: Site) -> None:
    pytest.importorskip("gunicorn")
    site.settings["gitlabproducer.secret_token"] = SECRET
    call = f"jens.commands.gitlab_producer_runner:application('{site.config}')"
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", call]
    body = json.dumps(GITLAB_PUSH).encode()
    with serving(site, command, rb"Listening at: http://127\.0\.0\.1:(\d+)") as server:
        with ThreadPoolExecutor(5) as pool:
            responses = list(pool.map(lambda _: server.post(body, {"X-Gitlab-Token": SECRET}), range(20)))
        assert responses == [OK] * 20
        assert server.post(padded(LARGEST_BODY + 1), {"X-Gitlab-Token": SECRET}, chunked=True)[0] == 413
        assert server.post(body, {"X-Gitlab-Token": "other"}) == UNAUTHORISED
        assert server.end() == 0
    assert site.hinted() == [FOO] * 20
    names = list(site.queue.names())
    added = [match.group(3) for match in map(ADDED.fullmatch, messages_of(site)) if match]
    assert sorted(added) == sorted(names)
    assert [line for line in log_of(site) if not LINE.fullmatch(line)] == []
