"""How far a command is: live on a terminal, a line a minute elsewhere; and names with their values.

Progress goes to stderr, so that stdout holds results alone.
"""

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from normalisr_dask.cli.event_log import EventLog
from normalisr_dask.cli.run_estimate import RunEstimate
from normalisr_dask.planning import StagePlan
from normalisr_dask.process_memory import peak_bytes, reset_peak
from normalisr_dask.wording import about, amount, duration

SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_EVENTS = 60.0, 10.0
WHOLE_RUN = "Whole run"


@contextmanager
def show_stages(titles: Mapping[str, str], log: EventLog | None = None) -> Iterator["StageDisplay"]:
    """Show the stages of a run on stderr while the block runs.

    Parameters
    ----------
    titles
        What to call each stage.
    log
        Gets the same as events.
    """
    console = Console(stderr=True)
    log = log or EventLog(None)
    if not console.is_terminal:
        yield PlainStages(titles, log)
        return
    with Progress(*STAGE_COLUMNS, console=console) as progress:
        stages = LiveStages(titles, log, progress)
        yield stages
        stages.run_finished()


STAGE_COLUMNS: tuple[ProgressColumn, ...] = (
    SpinnerColumn(finished_text="[green]✓[/]"),
    TextColumn("{task.description}"),
    BarColumn(bar_width=24),
    TextColumn("{task.fields[done]}", justify="right"),
    TimeElapsedColumn(),
    TextColumn("[dim]{task.fields[note]}[/]"),
)


@contextmanager
def show_bytes(log: EventLog | None = None) -> Iterator["ByteDisplay"]:
    """Show on stderr how far a file has been read while the block runs; the log gets the same as events."""
    console = Console(stderr=True)
    log = log or EventLog(None)
    if not console.is_terminal:
        plain = PlainBytes(log)
        yield plain
        plain.finish()
        return
    columns: tuple[str | ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}[/]"),
    )
    with Progress(*columns, console=console) as progress:
        live = LiveBytes(log, progress)
        yield live
        live.finish()


class StageDisplay:
    """What is told of a run: kept for the time that is left, logged, and shown by the classes below.

    Parameters
    ----------
    titles
        What to call each stage.
    log
        Where events go.
    """

    def __init__(self, titles: Mapping[str, str], log: EventLog) -> None:
        self._titles = titles
        self._log = log
        self._estimate = RunEstimate()
        self._total = 1
        self._next_event = 0.0

    def run_planned(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        """Log the plan."""
        self._estimate.plan(stages, done)
        planned = [
            {
                "title": self._title(stage.name),
                **asdict(stage),
                "seconds": round(stage.seconds, 1),
                "done": stage.name in done,
            }
            for stage in stages
        ]
        self._log.write("planned", stages=planned)

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Log the stage."""
        self._total, self._next_event = max(total_tasks, 1), time.monotonic() + SECONDS_BETWEEN_EVENTS
        self._estimate.start(name)
        self._log.write("stage_started", stage=name, title=title, tasks=total_tasks)

    def stage_stands(self, share: float) -> None:
        """Count as done what an earlier run has done."""
        self._estimate.stand(share)

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Log now and then how far the stage is."""
        self._estimate.advance(done_tasks / self._total)
        if time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + SECONDS_BETWEEN_EVENTS
            share, left = self._estimate.share, self._estimate.seconds_left
            self._log.write(
                "stage_advanced",
                stage=name,
                share_of_stage=round(self._estimate.stage_share, 4),
                share_of_run=None if share is None else round(share, 4),
                seconds_left=None if left is None else round(left),
            )

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        """Log what came of the stage."""
        self._estimate.finish(name)
        self._log.write(
            "stage_finished", stage=name, seconds=round(seconds, 3), resumed=resumed, note=note, **(use or {})
        )

    def _title(self, name: str) -> str:
        return self._titles.get(name, name)

    def _run_so_far(self) -> str:
        """Say which share of the run is done, and what is left of it if that can be told; nothing without a plan."""
        share, left = self._estimate.share, self._estimate.seconds_left
        if share is None:
            return ""
        return f"{share:.0%} of the run" + ("" if left is None else f", {about(left)} left")


class LiveStages(StageDisplay):
    """One line for each stage, and one for the whole run, on a terminal."""

    def __init__(self, titles: Mapping[str, str], log: EventLog, progress: Progress) -> None:
        super().__init__(titles, log)
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def run_planned(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        """Add the line of the whole run."""
        super().run_planned(stages, done)
        if WHOLE_RUN not in self._lines:
            self._add(WHOLE_RUN, WHOLE_RUN)
        self._show_whole_run()

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Add a line."""
        super().stage_started(name, title, total_tasks)
        self._add(name, title)

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Move the bar; the number of tasks is an estimate, and only the end of the stage fills it."""
        super().stage_advanced(name, done_tasks)
        share = self._estimate.stage_share
        self._progress.update(self._lines[name], completed=share, done=f"{share * self._total:,.0f}/{self._total:,}")
        self._show_whole_run()

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        """Fill the bar."""
        super().stage_finished(name, seconds, resumed=resumed, note=note, use=use)
        if name not in self._lines:  # an earlier run has done it
            self._add(name, self._title(name))
        note = f"{note} (earlier, in {duration(seconds)})" if resumed else note
        self._progress.update(self._lines[name], completed=1.0, done="", note=note)
        self._show_whole_run()

    def run_finished(self) -> None:
        """Fill the bar of the whole run, whatever was planned beside what it did."""
        if WHOLE_RUN in self._lines:
            self._progress.update(self._lines[WHOLE_RUN], completed=1.0, done="100 %", note="")

    def _add(self, name: str, title: str) -> None:
        self._lines[name] = self._progress.add_task(title, total=1.0, done="", note="")

    def _show_whole_run(self) -> None:
        share, left = self._estimate.share, self._estimate.seconds_left
        if WHOLE_RUN in self._lines and share is not None:
            note = "" if left is None else f"{about(left)} left"
            self._progress.update(self._lines[WHOLE_RUN], completed=share, done=f"{100 * share:.0f} %", note=note)


class PlainStages(StageDisplay):
    """A line when a stage ends, and one a minute on the whole run, for files and job logs."""

    def __init__(self, titles: Mapping[str, str], log: EventLog) -> None:
        super().__init__(titles, log)
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Print a line if the last one is old."""
        super().stage_advanced(name, done_tasks)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            done = self._estimate.stage_share * self._total
            parts = (f"{self._title(name)}: {done:,.0f} of about {self._total:,} tasks", self._run_so_far())
            _print_line("; ".join(filter(None, parts)))

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        """Print the line of the stage."""
        super().stage_finished(name, seconds, resumed=resumed, note=note, use=use)
        done = "done earlier" if resumed else f"done in {duration(seconds)}"
        _print_line(f"{self._title(name)}: {done}{f', {note}' if note else ''}")


class ByteDisplay:
    """What is told of files that are read: logged, and shown by the classes below."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._title = self._note = ""
        self._started = self._next_event = 0.0

    def advance(self, title: str, done: int, total: int, note: str) -> None:
        """Log now and then how far reading is."""
        now = time.monotonic()
        if title != self._title:
            self.finish()
            reset_peak()
            self._title, self._started, self._next_event = title, now, now + SECONDS_BETWEEN_EVENTS
            self._log.write("stage_started", stage=title, bytes=total)
        if now >= self._next_event:
            self._next_event = now + SECONDS_BETWEEN_EVENTS
            self._log.write("stage_advanced", stage=title, bytes_done=done, bytes=total, note=note)
        self._note = note

    def finish(self) -> None:
        """Log the end of what is being read, if anything is, and what it took."""
        if self._title:
            seconds = round(time.monotonic() - self._started, 3)
            use = {"seconds": seconds, "resumed": False, "note": self._note, "peak_client_bytes": peak_bytes()}
            self._log.write("stage_finished", stage=self._title, **use)
        self._title = ""


class LiveBytes(ByteDisplay):
    """One bar, on a terminal."""

    def __init__(self, log: EventLog, progress: Progress) -> None:
        super().__init__(log)
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def advance(self, title: str, done: int, total: int, note: str) -> None:
        """Move the bar of this title."""
        super().advance(title, done, total, note)
        if title not in self._lines:
            self._lines[title] = self._progress.add_task(title, total=total, note=note)
        self._progress.update(self._lines[title], completed=done, total=total, note=note)


class PlainBytes(ByteDisplay):
    """A line a minute, with rate and time left, for files and job logs."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self._began: dict[str, float] = {}
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def advance(self, title: str, done: int, total: int, note: str) -> None:
        """Print a line if the last one is old."""
        super().advance(title, done, total, note)
        now = time.monotonic()
        began = self._began.setdefault(title, now)
        if now < self._next_line or not done:
            return
        rate = done / max(now - began, 1e-9)
        left = about(max(total - done, 0) / rate)
        share = f"{amount(done)} of {amount(total)} ({done / max(total, 1):.0%})"
        _print_line(f"{title}: {share}, {amount(rate)}/s, {left} left, {note}")
        self._next_line = now + SECONDS_BETWEEN_LINES


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values in two columns to stdout.

    Parameters
    ----------
    title
        Goes above; may be empty.
    facts
        Value of each name.
    """
    if title:
        print(title)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {value}")


def _print_line(text: str) -> None:
    """Print to stderr at once."""
    print(text, file=sys.stderr, flush=True)
