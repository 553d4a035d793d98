"""The remotes of one run: each is asked once, and a server that was silent is left alone."""

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

    ``jobs`` of them are asked at once. One thread may ask and listen; all others may want to know what was said.
    Leaving the context ends what is under way.
    """

    def __init__(self, options: GitOptions, jobs: int) -> None:
        self.options = options
        self._silent: set[str] = set()
        self._said: dict[Command, Result] = {}
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
        """Guard one conversation. Raises GitError at once when the server was silent before."""
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
        """Begin to ask, what has not been asked before, and go on when others listen."""
        fresh = [question for question in dict.fromkeys(questions) if question not in self._begun]
        self._begun.update(fresh)
        self._waiting.extend(fresh)
        self._shells.feed(len(self._waiting))

    def forget(self) -> None:
        """Forget all questions, as if nothing had been asked: what they are about may have changed since."""
        self._said.clear()
        self._begun.clear()
        self._waiting.clear()
        self._shells.stop()

    def go_on(self) -> None:
        """Let those who ask go on, without waiting for anybody: for who has other work to do meanwhile."""
        self._shells.go_on()

    def _next(self) -> Command | None:
        while self._waiting:
            question = self._waiting.popleft()
            try:
                self._refuse_silent(question[-1])
                return question
            except GitError as error:
                self._said[question] = error
        return None

    def _listen(self) -> list[Command]:
        """The questions that are answered next; none when all are."""
        answers = self._shells.replies()
        for question, said in answers:
            self._keep(question, said)
        self._shells.feed()  # which go on while the answers are looked at
        return [question for question, _ in answers]

    def _keep(self, question: Command, said: Result) -> None:
        self._said[question] = said
        if isinstance(said, GitTimeoutError):
            self._silent.add(server_of(question[-1]))

    def replies_to(self, questions: Iterable[Command]) -> Iterator[Command]:
        """Each of these questions, asked if need be, once it is answered."""
        wanted = list(questions)
        self.ask(wanted)
        left = set(wanted)
        answered = [question for question in wanted if question in self._said]
        while left:
            for question in left.intersection(answered):
                left.remove(question)
                yield question
            answered = self._listen() or wanted  # what was not sent, for its server is silent, is refused by now

    def reply(self, question: Command) -> bytes:
        """What came of a question, which is asked now if it was not before. Raises GitError, as it did then."""
        said = self._said.get(question)
        if said is None:
            said = self._ask_aside(question)
        if isinstance(said, GitError):
            raise said
        return said

    def _ask_aside(self, question: Command) -> Result:
        """Ask in this thread, while others may be listening to others."""
        try:
            self._refuse_silent(question[-1])
        except GitError as error:
            return error
        with Shells(self.options, 1, iter([question, None]).__next__) as shells:
            [(_, said)] = shells.replies()
        self._keep(question, said)
        return said

    def heads(self, url: str) -> dict[str, str]:
        """The branches of a remote, which is asked once in a run. Raises GitError, as it did when it was asked."""
        return wrapper.remote_heads(self.reply(wrapper.question(url)))
