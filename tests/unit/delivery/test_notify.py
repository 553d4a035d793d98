"""Whom to tell of what, and when; and the text of a message."""

from __future__ import annotations

import pytest

from jens import events
from jens.config import Notify
from jens.deliveries import Failing, Position, Told
from jens.delivery import messages, notify
from jens.delivery.news import identity
from jens.delivery.notify import Due
from jens.history.queries import FaultLife
from jens.lastrun import timestamp
from jens.update import record

NOW = 1_800_000_000.0
ANN, BOB = "ann@example.org", "bob@example.org"


def fault(
    since: float, environment: str | None = "dev", *addresses: str, repository: str = "modules/dummy"
) -> FaultLife:
    return FaultLife(
        events.DANGLING_LINK,
        environment,
        repository,
        "branch 'gone'",
        "dangling links, there is no branch 'gone' in modules/dummy",
        addresses or (ANN,),
        timestamp(since),
        None,
    )


def told(*known: FaultLife, sent: float = 0) -> Told:
    return Told(Position(faults=frozenset(map(identity, known))), memory={"sent": sent} if sent else {})


def tried(times: int, last: float) -> Told:
    return Told(memory={"tries": times, "tried": last})


OLD, YOUNG, OTHER, AHEAD = fault(NOW - 500), fault(NOW - 20), fault(NOW - 500, "qa"), fault(NOW + 9999)
GRACE, INTERVAL = 120, 600
SETTINGS = Notify(owners="json://{address}", admins=(), interval=INTERVAL, grace=GRACE)


def keys(*faults: FaultLife) -> frozenset[tuple[str, ...]]:
    return frozenset(map(identity, faults))


PLANS = {
    "nothing": ([], [], told(), Due()),
    "a fault": ([OLD], [OLD], told(), Due((OLD,), (), None, keys(OLD))),
    "a known fault": ([OLD], [OLD], told(OLD), Due(known=keys(OLD))),
    "a fault that may be over soon": ([YOUNG], [YOUNG], told(), Due(again=NOW + 100)),
    "it was over soon": ([], [], told(), Due()),
    "a fault that is over": ([], [], told(OLD), Due(closed=tuple(keys(OLD)))),
    "one of two is over": ([OTHER], [OTHER], told(OLD, OTHER), Due(closed=tuple(keys(OLD)), known=keys(OTHER))),
    "it is somebody else's now": ([], [OLD], told(OLD), Due(known=keys(OLD))),
    "it was somebody else's at the end": ([], [], told(OLD), Due(closed=tuple(keys(OLD)))),
    "it began in the future": ([AHEAD], [AHEAD], told(), Due((AHEAD,), (), None, keys(AHEAD))),
    "a message failed a moment ago": ([OLD], [OLD], tried(1, NOW - 10), Due(again=NOW + 50)),
    "it failed for the fourth time": ([OLD], [OLD], tried(4, NOW - 10), Due(again=NOW + INTERVAL - 10)),
    "it failed a while ago": ([OLD], [OLD], tried(1, NOW - 60), Due((OLD,), (), None, keys(OLD))),
    "a message was sent a minute ago": ([OLD], [OLD], told(sent=NOW - 60), Due(again=NOW + 540)),
    "it was sent ten minutes ago": ([OLD], [OLD], told(sent=NOW - 600), Due((OLD,), (), None, keys(OLD))),
    "the clock was set back": ([OLD], [OLD], told(sent=NOW + 9999), Due((OLD,), (), None, keys(OLD))),
    "the end waits for the interval, too": ([], [], told(OLD, sent=NOW - 60), Due(again=NOW + 540, known=keys(OLD))),
    "one is ripe, one is not": ([OLD, YOUNG], [OLD, YOUNG], told(), Due((OLD,), (), NOW + INTERVAL, keys(OLD))),
}


@pytest.mark.parametrize("case", PLANS)
def test_what_a_receiver_is_told(case: str) -> None:
    faults, still_open, known, due = PLANS[case]
    assert notify.plan(faults, keys(*still_open), known, SETTINGS, NOW) == due


def test_a_fault_with_a_time_that_is_none_is_told_at_once() -> None:
    odd = OLD._replace(since="yesterday")
    assert notify.plan([odd], keys(odd), told(), SETTINGS, NOW).opened == (odd,)


def test_definitions_name_whom_to_tell_and_administrators_are_told_of_the_rest() -> None:
    mine, ours = fault(NOW, "dev", ANN), fault(NOW, "qa", ANN, BOB)
    theirs = fault(NOW, None, BOB)
    nobodys = fault(NOW, None)._replace(addresses=())
    settings = SETTINGS._replace(admins=("json://chat.example.org/secret",))
    found = notify.whom([mine, ours, theirs, nobodys], settings)
    assert {name: faults for name, (_, faults) in found.items() if name.startswith(notify.OWNER)} == {
        f"owner {ANN}": [mine, ours],
        f"owner {BOB}": [ours, theirs],
    }
    [(name, (url, faults))] = [each for each in found.items() if each[0].startswith(notify.ADMIN)]
    assert (url, faults) == ("json://chat.example.org/secret", [theirs, nobodys])
    assert "secret" not in name
    assert "chat" not in name


def test_an_address_is_a_value_in_the_url_and_nothing_else() -> None:
    settings = SETTINGS._replace(owners="mailto://smtp.example.org/?to={address}&from=jens@example.org")
    hostile = "a@example.org?cc=b@example.org&x=/ö"
    [(url, _)] = notify.whom([fault(NOW, "dev", hostile)], settings).values()
    assert url == (
        "mailto://smtp.example.org/?to=a%40example.org%3Fcc%3Db%40example.org%26x%3D%2F%C3%B6&from=jens@example.org"
    )


def test_only_owners_or_only_administrators() -> None:
    assert notify.whom([OLD], SETTINGS._replace(owners="")) == {}


KINDS = {value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)}


def test_every_kind_of_fault_has_a_remedy() -> None:
    assert set(messages.REMEDIES) == KINDS | set(record._OF_RUNS)
    for kind in messages.REMEDIES:
        assert "{" not in messages.remedy(OLD._replace(kind=kind))


def test_a_message_names_environment_what_since_when_who_and_what_to_do() -> None:
    since = messages.local(OLD.since)
    subject, text = messages.compose(
        "jens.example.org", [OLD], [OTHER._replace(until=timestamp(NOW))], lambda _: "Ann made the last commit"
    )
    assert subject == "[Jens] dev broken, qa mended (jens.example.org)"
    assert text == (
        f"BROKEN since {since}: dangling link\n"
        "  Environment: dev\n"
        "  Repository:  modules/dummy\n"
        "  What:        dangling links, there is no branch 'gone' in modules/dummy\n"
        "  Who:         Ann made the last commit\n"
        "  What to do:  Push what is missing, or change what dev.yaml says of modules/dummy.\n"
        "\n"
        f"MENDED at {messages.local(timestamp(NOW))}, broken since {since}: dangling link\n"
        "  Environment: qa\n"
        "  Repository:  modules/dummy\n"
        "  What:        dangling links, there is no branch 'gone' in modules/dummy\n"
        "\n"
        "-- \n"
        "Jens on jens.example.org\n"
    )


def test_a_message_about_very_many_faults_is_bounded() -> None:
    faults = [fault(NOW, f"env{number}") for number in range(200)]
    subject, text = messages.compose("host", faults, faults, lambda _: "")
    assert subject == "[Jens] env0, env1 and 198 more broken, env0, env1 and 198 more mended (host)"
    assert text.count("BROKEN") == 50
    assert "And 350 more: jens-history --faults lists what is broken." in text


@pytest.mark.parametrize(
    ("complaint", "url", "said"),
    [
        (
            "Failed to send to hooks.example.org/T0KEN: 403",
            "json://hooks.example.org/T0KEN",
            "Failed to send to hooks.example.org/…: 403",
        ),
        ("T1AAAAAAA/B2BBBBBBB is revoked", "slack://T1AAAAAAA/B2BBBBBBB", "…/… is revoked"),
        ("hunter.two is wrong", "mailto://jens:hunter.two@smtp.example.org/", "… is wrong"),
        ("p@ss word is wrong", "mailto://jens:p%40ss%20word@smtp.example.org/", "… is wrong"),
        ("p+ss word is wrong", "mailto://jens:p%2Bss+word@smtp.example.org/", "… is wrong"),
        ("/ab.cdef and abc", "mmosts://chat.example.org/ab.cdef/abc", "/… and …"),
        ("550 ann@example.org", "mailto://smtp.example.org:25/?to=ann%40example.org", "550 ann@example.org"),
    ],
)
def test_no_secret_of_a_url_is_in_a_complaint(complaint: str, url: str, said: str) -> None:
    assert notify.without_secrets(complaint, url) == said


def test_owners_are_forgotten_when_there_is_nothing_more_to_tell_them() -> None:
    known = {
        "owner knows@example.org": told(OLD),
        "owner done@example.org": told(sent=NOW - INTERVAL),
        "owner justnow@example.org": told(sent=NOW - 1),
        "owner failing@example.org": Told(failing=Failing("no", "")),
        "hook /x": Told(),
    }
    settings = SETTINGS._replace(admins=("json://chat.example.org/x",))
    found = [*notify.receivers(settings, known, NOW)]
    assert found[0].startswith("admin json ")
    assert [name.partition("@")[0] for name in found[1:]] == ["owner knows", "owner justnow", "owner failing"]
    assert [*notify.receivers(settings._replace(owners="", admins=()), known, NOW)] == []
