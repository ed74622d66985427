"""How a run tells how it goes, in processes of its own: to a pipe, to a terminal, and to programs that watch it."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from normalisr_dask.testing import simulate_screen, write_cell_ranger_folder

pytestmark = pytest.mark.slow

#: The program with its minute, and the seconds that a run has to last before it is told what is left, cut short.
PROGRAM = """
from normalisr_dask.cli import display, main, run_estimate
display.SECONDS_BETWEEN_LINES = display.SECONDS_BETWEEN_EVENTS = run_estimate.FIRST_SECONDS = 0.3
main()
"""
STAGES = ["qc", "normalisation", "de", "calibration", "coex", "edges"]
TITLES = [
    *("Quality control of reads", "Normalisation", "Differential expression", "Calibration", "Co-expression"),
    "Co-expression network",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cell Ranger folder, and a table of guides."""
    folder = tmp_path_factory.mktemp("inputs")
    screen = simulate_screen(n_genes=2000, n_cells=6000, n_guides=24, seed=4)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    assert program("ingest", folder / "matrix", folder / "counts.zarr", "--log-json", folder / "ingest.jsonl")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def program(*arguments: object) -> tuple[list[str], str]:
    """Run the program to its end; return the lines of stderr, and stdout."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines(), done.stdout


def run_arguments(inputs: Path, output: Path, *others: object) -> list[object]:
    return [
        *("run", inputs / "counts.zarr", "-o", output, "--groupings", inputs / "guides.tsv.gz", "--permutations", 3),
        *("--coex", "--no-report", "--workers", 2, "--memory-limit", "1GB", *others),
    ]


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_to_a_pipe_lines_tell_stage_tasks_share_and_time_left_and_a_log_the_same(inputs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines, stdout = program(*run_arguments(inputs, tmp_path / "out", "--log-json", log))
    assert [line.partition(":")[0] for line in lines if ": done in " in line] == TITLES
    between = [line for line in lines if ": done in " not in line]
    shares = []
    for line in between:
        form = r"(.+): ([\d,]+) of about ([\d,]+) tasks; (\d+)% of the run(, (about .+|under 10 s) left)?"
        found = re.fullmatch(form, line)
        assert found, line
        assert found[1] in TITLES
        shares.append(int(found[4]))
    assert shares == sorted(shares)
    assert any(" left" in line for line in between)
    assert " tasks" not in stdout
    assert "hits at Q ≤ 0.05" in stdout

    events = events_of(log)
    assert [event["event"] for event in events][:3] == ["started", "planned", "stage_started"]
    assert [event["stage"] for event in events if event["event"] == "stage_started"] == STAGES
    finished = [event for event in events if event["event"] == "stage_finished"]
    assert [event["stage"] for event in finished] == STAGES
    for event in finished:
        assert event["seconds"] > 0
        assert not event["resumed"]
        assert len(event["worker_peaks"]) == 2
        assert event["peak_client_bytes"] > 50e6
    advanced = [event["share_of_run"] for event in events if event["event"] == "stage_advanced"]
    assert advanced == sorted(advanced)
    assert events[-1]["event"] == "finished"

    lines, _ = program(*run_arguments(inputs, tmp_path / "out", "--log-json", log))
    assert [line.split(":")[1].split(",")[0] for line in lines] == [" done earlier"] * len(STAGES)
    again = events_of(log)[len(events) :]
    assert [event["event"] for event in again] == [
        "started",
        *["planned"],
        "stage_finished",
        "planned",
        *["stage_finished"] * 5,
        "finished",
    ]
    assert all(stage["done"] for stage in again[1]["stages"])


def test_on_a_terminal_the_whole_run_has_a_line_and_stdout_stays_results(inputs: Path, tmp_path: Path) -> None:
    main, side = pty.openpty()
    arguments = command(*run_arguments(inputs, tmp_path / "out"))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160"}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=side, text=True, env=environment)
    os.close(side)
    shown = b""
    while True:
        try:
            shown += os.read(main, 65536)
        except OSError:  # nobody has the other side open any more
            break
    os.close(main)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    for title in ("Whole run", *TITLES):
        assert title in text
    shares = [int(share) for share in re.findall(r"Whole run .* (\d+) %", text)]
    assert shares[-1] == 100
    assert shares == sorted(shares)
    assert len(set(shares)) > 5
    assert re.search(r"Whole run .*(about .+|under 10 s) left", text)
    assert "\x1b" not in stdout
    assert "hits at Q ≤ 0.05" in stdout


def test_what_ends_a_command_early_is_the_last_event(inputs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    arguments = command(*run_arguments(inputs, tmp_path / "out", "--groupby", "gilde", "--log-json", log))
    failed = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
    assert failed.returncode == 2
    last = events_of(log)[-1]
    assert last["event"] == "failed"
    assert failed.stderr == f"normalisr-dask: error: {last['error']}\n"


def test_ingest_logs_how_far_it_has_read(inputs: Path) -> None:
    events = events_of(inputs / "ingest.jsonl")
    assert [event["event"] for event in (events[0], events[1], events[-1])] == ["started", "stage_started", "finished"]
    assert events[0]["command"] == "ingest"
    assert (events[1]["stage"], events[1]["bytes"] > 0) == ("reading", True)
    finished = events[-2]
    assert (finished["event"], finished["stage"], finished["resumed"]) == ("stage_finished", "reading", False)
    assert 0 < finished["seconds"] <= events[-1]["seconds"]
    assert finished["note"].endswith(" entries")
    assert 50e6 < finished["peak_client_bytes"] < 700e6
