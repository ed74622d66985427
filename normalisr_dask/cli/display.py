"""How far a command is: live on a terminal, a line now and then elsewhere; and names with their values.

Progress goes to stderr, so that stdout holds results alone.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from normalisr_dask.wording import amount, duration

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def show_stages(titles: Mapping[str, str]) -> Iterator["LiveStages | PlainStages"]:
    """Show the stages of a run on stderr while the block runs.

    Parameters
    ----------
    titles
        What to call each stage.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainStages(titles)
        return
    with Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}[/]"),
        console=console,
    ) as progress:
        yield LiveStages(progress, titles)


@contextmanager
def show_bytes() -> Iterator["LiveBytes | PlainBytes"]:
    """Show on stderr how far a file has been read while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainBytes()
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
        yield LiveBytes(progress)


class LiveStages:
    """One line for each stage, on a terminal."""

    def __init__(self, progress: Progress, titles: Mapping[str, str]) -> None:
        self._progress = progress
        self._titles = titles
        self._lines: dict[str, TaskID] = {}

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Add a line."""
        self._lines[name] = self._progress.add_task(title, total=total_tasks, note="")

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Move the bar; the total is an estimate, and only the end of the stage fills it."""
        self._progress.update(self._lines[name], completed=done_tasks)

    def stage_finished(self, name: str, seconds: float, *, resumed: bool, note: str) -> None:
        """Fill the bar."""
        if name not in self._lines:  # an earlier run has done it
            self.stage_started(name, self._titles.get(name, name), 1)
        n_done = max(self._progress.tasks[self._lines[name]].completed, 1)
        note = f"{note} (earlier, in {duration(seconds)})" if resumed else note
        self._progress.update(self._lines[name], completed=n_done, total=n_done, note=note)


class PlainStages:
    """A line when a stage ends, and now and then in between, for files and job logs."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._total = 0
        self._next_line = 0.0

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        """Wait a while before the first line."""
        self._total = total_tasks
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        """Print a line if the last one is old."""
        if time.monotonic() >= self._next_line:
            _print_line(f"{self._titles.get(name, name)}: {done_tasks:,} of about {self._total:,} tasks")
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def stage_finished(self, name: str, seconds: float, *, resumed: bool, note: str) -> None:
        """Print the line of the stage."""
        done = "done earlier" if resumed else f"done in {duration(seconds)}"
        _print_line(f"{self._titles.get(name, name)}: {done}{f', {note}' if note else ''}")


class LiveBytes:
    """One bar, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def advance(self, title: str, done: int, total: int, note: str) -> None:
        """Move the bar of this title."""
        if title not in self._lines:
            self._lines[title] = self._progress.add_task(title, total=total, note=note)
        self._progress.update(self._lines[title], completed=done, total=total, note=note)


class PlainBytes:
    """A line now and then, with rate and time left, for files and job logs."""

    def __init__(self) -> None:
        self._title = ""
        self._started = self._next_line = 0.0

    def advance(self, title: str, done: int, total: int, note: str) -> None:
        """Print a line if the last one is old."""
        now = time.monotonic()
        if title != self._title:
            self._title, self._started, self._next_line = title, now, now + SECONDS_BETWEEN_LINES
        if now < self._next_line or not done:
            return
        rate = done / max(now - self._started, 1e-9)
        left = duration(max(total - done, 0) / rate)
        _print_line(f"{title}: {amount(done)} of {amount(total)}, {amount(rate)}/s, {left} left, {note}")
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
