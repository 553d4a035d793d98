from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from jens.git.workers import count


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
