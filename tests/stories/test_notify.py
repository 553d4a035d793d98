"""Teams and administrators are told what is broken, and when it is mended: by mail and by HTTP, through Apprise."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from jens.commands import deliver
from jens.git import authors
from jens.system import processes
from tests.conftest import Outcome, Site, definition
from tests.receivers import Receiver, http_server

pytest.importorskip("apprise")
controller = pytest.importorskip("aiosmtpd.controller")

DUMMY = "modules/dummy"


class Mail:
    """A mail server, and what it has accepted, by address."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.seconds = 0.0
        self.boxes: dict[str, list[EmailMessage]] = {}
        with socket.create_server(("127.0.0.1", 0)) as free:  # aiosmtpd chooses no port itself
            port = free.getsockname()[1]
        self.url = f"mailto://127.0.0.1:{port}/?from=jens@example.org&to={{address}}"
        self.server = controller.Controller(self, hostname="127.0.0.1", port=port, ready_timeout=60)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address in self.refuses:
            return "550 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        for address in envelope.rcpt_tos:
            self.boxes.setdefault(address, []).append(message)
        await asyncio.sleep(self.seconds)
        return "250 OK"

    def taken(self) -> dict[str, list[tuple[str, str]]]:
        """Subjects and texts by address; the boxes are empty afterwards."""
        boxes, self.boxes = self.boxes, {}
        return {address: [(str(each["subject"]), _text(each)) for each in box] for address, box in boxes.items()}


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return re.sub(" +", " ", str(body.get_content()).replace("\r\n", "\n"))  # Apprise 1.4 keeps no more than one space


@pytest.fixture
def mail() -> Iterator[Mail]:
    made = Mail()
    made.server.start()
    yield made
    made.server.stop()


@pytest.fixture
def chat() -> Iterator[Receiver]:
    with http_server() as (server, _):
        yield server


@pytest.fixture
def told(site: Site, mail: Mail, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site of two teams with three environments that follow a branch, in which nothing is wrong."""
    monkeypatch.setattr(processes, "start_detached", lambda _command: None)
    site.settings.update({"notify.owners": f'"{mail.url}"', "notify.interval": "0", "notify.grace": "0"})
    site.remotes[DUMMY].branch("feature")
    for name, team in (("web", "ann"), ("shop", "ann"), ("mail", "bob")):
        site.define(name, definition("master", {DUMMY: "feature"}, mail=team))
    site.update()
    assert run(site).code == 0
    assert mail.taken() == {}
    return site


def run(site: Site) -> Outcome:
    """A run, and the delivery after it."""
    site.update()
    site.capture.readouterr()
    log = site.root / "log" / "jens-deliver.log"
    begin = log.stat().st_size if log.exists() else 0
    code = deliver.main(["-c", str(site.config)])
    captured = site.capture.readouterr()
    return Outcome(code, captured.out, captured.err, log.read_text()[begin:])


def test_a_branch_deleted_under_three_environments_is_one_message_to_each_team(told: Site, mail: Mail) -> None:
    told.remotes[DUMMY].delete("feature")
    assert run(told).code == 0
    boxes = mail.taken()
    assert {address: len(box) for address, box in boxes.items()} == {"ann@example.org": 1, "bob@example.org": 1}
    [(subject, text)] = boxes["ann@example.org"]
    assert subject.startswith("[Jens] shop, web broken (")
    assert " Environment: web\n Repository: modules/dummy\n" in text
    assert "there is no branch 'feature' in modules/dummy" in text
    assert f"Ann made the last commit there, {told.remotes[DUMMY].commit()[:7]}" in text
    assert "What to do: Push what is missing, or change what web.yaml says of modules/dummy." in text
    assert "mail" not in text
    assert run(told).code == 0
    assert mail.taken() == {}

    told.remotes[DUMMY].branch("feature")
    assert run(told).code == 0
    boxes = mail.taken()
    [(subject, text)] = boxes["bob@example.org"]
    assert subject.startswith("[Jens] mail mended (")
    assert text.startswith("MENDED at ")
    assert "What to do" not in text
    assert len(boxes["ann@example.org"]) == 1
    assert run(told).code == 0
    assert mail.taken() == {}


def test_nobody_is_told_of_what_is_over_within_the_grace(told: Site, mail: Mail) -> None:
    told.settings["notify.grace"] = "3600"
    told.remotes[DUMMY].delete("feature")
    assert run(told).code == 0
    told.remotes[DUMMY].branch("feature")
    assert run(told).code == 0
    assert mail.taken() == {}


def test_a_fault_that_outlasts_the_grace_is_told_although_nothing_changes(told: Site, mail: Mail) -> None:
    told.settings["notify.grace"] = "3600"
    told.remotes[DUMMY].delete("feature")
    run(told)
    [due] = {each["due"] for each in _receivers(told).values() if each["due"]}
    assert 3500 < due - _since(told) < 3700
    told.settings["notify.grace"] = "0"
    run(told)
    assert set(mail.taken()) == {"ann@example.org", "bob@example.org"}
    assert {each["due"] for each in _receivers(told).values()} == {None}


def _receivers(site: Site) -> dict[str, Any]:
    content = json.loads((site.root / "cache" / "deliveries.json").read_text())["content"]
    found: dict[str, Any] = content["receivers"]
    return found


def _since(site: Site) -> float:
    return (site.root / "cache" / "last-run.json").stat().st_mtime


def test_there_is_at_most_one_message_in_an_interval(told: Site, mail: Mail) -> None:
    told.remotes[DUMMY].delete("feature")
    run(told)
    mail.taken()
    told.settings["notify.interval"] = "3600"
    told.remotes[DUMMY].branch("feature")
    run(told)
    assert mail.taken() == {}
    told.settings["notify.interval"] = "0"
    run(told)
    assert {len(box) for box in mail.taken().values()} == {1}


def test_a_mail_server_that_refuses_one_address_is_no_reason_not_to_tell_the_others(told: Site, mail: Mail) -> None:
    told.define("third", definition("master", {DUMMY: "feature"}, mail="zoe"))
    run(told)
    mail.refuses = {"bob@example.org"}
    told.remotes[DUMMY].delete("feature")
    outcome = run(told)
    assert outcome.code == 60
    [warning] = outcome.lines("WARNING Unable to tell")
    assert "owner bob@example.org" in warning
    assert set(mail.taken()) == {"ann@example.org", "zoe@example.org"}
    run(told)
    assert mail.taken() == {}
    faults = json.loads((told.root / "cache" / "last-run.json").read_text())["content"]["faults"]
    assert [fault["ref"] for fault in faults if fault["kind"] == "delivery"] == ["owner bob@example.org"]

    mail.refuses = set()
    run(told)
    assert {address: len(box) for address, box in mail.taken().items()} == {"bob@example.org": 1}


def test_a_mail_server_that_is_down_loses_nothing(told: Site, mail: Mail) -> None:
    settings = told.settings["notify.owners"]
    told.settings["notify.owners"] = '"mailto://127.0.0.1:9/?from=jens@example.org&to={address}&cto=1"'
    told.remotes[DUMMY].delete("feature")
    outcome = run(told)
    assert outcome.code == 60
    assert len(outcome.lines("WARNING Unable to tell")) == 2
    assert "Connection error while submitting email" in outcome.stderr
    told.settings["notify.owners"] = settings
    run(told)
    assert {len(box) for box in mail.taken().values()} == {1}


def test_who_broke_a_definition_is_named(told: Site, mail: Mail) -> None:
    told.define("web", "default: master\nnotifications: ann@example.org\noverrides: null\n")
    run(told)
    [(_, text)] = mail.taken()["ann@example.org"]
    assert f"Ann changed web.yaml last, in {told.definitions.commit()[:7]}" in text
    assert "Mend web.yaml" in text


def test_administrators_are_told_of_repositories_over_http(told: Site, mail: Mail, chat: Receiver) -> None:
    told.settings["notify.admins"] = f"json://127.0.0.1:{chat.server_port}/secret,"
    run(told)
    told.remotes[DUMMY].go_away()
    assert run(told).code == 0
    [post] = chat.posts
    assert post["title"].startswith("[Jens] modules/dummy broken (")
    assert "See whether the Git server answers, and whether Jens may read modules/dummy." in post["message"]
    assert mail.taken() == {}
    told.remotes[DUMMY].come_back()
    run(told)
    assert "mended" in chat.posts[1]["title"]


def test_an_answer_that_is_no_success_is_told_again(told: Site, chat: Receiver) -> None:
    told.settings["notify.admins"] = f"json://127.0.0.1:{chat.server_port}/secret,"
    chat.answer = 500
    told.remotes[DUMMY].go_away()
    outcome = run(told)
    assert outcome.code == 60
    assert "secret" not in outcome.log + outcome.stderr
    chat.answer = 200
    assert run(told).code == 0
    assert len(chat.posts) == 2


def test_a_url_that_apprise_does_not_know_is_a_fault(told: Site) -> None:
    told.settings["notify.admins"] = "pigeon://loft/secret,"
    told.remotes[DUMMY].go_away()
    outcome = run(told)
    assert outcome.code == 60
    assert "Apprise does not know this kind of URL" in outcome.stderr
    assert "secret" not in outcome.log + outcome.stderr


def test_without_apprise_it_is_said_what_is_missing(told: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    told.remotes[DUMMY].delete("feature")
    outcome = run(told)
    assert outcome.code == 60
    assert "Apprise is not installed" in outcome.stderr


def test_a_lost_record_tells_people_what_is_broken_once_more(told: Site, mail: Mail) -> None:
    told.remotes[DUMMY].delete("feature")
    run(told)
    mail.taken()
    (told.root / "cache" / "deliveries.json").unlink()
    run(told)
    assert {len(box) for box in mail.taken().values()} == {1}


def test_a_mail_server_that_is_too_slow_does_not_get_the_same_message_with_each_run(told: Site, mail: Mail) -> None:
    told.settings["notify.owners"] = told.settings["notify.owners"].replace("/?", "/?cto=1&")
    told.settings["notify.interval"] = "600"
    mail.seconds = 2
    told.remotes[DUMMY].delete("feature")
    assert run(told).code == 60
    time.sleep(2)
    for _ in range(3):
        assert run(told).code == 0  # nobody is due
    assert {len(box) for box in mail.taken().values()} == {1}
    assert all(each["failing"] and each["due"] for each in _receivers(told).values())


def test_git_is_asked_once_who_changed_definitions(told: Site, mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    ask = authors.last_changes

    def count(*arguments: Any) -> Any:
        asked.append(arguments)
        return ask(*arguments)

    monkeypatch.setattr(authors, "last_changes", count)
    for name in ("web", "shop", "mail"):
        told.define(name, f"default: master\nnotifications: {name}@example.org\noverrides: null\n")
    run(told)
    assert {address.partition("@")[0] for address in mail.taken()} >= {"web", "shop", "mail"}
    assert len(asked) == 1
