"""What a run has done, as the person who started it wants to know."""

from dataclasses import dataclass

from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import DE_TABLE, EDGE_TABLE


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
    return RunSummary(
        cells_total=cells_total,
        cells_kept=results.read("normalisation", "cell").size,
        genes_total=genes_total,
        genes_kept=results.read("normalisation", "gene").size,
        groupings=groupings,
        calibration=calibration,
        edges=stages["edges"]["edges"] if "edges" in stages else None,
        seconds=seconds,
        peak_worker_bytes=peak_worker_bytes,
        peak_client_bytes=peak_client_bytes,
        results=str(results.path),
        tables=tuple(str(results.output / table) for table in tables),
    )
