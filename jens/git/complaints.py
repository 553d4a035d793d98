"""What Git complains of, put into one line for people, and what it tells of repository and server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jens.text import one_line
from jens.urls import redact, secrets_of

#: What Git says when it gets no more memory.
_NO_MEMORY = re.compile(r"out of memory|cannot allocate memory|unable to create thread", re.IGNORECASE)
#: Lines of a complaint that are quoted.
_MOST_LINES = 6
_REMOTE = re.compile(r"\A(?:remote:\s*)+")
#: A text between two rows of the same sign.
_FRAME = re.compile(r"(?P<sign>[@#*|=+!-])(?P=sign)*\s+(?P<text>.*\S)\s+(?P=sign)+")
#: How lines begin that name a reason; how those begin that only tell what came of it.
_LABEL = re.compile(r"(?:error|fatal)\s*:", re.IGNORECASE)
_CONSEQUENCE = re.compile(r"fatal: (?:Could not read from remote|the remote end hung up|early EOF)")
#: How lines begin that say that no connection to the server could be made. Sources: connect.c of Git, ssh(1), curl.
_UNREACHED = re.compile(
    r"ssh: (?:connect to host \S+ port \d+|Could not resolve hostname \S+):"
    r"|(?:kex|ssh)_exchange_identification: "
    r"|Connection timed out during banner exchange"
    r"|Connection (?:closed|reset) by \S+ port \d+$"
    r"|Connection to \S+ port \d+ timed out"
    r"|Timeout, server \S+ not responding"
    r"|fatal: unable to (?:connect to|look up) "
    r"|fatal: unable to access '.*?': (?:Could not resolve (?:host|proxy)\b|Failed to connect to |Couldn't connect to "
    r"|Resolving timed out |Connection time|Received HTTP code 5\d\d from proxy after CONNECT)"
)
#: What ssh complains of when sshd closes a connection before the login: it has as many as it takes, or wants none.
_DROPPED = re.compile(r"(?:kex|ssh)_exchange_identification: |Connection (?:closed|reset) by \S+ port \d+")
#: What HTTP conversations fail with in which the server said nothing.
_NO_WORD = re.compile(r"fatal: unable to access '.*?': (?:Empty reply from server|Recv failure: |Operation too slow)")
#: How lines begin that name no reason, in lower case: hints of Git, and warnings of Git and ssh.
_CHATTER = ("hint:", "warning:", "** ", "mux_client_", "controlsocket ", "control socket ")
#: The same when Git ended with success. Then its own warnings are what counts.
_CHATTER_OF_SUCCESS = ("hint:", "Warning:", "** ")
#: How lines begin that tell of progress.
_PROGRESS = re.compile(
    r"Cloning into |(?:Enumerating|Counting|Compressing|Receiving|Unpacking) objects: "
    r"|Resolving deltas: |Checking connectivity: |Total \d+ \("
)
#: What Git advises whenever a server has refused it.
_ADVICE = ("Please make sure you have the correct access rights", "and the repository exists.")
#: What Git complains of when it could not look, whatever it says of the repository then. It speaks as strerror(3) does.
_COULD_NOT_LOOK = (
    *(b"Too many open files", b"Cannot allocate memory", b"ut of memory", b"Input/output error"),
    *(b"Resource temporarily unavailable", b"Stale file handle", b"Transport endpoint is not connected"),
    *(b"died of signal", b"unable to create thread", b"cannot create thread", b"unable to create threaded"),
)


def could_not_look(complaints: bytes) -> bool:
    """Whether Git complains that the system did not let it look: then it says nothing reliable of a repository."""
    return any(text in complaints for text in _COULD_NOT_LOOK)


def is_out_of_memory(text: str) -> bool:
    """Whether a complaint in one line is that there was no more memory."""
    return _NO_MEMORY.search(text) is not None


def is_unreached(complaints: bytes) -> bool:
    """Whether no connection to the server could be made."""
    return any(not line.is_remote and _UNREACHED.match(line.text) for line in _lines(complaints))


def says_nothing(problem: str) -> bool:
    """Whether a problem is that the server closed the connection without a word, for whatever reason."""
    return (_CONSEQUENCE.match(problem) or _NO_WORD.match(problem)) is not None


def says_dropped(problem: str) -> bool:
    """Whether a problem is that a server closed a connection before it knew what for."""
    return _DROPPED.search(problem) is not None


def summary(complaints: bytes, status: int, command: Sequence[str]) -> str:
    """Git's complaint in one line: what names the reason first, without hints, frames, and secrets of the command."""
    lines = _lines(complaints)
    said = [line for line in lines if not line.text.lower().startswith(_CHATTER)] or lines
    end = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
    text = "; ".join(_from_the_reason(said)[:_MOST_LINES]) or end
    return _without_secrets(text, command)


def remarks(complaints: bytes, command: Sequence[str]) -> str:
    """What a Git complained of that ended with success, in one line, what it rejected first; '' for nothing."""
    texts = [line.text for line in _lines(complaints) if not line.text.startswith(_CHATTER_OF_SUCCESS)]
    texts.sort(key=lambda text: "rejected" not in text)
    return _without_secrets("; ".join(texts[:_MOST_LINES]), command)


def _without_secrets(text: str, command: Sequence[str]) -> str:
    for argument in command:
        for secret in secrets_of(argument):
            text = text.replace(secret, "")
    return one_line(redact(text))


class _Line(NamedTuple):
    """A line of a complaint; ``is_remote``: Git passes on what the server says."""

    text: str
    is_remote: bool


def _lines(complaints: bytes) -> list[_Line]:
    """The lines of a complaint that say something: no frames, rulers or progress, and no ``remote:`` in front."""
    found = []
    for line in complaints.decode("utf-8", "replace").splitlines():
        stripped = line.strip()
        text = _REMOTE.sub("", stripped)
        framed = _FRAME.fullmatch(text)
        text = framed["text"] if framed else text
        if any(map(str.isalnum, text)) and not _PROGRESS.match(text):
            found.append(_Line(text, _REMOTE.match(stripped) is not None))
    return found


def _from_the_reason(lines: Sequence[_Line]) -> list[str]:
    """The lines from the one that names the reason, and then two that were before it: of a banner, or of ssh."""
    start = _reason(lines)
    return [line.text for line in (*lines[start:], *lines[max(0, start - 2) : start]) if line.text not in _ADVICE]


def _reason(lines: Sequence[_Line]) -> int:
    """Where the reason begins.

    Git and most servers name it in a line of its own, ``fatal: …`` or ``ERROR: …``. What a server says over HTTP is
    just before Git's line. ssh prints the reason just before Git tells that it could not read.
    """
    named = [_LABEL.match(line.text) is not None and not _CONSEQUENCE.match(line.text) for line in lines]
    if True not in named:
        return max(0, next((i for i, line in enumerate(lines) if _CONSEQUENCE.match(line.text)), 0) - 1)
    start = label = named.index(True)
    while lines[label].text.startswith("fatal:") and start and lines[start - 1].is_remote:
        start -= 1
    return start
