"""The remotes of one run: each is asked once, and a server that was silent is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jens import gitwrapper
from jens.errors import GitError, GitTimeoutError
from jens.gitwrapper import GitOptions
from jens.names import server_of


class Remotes:
    """The remotes of one run: a server that did not answer in time is not tried again."""

    def __init__(self, options: GitOptions) -> None:
        self.options = options
        self._silent: set[str] = set()
        self._said: dict[str, dict[str, str] | GitError] = {}

    @contextmanager
    def speaking_to(self, url: str) -> Iterator[GitOptions]:
        """Guard one conversation. Raises GitError at once when the server was silent before."""
        server = server_of(url)
        if server and server in self._silent:
            raise GitError("ls-remote", f"not tried, {server} did not answer in time before")
        try:
            yield self.options
        except GitTimeoutError:
            self._silent.add(server)
            raise

    def heads(self, url: str) -> dict[str, str]:
        """The branches of a remote, which is asked once in a run. Raises GitError, as it did when it was asked."""
        said = self._said.get(url)
        if said is None:
            try:
                with self.speaking_to(url) as options:
                    said = gitwrapper.remote_heads(url, options)
            except GitError as error:
                said = error
            self._said[url] = said
        if isinstance(said, GitError):
            raise said
        return said
