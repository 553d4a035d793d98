"""What Git complains of, in one line: the reason first, nothing that only decorates, and no secrets."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jens.errors import GitError, GitLimitError, GitTimeoutError, GitUnreachedError
from jens.git import complaints as complaints_of
from jens.git import process

GITLAB = """remote:
remote: ========================================================================
remote:
remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.
remote:
remote: ========================================================================
remote:
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""
GITLAB_HTTPS = """remote: The project you were looking for could not be found or you don't have permission to view it.
fatal: repository 'https://git.example.org/a/b/' not found
"""
GITHUB = """ERROR: Repository not found.
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""
BANNER = "".join(f"This is line {number} of the banner, unauthorized use is forbidden.\r\n" for number in range(20))
READ = "fatal: Could not read from remote repository."
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Host key for git.example.org has changed and you have requested strict checking.
Host key verification failed.
fatal: Could not read from remote repository.
"""
QUANTUM = """** WARNING: connection is not using a post-quantum key exchange algorithm.
** This session may be vulnerable to "store now, decrypt later" attacks.
"""


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        pytest.param(
            GITLAB,
            "ERROR: The project you were looking for could not be found or you don't have permission to view it.; "
            f"{READ}",
            id="GitLab over ssh",
        ),
        pytest.param(
            GITLAB_HTTPS,
            "The project you were looking for could not be found or you don't have permission to view it.; "
            "fatal: repository 'https://git.example.org/a/b/' not found",
            id="GitLab over HTTPS",
        ),
        pytest.param(
            "remote: Line 1 of 9\n" * 9 + GITLAB,
            "ERROR: The project you were looking for could not be found or you don't have permission to view it.; "
            f"{READ}; Line 1 of 9; Line 1 of 9",
            id="GitLab below what it tells everybody",
        ),
        pytest.param(GITHUB, f"ERROR: Repository not found.; {READ}", id="GitHub"),
        pytest.param(
            f"FATAL: R any modules/dummy ann DENIED by fallthru\n(or you mis-spelled the reponame)\n{READ}\n",
            f"FATAL: R any modules/dummy ann DENIED by fallthru; (or you mis-spelled the reponame); {READ}",
            id="Gitolite",
        ),
        pytest.param(
            f"Repository not found\nThe requested repository does not exist.\n{READ}\n",
            f"The requested repository does not exist.; {READ}; Repository not found",
            id="Bitbucket",
        ),
        pytest.param(
            f"{BANNER}git.example.org: Permission denied (publickey).\r\n{READ}\n",
            f"git.example.org: Permission denied (publickey).; {READ}; "
            "This is line 18 of the banner, unauthorized use is forbidden.; "
            "This is line 19 of the banner, unauthorized use is forbidden.",
            id="ssh below a banner",
        ),
        pytest.param(f"{BANNER}{GITHUB}", f"ERROR: Repository not found.; {READ}; ", id="a server below a banner"),
        pytest.param(
            f'Load key "/home/jens/.ssh/id": bad permissions\ngit.example.org: Permission denied.\n{READ}\n',
            f'git.example.org: Permission denied.; {READ}; Load key "/home/jens/.ssh/id": bad permissions',
            id="ssh says more before",
        ),
        pytest.param(
            CHANGED,
            f"Host key verification failed.; {READ}; IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!; "
            "Host key for git.example.org has changed and you have requested strict checking.",
            id="ssh in a frame",
        ),
        pytest.param(f"{QUANTUM}{GITHUB}", f"ERROR: Repository not found.; {READ}", id="ssh about its algorithms"),
        pytest.param(
            f"Warning: Permanently added 'x' to the list of known hosts.\n{GITHUB}",
            f"ERROR: Repository not found.; {READ}",
            id="ssh about a new host",
        ),
        pytest.param(
            f"ssh: connect to host x port 22: Connection refused\n{READ}\n",
            f"ssh: connect to host x port 22: Connection refused; {READ}",
            id="ssh",
        ),
        pytest.param(
            "hint: Using 'master' as the name\nhint: for the initial branch\nfatal: not a git repository\n",
            "fatal: not a git repository",
            id="hints",
        ),
        pytest.param("hint: only this\n", "hint: only this", id="nothing but a hint"),
        pytest.param(
            f"fatal: '/srv/x' does not appear to be a git repository\n{READ}\n",
            f"fatal: '/srv/x' does not appear to be a git repository; {READ}",
            id="fatal",
        ),
        pytest.param(
            "error: unable to write file x: No space left on device\nfatal: cannot create directory\n",
            "error: unable to write file x: No space left on device; fatal: cannot create directory",
            id="error before fatal",
        ),
        pytest.param(
            "noise\nfatal: unable to access 'https://x/': Could not resolve host\n",
            "fatal: unable to access 'https://x/': Could not resolve host; noise",
            id="fatal with the reason behind noise",
        ),
        pytest.param(f"{READ}\n", READ, id="no reason"),
        pytest.param("complaint\nanother\n", "complaint; another", id="without a label"),
        pytest.param("", "ended with status 128", id="nothing"),
        pytest.param("remote: =====\n-----\n", "ended with status 128", id="rulers only"),
        pytest.param("remote:   remote: ERROR: no   \n", "ERROR: no", id="passed on twice"),
        pytest.param("error: a \x1b[31mred\x1b[m b\n", "error: a \\x1b[31mred\\x1b[m b", id="colours"),
    ],
)
def test_the_reason_comes_first_and_nothing_only_decorates(complaint: str, expected: str) -> None:
    said = complaints_of.summary(complaint.encode(), 128, ["git", "fetch"])
    assert said.startswith(expected) if expected.endswith("; ") else said == expected


URL = "https://ann:hunter2@example.org/x?private_token=t0p's3cr3t&x"


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        (f"fatal: unable to access '{URL}/': 403", "fatal: unable to access 'https://example.org/x/': 403"),
        (f"fatal: asked for: {URL}/info/refs?service=x", "fatal: asked for: https://example.org/x/info/refs"),
        ("fatal: no ?private_token=t0p's3cr3t&x there", "fatal: no  there"),
        ("fatal: redirect: https://other.example.org/?t=a'b: no", "fatal: redirect: https://other.example.org/: no"),
    ],
)
def test_neither_user_nor_query_of_a_url_is_told(complaint: str, expected: str) -> None:
    assert complaints_of.summary(complaint.encode(), 128, ["git", "ls-remote", "--", URL]) == expected
    assert complaints_of.remarks(complaint.encode(), ["git", "fetch", "--", URL]) == expected


def test_of_a_success_the_warnings_are_told() -> None:
    complaint = f"{QUANTUM}Warning: Permanently added 'x'.\nremote: ====\nhint: no\nwarning: rejected {URL}\n"
    assert complaints_of.remarks(complaint.encode(), ["git", "fetch"]) == "warning: rejected https://example.org/x"
    assert complaints_of.remarks(b"", ["git", "fetch"]) == ""
    complaint = "error: Could not read 1234\nwarning: rejected refs/heads/master because\n"
    expected = "warning: rejected refs/heads/master because; error: Could not read 1234"
    assert complaints_of.remarks(complaint.encode(), ["git", "fetch"]) == expected


def test_a_flood_of_complaints_keeps_its_end() -> None:
    complaints = bytearray(b"banner\n" * process.ENOUGH)
    process.bound(complaints)
    complaints += GITHUB.encode()
    process.bound(complaints)
    assert len(complaints) == process.ENOUGH
    assert complaints_of.summary(bytes(complaints), 128, ["git"]).startswith("ERROR: Repository not found.; ")


def test_a_git_without_a_remote_speaks_to_nobody_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "git-variables"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    local = process.run(["variables"]).decode().splitlines()
    remote = process.run(["variables"], remote=process.GitOptions(), limit=60).decode().splitlines()
    assert {"GIT_ALLOW_PROTOCOL=", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1"} <= set(local)
    assert {"GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_NO_REPLACE_OBJECTS=1"} <= set(remote)
    assert "GIT_NO_LAZY_FETCH=1" not in remote


@pytest.mark.parametrize(
    ("complaint", "status", "kind", "is_cut_short"),
    [
        ("fatal: Out of memory, malloc failed (tried to allocate 400000000 bytes)", 128, GitLimitError, True),
        ("fatal: mmap failed: Cannot allocate memory", 128, GitLimitError, True),
        ("fatal: unable to create threaded lstat: Resource temporarily unavailable", 128, GitLimitError, True),
        ("fatal: unable to create thread: Resource temporarily unavailable", 128, GitLimitError, True),
        ("", -9, GitError, True),
        ("fatal: bad object", 128, GitError, False),
        ("", 1, GitError, False),
    ],
)
def test_what_a_limit_has_ended_is_told_apart_from_what_git_found(
    complaint: str, status: int, kind: type[GitError], is_cut_short: bool
) -> None:
    error = process.failure("fsck", complaint.encode(), status, ["git", "fsck"])
    assert (type(error), error.is_cut_short, error.status) == (kind, is_cut_short, status)
    assert GitTimeoutError("fsck", "x").is_cut_short


@pytest.mark.parametrize(("url", "is_here"), [("/srv/x", True), ("file:///srv/x", True), ("https://x/y", False)])
def test_only_a_remote_on_this_host_is_told_which_files_are_large(url: str, is_here: bool) -> None:
    assert bool(process.server_of_path(url)) == is_here


@pytest.mark.parametrize("piece", ["'", "http://", "http://x?'", "remote:", "@ ", "x@", "://", "=", "error: "])
def test_no_complaint_takes_long(piece: str) -> None:
    complaint = (piece * process.ENOUGH)[: process.ENOUGH]
    begin = time.process_time()
    complaints_of.summary(f"fatal: http://x?{complaint}".encode(), 128, ["git", "--", URL])
    assert time.process_time() - begin < 2


UNREACHED = [
    "ssh: connect to host git.example.org port 22: Connection refused\r\n" + READ,
    "ssh: connect to host git.example.org port 22: Connection timed out\n" + READ,
    "ssh: connect to host 2001:db8::1 port 22: Network is unreachable\n" + READ,
    "ssh: Could not resolve hostname git.example.org: Name or service not known\n" + READ,
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.0.2.1 port 22\n" + READ,
    "Connection timed out during banner exchange\nConnection to 192.0.2.1 port 22 timed out\n" + READ,
    "Connection reset by 192.0.2.1 port 22\n" + READ,
    "Timeout, server git.example.org not responding.\nfatal: the remote end hung up unexpectedly",
    BANNER + "ssh: connect to host git.example.org port 22: No route to host\n" + READ,
    "fatal: unable to connect to 192.0.2.1:\n192.0.2.1[0: 192.0.2.1]: errno=Connection refused\n",
    "fatal: unable to look up git.example.org (port 9418) (Name or service not known)",
    "fatal: unable to access 'https://h/b's/': Failed to connect to h port 443 after 3 ms: Couldn't connect to server",
    "fatal: unable to access 'https://git.example.org/a/': Could not resolve host: git.example.org",
    "fatal: unable to access 'https://git.example.org/a/': Could not resolve proxy: proxy.example.org",
    "fatal: unable to access 'https://git.example.org/a/': Connection timed out after 300001 milliseconds",
    "fatal: unable to access 'https://git.example.org/a/': Received HTTP code 503 from proxy after CONNECT",
]
REACHED = [
    *(GITLAB, GITLAB_HTTPS, GITHUB, CHANGED),
    "git@git.example.org: Permission denied (publickey).\n" + READ,
    "remote: ssh: connect to host backend port 22: Connection refused\n" + READ,
    "remote: fatal: unable to connect to backend\nfatal: remote error: upload-pack: not our ref 0123",
    "fatal: remote error: access denied or repository not exported: /a",
    "fatal: repository 'https://git.example.org/a/' not found",
    "fatal: unable to access 'https://git.example.org/a/': The requested URL returned error: 502",
    "fatal: unable to access 'https://git.example.org/a/': SSL certificate problem: self-signed certificate",
    "fatal: Authentication failed for 'https://git.example.org/a/'",
    "Connection to git.example.org closed by remote host.\nfatal: early EOF",
    READ,
    "",
]


@pytest.mark.parametrize("complaint", [*UNREACHED, *REACHED])
def test_which_complaints_are_that_there_was_no_connection(complaint: str) -> None:
    error = process.failure("fetch", complaint.encode(), 128, ())
    assert isinstance(error, GitUnreachedError) == (complaint in UNREACHED)


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        (READ, True),
        ("fatal: the remote end hung up unexpectedly", True),
        ("fatal: unable to access 'https://h/': Empty reply from server", True),
        ("fatal: unable to access 'https://h/': Recv failure: Connection reset by peer", True),
        ("fatal: unable to access 'https://h/': The requested URL returned error: 404", False),
        (GITHUB, False),
        ("git@h: Permission denied (publickey).\n" + READ, False),
    ],
)
def test_which_complaints_are_that_the_server_said_nothing(complaint: str, expected: bool) -> None:
    assert complaints_of.says_nothing(complaints_of.summary(complaint.encode(), 128, ())) is expected


def test_progress_is_no_complaint() -> None:
    told = (
        "Cloning into bare repository '/var/lib/jens/bare/modules/.new-1'...\n"
        "remote: Enumerating objects: 5, done.        \n"
        "remote: Counting objects:  20% (1/5)\rremote: Counting objects: 100%\r"
        "Receiving objects:  50% (1/2), 1.00 MiB | 2.00 KiB/s\rfatal: early EOF\n"
    )
    assert complaints_of.summary(told.encode(), 128, ()) == "fatal: early EOF"
