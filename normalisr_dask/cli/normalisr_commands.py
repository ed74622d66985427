"""Normalisr's own eleven commands: its arguments, options, defaults and files. What they do is in normalisr_work.py."""

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from normalisr_dask.cli.lazy import work
from normalisr_dask.cli.options import ClusterOptions, path_given, takes_option_groups

PANEL = "Normalisr's commands, with its arguments, options and files"

FILES = (
    "Text files are tab-separated, without names of rows or columns; they are gzipped where the name ends in .gz. "
    "In place of a text matrix, read or written, a Zarr store (.zarr, or a URL) can be named."
)


class Method(StrEnum):
    """What to do about other predictors when one is tested."""

    IGNORE = "ignore"
    SINGLE = "single"
    COVARIATE = "covariate"


def _argument(name: str, meaning: str) -> Any:
    return typer.Argument(metavar=name, callback=path_given, help=meaning, show_default=False)


def _file(name: str, meaning: str) -> Any:
    return typer.Option(name, metavar="FILE", callback=path_given, help=meaning)


ReadsIn = Annotated[
    str, _argument("reads_in", "UMI counts, genes × cells: text; Matrix Market (-s, or by name); or a count store.")
]
GenesIn = Annotated[str, _argument("genes_in", "Gene names, one on each line; or a count store that holds them.")]
CellsIn = Annotated[str, _argument("cells_in", "Cell names, one on each line; or a count store that holds them.")]
CellsOut = Annotated[str, _argument("cells_out", "Names of the cells that passed, to write.")]
LcpmIn = Annotated[str, _argument("lcpm_in", "Log-CPM, genes × cells.")]
CovIn = Annotated[str, _argument("cov_in", "Covariates, covariates × cells.")]
CovOut = Annotated[str, _argument("cov_out", "Normalised covariates to write, covariates × cells.")]
ExpIn = Annotated[str, _argument("exp_in", "Normalised expression, genes × cells.")]
WeightsIn = Annotated[str, _argument("weights_in", "Weight of every cell, one number on each line.")]
Sparse = Annotated[bool, typer.Option("-s", help="The counts are Matrix Market, whatever the file's name.")]
Threads = Annotated[int, typer.Option("-n", metavar="N", min=0, help="CPU cores to use; 0: all of them.")]
DimReduce = Annotated[
    int,
    typer.Option(
        "-d", metavar="N", min=0, help="Degrees of freedom that the expression has lost before, for P-values."
    ),
]


@takes_option_groups
def qc_reads(
    reads_in: ReadsIn,
    genes_in: GenesIn,
    cells_in: CellsIn,
    genes_out: Annotated[str, _argument("genes_out", "Names of the genes that passed, to write.")],
    cells_out: CellsOut,
    *,
    gene_read_count: Annotated[
        int, typer.Option("--gene_read_count", metavar="N", min=0, help="Reads that a gene needs; 0: no bound.")
    ] = 0,
    gene_cell_count: Annotated[
        int, typer.Option("--gene_cell_count", metavar="N", min=0, help="Cells that must express a gene; 0: no bound.")
    ] = 50,
    gene_cell_prop: Annotated[
        float, typer.Option("--gene_cell_prop", metavar="P", min=0, help="The same, as a fraction of the cells.")
    ] = 0.02,
    cell_read_count: Annotated[
        int, typer.Option("--cell_read_count", metavar="N", min=0, help="Reads that a cell needs; 0: no bound.")
    ] = 500,
    cell_gene_count: Annotated[
        int, typer.Option("--cell_gene_count", metavar="N", min=0, help="Genes that a cell must express; 0: no bound.")
    ] = 100,
    cell_gene_prop: Annotated[
        float, typer.Option("--cell_gene_prop", metavar="P", min=0, help="The same, as a fraction of the genes.")
    ] = 0.0,
    sparse: Sparse = False,
    cluster: ClusterOptions,
) -> None:
    """Choose genes and cells by their counts; writes their names.

    Genes and cells are judged on the same matrix, removed together, and again, until nothing changes.
    """
    bounds = (gene_read_count, gene_cell_count, gene_cell_prop, cell_read_count, cell_gene_count, cell_gene_prop)
    names = (genes_in, cells_in, genes_out, cells_out)
    _call("qc_reads", cluster, 0, reads_in, *names, bounds=bounds, sparse=sparse)


@takes_option_groups
def subset(
    matrix_in: Annotated[
        str, _argument("matrix_in", "Any matrix: text; Matrix Market (-s, or by name); or a Zarr store.")
    ],
    matrix_out: Annotated[str, _argument("matrix_out", "Its chosen rows and columns, to write.")],
    *,
    rows: Annotated[
        tuple[str, str] | None,
        typer.Option("-r", metavar="row_before row_after", help="Names of all rows, and of those to keep."),
    ] = None,
    columns: Annotated[
        tuple[str, str] | None,
        typer.Option("-c", metavar="col_before col_after", help="Names of all columns, and of those to keep."),
    ] = None,
    nodummy: Annotated[
        bool,
        typer.Option("--nodummy", help="Leave out rows that have one value in the chosen columns, or the reverse."),
    ] = False,
    sparse: Sparse = False,
    cluster: ClusterOptions,
) -> None:
    """Choose rows and columns of a matrix by their names, such as genes and cells after quality control.

    Names are lists, one on each line; rows and columns come in the order of the names to keep.
    """
    _call("subset", cluster, 0, matrix_in, matrix_out, rows=rows, columns=columns, nodummy=nodummy, sparse=sparse)


@takes_option_groups
def lcpm(
    reads_in: ReadsIn,
    lcpm_out: Annotated[str, _argument("lcpm_out", "Log-CPM to write, genes × cells.")],
    scale_out: Annotated[str, _argument("scale_out", "Scaling factor of every gene to write, one on each line.")],
    cov_out: Annotated[
        str,
        _argument(
            "cov_out", "Covariates to write: those of -c and log total count, genes of no count, square × cells."
        ),
    ],
    *,
    sparse: Sparse = False,
    seed: Annotated[int | None, typer.Option("-r", metavar="N", help="Random seed; nothing is drawn here.")] = None,
    n_threads: Threads = 0,
    cov_in: Annotated[str | None, _file("-c", "Covariates that are there already, covariates × cells.")] = None,
    var_out: Annotated[str | None, _file("--var_out", "Posterior variance of log-CPM to write, genes × cells.")] = None,
    cluster: ClusterOptions,
) -> None:
    """Compute Bayesian log-CPM of counts, and three covariates of every cell.

    As .zarr, log-CPM takes no more room than the counts: it is stored as these and a number for each cell.
    """
    outputs = (lcpm_out, scale_out, cov_out)
    _call("lcpm", cluster, n_threads, reads_in, *outputs, cov_in=cov_in, var_out=var_out, seed=seed, sparse=sparse)


@takes_option_groups
def normcov(
    cov_in: CovIn,
    cov_out: CovOut,
    *,
    no1: Annotated[bool, typer.Option("--no1", help="Do not append the constant covariate 1.")] = False,
    cluster: ClusterOptions,
) -> None:
    """Standardise continuous covariates, and append the constant one.

    A covariate of other values than 0 and 1 gets mean 0 and variance 1.
    """
    _call("normcov", cluster, 0, cov_in, cov_out, intercept=not no1)


@takes_option_groups
def fitvar(
    lcpm_in: LcpmIn,
    cov_in: CovIn,
    weights_out: Annotated[str, _argument("weights_out", "Weight of every cell to write, one number on each line.")],
    *,
    cluster: ClusterOptions,
) -> None:
    """Fit the variance of every cell with its covariates; writes weights, variance^(-1/2)."""
    _call("fitvar", cluster, 0, lcpm_in, cov_in, weights_out)


@takes_option_groups
def qc_outlier(
    weights_in: WeightsIn,
    cells_in: CellsIn,
    cells_out: CellsOut,
    *,
    pcut: Annotated[
        float, typer.Option("--pcut", metavar="P", help="Bonferroni bound of the P-values of outliers.")
    ] = 1e-10,
    outrate: Annotated[
        float, typer.Option("--outrate", metavar="P", help="Largest share of outliers on either side.")
    ] = 0.02,
    cluster: ClusterOptions,
) -> None:
    """Choose cells whose fitted variance is no outlier; writes their names."""
    _call("qc_outlier", cluster, 0, weights_in, cells_in, cells_out, pcut=pcut, outrate=outrate)


@takes_option_groups
def normvar(
    lcpm_in: LcpmIn,
    weights_in: WeightsIn,
    cov_in: CovIn,
    scale_in: Annotated[str, _argument("scale_in", "Scaling factor of every gene, one number on each line.")],
    exp_out: Annotated[str, _argument("exp_out", "Normalised expression to write, genes × cells.")],
    cov_out: CovOut,
    *,
    n_threads: Threads = 0,
    batch: Annotated[
        int, typer.Option("-b", metavar="N", min=0, help="Taken for Normalisr's sake: blocks are of cells.")
    ] = 500,
    cluster: ClusterOptions,
) -> None:
    """Normalise mean and variance of expression and covariates.

    As .zarr, expression of log-CPM as .zarr takes no more room than the counts.
    """
    del batch
    _call("normvar", cluster, n_threads, lcpm_in, weights_in, cov_in, scale_in, exp_out, cov_out)


@takes_option_groups
def de(
    design_in: Annotated[str, _argument("design_in", "Predictors, such as groupings of 0 and 1, predictors × cells.")],
    exp_in: ExpIn,
    cov_in: CovIn,
    pv_out: Annotated[str, _argument("pv_out", "P-values to write, predictors × genes.")],
    lfc_out: Annotated[str, _argument("lfc_out", "Log fold changes (natural log) to write, predictors × genes.")],
    *,
    method: Annotated[
        Method,
        typer.Option(
            "-m",
            help="What to do about the other predictors while one is tested: ignore them; single, take the cells of "
            "no other (low MOI, predictors of 0 and 1); covariate, take them as covariates (high MOI).",
        ),
    ] = Method.IGNORE,
    n_threads: Threads = 0,
    batch: Annotated[int, typer.Option("-b", metavar="N", min=0, help="Predictors in a block; 0: as many as fit.")] = 0,
    dimreduce: DimReduce = 0,
    clfc_out: Annotated[
        str | None,
        _file("--clfc_out", "Effects of covariates to write: a row for each predictor and gene, genes running faster."),
    ] = None,
    vard_out: Annotated[
        str | None, _file("--vard_out", "Variance of predictors after covariates to write, one on each line.")
    ] = None,
    vart_out: Annotated[
        str | None, _file("--vart_out", "Variance of expression after covariates to write, predictors × genes.")
    ] = None,
    cluster: ClusterOptions,
) -> None:
    """Test every gene for differential expression with every predictor."""
    outputs = {"clfc_out": clfc_out, "vard_out": vard_out, "vart_out": vart_out}
    inputs = (design_in, exp_in, cov_in)
    options = {"method": method.value, "batch": batch, "dimreduce": dimreduce}
    _call("de", cluster, n_threads, *inputs, pv_out, lfc_out, **options, **outputs)


@takes_option_groups
def coex(
    exp_in: ExpIn,
    cov_in: CovIn,
    pv_out: Annotated[str, _argument("pv_out", "P-values to write, genes × genes, 0 on the diagonal.")],
    *,
    n_threads: Threads = 0,
    batch: Annotated[int, typer.Option("-b", metavar="N", min=0, help="Genes in a tile; 0: about 1000.")] = 0,
    dimreduce: DimReduce = 0,
    var_out: Annotated[
        str | None, _file("--var_out", "Variance of genes after covariates to write, one on each line.")
    ] = None,
    dot_out: Annotated[
        str | None,
        _file("--dot_out", "Mean products of gene pairs to write, genes × genes: r = dot / sqrt(var × var)."),
    ] = None,
    cluster: ClusterOptions,
) -> None:
    """Test all pairs of genes for co-expression."""
    options = {"batch": batch, "dimreduce": dimreduce, "var_out": var_out, "dot_out": dot_out}
    _call("coex", cluster, n_threads, exp_in, cov_in, pv_out, **options)


@takes_option_groups
def binnet(
    pv_in: Annotated[str, _argument("pv_in", "P-values of gene pairs, genes × genes.")],
    net_out: Annotated[str, _argument("net_out", "Network to write, genes × genes, 0 and 1.")],
    qcut: Annotated[float, typer.Argument(metavar="qcut", help="Largest Q-value of an edge.", show_default=False)],
    *,
    cluster: ClusterOptions,
) -> None:
    """Make a network of the significant gene pairs: Benjamini-Hochberg Q-values within each row, not symmetric."""
    _call("binnet", cluster, 0, pv_in, net_out, qcut)


@takes_option_groups
def gocovt(
    exp_in: ExpIn,
    cov_in: CovIn,
    net_in: Annotated[str, _argument("net_in", "Network of gene pairs, genes × genes, 0 and 1.")],
    genes_in: GenesIn,
    go_in: Annotated[str, _argument("go_in", "Terms of the Gene Ontology: go-basic.obo, also .gz.")],
    goa_in: Annotated[str, _argument("goa_in", "Annotations of genes: .gaf, also .gz.")],
    cov_out: Annotated[str, _argument("cov_out", "Covariates and the new one to write, covariates + 1 × cells.")],
    *,
    master_out: Annotated[
        str | None, _file("--master_out", "Names of the genes with most edges to write, one on each line.")
    ] = None,
    goe_out: Annotated[
        str | None, _file("--goe_out", "Enrichment of all terms to write, a table with a header.")
    ] = None,
    go_out: Annotated[str | None, _file("--go_out", "Identifier of the top term to write.")] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Genes with most edges to look at, about.")] = 100,
    n_least: Annotated[int, typer.Option("-m", metavar="N", help="Fewest of them that a top term may hold.")] = 5,
    conversion: Annotated[
        tuple[str, str, str] | None,
        typer.Option(
            "-c",
            metavar="gene_from gene_to species",
            help="Translate names by the web service mygene.info, such as: symbol,alias uniprot.Swiss-Prot human.",
        ),
    ] = None,
    mapping: Annotated[
        str | None,
        _file(
            "--mapping",
            "Translate names by a file: gene, tab, identifier on each line. By default, and without "
            "the web, symbols and synonyms of the annotation are known.",
        ),
    ] = None,
    cluster: ClusterOptions,
) -> None:
    """Append the principal component of the strongest GO term among the genes with most edges to the covariates."""
    if conversion is not None and mapping is not None:
        msg = "gene names are translated by -c or by --mapping, not by both"
        raise ValueError(msg)
    translated = Path(mapping) if mapping is not None else conversion
    if conversion is not None and conversion[0] == conversion[1]:
        translated = None
    outputs = {"master_out": master_out, "goe_out": goe_out, "go_out": go_out}
    inputs = (exp_in, cov_in, net_in, genes_in, go_in, goa_in)
    _call("gocovt", cluster, 0, *inputs, cov_out, n=n, n_least=n_least, conversion=translated, **outputs)


EXAMPLES: dict[Callable[..., None], str] = {
    qc_reads: "qc_reads -s reads.mtx.gz genes.txt cells.txt genes_qc.txt cells_qc.txt",
    subset: "subset -s reads.mtx.gz reads.tsv.gz -r genes.txt genes_qc.txt -c cells.txt cells_qc.txt",
    lcpm: "lcpm reads.tsv.gz lcpm.tsv.gz scale.tsv cov.tsv -c batches.tsv",
    normcov: "normcov cov.tsv cov_norm.tsv",
    fitvar: "fitvar lcpm.tsv.gz cov_norm.tsv weights.tsv",
    qc_outlier: "qc_outlier weights.tsv cells_qc.txt cells_kept.txt",
    normvar: "normvar lcpm.zarr weights.tsv cov_norm.tsv scale.tsv exp.zarr cov_exp.tsv",
    de: "de -m single guides.tsv.gz exp.zarr cov_exp.tsv pv.tsv.gz lfc.tsv.gz",
    coex: "coex exp.zarr cov_exp.tsv pv.zarr",
    binnet: "binnet pv.zarr net.zarr 1E-15",
    gocovt: "gocovt exp.zarr cov_exp.tsv net.zarr genes_qc.txt go-basic.obo goa_human.gaf.gz cov_1.tsv",
}


class AbbreviatingCommand(TyperCommand):
    """Takes Normalisr's long options by any beginning that only one of them has, as Normalisr does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write options out."""
        ours = {f"--{field.name.replace('_', '-')}" for field in fields(ClusterOptions)}
        names = [name for option in self.params for name in option.opts if name.startswith("--") and name not in ours]

        def whole(argument: str) -> str:
            typed, *value = argument.split("=", 1)
            found = [name for name in names if len(typed) > len("--") and name.startswith(typed)]
            return "=".join([found[0] if len(found) == 1 else typed, *value]) if typed.startswith("--") else argument

        return super().parse_args(ctx, [whole(argument) for argument in args])


def register(app: typer.Typer) -> None:
    """Add the commands to the program.

    Parameters
    ----------
    app
        The program.
    """
    for command, example in EXAMPLES.items():
        epilog = f"{FILES}\n\nExample: normalisr-dask {example}"
        app.command(command.__name__, cls=AbbreviatingCommand, epilog=epilog, rich_help_panel=PANEL)(command)


def _call(command: str, cluster: ClusterOptions, n_threads: int, *arguments: Any, **options: Any) -> None:
    """Run a command where it is told to: on a cluster if one was asked for, else in threads of this process."""
    where = work("threads").of_this_process(n_threads)
    if cluster != ClusterOptions():
        computing = work("computing")
        where = computing.computing(computing.settings_of(cluster))
    with where:
        getattr(work("ontology_work" if command == "gocovt" else "normalisr_work"), command)(*arguments, **options)
