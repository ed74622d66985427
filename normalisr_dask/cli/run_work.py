"""What ``run`` and ``demo`` do."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from normalisr_dask.cli.computing import computing, settings_of
from normalisr_dask.cli.display import print_facts, show_stages
from normalisr_dask.cli.event_log import event_log
from normalisr_dask.cli.messages import tell
from normalisr_dask.cli.options import ClusterOptions, GroupingOptions, LogOptions, QualityOptions, ScreenOptions
from normalisr_dask.cli.report_work import report_of_run
from normalisr_dask.cluster import ClusterSettings, cluster_size, connect
from normalisr_dask.demo import RESULTS, DemoSummary
from normalisr_dask.demo import demo as run_demo
from normalisr_dask.pipeline import HIT_QVALUE, TITLES, plan, stage_titles
from normalisr_dask.pipeline import run as run_pipeline
from normalisr_dask.planning import RunPlan
from normalisr_dask.settings import RunSettings
from normalisr_dask.summary import FamilyInflation, RunSummary
from normalisr_dask.wording import amount, counted, duration

GROUPINGS_SHOWN = 10
#: Below so many tests, genomic inflation is uncertain by a quarter or more.
FEW_TESTS = 100
FAMILIES = {"tested": "tests", "control": "tests of controls", "permuted": "tests of permuted cells"}


def run(
    store: str,
    output: str,
    groupings: GroupingOptions,
    screen: ScreenOptions,
    quality: QualityOptions,
    cluster: ClusterOptions,
    log: LogOptions,
    *,
    coex: bool,
    qcut: float,
    coex_store: Literal["all", "edges"],
    go: tuple[str, str] | None,
    go_levels: int | None,
    go_names: str | None,
    report: bool,
    dry_run: bool,
) -> None:
    """Run the pipeline, or print its plan."""
    if go is None and go_levels is not None:
        msg = "--go-levels says how many gene sets to remove, which needs the files they are found in: --go OBO GAF"
        raise ValueError(msg)
    settings = RunSettings(
        store=store,
        output=output,
        **_grouping_settings(groupings),
        **_screen_settings(screen),
        **asdict(quality),
        coex=coex,
        qcut=qcut,
        coex_store=coex_store,
        go=go,
        go_levels=RunSettings.go_levels if go_levels is None else go_levels,
        go_names=go_names,
    )
    cluster_settings = settings_of(cluster)
    with event_log(log.log_json, "run", output) as events:
        if dry_run or cluster_settings.is_local:  # what is wrong is said at once, before processes start
            run_plan = _plan(settings, cluster_settings)
        if dry_run:
            _print_plan(run_plan)
            return
        with computing(cluster_settings) as client, show_stages(stage_titles(settings), events) as progress:
            summary = run_pipeline(settings, client, progress=progress)
        _print_summary(summary)
        note_many_left_out(summary, settings)
        if report:
            report_of_run(output, events)


def demo(output: str, cluster: ClusterOptions, log: LogOptions, *, seed: int) -> None:
    """Run everything on simulated data and compare with the truth."""
    with event_log(log.log_json, "demo", output) as events:
        with computing(settings_of(cluster)) as client, show_stages(TITLES, events) as progress:
            summary = run_demo(output, client, progress=progress, seed=seed)
        _print_summary(summary)
        report_of_run(Path(output) / RESULTS, events)
        _print_truth(summary)


def _grouping_settings(options: GroupingOptions) -> dict[str, Any]:
    """Turn what was typed into plain values."""
    return asdict(options) | {
        "other_groupings": options.other_groupings.value,
        "covariate_columns": _names(options.covariate_columns),
    }


def _screen_settings(options: ScreenOptions) -> dict[str, Any]:
    """Turn what was typed into plain values."""
    return asdict(options) | {
        "test": options.test and options.test.value,
        "control": _names(options.control),
        "control_use": options.control_use and options.control_use.value,
    }


def _names(typed: str | None) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in (typed or "").split(",") if name.strip())


def _plan(settings: RunSettings, cluster: ClusterSettings) -> RunPlan:
    """Plan for a local cluster without starting it, or for the workers of a running one."""
    if cluster.is_local:
        return plan(settings, **cluster.local_size()._asdict())
    with connect(cluster) as client:
        return plan(settings, **cluster_size(client)._asdict())


def _print_plan(run_plan: RunPlan) -> None:
    """Print a row for each stage."""
    print("Plan; nothing was computed")
    table = _table("stage", "tasks", "reads", "writes", "peak of a task", left="stage")
    for stage in run_plan.stages:
        sizes = (amount(size) for size in (stage.bytes_read, stage.bytes_written, stage.peak_task_bytes))
        table.add_row(stage.name, f"{stage.tasks:,}", *sizes)
    Console(highlight=False).print(table, markup=False)
    for stage in run_plan.stages:
        if stage.note:
            print(f"  {stage.name}: {stage.note}")
    print(
        f"Memory limit: {amount(run_plan.memory_limit)} a worker, {counted(run_plan.workers, 'worker', 'workers')} "
        f"with {counted(run_plan.threads_per_worker, 'task', 'tasks')} at a time each; "
        f"the command itself takes about {amount(run_plan.command_bytes)}"
    )


def _print_summary(summary: RunSummary) -> None:
    """Print what came out and where it is."""
    facts = {
        "cells kept": f"{summary.cells_kept:,} of {summary.cells_total:,}",
        "genes kept": f"{summary.genes_kept:,} of {summary.genes_total:,}",
    }
    if summary.groupings:
        n_hits = sum(grouping.n_hits for grouping in summary.groupings)
        n_with_hits = sum(grouping.n_hits > 0 for grouping in summary.groupings)
        facts["hits"] = f"{n_hits:,} at Q ≤ {HIT_QVALUE} in {n_with_hits:,} of {len(summary.groupings):,} groupings"
    calibrated = [inflation_text(family) for family in summary.calibration if family.n_tests]
    if calibrated:
        facts["inflation"] = "; ".join(calibrated)
    if summary.edges is not None:
        facts["edges"] = f"{summary.edges:,}"
    facts |= {
        "time": duration(summary.seconds),
        "peak memory": f"{amount(summary.peak_worker_bytes)} a worker, {amount(summary.peak_client_bytes)} here",
        "arrays": summary.results,
        "tables": ", ".join(summary.tables) or "none",
    }
    _print_groupings(summary)
    _print_levels(summary)
    print_facts("", facts)


def note_many_left_out(summary: RunSummary, settings: RunSettings) -> None:
    """Say on stderr which bounds to look at where quality control has left out most of the cells.

    Parameters
    ----------
    summary
        Of the run.
    settings
        That it was asked for.
    """
    left_out = summary.cells_total - summary.cells_kept
    if left_out > summary.cells_total / 2:
        tell(
            "note",
            f"quality control left out {left_out:,} of {summary.cells_total:,} cells; a cell needed "
            f"{settings.min_cell_reads:,} reads (--min-cell-reads) and {settings.min_cell_genes:,} genes "
            "(--min-cell-genes); to take more of them, lower these, with another output folder",
        )


def inflation_text(family: FamilyInflation) -> str:
    """Return the inflation of a family of tests, and whether these are few for it."""
    told = f"{family.inflation:.3f} over {family.n_tests:,} {FAMILIES[family.family]}"
    return f"{told} (too few to judge by)" if family.n_tests < FEW_TESTS else told


def _print_groupings(summary: RunSummary) -> None:
    """Print the hits of each grouping, or of those with the most."""
    if not summary.groupings:
        return
    ranked = sorted(summary.groupings, key=lambda grouping: -grouping.n_hits)  # stable: ties stay in order
    table = _table("grouping", "cells", f"hits at Q ≤ {HIT_QVALUE}", left="grouping")
    for grouping in ranked[:GROUPINGS_SHOWN]:
        table.add_row(grouping.name, f"{grouping.n_cells:,}", f"{grouping.n_hits:,}")
    Console(highlight=False).print(table, markup=False)
    if len(ranked) > GROUPINGS_SHOWN:
        print(f"  and {len(ranked) - GROUPINGS_SHOWN:,} more with as many or fewer")


def _print_levels(summary: RunSummary) -> None:
    """Print the top term of each level of gene sets."""
    if not summary.levels:
        return
    table = _table("level", "edges", "P", "genes", "top term of its network", left="top term of its network")
    for level in summary.levels:
        found = (f"{level.p_value:.1e}", f"{level.genes:,}", f"{level.term} {level.name}")
        table.add_row(str(level.level), f"{level.edges:,}", *(found if level.term else ("", "", "none")))
    Console(highlight=False).print(table, markup=False)


def _table(*columns: str, left: str) -> Table:
    """Lay out a table with words in one column and numbers in the others."""
    table = Table(box=None, padding=(0, 2), header_style="")
    for column in columns:
        table.add_column(column, justify="left" if column == left else "right", overflow="fold")
    return table


def _print_truth(summary: DemoSummary) -> None:
    """Print how much of the truth was found."""
    for what, found, planted, false in (
        ("knock-down effects", summary.effects_found, summary.effects_planted, summary.effects_false),
        ("pairs in modules", summary.module_pairs_found, summary.module_pairs_planted, summary.module_pairs_false),
    ):
        called = found + false
        print(
            f"planted {what}: {found:,} of {planted:,} found ({found / max(planted, 1):.1%}); "
            f"false among those called: {false:,} of {called:,} ({false / max(called, 1):.1%})"
        )
