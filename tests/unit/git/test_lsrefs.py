"""The request of protocol version 2, and which replies count."""

from __future__ import annotations

import pytest

from jens.git import lsrefs

ONE, OTHER = b"1" * 40, b"a" * 40


def line(content: bytes) -> bytes:
    return b"%04x%s" % (len(content) + 4, content)


MASTER = line(ONE + b" refs/heads/master\n")


def test_the_request_is_what_git_sends_without_the_rest() -> None:
    request = lsrefs.request(agent="git/2.39.5")
    assert request == b"0014command=ls-refs\n0015agent=git/2.39.5\n0001001bref-prefix refs/heads/\n0000"


@pytest.mark.parametrize(
    ("reply", "listing"),
    [
        (MASTER + b"0000", ONE + b"\trefs/heads/master\n"),
        (line(ONE + b" refs/heads/master") + b"0000", ONE + b"\trefs/heads/master\n"),
        (
            MASTER + line(OTHER + b" refs/heads/a/\xc3\xa4\n") + b"0000",
            ONE + b"\trefs/heads/master\n" + OTHER + b"\trefs/heads/a/\xc3\xa4\n",
        ),
        (MASTER.replace(b"003f", b"003F") + b"0000", ONE + b"\trefs/heads/master\n"),
    ],
    ids=["one", "no line end", "two", "digits in upper case"],
)
def test_a_good_reply_is_what_ls_remote_prints(reply: bytes, listing: bytes) -> None:
    assert lsrefs.listing(reply) == listing


BAD = {
    "nothing": b"",
    "no branches": b"0000",
    "cut between lines": MASTER,
    "cut in a line": MASTER[:-5],
    "cut in the end": MASTER + b"00",
    "more behind the end": MASTER + b"0000" + MASTER,
    "a delimiter": MASTER + b"0001" + b"0000",
    "an end of a response": MASTER + b"0002",
    "a length that is none": b"00x1" + MASTER,
    "a length that is too short": b"0003" + b"0000",
    "a sign": b"+03f" + MASTER[4:] + b"0000",
    "an empty line": b"0004" + b"0000",
    "an error": line(b"ERR no such repository") + b"0000",
    "a warning": line(b"\x02hello\n") + b"0000",
    "SHA-256": line(b"1" * 64 + b" refs/heads/master\n") + b"0000",
    "an id that is none": line(b"g" * 40 + b" refs/heads/master\n") + b"0000",
    "upper case": line(b"A" * 40 + b" refs/heads/master\n") + b"0000",
    "an attribute": line(ONE + b" refs/heads/master symref-target:refs/heads/qa\n") + b"0000",
    "a tag": MASTER + line(ONE + b" refs/tags/v1\n") + b"0000",
    "HEAD": line(ONE + b" HEAD\n") + MASTER + b"0000",
    "unborn": line(b"unborn HEAD\n") + b"0000",
    "no name": line(ONE + b" refs/heads/\n") + b"0000",
    "two lines in one": line(ONE + b" refs/heads/a\n" + ONE + b" refs/heads/b\n") + b"0000",
    "a NUL": line(ONE + b" refs/heads/a\0b\n") + b"0000",
    "a glob": line(ONE + b" refs/heads/*\n") + b"0000",
    "HTML": b"<html>",
}


@pytest.mark.parametrize("what", BAD)
def test_any_other_reply_is_left_to_git(what: str) -> None:
    assert lsrefs.listing(BAD[what]) is None


V1, V10 = line(ONE + b" refs/tags/v1 peeled:" + OTHER + b"\n"), line(OTHER + b" refs/tags/v10\n")


def test_needed_tags_are_asked_for_with_what_they_lead_to() -> None:
    request = lsrefs.request(("v1", "release/2"), "a")
    assert request == (
        b"0014command=ls-refs\n000cagent=a\n00010009peel\n001bref-prefix refs/heads/\n"
        b"001cref-prefix refs/tags/v1\n0023ref-prefix refs/tags/release/2\n0000"
    )


@pytest.mark.parametrize(
    ("reply", "listing"),
    [
        (MASTER + V1 + V10 + b"0000", ONE + b"\trefs/tags/v1\n" + OTHER + b"\trefs/tags/v1^{}\n"),
        (MASTER + line(OTHER + b" refs/tags/v1\n") + b"0000", OTHER + b"\trefs/tags/v1\n"),
        (MASTER + V10 + b"0000", b""),
        (
            MASTER + line(ONE + b" refs/tags/v1") + line(OTHER + b" refs/tags/v1^{}") + b"0000",
            ONE + b"\trefs/tags/v1\n" + OTHER + b"\trefs/tags/v1^{}\n",
        ),
    ],
    ids=["annotated", "lightweight", "another one alone", "as version 0 has it"],
)
def test_what_git_prints_of_needed_tags(reply: bytes, listing: bytes) -> None:
    assert lsrefs.listing(reply, ("v1",)) == ONE + b"\trefs/heads/master\n" + listing


def test_each_reply_that_is_cut_off_is_left_to_git() -> None:
    reply = MASTER + line(OTHER + b" refs/heads/qa\n") + b"0000"
    assert lsrefs.listing(reply) is not None
    assert [lsrefs.listing(reply[:length]) for length in range(len(reply))] == [None] * len(reply)


#: Greetings of both versions of the protocol, with what servers of ssh say in them.
GREETING_2 = line(b"version 2\n") + line(b"agent=git/2.39.5\n") + line(b"ls-refs=unborn\n") + b"0000"
GREETING_0 = (
    line(ONE + b" HEAD\0multi_ack symref=HEAD:refs/heads/master object-format=sha1 agent=git/2.39.5\n")
    + MASTER
    + line(OTHER + b" refs/tags/v1\n")
    + line(ONE + b" refs/tags/v1^{}\n")
    + b"0000"
)


@pytest.mark.parametrize(
    ("greeting", "reply"),
    [(GREETING_2, True), (GREETING_0, False)],
    ids=["version 2", "version 0"],
)
def test_a_greeting_is_answered_when_it_is_whole(greeting: bytes, reply: bool) -> None:
    assert [lsrefs.speaks_version_2(greeting[:length]) for length in range(len(greeting))] == [None] * len(greeting)
    assert lsrefs.speaks_version_2(greeting) is reply


@pytest.mark.parametrize("text", [b"Welcome!\n", b"0004", b"0001", b"<html>"])
def test_what_is_no_greeting_is_not_waited_for(text: bytes) -> None:
    with pytest.raises(ValueError, match="no line"):
        lsrefs.speaks_version_2(GREETING_2[:-4] + text)


TOLD: dict[str, tuple[bytes, bytes | None]] = {
    "version 2": (GREETING_2 + MASTER + b"0000", ONE + b"\trefs/heads/master\n"),
    "version 2, no answer": (GREETING_2, None),
    "version 2, cut off": (GREETING_2 + MASTER, None),
    "version 0": (GREETING_0, ONE + b"\trefs/heads/master\n"),
    "version 0, a branch comes first": (
        line(ONE + b" refs/heads/a\0object-format=sha1\n") + MASTER + b"0000",
        ONE + b"\trefs/heads/a\n" + ONE + b"\trefs/heads/master\n",
    ),
    "version 0, cut off": (GREETING_0[:-1], None),
    "version 0, more behind the end": (GREETING_0 + line(b"ERR upload-pack: protocol error"), None),
    "version 0, no branches": (line(b"0" * 40 + b" capabilities^{}\0object-format=sha1") + b"0000", None),
    "version 0, SHA-256": (line(b"1" * 64 + b" refs/heads/a\0object-format=sha256\n") + b"0000", None),
    "version 0, an odd branch": (GREETING_0[:-4] + line(ONE + b" refs/heads/a^{}\n") + b"0000", None),
    "version 0, shallow": (GREETING_0[:-4] + line(b"shallow " + ONE + b"\n") + b"0000", None),
    "version 1": (line(b"version 1\n") + GREETING_0, None),
    "an error": (line(b"ERR access denied") + b"0000", None),
    "nothing": (b"", None),
    "an empty greeting": (b"0000", None),
    "a message": (b"Welcome!\n" + GREETING_2 + MASTER + b"0000", None),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_a_server_of_ssh_tells(what: str) -> None:
    said, listing = TOLD[what]
    assert lsrefs.told(said) == listing
