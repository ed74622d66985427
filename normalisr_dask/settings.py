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
    grouping_cells
        For Matrix Market: file of the names of its cells; None where they are those of the store.
    groupby, reference
        Column of the cell table to make groupings of, and the level whose cells belong to none.
    other_groupings
        How a test treats the other groupings.
    targets, test
        File of the guides' targets, and what to test: ``guides``, or the union of each target's guides (``targets``);
        None tests targets where the file is given.
    control, control_file
        Controls, such as non-targeting guides: names of groupings or targets, and a file of such names.
    control_use
        ``reference``: controls are not tested, and their cells count as in no grouping; where other groupings are
        excluded, so are cells that are in no grouping at all. ``negative``: controls are tested, and calibrate. None:
        ``reference`` where other groupings are excluded, else ``negative``.
    min_grouping_cells
        Cells after quality control that a grouping must have to be tested.
    pairs
        File of pairs of grouping and gene, the only ones to test.
    permutations, seed
        How many times to permute the cells of the groupings to calibrate the tests, and the seed of that.
    covariates, covariate_columns
        File of covariates, and columns of the cell table.
    coex, qcut, coex_store
        Whether to test gene pairs, the largest Q-value of an edge, and what to store: ``all``, P-value and mean product
        of every pair beside the edges, or the ``edges`` alone.
    go, go_levels, go_names
        Files of the Gene Ontology's terms (OBO) and of annotations of genes (GAF), which have gene sets found that
        dominate co-expression; how many of these to remove, one after the other; and a file of two columns, gene names
        and what the annotations call them, where these do not know the names.
    min_gene_reads, min_gene_cells, min_gene_cell_fraction
        Bounds that a gene must reach: total count, cells with it, their share.
    min_cell_reads, min_cell_genes, min_cell_gene_fraction
        Bounds that a cell must reach: total count, genes in it, their share.
    """

    store: str
    output: str
    groupings: str | None = None
    grouping_names: str | None = None
    grouping_cells: str | None = None
    groupby: str | None = None
    reference: str | None = None
    other_groupings: Literal["ignore", "exclude", "covariates"] = "ignore"
    targets: str | None = None
    test: Literal["guides", "targets"] | None = None
    control: tuple[str, ...] = ()
    control_file: str | None = None
    control_use: Literal["reference", "negative"] | None = None
    min_grouping_cells: int = 10
    pairs: str | None = None
    permutations: int = 0
    seed: int = 0
    covariates: str | None = None
    covariate_columns: tuple[str, ...] = ()
    coex: bool = False
    qcut: float = 0.05
    coex_store: Literal["all", "edges"] = "all"
    go: tuple[str, str] | None = None
    go_levels: int = 5
    go_names: str | None = None
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


@dataclass(frozen=True)
class LinearModelSettings:
    """What ``vooma`` is asked for.

    Attributes
    ----------
    data
        Path of AnnData, samples × genes.
    design
        Formula over columns of the sample table.
    block
        Column with blocks of correlated samples.
    sample_weights
        Whether to estimate how precise each sample is.
    contrast
        Differences of coefficients to test; every coefficient but the intercept if there is none.
    layer
        To read in place of X.
    trend, robust
        Whether the prior variance of genes follows their mean expression, and allows for outliers.
    """

    data: str
    design: str
    block: str | None = None
    sample_weights: bool = False
    contrast: tuple[str, ...] = ()
    layer: str | None = None
    trend: bool = False
    robust: bool = False
