"""Connections that many questions to one server share. What no question needs is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jens import deferred
from jens.errors import GitError
from jens.git import wrapper
from jens.git.budgets import Account, Ending, ending_of
from jens.git.process import GitOptions
from jens.git.speaker import Aside, Command, Speaker
from jens.urls import endpoint_of

if TYPE_CHECKING:
    from jens.git.masters import Master, Masters
    from jens.git.sessions import Sessions
    from jens.git.settings import Entry
    from jens.git.web import Web


#: So many questions to a server are worth a connection of ssh that they share.
_WORTH = 4


class Connections(Aside):
    """The connections of one run; there are none unless the options say ``share``. Leaving the context ends them.

    At most ``few`` questions to a server are under way at once, and ``many`` when it is far away.
    """

    def __init__(self, options: GitOptions, few: int, many: int) -> None:
        self._options = options
        self._few, self._many = few, many
        self._settings: list[Entry] | None = None
        self._has_settings = False
        self._web: Web | None = None
        self._masters: Masters | None = None
        self._sessions: Sessions | None = None
        self._opening: dict[Master, int] = {}

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        if self._web is not None:
            self._web.close()
        if self._masters is not None:
            self._masters.close()

    def takes(self, command: Command) -> bool:
        """Whether a command is a question that may be asked without Git."""
        if _is_web(_url(command)):
            return self._options.share and self._opened_web.takes(command)
        return self._sessions is not None and self._sessions.takes(command)

    def another(self, command: Command) -> Speaker:
        """A thread that asks web servers, or a session of ssh. Raises OSError."""
        if self._sessions is None or _is_web(_url(command)):
            return self._opened_web.another()
        return self._sessions.another(command)

    def most(self, url: str, waiting: int) -> int:
        """How many questions to the server of a URL may be under way at once, of which so many wait."""
        if _is_web(url):
            return self._few if self._web is None else self._web.most(url)
        return self._few if self._sessions is None else self._sessions.most(url, waiting)

    def _master(self, url: str, waiting: int = 0) -> Master | None:
        """The connection of ssh for a URL, which so many ``waiting`` questions are for; None when there is none."""
        if self._masters is None:
            if not self._options.share or waiting < _WORTH or not endpoint_of(url).startswith("ssh://"):
                return None
            self._masters = deferred.git_masters.Masters(self._options, self._read())
            self._sessions = deferred.git_sessions.Sessions(
                self._masters, self._read(), self._few, self._many, self._options.timeout
            )
        return self._masters.of(url, is_worth=waiting >= _WORTH)

    def opened(self, url: str) -> Master | None:
        """The connection of ssh that a conversation can share; None when there is none."""
        master = self._master(url)
        return master if master and master.look() is deferred.git_masters.State.OPEN else None

    def may_begin(self, url: str, waiting: int, account: Account, now: float) -> bool:
        """Whether the connection that questions share is there, or there will be none.

        To make it is a conversation with the server, too: when it takes too long, the server is silent.
        """
        master = self._master(url, waiting)
        if master is None:
            return True
        state, states = master.look(), deferred.git_masters.State
        if state is states.OPENING and not master.is_given_up:
            number = self._opening.setdefault(master, 0) or account.begin(now)
            self._opening[master] = number
            if now < account.deadline(number):
                return False
            master.give_up()
            account.end(self._opening.pop(master), now, Ending.SILENT)
            return False
        if master in self._opening:
            ending = Ending.ANSWERED if state is states.OPEN else Ending.UNKNOWN
            account.end(self._opening.pop(master), now, ending)
        return True

    @property
    def has_masters(self) -> bool:
        """Whether questions to some server may share a connection of ssh."""
        return self._masters is not None

    @property
    def _opened_web(self) -> Web:
        if self._web is None:
            self._web = deferred.git_web.Web(self._options, self._few, self._many, self._read())
        return self._web

    def _read(self) -> list[Entry] | None:
        """The user's configuration of Git, read once."""
        if not self._has_settings:
            self._has_settings = True
            self._settings = deferred.git_settings.read(self._options)
        return self._settings


def _url(command: Command) -> str:
    """The URL that a question asks; '' for another command."""
    return wrapper.asked_url(command) if wrapper.asked_tags(command) is not None else ""


def _is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def over(master: Master | None, options: GitOptions) -> GitOptions:
    """The options for a conversation over a connection that is shared, if there is one."""
    return options._replace(master=str(master.path)) if master else options


def is_cut_off(result: object, master: Master | None) -> bool:
    """Whether a conversation failed, and the connection that it shared has ended: that tells nothing of the server."""
    if master is None or not isinstance(result, GitError) or ending_of(result) is Ending.SILENT:
        return False
    return master.has_ended(is_likely=ending_of(result) is not Ending.ANSWERED)
