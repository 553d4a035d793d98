"""What a server costs a run, decided without a clock: who gets how much time, and which server is asked no more."""

from __future__ import annotations

import pytest

from jens.errors import GitBusyError, GitError, GitTimeoutError, GitUnreachedError
from jens.git.budgets import Account, Ending, Patience, ending_of

LIMIT = 10.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GitTimeoutError("fetch", "no answer within 10 seconds"), Ending.SILENT),
        (GitUnreachedError("fetch", "fatal: unable to connect to h", 128), Ending.UNREACHED),
        (GitUnreachedError("fetch", "Connection closed by 127.0.0.1 port 22; fatal: Could not", 128), Ending.DROPPED),
        (GitUnreachedError("fetch", "kex_exchange_identification: read: Connection reset by", 128), Ending.DROPPED),
        (GitError("fetch", "fatal: Could not read from remote repository.", 128), Ending.MUTE),
        (GitError("fetch", "fatal: unable to access 'https://h/': Empty reply from server", 128), Ending.MUTE),
        (GitError("fetch", "fatal: unable to access 'https://h/': Operation too slow. Less", 128), Ending.MUTE),
        (GitError("fetch", "git@h: Permission denied (publickey).; fatal: Could not read", 128), Ending.ANSWERED),
        (GitError("fetch", "fatal: repository 'https://h/a/' not found", 128), Ending.ANSWERED),
        (GitError("fetch", "fatal: remote error: upload-pack: not our ref 01", 128), Ending.ANSWERED),
        (GitError("fetch", "ended with status -9", -9), Ending.UNKNOWN),
        (GitError("fetch", "could not be started: No such file or directory"), Ending.UNKNOWN),
        (GitBusyError("fetch", "another Git is at work"), Ending.UNKNOWN),
    ],
)
def test_what_an_error_tells_of_a_server(error: GitError, expected: Ending) -> None:
    assert ending_of(error) is expected


#: What happens to two conversations, A and B: the time, which one, and what (None: it begins). Then the verdict.
HISTORIES: dict[str, tuple[list[tuple[float, str, Ending | None]], str]] = {
    "one that is silent is enough": ([(0, "A", None), (10, "A", Ending.SILENT)], "did not answer in time"),
    "silent, though it answered before": (
        [(0, "B", None), (1, "B", Ending.ANSWERED), (2, "A", None), (12, "A", Ending.SILENT)],
        "did not answer in time",
    ),
    "only one repository is silent": (
        [(0, "A", None), (1, "B", None), (2, "B", Ending.ANSWERED), (10, "A", Ending.SILENT)],
        "",
    ),
    "two repositories are silent at the same time": (
        [
            *((0, "A", None), (0.1, "B", None), (1, "C", None), (2, "C", Ending.ANSWERED)),
            *((10, "A", Ending.SILENT), (10, "B", Ending.SILENT)),
        ],
        "",
    ),
    "one repository is silent, then another one": (
        [
            *((0, "A", None), (1, "B", None), (2, "B", Ending.ANSWERED), (10, "A", Ending.SILENT)),
            *((11, "B", None), (13.5, "B", Ending.SILENT)),
        ],
        "did not answer in time",
    ),
    "not reached": ([(0, "A", None), (0.01, "A", Ending.UNREACHED)], "could not be reached"),
    "not reached, while another one waits": ([(0, "A", None), (0, "B", None), (1, "A", Ending.UNREACHED)], ""),
    "not reached, while another one gets an answer": (
        [(0, "A", None), (0, "B", None), (1, "A", Ending.UNREACHED), (2, "B", Ending.ANSWERED)],
        "",
    ),
    "not reached, and another one is ended": (
        [(0, "A", None), (0, "B", None), (1, "A", Ending.UNREACHED), (2, "B", Ending.UNKNOWN)],
        "could not be reached",
    ),
    "not reached, but others got answers meanwhile": (
        [(0, "A", None), (0, "B", None), (1, "B", Ending.ANSWERED), (2, "A", Ending.UNREACHED)],
        "",
    ),
    "without a word, at once": ([(0, "A", None), (0.1, "A", Ending.MUTE)], ""),
    "without a word, slowly": (
        [(0, "A", None), (6, "A", Ending.MUTE), (6, "B", None), (12, "B", Ending.MUTE)],
        "did not answer in time",
    ),
    "without a word, at the same time": (
        [(0, "A", None), (0, "B", None), (6, "A", Ending.MUTE), (6, "B", Ending.MUTE)],
        "",
    ),
    "refusals take as long as they like": (
        [(0, "A", None), (9, "A", Ending.ANSWERED), (9, "B", None), (18, "B", Ending.ANSWERED)],
        "",
    ),
    "what ended here": ([(0, "A", None), (20, "A", Ending.UNKNOWN)], ""),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_which_server_is_asked_no_more(name: str) -> None:
    history, expected = HISTORIES[name]
    account, numbers = Account(LIMIT), {}
    for now, which, ending in history:
        if ending is None:
            numbers[which] = account.begin(now)
        else:
            account.end(numbers[which], now, ending)
    assert account.verdict == expected


def test_a_server_that_drops_connections_gets_fewer_at_a_time() -> None:
    account = Account(LIMIT)
    talks = [account.begin(0) for _ in range(6)]
    account.end(talks.pop(), 0.1, Ending.ANSWERED)
    assert account.end(talks.pop(), 0.1, Ending.DROPPED), "it is to be asked once more"
    assert account.is_crowded(0.1, most=8)
    assert account.is_full(most=8)
    account.end(talks.pop(), 0.1, Ending.ANSWERED)
    assert not account.is_crowded(0.1, most=8), "three are under way, four were"
    assert not account.is_full(most=8)
    for number in talks:
        account.end(number, 0.2, Ending.ANSWERED)
    last = account.begin(0.3)
    assert account.end(last, 0.3, Ending.DROPPED) is False, "nothing else was under way, and nothing was answered since"
    assert account.verdict == "could not be reached"


def test_a_conversation_has_to_be_over_in_the_time_of_its_server() -> None:
    account = Account(LIMIT)
    first, second = account.begin(0), account.begin(3)
    long = account.begin(3, is_long=True)
    assert (account.deadline(first), account.deadline(second), account.deadline(long)) == (10, 13, float("inf"))
    account.end(first, 10, Ending.SILENT)
    assert account.deadline(second) < 0, "the server was silent all the time"
    assert account.deadline(long) == float("inf"), "it may be receiving much"


def test_a_server_with_one_silent_repository_has_little_time_left_for_others() -> None:
    for limit, left in ((120, 30), (10, 5), (3, 3)):
        account = Account(limit)
        hangs, other = account.begin(0), account.begin(0.2)
        account.end(other, 0.3, Ending.ANSWERED)
        account.end(hangs, limit, Ending.SILENT)
        assert account.deadline(account.begin(200)) == 200 + left


def test_answers_count_that_came_before_anybody_listened_to_a_conversation() -> None:
    account = Account(LIMIT)
    silent, other = account.begin(0), account.begin(0)
    account.end(other, 1, Ending.ANSWERED)
    account.begin_again(silent, 5)
    assert account.deadline(silent) == 5 + LIMIT
    account.end(silent, 15, Ending.SILENT)
    assert account.verdict == ""


def test_without_a_time_limit_nobody_is_late() -> None:
    account = Account(float("inf"))
    number = account.begin(0)
    assert account.deadline(number) == float("inf")
    account.end(number, 1e6, Ending.MUTE)
    assert account.verdict == ""


def test_conversations_that_only_wait() -> None:
    account = Account(LIMIT)
    first, second = account.begin(0), account.begin(0.1)
    assert not account.only_waits(first, 0.1)
    assert account.only_waits(second, 0.3), "the server is silent"
    account.end(second, 0.35, Ending.ANSWERED)
    assert not account.only_waits(first, 0.4), "the server answers"
    third = account.begin(1.9)
    account.end(third, 2.0, Ending.ANSWERED)
    assert account.only_waits(first, 2.1), "it answers others, but not this one"


def test_a_silent_server_gets_ever_fewer_questions() -> None:
    account, times = Account(100.0), list[float]()
    for tenth in range(1000):
        while not account.is_crowded(tenth / 10, most=4) and len(times) < 100:
            account.begin(tenth / 10)
            times.append(tenth / 10)
    assert times[:4] == [0] * 4, "as many as there are jobs"
    assert len(times) == 8
    assert times[4:] == sorted(set(times[4:])), "then one after the other"


def test_a_repository_that_hangs_does_not_hold_up_the_questions_to_others() -> None:
    account = Account(100.0)
    for _ in range(3):
        account.begin(0)
    account.end(account.begin(0), 0.1, Ending.ANSWERED)
    number = account.begin(0.1)
    assert account.is_crowded(0.2, most=4)
    account.end(number, 1.5, Ending.ANSWERED)
    begun = 0
    while not account.is_crowded(1.6, most=4):
        account.begin(1.6)
        begun += 1
    assert begun == 4, "those that are left behind do not count"


def test_nothing_new_is_asked_while_it_is_doubtful_that_there_is_a_server() -> None:
    account = Account(LIMIT)
    first, second = account.begin(0), account.begin(0)
    account.end(first, 0.1, Ending.UNREACHED)
    assert account.is_crowded(0.1, most=8)
    assert account.is_full(most=8)
    account.end(second, 0.2, Ending.ANSWERED)
    assert not account.is_crowded(0.2, most=8)
    assert not account.is_full(most=8)


#: What conversations took, by URL and name; the URL and name of one more; how much of ten seconds that may take.
PATIENCE: dict[str, tuple[list[tuple[str, str, float]], tuple[str, str], float]] = {
    "nothing so far": ([], ("u", "modules/a"), 10),
    "the question counts": ([("u", "", 4)], ("u", "modules/a"), 6),
    "all conversations count": ([("u", "", 4), ("u", "modules/a", 3), ("u", "modules/a", 2)], ("u", "modules/a"), 1),
    "others with the same URL do not": ([("u", "", 4), ("u", "modules/b", 6)], ("u", "modules/a"), 6),
    "others do not": ([("v", "", 9), ("v", "modules/a", 1)], ("u", "modules/a"), 10),
    "the question is counted once": ([("u", "", 4)], ("u", ""), 6),
    "it is over": ([("u", "", 4), ("u", "modules/a", 7)], ("u", "modules/a"), -1),
}


@pytest.mark.parametrize("what", PATIENCE)
def test_all_conversations_about_a_repository_share_its_time(what: str) -> None:
    spent, key, left = PATIENCE[what]
    patience = Patience(10)
    for url, name, seconds in spent:
        patience.spend((url, name), seconds)
    assert patience.left(key) == left
    ended = patience.explained(key, GitTimeoutError("fetch", "no answer in the time that was left"))
    assert ("within 10 seconds ([git] patience)" in ended.problem) == (left <= 0)
    if left > 0:
        patience.expect(key)
    else:
        with pytest.raises(GitTimeoutError, match="not tried"):
            patience.expect(key)


def test_without_patience_there_is_no_limit() -> None:
    patience = Patience(0)
    patience.spend(("u", ""), 1e9)
    patience.expect(("u", ""))


def test_a_conversation_that_is_cut_off_at_once_had_no_chance() -> None:
    account = Account(LIMIT)
    number = account.begin(0)
    assert [account.has_had_a_chance(number, now) for now in (0.1, 2.4, 2.6, LIMIT)] == [False, False, True, True]
