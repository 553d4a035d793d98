"""Workers: threads that wait for Git's processes, which end with them."""

# ruff: noqa: PLC0415 - a run that has nothing to do begins every minute, and needs no workers

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Callable, TypeVar

from jens.git import wrapper

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: Repositories worked on at once, when nothing is configured: waiting for remotes costs no processor.
DEFAULT_JOBS = 8

Value = TypeVar("Value")

#: Told what is being done, to how many repositories of how many it has been.
Progress = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def workers(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose Git processes end with it, however it is left."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(jobs or DEFAULT_JOBS)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        waiting = Thread(target=pool.shutdown)
        waiting.start()
        while waiting.is_alive():  # a worker may go on to its next process
            wrapper.stop_all()
            waiting.join(0.02)
        raise
    finally:
        pool.shutdown()


def result(future: Future[Value]) -> Value:
    """What a worker brought back. Looks up now and then: a signal may have been given to another thread."""
    from concurrent.futures import wait

    while wait([future], timeout=0.2).not_done:
        pass
    return future.result()


def results(futures: Collection[Future[Value]]) -> list[Value]:
    """What workers brought back, in this order, once all are done, or one has failed: see ``result``."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    while (found := wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)).not_done:
        for future in found.done:
            future.result()  # which raises, or not: then there is more to wait for
    return [future.result() for future in futures]


def count(what: str, futures: Collection[Future[Value]], progress: Progress) -> None:
    """Have progress told of each that is done."""
    done: list[object] = []

    def one_more(future: object) -> None:
        done.append(future)
        progress(what, len(done), len(futures))

    for future in futures:
        future.add_done_callback(one_more)
