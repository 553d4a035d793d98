"""The remotes of one run: each is asked once, and a silent server is not tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from jens.errors import GitError, GitTimeoutError
from jens.git import wrapper
from jens.git.shells import Command, Result, Shells
from jens.git.wrapper import GitOptions
from jens.urls import server_of


class Remotes:
    """The remotes of one run: a server that did not answer in time is not tried again.

    At most ``jobs`` of them are asked at once. One thread asks and waits; the other threads may call ``speaking_to``,
    ``reply`` and ``heads``. Leaving the context ends the questions under way.
    """

    def __init__(self, options: GitOptions, jobs: int) -> None:
        self.options = options
        self._silent: set[str] = set()
        self._results: dict[Command, Result] = {}
        self._waiting: deque[Command] = deque()
        self._begun: set[Command] = set()
        self._stack = ExitStack()
        self._shells = self._stack.enter_context(Shells(options, jobs, self._next))

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def speaking_to(self, url: str) -> Iterator[GitOptions]:
        """Guard one operation on a remote. Raises GitError at once when the server did not reply in time before."""
        self._refuse_silent(url)
        try:
            yield self.options
        except GitTimeoutError:
            self._silent.add(server_of(url))
            raise

    def _refuse_silent(self, url: str) -> None:
        server = server_of(url)
        if server and server in self._silent:
            raise GitError("ls-remote", f"not tried, {server} did not answer in time before")

    def ask(self, questions: Iterable[Command]) -> None:
        """Start to ask the questions that were not asked before. The wait for replies goes on with the rest."""
        fresh = [question for question in dict.fromkeys(questions) if question not in self._begun]
        self._begun.update(fresh)
        self._waiting.extend(fresh)
        self._shells.feed(len(self._waiting))

    def forget(self) -> None:
        """Forget all questions and replies, because the remotes may have changed since."""
        self._results.clear()
        self._begun.clear()
        self._waiting.clear()
        self._shells.stop()

    def go_on(self) -> None:
        """Receive what has arrived and ask further questions, without waiting, while the caller has other work."""
        self._shells.go_on()

    def _next(self) -> Command | None:
        while self._waiting:
            question = self._waiting.popleft()
            try:
                self._refuse_silent(question[-1])
                return question
            except GitError as error:
                self._results[question] = error
        return None

    def _listen(self) -> list[Command]:
        """Wait for replies. Returns the questions that got one; none when no question is open."""
        replies = self._shells.replies()
        for question, result in replies:
            self._keep(question, result)
        self._shells.feed()  # the shells go on while the caller looks at the replies
        return [question for question, _ in replies]

    def _keep(self, question: Command, result: Result) -> None:
        self._results[question] = result
        if isinstance(result, GitTimeoutError):
            self._silent.add(server_of(question[-1]))

    def replies_to(self, questions: Iterable[Command]) -> Iterator[Command]:
        """Yield each of these questions when it has a reply. Asks those that were not asked before."""
        wanted = list(questions)
        self.ask(wanted)
        left = set(wanted)
        replied = [question for question in wanted if question in self._results]
        while left:
            for question in left.intersection(replied):
                left.remove(question)
                yield question
            replied = self._listen() or wanted  # none when all that is left was refused

    def reply(self, question: Command) -> bytes:
        """The reply to a question, asked now if it was not asked before. Raises GitError when asking failed."""
        result = self._results.get(question)
        if result is None:
            result = self._ask_aside(question)
        if isinstance(result, GitError):
            raise result
        return result

    def _ask_aside(self, question: Command) -> Result:
        """Ask in this thread, while another thread may wait for other replies."""
        try:
            self._refuse_silent(question[-1])
        except GitError as error:
            return error
        with Shells(self.options, 1, iter([question, None]).__next__) as shells:
            [(_, result)] = shells.replies()
        self._keep(question, result)
        return result

    def heads(self, url: str) -> dict[str, str]:
        """The branches of a remote, name to commit; it is asked once in a run. Raises GitError when asking failed."""
        return wrapper.remote_heads(self.reply(wrapper.question(url)))

    def heads_now(self, url: str) -> dict[str, str]:
        """The branches of a remote, asked in any case. Raises GitError when asking failed."""
        question = wrapper.question(url)
        self._ask_aside(question)
        return wrapper.remote_heads(self.reply(question))
