"""Every array of the result store: its name, dimensions, dtype and meaning. Reader, writer and documentation use it."""

from dataclasses import dataclass

FORMAT_VERSION = 1
#: Stands between the kind of a stage and its level, where gene sets are removed one after the other.
LEVEL = "_lv"


@dataclass(frozen=True)
class Variable:
    """One stored array.

    Attributes
    ----------
    dims
        Names of its dimensions; each has a coordinate of the same name with the names of its entries.
    dtype
        As NumPy writes it.
    meaning
        One line.
    """

    dims: tuple[str, ...]
    dtype: str
    meaning: str


#: Stage (a group of the result store) → array → what it is.
STAGES: dict[str, dict[str, Variable]] = {
    "qc": {
        "gene_total": Variable(("gene",), "int64", "Total count of the gene over the kept cells"),
        "gene_cells": Variable(("gene",), "int64", "Number of kept cells that express the gene"),
        "gene_kept": Variable(("gene",), "bool", "Whether the gene passed"),
        "cell_total": Variable(("cell",), "int64", "Total count of the cell over the kept genes"),
        "cell_genes": Variable(("cell",), "int64", "Number of kept genes expressed in the cell"),
        "cell_kept": Variable(("cell",), "bool", "Whether the cell passed the bounds on counts"),
    },
    "normalisation": {
        "log_cpm_offset": Variable(("cell",), "float64", "What log-CPM subtracts from digamma(count + 1) - digamma(2)"),
        "cell_weight": Variable(("cell",), "float64", "Weight w of variance normalisation; 1 or more"),
        "fitted_weight": Variable(("qc_cell",), "float64", "Weight of every cell that passed the bounds on counts"),
        "weight_kept": Variable(("qc_cell",), "bool", "Whether that weight is no outlier, and the cell kept"),
        "covariates": Variable(("covariate", "cell"), "float64", "Covariates, standardised, with the constant one"),
        "gene_scaling": Variable(
            ("gene",), "float64", "Scaling t of variance normalisation: the gene's weights are w**t"
        ),
        "coefficients": Variable(("gene", "covariate"), "float64", "Coefficients of log-CPM on the covariates"),
        "variance_factor": Variable(("gene",), "float64", "What gives the gene back its variance"),
        "sum_of_squares": Variable(("gene",), "float64", "Sum of squared normalised expression over cells"),
    },
    # NaN where pairs of grouping and gene were given and this is none of them
    "de": {
        "pvalue": Variable(("grouping", "gene"), "float64", "Two-sided P-value"),
        "log10_pvalue": Variable(("grouping", "gene"), "float64", "log10 of the P-value, without underflow"),
        "qvalue": Variable(("grouping", "gene"), "float64", "Benjamini-Hochberg Q-value within the grouping"),
        "qvalue_all": Variable(("grouping", "gene"), "float64", "Benjamini-Hochberg Q-value over all tests of the run"),
        "gamma": Variable(("grouping", "gene"), "float64", "Log fold change (natural log)"),
        "se": Variable(("grouping", "gene"), "float64", "Standard error of gamma"),
        "vart": Variable(("grouping", "gene"), "float64", "Variance of expression after covariates"),
        "varg": Variable(("grouping",), "float64", "Variance of the grouping after covariates"),
        "n_cells": Variable(("grouping",), "int64", "Number of cells in the grouping"),
    },
    # Families: tested, control, permuted; those of them that the run has
    "calibration": {
        "n_tests": Variable(("family",), "int64", "Number of tests"),
        "inflation": Variable(("family",), "float64", "Genomic inflation: median of chi2(1) over its null median"),
        "expected": Variable(("family", "quantile"), "float64", "Expected -log10 P of a rank; NaN beyond the tests"),
        "observed": Variable(("family", "quantile"), "float64", "Observed -log10 P of that rank"),
    },
    "coex": {
        "pvalue": Variable(("gene", "gene_2"), "float64", "Two-sided P-value; 0 on the diagonal"),
        "dot": Variable(("gene", "gene_2"), "float64", "Mean product after covariates; 0 on the diagonal"),
        "var": Variable(("gene",), "float64", "Variance after covariates; Pearson R = dot / sqrt(var var)"),
    },
    "edges": {
        "degree": Variable(("gene",), "int64", "Number of edges of the gene: pairs with Q at most qcut in its row"),
    },
    # No term where none stands out: then this is the last level
    "go": {
        "principal": Variable(("gene",), "bool", "Whether the gene is one of those with most edges"),
        "in_term": Variable(("term", "gene"), "bool", "Whether the gene belongs to the top term"),
        "component": Variable(
            ("term", "cell"),
            "float64",
            "First principal component of these genes: one covariate more at the next level",
        ),
    },
}


def kind_of(stage: str) -> str:
    """Return the kind of a stage: its name without its level.

    Examples
    --------
    >>> [kind_of(stage) for stage in ("edges", "edges_lv2")]
    ['edges', 'edges']
    """
    return stage.partition(LEVEL)[0]


def is_of_level(stage: str) -> bool:
    """Return whether a stage is one of a level."""
    return LEVEL in stage


def stage_of_level(kind: str, level: int) -> str:
    """Return the name of a stage at a level; co-expression at level 0 is that without any gene set removed.

    Examples
    --------
    >>> [stage_of_level(kind, level) for kind in ("coex", "go") for level in (0, 1)]
    ['coex', 'coex_lv1', 'go_lv0', 'go_lv1']
    """
    return kind if level == 0 and kind != "go" else f"{kind}{LEVEL}{level}"
