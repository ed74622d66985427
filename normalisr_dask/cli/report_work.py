"""What ``report`` does, and ``run`` at its end."""

import time
from pathlib import Path

from normalisr_dask.cli.display import print_facts, show_stages
from normalisr_dask.cli.event_log import EventLog
from normalisr_dask.cli.messages import tell
from normalisr_dask.report import write_report

TITLES = {"report": "Report"}


def report(output: str | Path, log: EventLog | None = None) -> None:
    """Write the report of a run, and tell where it is."""
    with show_stages(TITLES, log) as progress:
        progress.stage_started("report", TITLES["report"], 1)
        start = time.perf_counter()
        path = write_report(output)
        progress.stage_finished("report", time.perf_counter() - start, resumed=False, note="")
    print_facts("", {"report": f"{path}"})


def report_of_run(output: str | Path, log: EventLog | None = None) -> None:
    """Write the report of a run that has just ended; a run without the packages for it is still a good one."""
    try:
        report(output, log)
    except ImportError as error:
        tell("note", str(error))
