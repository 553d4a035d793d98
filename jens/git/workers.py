"""Worker threads that wait for Git's processes; the processes end with the threads."""

# ruff: noqa: PLC0415 - a run starts every minute, and one with nothing to do needs no workers

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Condition, Lock, Thread, local
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from jens.git import wrapper
from jens.system import limits, processes

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Repositories worked on at once, when nothing is configured: waiting for remotes costs no processor.
DEFAULT_JOBS = 8
#: Questions under way to a server that is far away, when nothing is configured.
_MANY = 24

#: Processes of Git that may wait for silent servers, besides the jobs; and files that each of them has open here.
_MOST_SPARE, _FILES = 64, 8
#: Seconds that workers may take to end when somebody wants this program to end. Git's processes end at once.
_PATIENCE = 0.8

#: Threads that did not end in time. They would keep this program from its end.
_busy: list[Thread] = []

Value = TypeVar("Value")

#: Called with what is being done, how many repositories are done, and how many there are.
Progress = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """A Progress that shows nothing."""


def spare() -> int:
    """How many conversations that only wait there may be besides the jobs; the limit of open files allows so many."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, min(_MOST_SPARE, (files - 2 * _MOST_SPARE) // _FILES))


class Pool:
    """Threads that do tasks in the order in which they were submitted, ``jobs`` at a time.

    A thread that only waits for a server can leave its job. Then another one does the next task, until as many threads
    wait as may be spared.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._most = jobs + spare()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = Condition()
        self._at_work = self._alive = 0
        self._threads: list[Thread] = []

    def submit(self, function: Callable[..., Value], *arguments: object) -> Future[Value]:
        """Do ``function(*arguments)`` as soon as a job is free. Raises RuntimeError when no thread can be started."""
        from concurrent.futures import Future

        future: Future[Value] = Future()
        with self._changed:
            self._tasks.append((future, lambda: function(*arguments)))
            self._start()
        return future

    def _start(self) -> None:
        """Start one more thread, if there is a task and a job for it."""
        if not self._tasks or self._at_work >= self._jobs or self._alive >= self._most:
            return
        thread = Thread(target=self._work)
        self._at_work += 1
        try:
            thread.start()
        except RuntimeError:  # too many threads: those that there are do the tasks
            self._at_work -= 1
            if not self._alive:
                raise
        else:
            self._alive += 1
            self._threads.append(thread)

    def _work(self) -> None:
        _mine.pool, _mine.has_job = self, True
        while True:
            with self._changed:
                if not self._tasks:
                    self._at_work -= 1
                    self._alive -= 1
                    self._changed.notify_all()
                    return
                future, do = self._tasks.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = do()
                except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
                    future.set_exception(error)
                else:
                    future.set_result(result)
                take_job()  # if the task has left it for good

    def leave(self) -> None:
        """Let another thread work while this one waits."""
        with self._changed:
            self._at_work -= 1
            self._start()
            self._changed.notify_all()

    def come_back(self) -> None:
        """Wait until a job is free, and go on with it."""
        with self._changed:
            while self._at_work >= self._jobs:
                self._changed.wait()
            self._at_work += 1

    def shutdown(self, *, cancel: bool = False) -> None:
        """Wait until all tasks are done; with ``cancel`` only those that have begun."""
        with self._changed:
            for future, _ in self._tasks if cancel else ():
                future.cancel()
            threads = list(self._threads)
        for thread in threads:
            thread.join()


#: The pool of the present thread, and whether the thread has one of its jobs now.
_mine = local()


def leave_job() -> None:
    """Let another task begin while this thread only waits, if it does a task of a pool."""
    if getattr(_mine, "has_job", False):
        _mine.has_job = False
        _mine.pool.leave()


def take_job() -> None:
    """Go on with the task that this thread had left."""
    if getattr(_mine, "has_job", True) is False:
        _mine.pool.come_back()
        _mine.has_job = True


def affordable(jobs: int) -> int:
    """How many repositories to work on at once: ``jobs``, 0 for DEFAULT_JOBS, if so many files may be open."""
    return limits.affordable(jobs or DEFAULT_JOBS, limits.open_files())


def questions(jobs: int) -> int:
    """How many questions to a server may be under way when it is far away: ``jobs``, or more where Jens chooses."""
    return affordable(jobs or _MANY)


@contextmanager
def workers(jobs: int) -> Iterator[Pool]:
    """A pool of as many threads as are ``affordable``. An exception in the block also ends all Git processes.

    When somebody wants this program to end, workers that are busy otherwise are waited for for a moment only.
    """
    pool = Pool(affordable(jobs))
    try:
        yield pool
    except BaseException as error:
        with processes.stopping():
            _end(pool, _PATIENCE if isinstance(error, KeyboardInterrupt) else float("inf"))
        raise
    pool.shutdown()


def _end(pool: Pool, seconds: float) -> None:
    """End all Git processes, and wait for the workers, but not longer than so many seconds."""
    waiting = Thread(target=pool.shutdown, kwargs={"cancel": True}, daemon=True)
    waiting.start()
    end = time.monotonic() + seconds
    while waiting.is_alive() and time.monotonic() < end:  # a worker may start its next process
        wrapper.stop_all()
        waiting.join(0.02)
    if waiting.is_alive():
        _busy.append(waiting)


def are_busy() -> bool:
    """Whether workers are still at work that this program did not wait for."""
    return any(thread.is_alive() for thread in _busy)


def result(future: Future[Value]) -> Value:
    """The result of a worker. Wakes up now and then: a signal may have been delivered to another thread."""
    from concurrent.futures import wait

    while wait([future], timeout=0.2).not_done:
        pass
    return future.result()


def results(futures: Collection[Future[Value]]) -> list[Value]:
    """The results of workers, in this order. Raises as soon as one has failed; wakes up as ``result`` does."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    while (found := wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)).not_done:
        for future in found.done:
            future.result()  # raises when this worker has failed
    return [future.result() for future in futures]


def count(what: str, futures: Collection[Future[Value]], progress: Progress) -> None:
    """Call ``progress`` each time one is done, with numbers that only grow."""
    numbers = iter(range(1, len(futures) + 1))
    one_at_a_time = Lock()  # the threads of the workers call

    def one_more(_future: object) -> None:
        with one_at_a_time:
            progress(what, next(numbers), len(futures))

    for future in futures:
        future.add_done_callback(one_more)
