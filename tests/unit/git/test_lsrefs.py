"""The request of protocol version 2, and which replies count."""

from __future__ import annotations

import pytest

from jens.git import lsrefs

ONE, OTHER = b"1" * 40, b"a" * 40


def line(content: bytes) -> bytes:
    return b"%04x%s" % (len(content) + 4, content)


MASTER = line(ONE + b" refs/heads/master\n")


def test_the_request_is_what_git_sends_without_the_rest() -> None:
    request = lsrefs.request("git/2.39.5")
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


def test_each_reply_that_is_cut_off_is_left_to_git() -> None:
    reply = MASTER + line(OTHER + b" refs/heads/qa\n") + b"0000"
    assert lsrefs.listing(reply) is not None
    assert [lsrefs.listing(reply[:length]) for length in range(len(reply))] == [None] * len(reply)
