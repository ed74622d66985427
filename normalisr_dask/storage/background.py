"""Work done ahead in another thread, so that reading, parsing, sorting and compressing overlap."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
_POLL_SECONDS = 0.05


class _Outcome:
    """How an iterator ended: with an error or without."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def in_background(items: Iterator[Item], *, ahead: int = 2) -> Generator[Item, None, None]:
    """Iterate in a background thread.

    Parameters
    ----------
    items
        Iterator to run; what it raises is raised here.
    ahead
        Number of items that may wait.

    Yields
    ------
    Item
        The same items in the same order.
    """
    waiting: Queue[Item | _Outcome] = Queue(ahead)
    stopped = Event()

    def run() -> None:
        error = None
        try:
            for item in items:
                waiting.put(item)
                if stopped.is_set():
                    break
        except BaseException as caught:  # raised again by the reader
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()
        waiting.put(_Outcome(error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _Outcome):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():  # make room for what the thread still hands over
            try:
                waiting.get(timeout=_POLL_SECONDS)
            except Empty:
                continue


def mapped_in_threads(
    function: Callable[[Item], Made], items: Iterable[Item], *, threads: int
) -> Generator[Made, None, None]:
    """Call a function for every item, in threads; no more than one item a thread waits.

    Parameters
    ----------
    function
        What to call; what it raises is raised here.
    items
        What to call it with.
    threads
        How many calls run at a time.

    Yields
    ------
    Made
        The results in the order of the items.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
