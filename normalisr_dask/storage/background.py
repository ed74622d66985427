"""Work done ahead in another thread, so that reading, parsing, sorting and compressing overlap."""

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
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
