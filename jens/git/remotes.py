"""The remotes of one run: each is asked once, and no server costs the run more than its time limit."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Callable, TypeVar

from jens.errors import GitError, GitTimeoutError
from jens.git import workers, wrapper
from jens.git.budgets import Account, Ending, Key, Patience, ending_of
from jens.git.connections import Connections, is_cut_off, over
from jens.git.process import remote_environment
from jens.git.shells import Command, Result, Shells
from jens.git.wrapper import GitOptions
from jens.urls import endpoint_of, server_of

if TYPE_CHECKING:
    from jens.git.masters import Master

#: Seconds between two looks whether a server has room for one more conversation.
_LOOK = 0.1
#: How often the same conversation is begun with a server that drops connections.
_TRIES = 4

Value = TypeVar("Value")


class Remotes:
    """The remotes of one run: what a server costs the run is the time limit once, whoever asks and however often.

    All conversations about one repository share the ``patience`` of the options, and so does the question for it.

    At most ``jobs`` questions are under way at once, not counting those that only wait: servers must not wait for each
    other. Questions to a server that is far away wait for most of their time: as ``many`` are under way over shared
    connections. One thread asks and waits; the other threads may call ``converse``, ``reply``, ``heads`` and
    ``heads_now``. Leaving the context ends the questions under way.
    """

    def __init__(self, options: GitOptions, jobs: int, many: int = 0) -> None:
        self.options = options
        self._jobs = jobs
        self._accounts: dict[str, Account] = {}
        self._patience = Patience(options.patience)
        self._subject = threading.local()
        self._begun: dict[Command, float] = {}
        self._extra: dict[str, float] = {}
        self._lock = threading.Condition()
        self._results: dict[Command, Result] = {}
        self._urls: dict[Command, str] = {}
        self._waiting: dict[str, deque[Command]] = {}
        self._under_way: dict[Command, int] = {}
        self._tries: Counter[Command] = Counter()
        self._stack = ExitStack()
        self._connections = self._stack.enter_context(Connections(options, jobs, max(jobs, many)))
        self._far: set[str] = set()
        self._shared: dict[Command, Master | None] = {}
        self._shells = self._stack.enter_context(
            Shells(options, jobs, self._next, self._look, workers.spare(), self._connections, self._variables)
        )

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Conversations of other threads

    @contextmanager
    def about(self, repository: str) -> Iterator[None]:
        """Let the conversations of this thread be about one repository; others may have the same URL."""
        self._subject.name = repository
        try:
            yield
        finally:
            self._subject.name = ""

    def _key(self, url: str) -> Key:
        """What the time of a conversation of this thread is noted under; that of questions is with no name."""
        return url, getattr(self._subject, "name", "")

    def converse(self, url: str, speak: Callable[[GitOptions], Value], *, is_long: bool = False) -> Value:
        """Do one operation on a remote. Raises GitError at once when its server has used up its time.

        A long operation has a limit of its own, the time limit of clones. When the server drops the connection, as it
        does when it has too many, ``speak`` is called again, with fewer conversations under way.
        """
        server = endpoint_of(url)
        if not server:
            return self._speak_here(url, speak)
        try:
            tries = 0
            while True:
                number = self._begin(server, url, is_long=is_long)
                master = self._connections.opened(url)
                result, is_dropped = self._speak(server, url, number, lambda given: speak(over(master, given)))  # noqa: B023
                is_dropped = is_dropped or is_cut_off(result, master)
                tries += 1
                if not is_dropped or tries == _TRIES:
                    break
        finally:
            workers.take_job()
        if isinstance(result, GitError):
            raise self._patience.explained(self._key(url), result)
        return result

    def _speak_here(self, url: str, speak: Callable[[GitOptions], Value]) -> Value:
        """Hold a conversation with a remote on this host. Raises GitError."""
        key, begin = self._key(url), time.monotonic()
        self._patience.expect(key)
        result: Value | GitError
        try:
            result = speak(self.options._replace(left=lambda: self._patience.left(key) - (time.monotonic() - begin)))
        except GitError as error:
            result = error
        finally:
            self._spend(key, begin)
        if isinstance(result, GitError):
            raise self._patience.explained(key, result)
        return result

    def _speak(
        self, server: str, url: str, number: int, speak: Callable[[GitOptions], Value]
    ) -> tuple[Value | GitError, bool]:
        """What came of one conversation, and whether to hold it once more."""
        result: Value | GitError
        ending, begin = Ending.UNKNOWN, time.monotonic()
        try:
            result = speak(self.options._replace(left=lambda: self._left(server, url, number, begin)))
            ending = Ending.ANSWERED
        except GitError as error:
            result, ending = error, self._judged(server, number, ending_of(error))
        finally:
            self._spend(self._key(url), begin)
            with self._lock:
                is_dropped = self._account(server).end(number, time.monotonic(), ending)
                self._lock.notify_all()
        return result, is_dropped

    def _judged(self, server: str, number: int, ending: Ending) -> Ending:
        """What an ending tells of the server: nothing, when the patience for a repository was over soon after it began.

        ``patience`` ends conversations of which the server knows nothing.
        """
        if ending is not Ending.SILENT or not self.options.patience:
            return ending
        with self._lock:
            account = self._account(server)
            is_fair = account.has_had_a_chance(number, time.monotonic()) or account.verdict
        return ending if is_fair else Ending.UNKNOWN

    def _spend(self, key: Key, begin: float) -> None:
        """Note that a conversation about a repository ends now."""
        with self._lock:
            self._patience.spend(key, time.monotonic() - begin)

    def _begin(self, server: str, url: str, *, is_long: bool) -> int:
        """Begin a conversation as soon as its server has room for it. Raises GitError when it has used up its time."""
        account = self._account(server)
        self._patience.expect(self._key(url))
        with self._lock:
            self._refuse(account, url)
            while account.is_full(self._jobs):
                workers.leave_job()
                self._lock.wait(_LOOK)
                self._refuse(account, url)
            return account.begin(time.monotonic(), is_long=is_long)

    def _left(self, server: str, url: str, number: int, begin: float) -> float:
        """The seconds that a conversation of this thread may still take. Lets another one work while it only waits."""
        now = time.monotonic()
        with self._lock:
            if self._account(server).only_waits(number, now):
                workers.leave_job()
            patience = self._patience.left(self._key(url)) - (now - begin)
            return min(self._account(server).deadline(number) - now, patience)

    def _account(self, server: str) -> Account:
        account = self._accounts.get(server)
        if account is None:
            account = self._accounts.setdefault(server, Account(float(self.options.timeout or "inf")))
        return account

    @staticmethod
    def _refuse(account: Account, url: str) -> None:
        if account.verdict:
            failure = GitTimeoutError if account.is_silent else GitError
            raise failure("ls-remote", f"not tried, {server_of(url)} {account.verdict} before")

    def silence(self, servers: Iterable[str]) -> None:
        """Ask these servers nothing. Another process is about to find out whether they answer again."""
        for server in servers:
            self._account(server).silence()

    def silent_server(self, url: str) -> str:
        """The server of a URL, if it is silent; otherwise ''."""
        server = endpoint_of(url)
        return server if server and self._account(server).is_silent else ""

    def has_time_for_more(self, url: str, seconds: float) -> bool:
        """Whether a server that took ``seconds`` to refuse may be asked once more.

        All that is refused in a run takes no longer than the time limit of one question.
        """
        server = endpoint_of(url)
        with self._lock:
            self._extra[server] = self._extra.get(server, 0.0) + seconds
            return not self.options.timeout or self._extra[server] + seconds <= self.options.timeout

    # Questions

    def ask(self, questions: Iterable[Command], url: str = "") -> None:
        """Start to ask the questions that were not asked before. The wait for replies goes on with the rest.

        Without a URL it is the one that a question names.
        """
        waiting = 0
        for question in questions:
            if question not in self._urls:
                self._urls[question] = url or wrapper.asked_url(question)
                self._waiting.setdefault(endpoint_of(self._urls[question]), deque()).append(question)
                waiting += 1
        self._shells.feed(waiting)

    def forget(self) -> None:
        """Forget all questions and replies, because the remotes may have changed since."""
        self._shells.stop()
        for question in list(self._under_way):
            self._end(question, Ending.UNKNOWN)
        for question in list(self._begun):
            self._spend((self._urls[question], ""), self._begun.pop(question))
        for question in list(self._shared):
            self._leave_master(question)
        self._results.clear()
        self._urls.clear()
        self._waiting.clear()

    def go_on(self) -> None:
        """Receive what has arrived and ask further questions, without waiting, while the caller has other work."""
        self._shells.go_on()

    def _next(self) -> Command | None:
        """The next question, of each server in turn; None when all that are left have to wait for others."""
        for server in list(self._waiting):
            questions = self._waiting.pop(server)
            question = self._next_of(server, questions)
            if questions:
                self._waiting[server] = questions  # behind those of the other servers
            if question is not None:
                return question
        return None

    def _next_of(self, server: str, questions: deque[Command]) -> Command | None:
        try:
            self._patience.expect((self._urls[questions[0]], ""))
        except GitError as error:
            self._results[questions.popleft()] = error
            return None
        if not server:
            return questions.popleft()
        account = self._account(server)
        try:
            self._refuse(account, self._urls[questions[0]])
        except GitError as error:
            self._results.update(dict.fromkeys(questions, error))
            questions.clear()
            return None
        now = time.monotonic()
        with self._lock:
            if not self._connections.may_begin(self._urls[questions[0]], len(questions), account, now):
                return None
            if account.is_crowded(now, self._most(server, self._urls[questions[0]], len(questions))):
                return None
            self._under_way[questions[0]] = account.begin(now)
        return questions.popleft()

    def _most(self, server: str, url: str, waiting: int) -> int:
        """How many questions to a server may be under way."""
        most = self._connections.most(url, waiting)
        (self._far.add if most > self._jobs else self._far.discard)(server)
        return most

    def _variables(self, question: Command) -> Mapping[str, str]:
        """The variables for a question: how ssh is called, if that differs between questions."""
        url = self._urls.get(question, "")
        if not (self._connections.has_masters and endpoint_of(url).startswith("ssh://")):
            return {}
        is_of_repository = question[0] == "ls-remote"  # those for the metadata read the configuration of their clones
        master = self._connections.opened(url) if is_of_repository else None
        self._leave_master(question)
        self._shared[question] = master
        if master:
            master.sessions += 1
        variables = remote_environment(over(master, self.options))
        return {name: value for name, value in variables.items() if name.startswith("GIT_SSH")}

    def _leave_master(self, question: Command) -> Master | None:
        """Let others have the session of a question. Returns its master, None when it had none."""
        master = self._shared.pop(question, None)
        if master:
            master.sessions -= 1
        return master

    def _look(self, question: Command, is_first: bool) -> tuple[float, bool]:
        """The seconds that a question may still take, and whether it only waits. Time counts from the first look."""
        url, now = self._urls[question], time.monotonic()
        patience = self._patience.left((url, "")) - (now - self._begun.setdefault(question, now))
        number = self._under_way.get(question)
        if number is None:
            return patience, False
        server = endpoint_of(url)
        account = self._account(server)
        with self._lock:
            if is_first:
                account.begin_again(number, now)
            only_waits = server in self._far or account.only_waits(number, now)
            return min(account.deadline(number) - now, patience), only_waits

    def _listen(self) -> list[Command]:
        """Wait for replies. Returns the questions that got one; none when all that are left were refused."""
        while True:
            replies = self._shells.replies()
            kept = [question for question, result in replies if self._keep(question, result)]
            self._shells.feed(len(replies) - len(kept))  # the shells go on while the caller looks at the replies
            if kept or not (replies or self._waiting):
                return kept
            if not replies:  # other threads have all the conversations that a server gets now
                with self._lock:
                    self._lock.wait(_LOOK)

    def _keep(self, question: Command, result: Result) -> bool:
        """Keep a reply. Returns False when it tells nothing and the question is to be asked again."""
        ending = ending_of(result) if isinstance(result, GitError) else Ending.ANSWERED
        number = self._under_way.get(question)
        if number is not None:
            ending = self._judged(endpoint_of(self._urls[question]), number, ending)
        key = (self._urls[question], "")
        if question in self._begun:
            self._spend(key, self._begun.pop(question))
        self._tries[question] += 1
        is_lost = is_cut_off(result, self._leave_master(question))
        is_dropped = self._end(question, Ending.UNKNOWN if is_lost else ending) or is_lost
        if is_dropped and self._tries[question] < _TRIES:
            self._waiting.setdefault(endpoint_of(self._urls[question]), deque()).append(question)
            return False
        self._results[question] = self._patience.explained(key, result) if isinstance(result, GitError) else result
        return True

    def _end(self, question: Command, ending: Ending) -> bool:
        """Leave a conversation. Returns whether to hold it once more."""
        number = self._under_way.pop(question, None)
        if number is None:
            return False
        with self._lock:
            return self._account(endpoint_of(self._urls[question])).end(number, time.monotonic(), ending)

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
            result: Result = self.converse(
                self._urls.get(question) or wrapper.asked_url(question), lambda options: _asked(question, options)
            )
        except GitError as error:
            result = error
        self._results[question] = result
        return result

    def heads(self, question: Command) -> dict[str, str]:
        """The branches and tags that a question asks for, key to commit. It is asked once in a run.

        Raises GitError when asking failed.
        """
        return wrapper.remote_heads(self.reply(question), wrapper.asked_tags(question))

    def heads_now(self, question: Command) -> dict[str, str]:
        """The same, asked in any case. Raises GitError when asking failed."""
        self._ask_aside(question)
        return wrapper.remote_heads(self.reply(question), wrapper.asked_tags(question))


def _asked(question: Command, options: GitOptions) -> bytes:
    """The reply to a question. Raises GitError."""
    with Shells(options, 1, iter([question, None]).__next__) as shells:
        [(_, result)] = shells.replies()
    if isinstance(result, GitError):
        raise result
    return result
