"""What servers and repositories may cost a run: each its time limit once, whoever asks. It reads no clock.

Times are in seconds of a clock that only goes forward. One conversation is one Git that speaks to a server.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from jens import deferred
from jens.errors import GitBusyError, GitError, GitTimeoutError, GitUnreachedError
from jens.git.process import NO_TIME_LEFT

#: Seconds without an answer after which a conversation only waits: it costs a process, but no processor.
QUIET = 0.2
#: Seconds for which a server answers others, after which a question counts as left behind.
_LEFT_BEHIND = 1.0
#: What a server still gets for one more conversation, when it has used up its limit although it gives answers (one of
#: its repositories may hang): this part of its limit, but so many seconds at least.
_GRACE, _LEAST = 0.25, 5.0
#: Why a server is asked no more.
_TOO_LATE, _OUT_OF_REACH = "did not answer in time", "could not be reached"


class Ending(Enum):
    """What came of a conversation."""

    ANSWERED = "the server gave what it was asked for, or said why not"
    MUTE = "the server closed the connection without a word"
    SILENT = "there was no answer in time"
    UNREACHED = "there was no connection"
    DROPPED = "the server closed the connection before it knew what for, as it does when it has too many"
    UNKNOWN = "something else ended it, which tells nothing of the server"


def ending_of(error: GitError) -> Ending:
    """What an error tells of the server. All that it says counts as an answer, a refusal too."""
    if isinstance(error, GitTimeoutError):
        return Ending.SILENT
    if isinstance(error, GitUnreachedError):
        return Ending.DROPPED if deferred.git_complaints.says_dropped(error.problem) else Ending.UNREACHED
    if isinstance(error, GitBusyError) or error.status is None or error.status < 0:
        return Ending.UNKNOWN
    return Ending.MUTE if deferred.git_complaints.says_nothing(error.problem) else Ending.ANSWERED


class _Talk(NamedTuple):
    """A conversation under way: since when its time counts, and when it was begun.

    ``is_long``: it has a longer limit than others. ``is_last_chance``: its server has used up its limit already.
    """

    begun: float
    asked: float
    is_long: bool
    is_last_chance: bool


class Account:
    """What one server has cost. ``verdict`` says why it is asked no more, '' while it is.

    A server that has said nothing for ``limit`` seconds gets no more time. One that could not be reached gets none
    either, unless a conversation that is under way proves that it is there. One that drops connections while it speaks
    on others gets fewer at a time from then on.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.verdict = ""
        self._talks: dict[int, _Talk] = {}
        self._last = 0
        self._last_begun = 0.0
        self._answered = float("-inf")
        self._spent, self._spent_until = 0.0, float("-inf")
        self._is_doubtful = False
        self._room = float("inf")

    @property
    def is_silent(self) -> bool:
        """Whether the server is asked no more because it says nothing."""
        return self.verdict == _TOO_LATE

    def silence(self) -> None:
        """Ask the server nothing: it said nothing the last time."""
        self.verdict = _TOO_LATE

    def begin(self, now: float, *, is_long: bool = False) -> int:
        """Enter a conversation; returns its number. The limit of a long one is the caller's business."""
        self._last += 1
        self._talks[self._last] = _Talk(now, now, is_long, self._spent >= self._limit)
        self._last_begun = now
        return self._last

    def begin_again(self, number: int, now: float) -> None:
        """Let the time of a conversation begin now: nobody has listened so far."""
        self._talks[number] = self._talks[number]._replace(begun=now)

    def deadline(self, number: int) -> float:
        """When a conversation has to be over."""
        talk = self._talks[number]
        if talk.is_long:
            return float("inf")
        if self.verdict:
            return float("-inf")
        return talk.begun + max(self._limit - self._spent, self._least)

    @property
    def _least(self) -> float:
        """The seconds that a server gets for one more conversation in any case."""
        return min(self._limit, max(self._limit * _GRACE, _LEAST))

    def has_had_a_chance(self, number: int, now: float) -> bool:
        """Whether a conversation lasted so long that its end tells something of the server."""
        return now - self._talks[number].begun >= self._least / 2

    def only_waits(self, number: int, now: float) -> bool:
        """Whether a conversation seems to be with a silent server, or in a silent repository."""
        since = min(talk.begun for talk in self._talks.values())
        return now - max(self._answered, since) >= QUIET or self._is_left_behind(self._talks[number])

    def _is_left_behind(self, talk: _Talk) -> bool:
        """Whether the server has answered others long after this one began."""
        return self._answered - talk.begun >= _LEFT_BEHIND

    def is_crowded(self, now: float, most: int) -> bool:
        """Whether one more question has to wait for others. A silent server gets fewer and fewer questions.

        Questions that are left behind do not count: they must not hold up those to other repositories.
        """
        under_way = len(self._talks)
        if under_way >= self._room:
            return True
        if under_way == 0 or (under_way < most and now - self._answered < QUIET and not self._is_doubtful):
            return False
        if self._is_doubtful or under_way >= 2 * most:
            return True
        since = min(talk.begun for talk in self._talks.values())
        if self._answered < since and now - since >= QUIET:
            return now - self._last_begun < max(QUIET, self._last_begun - since)
        return sum(not self._is_left_behind(talk) for talk in self._talks.values()) >= most

    def is_full(self, most: int) -> bool:
        """Whether ``most`` conversations are under way, or it is doubtful that there is a server."""
        return len(self._talks) >= min(most, self._room) or self._is_doubtful

    def end(self, number: int, now: float, ending: Ending) -> bool:
        """Leave a conversation, and judge the server by what came of it. Returns whether to hold the same once more."""
        talk = self._talks.pop(number)
        if ending is Ending.DROPPED and (self._talks or self._answered >= talk.asked):
            self._room = max(1, min(self._room, len(self._talks)))
            return True
        if ending is Ending.ANSWERED:
            self._answered, self._is_doubtful = now, False
        elif ending is not Ending.UNKNOWN:
            self._judge(talk, now, ending)
        if self._is_doubtful and all(other.is_long for other in self._talks.values()):
            self.verdict = self.verdict or _OUT_OF_REACH
        return False

    def _judge(self, talk: _Talk, now: float, ending: Ending) -> None:
        self._spent += max(0.0, now - max(talk.begun, self._spent_until))
        self._spent_until = now
        has_answered = self._answered >= talk.asked
        if ending in (Ending.UNREACHED, Ending.DROPPED):
            self._is_doubtful = not has_answered
            return
        is_silent = ending is Ending.SILENT
        if (is_silent and talk.is_last_chance) or (not has_answered and (is_silent or self._spent >= self._limit)):
            self.verdict = self.verdict or _TOO_LATE


#: A repository: its URL and its name. The question for its branches, which others with its URL share, has no name.
Key = tuple[str, str]


class Patience:
    """What all conversations about a repository may take together: so many seconds, 0 for no limit."""

    def __init__(self, seconds: float) -> None:
        self._seconds = float(seconds or "inf")
        self._spent: dict[Key, float] = {}

    def left(self, key: Key) -> float:
        """The seconds that conversations about a repository may still take."""
        return self._seconds - sum(self._spent.get(each, 0.0) for each in {key, (key[0], "")})

    def spend(self, key: Key, seconds: float) -> None:
        """Note how long a conversation took."""
        self._spent[key] = self._spent.get(key, 0.0) + seconds

    def expect(self, key: Key) -> None:
        """Raise GitTimeoutError when nothing is left."""
        if self.left(key) <= 0:
            problem = f"not tried, the questions before took {self._seconds:g} seconds ([git] patience)"
            raise GitTimeoutError("ls-remote", problem)

    def explained(self, key: Key, error: GitError) -> GitError:
        """An error, which says so when the reason is that nothing was left."""
        if error.problem != NO_TIME_LEFT or self.left(key) > 0:
            return error
        return GitTimeoutError(error.verb, f"no end within {self._seconds:g} seconds ([git] patience)")
