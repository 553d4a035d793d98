"""Threads that work for a run: progress that is told, and jobs that are left while a thread only waits."""

from __future__ import annotations

import resource
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread

import pytest

from jens.git import workers as git_workers
from jens.git.workers import Pool, count, leave_job, result, results, take_job, workers


def test_progress_only_grows_though_one_worker_is_slow_to_tell() -> None:
    another = Event()
    told: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        if done == 1:
            another.wait(0.2)  # long enough for the other one, if it may tell now
        told.append((what, done, total))
        another.set()

    with ThreadPoolExecutor(2) as pool:
        begin = Event()
        futures: list[Future[bool]] = [pool.submit(begin.wait) for _ in range(2)]
        count("Preparing", futures, tell)
        begin.set()
    assert told == [("Preparing", 1, 2), ("Preparing", 2, 2)]


def test_tasks_are_done_in_order_by_as_many_threads_as_there_are_jobs() -> None:
    lock, done, at_once, most = threading.Lock(), [], set(), []

    def task(number: int) -> int:
        with lock:
            at_once.add(number)
            most.append(len(at_once))
            done.append(number)
        Event().wait(0.01)
        with lock:
            at_once.discard(number)
        return number

    with workers(3) as pool:
        assert results([pool.submit(task, number) for number in range(30)]) == list(range(30))
    assert max(most) == 3
    assert sorted(done) == list(range(30))
    with workers(1) as pool:
        done.clear()
        results([pool.submit(task, number) for number in range(10)])
    assert done == list(range(10))


def test_a_thread_that_only_waits_lets_the_next_one_work() -> None:
    waiting, go_on = Event(), Event()

    def wait() -> str:
        leave_job()
        waiting.set()
        assert go_on.wait(60)
        take_job()
        return "came back"

    with workers(1) as pool:
        first = pool.submit(wait)
        assert waiting.wait(60)
        assert result(pool.submit(str, "worked")) == "worked"
        go_on.set()
        assert result(first) == "came back"


def test_a_task_that_does_not_come_back_changes_nothing_for_others() -> None:
    lock, at_once, most = threading.Lock(), set[int](), list[int]()

    def task(number: int) -> None:
        leave_job()
        take_job()
        with lock:
            at_once.add(number)
            most.append(len(at_once))
        Event().wait(0.01)
        with lock:
            at_once.discard(number)
        leave_job()

    with workers(2) as pool:
        results([pool.submit(task, number) for number in range(20)])
    assert max(most) == 2


def test_who_comes_back_waits_for_a_job() -> None:
    order: list[str] = []
    left, working, go_on = Event(), Event(), Event()

    def wait() -> None:
        leave_job()
        left.set()
        assert working.wait(60)
        take_job()
        order.append("came back")

    def work() -> None:
        working.set()
        assert not go_on.wait(0.2)
        order.append("worked")

    with workers(1) as pool:
        first = pool.submit(wait)
        assert left.wait(60)
        results([pool.submit(work), first])
    assert order == ["worked", "came back"]


def test_only_so_many_threads_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_workers, "spare", lambda: 2)
    begun, go_on = threading.Semaphore(0), Event()

    def wait() -> None:
        begun.release()
        leave_job()
        assert go_on.wait(60)
        take_job()

    with workers(1) as pool:
        futures = [pool.submit(wait) for _ in range(6)]
        for _ in range(3):
            assert begun.acquire(timeout=60)
        assert not begun.acquire(timeout=0.2)
        go_on.set()
        results(futures)


def test_an_error_is_raised_where_the_result_is_wanted() -> None:
    with workers(1) as pool, pytest.raises(ZeroDivisionError):
        result(pool.submit(divmod, 1, 0))


def test_an_exception_in_the_block_cancels_what_has_not_begun() -> None:
    begun, go_on = Event(), Event()

    def wait() -> bool:
        begun.set()
        return go_on.wait(60)

    futures: list[Future[object]] = []

    def interrupted() -> None:
        with workers(1) as pool:
            futures.extend([pool.submit(wait), pool.submit(str)])
            assert begun.wait(60)
            threading.Timer(0.2, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    first, second = futures
    assert first.result() is True
    assert second.cancelled()


def test_without_another_thread_the_tasks_are_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = Thread.start, list[Thread]()

    def one(thread: Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(Thread, "start", one)
    pool, all_submitted = Pool(4), Event()
    first = pool.submit(all_submitted.wait)  # a thread without a task ends
    futures = [pool.submit(str, number) for number in range(4)]
    all_submitted.set()
    pool.shutdown()
    assert first.result()
    assert [future.result() for future in futures] == list("0123")


@pytest.mark.parametrize(("files", "expected"), [(1024, 64), (256, 16), (100, 0)])
def test_few_open_files_spare_few_conversations(monkeypatch: pytest.MonkeyPatch, files: int, expected: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (files, files))
    assert git_workers.spare() == expected
