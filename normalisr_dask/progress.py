"""Who wants to know how a run goes, and how to find out from the scheduler."""

import threading
import warnings
from asyncio import CancelledError
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from normalisr_dask.planning import StagePlan

_PLUGIN = "normalisr-dask-finished-tasks"
_SECONDS_BETWEEN_LOOKS = 0.5


class RunProgress(Protocol):
    """What a display of a run is told."""

    def run_planned(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        """Tell all stages and which of them are done; told again when it is better known what they have to do."""

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Announce a stage and about how many tasks it has."""

    def stage_stands(self, share: float) -> None:
        """Tell which share of the stage an interrupted run has left, so that its tasks will not be done again."""

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Tell how many tasks of the stage have been done."""

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        """Tell that the stage is done, now or (resumed) in an earlier run, what came of it, and what it took."""


class Silent:
    """Tells nobody."""

    def run_planned(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        """Do nothing."""

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Do nothing."""

    def stage_stands(self, share: float) -> None:
        """Do nothing."""

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Do nothing."""

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        """Do nothing."""


class FinishedTasks(SchedulerPlugin):
    """Counts the tasks that the scheduler has seen finish."""

    name = _PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self.finished = 0

    def transition(self, key: object, start: str, finish: str, *args: object, **kwargs: object) -> None:
        """Count a task that went from processing to memory."""
        if start == "processing" and finish == "memory":
            self.finished += 1


@contextmanager
def watched(client: Client, name: str, progress: RunProgress) -> Iterator[None]:
    """Tell the progress how many tasks have finished while the context lasts."""
    client.register_plugin(FinishedTasks())
    before = client.run_on_scheduler(_finished)
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                progress.stage_advanced(name, client.run_on_scheduler(_finished) - before)
            except (Exception, CancelledError):  # a client that closes meanwhile says so in many ways
                return  # the scheduler is gone; the computation itself will say so

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join(timeout=10)


def _finished(dask_scheduler: Scheduler) -> int:
    return int(dask_scheduler.plugins[_PLUGIN].finished)


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Collect the texts of the warnings for users, each once, while the context lasts; they are shown all the same."""
    texts: list[str] = []
    with warnings.catch_warnings():
        show_before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, UserWarning) and str(message) not in texts:
                texts.append(str(message))
            show_before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield texts
