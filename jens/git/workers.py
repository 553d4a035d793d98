"""Worker threads that wait for Git's processes; the processes end with the threads."""

# ruff: noqa: PLC0415 - a run starts every minute, and one with nothing to do needs no workers

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING, Callable, TypeVar

from jens.git import wrapper

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: Repositories worked on at once, when nothing is configured: waiting for remotes costs no processor.
DEFAULT_JOBS = 8

Value = TypeVar("Value")

#: Called with what is being done, how many repositories are done, and how many there are.
Progress = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """A Progress that shows nothing."""


@contextmanager
def workers(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; 0 stands for DEFAULT_JOBS. An exception in the block also ends all Git processes."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(jobs or DEFAULT_JOBS)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        waiting = Thread(target=pool.shutdown)
        waiting.start()
        while waiting.is_alive():  # a worker may start its next process
            wrapper.stop_all()
            waiting.join(0.02)
        raise
    finally:
        pool.shutdown()


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
