"""Connections that many questions to one server share. What no question needs is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jens import deferred
from jens.git.process import GitOptions
from jens.git.speaker import Aside, Command, Speaker

if TYPE_CHECKING:
    from jens.git.web import Web


class Connections(Aside):
    """The connections of one run. Leaving the context ends them."""

    def __init__(self, options: GitOptions) -> None:
        self._options = options
        self._web: Web | None = None

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        if self._web is not None:
            self._web.close()

    def takes(self, command: Command) -> bool:
        """Whether a command is a question to a web server that may be asked without Git."""
        if not command[-1].startswith(("https://", "http://")):
            return False
        if self._web is None:
            self._web = deferred.git_web.Web(self._options)
        return self._web.takes(command)

    def another(self) -> Speaker:
        """A thread that asks web servers. Raises OSError."""
        return self._opened.another()

    @property
    def _opened(self) -> Web:
        assert self._web is not None, "it takes commands first"
        return self._web
