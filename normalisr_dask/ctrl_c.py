"""Ctrl-C around processes that this one starts: a terminal sends it to all of them, and this one answers for them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Self


class CtrlCPutOff:
    """Puts Ctrl-C off to the end of a ``with`` block, but for what is within :meth:`let_through`.

    Dask takes it for an order to cancel what it waits for: a cluster that is half started or half closed then keeps
    this process for ten seconds.
    """

    def __enter__(self) -> Self:
        """Begin to put off."""
        # others neither get signals nor may they handle them
        self._is_ours = threading.current_thread() is threading.main_thread()
        self._put_off()
        return self

    def __exit__(self, *_error: object) -> None:
        """Let come what was put off."""
        self._let_come()

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Let come what was put off, and what comes meanwhile at once."""
        try:
            self._let_come()
            yield
        finally:
            self._put_off()

    def _put_off(self) -> None:
        self._came = False
        if self._is_ours:
            self._before = signal.signal(signal.SIGINT, self._remember)

    def _remember(self, *_signal: object) -> None:
        self._came = True

    def _let_come(self) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, self._before)
        if self._came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C from threads and processes that start meanwhile, and from all that these start at any time."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # lets Ctrl-C through again in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited from before a process's first line
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
