"""Runs that lose their workers or their client again and again, compared with one that is left alone, bit by bit.

    python benchmarks/kills.py --cells 60000 --genes 6000 --interval 20 --moments 10 --output kills.json
    python benchmarks/kills.py --cells 60000 --genes 6000 --other-groupings exclude --guides 300 --output kills.json

The run has groupings, calibration by permuted cells, and a co-expression network. It is done three times by the real
program with two workers: undisturbed; with a worker killed (SIGKILL) while it starts, and then every so many seconds;
and with the client killed at moments drawn at random, one in every stage in turn, each followed at once by the same
command. Where a run ends before its moment, its results are compared and another one is begun. Results that are in the
file already, of other treatments of other groupings, stay.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from normalisr_dask.testing import result_digests, simulate_screen, write_cell_ranger_folder

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
WORKERS = 2
OTHER_GROUPINGS = ("ignore", "exclude", "covariates")


@dataclass(frozen=True)
class Job:
    """A run that can be done again and again, in one folder or another.

    Attributes
    ----------
    inputs
        Folder with ``counts.zarr`` and ``guides.tsv.gz``; also that of the outputs.
    memory_limit
        Of a worker, as the program takes it.
    permutations
        Of the calibration.
    other_groupings, coex_store
        As the options of these names.
    """

    inputs: Path
    memory_limit: str
    permutations: int
    other_groupings: str = "ignore"
    coex_store: str = "edges"

    def start(self, output: Path) -> subprocess.Popen[bytes]:
        """Start the program in a process of its own; what it says is kept in a file."""
        arguments = [
            *("run", self.inputs / "counts.zarr", "-o", output, "--groupings", self.inputs / "guides.tsv.gz"),
            *("--permutations", self.permutations, "--coex", "--coex-store", self.coex_store, "--no-report"),
            *("--other-groupings", self.other_groupings, "--log-json", events_of(output)),
            *("--workers", WORKERS, "--memory-limit", self.memory_limit, "--local-directory", self.inputs / "spilled"),
        ]
        with output.with_suffix(".log").open("ab") as log:
            return subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen[bytes], output: Path) -> dict[str, str]:
        """Wait until the program has ended well, and return the digests of its results."""
        if process.wait():
            msg = f"the run failed: {output.with_suffix('.log').read_text().splitlines()[-1]}"
            raise RuntimeError(msg)
        return result_digests(output)


def make_inputs(folder: Path, *, n_genes: int, n_cells: int, n_guides: int, seed: int) -> None:
    """Write a count store and a table of guides."""
    screen = simulate_screen(n_genes, n_cells, n_guides, seed=seed)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    subprocess.run(
        [PROGRAM, "ingest", folder / "matrix", folder / "counts.zarr"], check=True, stdout=subprocess.DEVNULL
    )


def events_of(output: Path) -> Path:
    """Return the file with the events of all commands on an output."""
    return output.with_suffix(".jsonl")


def started(output: Path, before: int = 0) -> list[tuple[str, datetime]]:
    """Return what has started and when, of what was logged after so many events: the command, its stages, its end."""
    lines = events_of(output).read_text().split("\n")[before:-1] if events_of(output).exists() else []
    found = []
    for event in map(json.loads, lines):
        names = {"started": "start-up", "stage_started": event.get("stage"), "finished": ""}
        if event["event"] in names:
            found.append((names[event["event"]], datetime.fromisoformat(event["time"])))
    return found


def undisturbed(job: Job) -> tuple[dict[str, str], dict[str, float]]:
    """Return the digests of a run that is left alone, and how many seconds each of its stages took."""
    output = job.inputs / "whole"
    digests = job.finish(job.start(output), output)
    return digests, {stage: (end - start).total_seconds() for (stage, start), (_, end) in pairwise(started(output))}


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes of a run, as far as they have started."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:  # one has ended meanwhile
        return []


def with_workers_killed(
    job: Job, expected: dict[str, str], *, interval: float, generator: np.random.Generator
) -> dict[str, object]:
    """Kill a worker within a second of its start, and every so many until the run has ended; compare its results."""
    output, start, n_killed, wait = job.inputs / "workers-killed", time.perf_counter(), 0, 1.0
    process = job.start(output)
    while process.poll() is None:
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            running = workers(process)
            if running:
                running[generator.integers(len(running))].kill()
                n_killed, wait = n_killed + 1, interval
    identical = job.finish(process, output) == expected
    return {"killed": n_killed, "identical": identical, "seconds": time.perf_counter() - start}


def with_client_killed(
    job: Job, expected: dict[str, str], *, n_moments: int, stages: dict[str, float], generator: np.random.Generator
) -> dict[str, object]:
    """Kill the client at a random moment of each stage in turn, and start the same command again each time; compare.

    Where the last stages of a run are done when a moment of the first is next, it is left to its end.
    """
    start, names, killed_in, identical = time.perf_counter(), list(stages), [], []
    while len(killed_in) < n_moments:
        output = job.inputs / f"client-killed-{len(identical)}"
        stage = names[len(killed_in) % len(names)]
        before = len(events_of(output).read_text().splitlines()) if events_of(output).exists() else 0
        process = job.start(output)
        if reached(process, output, before, names[names.index(stage) :], generator.uniform(0, stages[stage])):
            process.kill()
        if process.wait() == -signal.SIGKILL:
            running = started(output, before)
            killed_in.append(running[-1][0] if running else "start-up")
        else:
            identical.append(job.finish(process, output) == expected)
    output = job.inputs / f"client-killed-{len(identical)}"
    identical.append(job.finish(job.start(output), output) == expected)
    return {
        "killed": len(killed_in),
        "killed_in": {stage: killed_in.count(stage) for stage in names},
        "finished": len(identical),
        "identical": all(identical),
        "seconds": time.perf_counter() - start,
    }


def reached(process: subprocess.Popen[bytes], output: Path, before: int, stages: list[str], seconds: float) -> bool:
    """Wait until so long after the start of one of these stages; False if the program ends before."""
    begin = None
    while process.poll() is None:
        if begin is None and any(stage in stages for stage, _ in started(output, before)):
            begin = time.perf_counter()
        if begin is not None and time.perf_counter() - begin >= seconds:
            return True
        time.sleep(0.01)
    return False


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60_000)
    parser.add_argument("--genes", type=int, default=6_000)
    parser.add_argument("--guides", type=int, default=100)
    parser.add_argument("--permutations", type=int, default=5)
    parser.add_argument("--other-groupings", default="ignore", choices=OTHER_GROUPINGS)
    parser.add_argument("--coex-store", default="edges", choices=("edges", "all"))
    parser.add_argument("--memory-limit", default="1.5GB")
    parser.add_argument("--interval", type=float, default=20.0, help="seconds between the ends of workers")
    parser.add_argument("--moments", type=int, default=10, help="how often to end the client")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to make the folder for all files; by default that for temporary files")
    parser.add_argument("--output", type=Path, help="JSON file to write or to add to")
    return parser.parse_args(arguments)


def main() -> int:
    """Run everything; 1 if any results differ."""
    asked = parse()
    generator = np.random.default_rng(asked.seed)
    with tempfile.TemporaryDirectory(dir=asked.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make_inputs(folder, n_genes=asked.genes, n_cells=asked.cells, n_guides=asked.guides, seed=asked.seed)
        job = Job(folder, asked.memory_limit, asked.permutations, asked.other_groupings, asked.coex_store)
        expected, stages = undisturbed(job)
        measured = {
            "asked": {key: value for key, value in vars(asked).items() if key not in ("folder", "output")},
            "results": len(expected),
            "undisturbed": {"seconds": sum(stages.values()), "seconds_of_stages": stages},
            "workers": with_workers_killed(job, expected, interval=asked.interval, generator=generator),
            "client": with_client_killed(job, expected, n_moments=asked.moments, stages=stages, generator=generator),
        }
    print(json.dumps(measured, indent=2))
    if asked.output:
        before = json.loads(asked.output.read_text()) if asked.output.is_file() else {}
        others = {name: before[name] for name in OTHER_GROUPINGS if name in before}
        asked.output.write_text(json.dumps(others | {asked.other_groupings: measured}, indent=2) + "\n")
    return 0 if measured["workers"]["identical"] and measured["client"]["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
