"""The commands of the pipeline: their arguments, options and help. What they do is in store_work.py and run_work.py."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from normalisr_dask.cli.lazy import work
from normalisr_dask.cli.options import (
    ClusterOptions,
    GroupingOptions,
    LogOptions,
    QualityOptions,
    ScreenOptions,
    path_given,
    takes_option_groups,
)


class Join(StrEnum):
    """Which genes to keep of inputs that differ in them."""

    OUTER = "outer"
    INNER = "inner"


class Infection(StrEnum):
    """How many guides a cell was meant to carry."""

    LOW = "low"
    HIGH = "high"


class CoexStore(StrEnum):
    """What to store of gene pairs."""

    ALL = "all"
    EDGES = "edges"


@takes_option_groups
def ingest(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", callback=path_given, help="Matrices; several are put together, cell after cell."
        ),
    ],
    store: Annotated[
        str, typer.Argument(metavar="STORE", callback=path_given, help="Folder to write, such as counts.zarr.")
    ],
    *,
    genes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Names of genes, one on each line: one file for all inputs, or one for each."
        ),
    ] = None,
    cells: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Names of cells, one on each line: a file for each input.")
    ] = None,
    obs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table of the cells (TSV, CSV or Parquet, names in the first column) to store with them.",
        ),
    ] = None,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="The text or Matrix Market inputs are cells × genes.")
    ] = False,
    join: Annotated[
        Join | None,
        typer.Option(help="If inputs differ in their genes: keep all (outer) or those that all have (inner)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a store that is already there.")] = False,
    log: LogOptions,
) -> None:
    """Convert count matrices to a count store.

    An INPUT is a Matrix Market file (.mtx, .mtx.gz; genes × cells), a 10x folder or .h5 file, an .h5ad file, an
    AnnData-Zarr store, or a dense table (.tsv, .csv; also .gz) with the cells in the first line and the genes in the
    first column. It is read piece by piece, in less than 700 MB of memory whatever its size.

    STORE becomes an AnnData-Zarr store, which anndata.read_zarr opens, too. It appears when it is whole, not before.
    """
    work("store_work").ingest(inputs, store, genes, cells, obs, join, log, transpose=transpose, overwrite=overwrite)


def info(
    path: Annotated[
        str, typer.Argument(metavar="STORE|OUT", callback=path_given, help="Count store, or output folder of a run.")
    ],
) -> None:
    """Tell what is in a count store or an output folder.

    Of a count store: cells, genes, entries, the columns of the cell table, where it came from. Of an output folder:
    which stages are done and what they found, where report, tables and arrays are, and the command and the versions
    that made them. Nothing is written.
    """
    work("info_work").info(path)


@takes_option_groups
def assign_guides(
    guides: Annotated[
        str,
        typer.Argument(
            metavar="GUIDES",
            callback=path_given,
            help="UMI counts of guides: any INPUT of ingest (guides in place of genes), or a store.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", callback=path_given, help="Groupings to write: .mtx, .mtx.gz or .parquet."
        ),
    ],
    *,
    guide_names: Annotated[
        str | None, typer.Option(metavar="FILE", help="Names of guides, one on each line; for Matrix Market.")
    ] = None,
    cell_names: Annotated[
        str | None, typer.Option(metavar="FILE", help="Names of cells, one on each line; for Matrix Market.")
    ] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The input is cells × guides.")] = False,
    threshold: Annotated[int, typer.Option(metavar="N", min=1, help="UMIs that a guide needs in a cell.")] = 5,
    min_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="Fraction of the cell's guide UMIs that a guide needs. By default 0.2 at low MOI, 0 at high MOI.",
        ),
    ] = None,
    moi: Annotated[
        Infection,
        typer.Option(help="low: a cell has the one guide that passes, none if several do. high: it has all that pass."),
    ] = Infection.LOW,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are already there.")] = False,
    log: LogOptions,
) -> None:
    """Assign guides to cells by their UMI counts, as groupings for `run`.

    A guide passes in a cell with at least N UMIs there that are at least a fraction P of all its guide UMIs. What came
    out is counted: cells with no, one and several guides, guides per cell, and cells per guide.

    Beside Matrix Market, FILE.groupings.txt and FILE.cells.txt hold the names.
    """
    work("guide_work").assign_guides(
        guides,
        output,
        log,
        guide_names=guide_names,
        cell_names=cell_names,
        transpose=transpose,
        threshold=threshold,
        min_fraction=min_fraction,
        moi=moi.value,
        overwrite=overwrite,
    )


@takes_option_groups
def run(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", callback=path_given, help="Count store, or another AnnData-Zarr store of counts."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", callback=path_given, help="Folder for the results.")
    ],
    *,
    coex: Annotated[bool, typer.Option("--coex", help="Test every pair of genes for co-expression, too.")] = False,
    qcut: Annotated[
        float, typer.Option(metavar="Q", min=0, max=1, help="With --coex: largest Q-value of an edge.")
    ] = 0.05,
    coex_store: Annotated[
        CoexStore,
        typer.Option(
            help="With --coex: store P-value and mean product of all pairs, 16 bytes each before compression, after "
            "which another --qcut takes seconds; or the edges alone, for more genes than there is room for."
        ),
    ] = CoexStore.ALL,
    go: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="OBO GAF",
            help="With --coex: find the gene set that dominates the network among the terms of the Gene Ontology (OBO) "
            "and the annotations of genes (GAF; both may be gzipped), remove it, and so on. Needs the extra 'go'.",
        ),
    ] = None,
    go_levels: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="With --go: how many gene sets to remove, one after the other.", show_default="5"
        ),
    ] = None,
    go_names: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --go: gene names and what the annotations call them, two columns. By default the names are "
            "identifiers, symbols or synonyms of the annotations.",
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="At the end, write OUT/report.html, or leave it out.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print tasks, bytes and memory of every stage; compute nothing.")
    ] = False,
    groupings: GroupingOptions,
    screen: ScreenOptions,
    quality: QualityOptions,
    cluster: ClusterOptions,
    log: LogOptions,
) -> None:
    """Go from counts to P-values of differential expression and co-expression.

    Quality control, log CPM, covariates, variance normalisation, removal of outlier cells, then a test of every
    grouping against every gene, and with --coex of every pair of genes, as Normalisr does them.

    OUT/report.html shows it all. OUT/results.zarr holds labelled arrays for xarray, OUT/de.parquet and
    OUT/coex_edges.parquet the tables, OUT/manifest.json parameters, versions and times. With --go, level 0 is
    co-expression as it is; level 1 has the first principal component of the gene set that dominates level 0 as a
    covariate, in OUT/go_lv0.parquet is how it was found; and so on. The same command again goes on where it was
    interrupted.
    """
    work("run_work").run(
        store,
        output,
        groupings,
        screen,
        quality,
        cluster,
        log,
        coex=coex,
        qcut=qcut,
        coex_store=coex_store.value,
        go=go,
        go_levels=go_levels,
        go_names=go_names,
        report=report,
        dry_run=dry_run,
    )


def report(
    output: Annotated[str, typer.Argument(metavar="OUT", callback=path_given, help="Output folder of a run.")],
) -> None:
    """Write OUT/report.html of a run: figures and tables, one file for any browser, without network.

    What was run, quality control, normalisation, tests of every grouping, co-expression, time and memory, as far as
    the run has them. `run` does so at its end. Needs the packages of the extra: pip install 'normalisr-dask[report]'.
    """
    work("report_work").report(output)


@takes_option_groups
def demo(
    output: Annotated[
        str, typer.Argument(metavar="OUT", callback=path_given, help="Folder to write.")
    ] = "normalisr-dask-demo",
    *,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the simulation.")] = 0,
    cluster: ClusterOptions,
    log: LogOptions,
) -> None:
    """Simulate a small CRISPR screen, run everything on it, and say how much of the truth was found.

    Guides knock genes down in some hundred cells each, and modules of genes vary together. The counts are written as
    .mtx.gz, ingested, and tested; the end tells how many of the planted effects and pairs have Q ≤ 0.05, and how many
    of those that have were not planted. Takes about a minute.
    """
    work("run_work").demo(output, cluster, log, seed=seed)


EXAMPLES: dict[Callable[..., None], str] = {
    ingest: "normalisr-dask ingest filtered_feature_bc_matrix/ counts.zarr --obs cells.tsv.gz",
    info: "normalisr-dask info counts.zarr",
    assign_guides: "normalisr-dask assign-guides guide_counts.h5 -o groupings.parquet --moi high --threshold 3",
    run: "normalisr-dask run counts.zarr -o results --groupby guide --reference control --covariate-columns batch",
    report: "normalisr-dask report results",
    demo: "normalisr-dask demo",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the program.

    Parameters
    ----------
    app
        The program.
    """
    for command, example in EXAMPLES.items():
        app.command(epilog=f"Example: {example}")(command)
