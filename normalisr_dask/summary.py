"""What a run has done, as the person who started it wants to know."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from normalisr_dask.schema import stage_of_level
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import DE_TABLE, EDGE_TABLE, edge_table, enrichment_table


@dataclass(frozen=True)
class GroupingHits:
    """How a grouping fared: its cells that passed quality control, and its genes with Q ≤ 0.05."""

    name: str
    n_cells: int
    n_hits: int


@dataclass(frozen=True)
class FamilyInflation:
    """How calibrated a family of tests is: its name, its number of tests, and their genomic inflation."""

    family: str
    n_tests: int
    inflation: float


@dataclass(frozen=True)
class LevelTerm:
    """A level of gene sets: edges of its network, and its top term, its name, number of genes and P-value, if any."""

    level: int
    edges: int
    term: str | None
    name: str
    genes: int
    p_value: float


@dataclass(frozen=True)
class RunSummary:
    """What a run has done.

    Attributes
    ----------
    cells_total, cells_kept, genes_total, genes_kept
        Numbers in the store and after quality control.
    groupings
        One entry a grouping.
    calibration
        One entry a family of tests: those tested, controls, permuted groupings; none without calibration.
    edges
        Edges of the co-expression network, None without co-expression.
    levels
        One entry a level of gene sets that is done; none where they are not looked for.
    seconds
        Time of this call.
    peak_worker_bytes, peak_client_bytes
        Largest memory of a worker and of this process.
    results, tables
        Path of the result store and of the tables.
    """

    cells_total: int
    cells_kept: int
    genes_total: int
    genes_kept: int
    groupings: tuple[GroupingHits, ...]
    calibration: tuple[FamilyInflation, ...]
    edges: int | None
    levels: tuple[LevelTerm, ...]
    seconds: float
    peak_worker_bytes: int
    peak_client_bytes: int
    results: str
    tables: tuple[str, ...]


def summarise(
    results: ResultStore,
    manifest: Manifest,
    *,
    cells_total: int,
    genes_total: int,
    seconds: float,
    peak_worker_bytes: int,
    peak_client_bytes: int,
) -> RunSummary:
    """Sum up the stages that are done; arguments as the attributes of :class:`RunSummary`."""
    stages = manifest.content["stages"]
    groupings: tuple[GroupingHits, ...] = ()
    tables = []
    if "de" in stages:
        n_cells, names = results.read("de", "n_cells"), results.read("de", "grouping")
        rows = zip(names, n_cells, stages["de"]["hits"], strict=True)
        groupings = tuple(GroupingHits(str(name), int(cells), hits) for name, cells, hits in rows)
        tables.append(DE_TABLE)
    calibration: tuple[FamilyInflation, ...] = ()
    if "calibration" in stages:
        columns = (results.read("calibration", name).tolist() for name in ("family", "n_tests", "inflation"))
        calibration = tuple(FamilyInflation(*row) for row in zip(*columns, strict=True))
    if "edges" in stages:
        tables.append(EDGE_TABLE)
    levels = _levels(stages)
    tables += [edge_table(level.level) for level in levels[1:]]
    tables += [enrichment_table(level.level) for level in levels if level.term is not None]
    return RunSummary(
        cells_total=cells_total,
        cells_kept=results.read("normalisation", "cell").size,
        genes_total=genes_total,
        genes_kept=results.read("normalisation", "gene").size,
        groupings=groupings,
        calibration=calibration,
        edges=stages["edges"]["edges"] if "edges" in stages else None,
        levels=levels,
        seconds=seconds,
        peak_worker_bytes=peak_worker_bytes,
        peak_client_bytes=peak_client_bytes,
        results=str(results.path),
        tables=tuple(str(results.output / table) for table in tables),
    )


def _levels(stages: Mapping[str, Any]) -> tuple[LevelTerm, ...]:
    """Return the levels of gene sets that are recorded."""
    levels = []
    for level in takewhile(lambda level: stage_of_level("go", level) in stages, count()):
        found, n_edges = stages[stage_of_level("go", level)], stages[stage_of_level("edges", level)]["edges"]
        levels.append(
            LevelTerm(
                level, n_edges, found["term"], found.get("name", ""), found.get("genes", 0), found.get("p_value", 1.0)
            )
        )
    return tuple(levels)
