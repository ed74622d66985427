"""What is shown of a command on a terminal and elsewhere, and logged as events."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from normalisr_dask.cli import display
from normalisr_dask.cli.event_log import EventLog, event_log
from normalisr_dask.planning import StagePlan

TITLES = {"qc": "Quality control", "de": "Differential expression"}
PLAN = [StagePlan("qc", 100, 1, 1, 1, 1.0, "2 blocks"), StagePlan("de", 1200, 1, 1, 1, 3.0, "4 blocks")]


def tell(stages: display.StageDisplay) -> None:
    """Tell of a run whose first stage was done earlier, as was half of the other."""
    stages.run_planned(PLAN, ["qc"])
    stages.stage_finished("qc", 3.0, resumed=True, note="kept all")
    stages.stage_started("de", "Differential expression", 1200)
    stages.stage_stands(0.5)
    stages.stage_advanced("de", 300)
    stages.stage_finished("de", 75.0, resumed=False, note="no hits", use={"peak_worker_bytes": 5})


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(display, "SECONDS_BETWEEN_EVENTS", 0.0)


@pytest.mark.usefixtures("always")
def test_elsewhere_than_on_a_terminal_stages_are_lines(capsys) -> None:
    with display.show_stages(TITLES) as stages:
        tell(stages)
    assert capsys.readouterr().err.splitlines() == [
        "Quality control: done earlier, kept all",
        "Differential expression: 900 of about 1,200 tasks; 81% of the run",
        "Differential expression: done in 1 min 15 s, no hits",
    ]


@pytest.mark.usefixtures("always")
def test_without_a_plan_only_the_stage_is_told(capsys) -> None:
    with display.show_stages(TITLES) as stages:
        stages.stage_started("de", "Differential expression", 1200)
        stages.stage_advanced("de", 300)
    assert capsys.readouterr().err == "Differential expression: 300 of about 1,200 tasks\n"


def test_lines_between_stages_are_a_minute_apart(capsys) -> None:
    with display.show_stages(TITLES) as stages:
        tell(stages)
    assert [line.split(":")[1][:5] for line in capsys.readouterr().err.splitlines()] == [" done", " done"]


@pytest.mark.usefixtures("always")
def test_bytes_are_lines_now_and_then(capsys) -> None:
    with display.show_bytes() as shown:
        shown.advance("reading", 1_000_000, 4_000_000, "10 entries")
    line = capsys.readouterr().err
    assert re.fullmatch(r"reading: 1\.0 MB of 4\.0 MB \(25%\), [\d.]+ .B/s, .* left, 10 entries\n", line)


def test_bytes_are_no_lines_at_once(capsys) -> None:
    with display.show_bytes() as shown:
        shown.advance("reading", 1_000_000, 4_000_000, "10 entries")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_each_stage_and_the_whole_run_have_their_lines() -> None:
    screen = StringIO()
    columns = (TextColumn("{task.description}|{task.completed:.2f}|{task.fields[done]}|{task.fields[note]}"),)
    with Progress(*columns, console=Console(file=screen, force_terminal=True, width=100)) as progress:
        stages = display.LiveStages(TITLES, EventLog(None), progress)
        tell(stages)
        progress.refresh()
        stages.run_finished()
    last = [line.strip() for line in screen.getvalue().replace("\x1b", "\n").splitlines()]
    assert any("Quality control|1.00||kept all (earlier, in 3.0 s)" in line for line in last)
    assert any("Differential expression|1.00||no hits" in line for line in last)
    assert any("Whole run|1.00|100 %|" in line for line in last)


@pytest.mark.usefixtures("always")
def test_events_tell_all(tmp_path: Path, capsys) -> None:
    with event_log(str(tmp_path / "log.jsonl"), "run") as log, display.show_stages(TITLES, log) as stages:
        tell(stages)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == [
        *("started", "planned", "stage_finished", "stage_started", "stage_advanced", "stage_finished", "finished")
    ]
    assert events[0]["command"] == "run"
    assert [(stage["name"], stage["title"], stage["done"]) for stage in events[1]["stages"]] == [
        ("qc", "Quality control", True),
        ("de", "Differential expression", False),
    ]
    assert events[1]["stages"][1]["tasks"] == 1200
    assert events[4] == {
        "time": events[4]["time"],
        "event": "stage_advanced",
        "stage": "de",
        "share_of_stage": 0.75,
        "share_of_run": 0.8125,
        "seconds_left": None,
    }
    assert (events[5]["seconds"], events[5]["resumed"], events[5]["peak_worker_bytes"]) == (75.0, False, 5)
    assert capsys.readouterr().out == ""
