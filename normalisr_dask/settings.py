"""What a run is to do, in plain values that go into its manifest."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunSettings:
    """What a run is to do; plain values that go into the manifest.

    Attributes
    ----------
    store, output
        Count store and output folder.
    groupings, grouping_names
        File of groupings; for Matrix Market also the file of their names.
    groupby, reference
        Column of the cell table to make groupings of, and the level whose cells belong to none.
    other_groupings
        How a test treats the other groupings.
    covariates, covariate_columns
        File of covariates, and columns of the cell table.
    coex, qcut
        Whether to test gene pairs, and the largest Q-value of an edge.
    min_gene_reads, min_gene_cells, min_gene_cell_fraction
        Bounds that a gene must reach: total count, cells with it, their share.
    min_cell_reads, min_cell_genes, min_cell_gene_fraction
        Bounds that a cell must reach: total count, genes in it, their share.
    """

    store: str
    output: str
    groupings: str | None = None
    grouping_names: str | None = None
    groupby: str | None = None
    reference: str | None = None
    other_groupings: Literal["ignore", "exclude", "covariates"] = "ignore"
    covariates: str | None = None
    covariate_columns: tuple[str, ...] = ()
    coex: bool = False
    qcut: float = 0.05
    min_gene_reads: int = 0
    min_gene_cells: int = 50
    min_gene_cell_fraction: float = 0.02
    min_cell_reads: int = 500
    min_cell_genes: int = 100
    min_cell_gene_fraction: float = 0.0

    @property
    def qc_bounds(self) -> tuple[float, ...]:
        """Bounds in the order of :func:`normalisr_dask.qc_reads`."""
        return (
            self.min_gene_reads,
            self.min_gene_cells,
            self.min_gene_cell_fraction,
            self.min_cell_reads,
            self.min_cell_genes,
            self.min_cell_gene_fraction,
        )
