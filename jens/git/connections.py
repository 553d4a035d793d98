"""Connections that many questions to one server share. What no question needs is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jens import deferred
from jens.git.process import GitOptions
from jens.git.speaker import Aside, Command, Speaker

if TYPE_CHECKING:
    from jens.git.masters import Master, Masters
    from jens.git.settings import Entry
    from jens.git.web import Web


class Connections(Aside):
    """The connections of one run. Leaving the context ends them."""

    def __init__(self, options: GitOptions, jobs: int) -> None:
        self._options = options
        self._jobs = jobs
        self._settings: list[Entry] | None = None
        self._has_settings = False
        self._web: Web | None = None
        self._masters: Masters | None = None

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        if self._web is not None:
            self._web.close()
        if self._masters is not None:
            self._masters.close()

    def takes(self, command: Command) -> bool:
        """Whether a command is a question to a web server that may be asked without Git."""
        return command[-1].startswith(("https://", "http://")) and self._opened_web.takes(command)

    def another(self) -> Speaker:
        """A thread that asks web servers. Raises OSError."""
        return self._opened_web.another()

    def master(self, url: str, waiting: int = 0) -> Master | None:
        """The connection of ssh for a URL, which so many ``waiting`` questions are for; None when there is none."""
        if self._masters is None:
            if not waiting:
                return None
            self._masters = deferred.git_masters.Masters(self._options, self._read())
        return self._masters.of(url, waiting)

    @property
    def has_masters(self) -> bool:
        """Whether questions to some server may share a connection of ssh."""
        return self._masters is not None

    @property
    def _opened_web(self) -> Web:
        if self._web is None:
            self._web = deferred.git_web.Web(self._options, self._jobs, self._read())
        return self._web

    def _read(self) -> list[Entry] | None:
        """The user's configuration of Git, read once."""
        if not self._has_settings:
            self._has_settings = True
            self._settings = deferred.git_settings.read(self._options)
        return self._settings
