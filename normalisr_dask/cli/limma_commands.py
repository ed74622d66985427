"""The commands of pseudobulk samples and linear models: arguments, options and help. limma_work.py does the work."""

from collections.abc import Callable
from typing import Annotated

import typer

from normalisr_dask.cli.completion import columns_of_store
from normalisr_dask.cli.lazy import work
from normalisr_dask.cli.options import ClusterOptions, path_given, takes_option_groups
from normalisr_dask.settings import LinearModelSettings


@takes_option_groups
def pseudobulk(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", callback=path_given, help="Count store, or another AnnData-Zarr store of counts."
        ),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUT", callback=path_given, help="File to write: .h5ad, or .zarr for a store.")
    ],
    *,
    by: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            autocompletion=columns_of_store,
            help="Columns of the cell table; cells that agree in all of them make a sample.",
        ),
    ],
    min_cells: Annotated[int, typer.Option(metavar="N", min=1, help="Cells that a sample needs.")] = 10,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is already there.")] = False,
    cluster: ClusterOptions,
) -> None:
    """Sum counts over the cells of each donor and cell type, or whatever else --by names.

    OUT is AnnData, samples × genes: X is log2 of counts per million, layers hold sums and means of counts, and the
    table of samples has the number of cells and every column in which the cells of a sample agree. `vooma` takes it.
    """
    work("limma_work").pseudobulk(store, output, by, cluster, min_cells=min_cells, overwrite=overwrite)


@takes_option_groups
def vooma(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            callback=path_given,
            help="Log-expression: .h5ad file or AnnData-Zarr store, samples × genes.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", callback=path_given, help="Folder for the results.")
    ],
    *,
    design: Annotated[
        str, typer.Option(metavar="FORMULA", help="Formula over columns of the sample table, such as '~ sex + age'.")
    ],
    block: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the sample table with blocks of correlated samples: donors."),
    ] = None,
    sample_weights: Annotated[
        bool, typer.Option("--sample-weights", help="Estimate how precise each sample is, and weight it so.")
    ] = False,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Difference of coefficients to test, such as 'treated - control' or 'NAME=treated - control'; several "
            "times for several. Names are those of the formula with _ for other signs: group[T.b] is group_b. By "
            "default every coefficient but the intercept.",
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer to read in place of X.")] = None,
    trend: Annotated[
        bool, typer.Option("--trend", help="Let the prior variance of genes follow their mean expression.")
    ] = False,
    robust: Annotated[bool, typer.Option("--robust", help="Allow for a few genes that vary far more.")] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="At the end, write OUT/report.html, or leave it out.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that is already there.")] = False,
    cluster: ClusterOptions,
) -> None:
    """Fit linear models to log-expression and test them: limma's voomaLmFit, eBayes and topTable.

    OUT/top_table.parquet and OUT/top_table.tsv hold effect, confidence limits, P-value and Q-value of every gene and
    contrast, OUT/fit.zarr the fit, OUT/trend.png the mean-variance trend (needs matplotlib), and OUT/report.html all
    of it in figures and tables.
    """
    settings = LinearModelSettings(
        data=data,
        design=design,
        block=block,
        sample_weights=sample_weights,
        contrast=tuple(contrast or ()),
        layer=layer,
        trend=trend,
        robust=robust,
    )
    work("limma_work").vooma(settings, output, cluster, overwrite=overwrite, report=report)


EXAMPLES: dict[Callable[..., None], str] = {
    pseudobulk: "normalisr-dask pseudobulk counts.zarr samples.h5ad --by donor,cell_type",
    vooma: "normalisr-dask vooma samples.h5ad --design '~ cell_type + treatment' --block donor -o treated",
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
