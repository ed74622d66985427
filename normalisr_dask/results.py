"""What the steps return: named fields that unpack in Normalisr's order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from dask.delayed import Delayed
from numpy.typing import NDArray

from normalisr_dask.notebook import shows_its_fields
from normalisr_dask.validation import did_you_mean


@shows_its_fields
class LogCpm(NamedTuple):
    """Bayesian log-CPM of counts.

    Attributes
    ----------
    lcpm : float64 (genes, cells)
        Natural log of counts per million.
    mean : float64 (genes, cells)
        Posterior mean, on the scale of ``lcpm``.
    var : float64 (genes, cells)
        Posterior variance.
    cov : float64 (3, cells) or None
        Log total count, number of zero-count genes, (log total count)².
    """

    lcpm: da.Array
    mean: da.Array
    var: da.Array
    cov: da.Array | None


@shows_its_fields
class Normalised(NamedTuple):
    """Normalised expression and covariates.

    Attributes
    ----------
    dtn : float64 (genes, cells)
        Normalised expression.
    dcn : float64 (covariates, cells)
        Normalised covariates.
    """

    dtn: da.Array
    dcn: da.Array


@shows_its_fields
class NormalisedWithExtra(NamedTuple):
    """Normalised expression, covariates and extra rows.

    Attributes
    ----------
    dtn : float64 (genes, cells)
        Normalised expression.
    dcn : float64 (covariates, cells)
        Normalised covariates.
    dextran : float64 (extra, cells)
        Normalised extra rows.
    """

    dtn: da.Array
    dcn: da.Array
    dextran: da.Array


@shows_its_fields
@dataclass(frozen=True)
class DifferentialExpression:
    """Differential expression of every gene for every grouping.

    Unpacks, iterates and indexes as Normalisr's (pvalue, gamma, alpha, varg, vart); the other fields are attributes
    only. ``dask.compute(result)`` gives the same with every field computed.

    Attributes
    ----------
    pvalue : float64 (groupings, genes)
        Two-sided P-value of gamma = 0.
    gamma : float64 (groupings, genes)
        Log fold change.
    alpha : float64 (groupings, genes, covariates) or None
        Effects of the covariates.
    varg : float64 (groupings,)
        Variance of the grouping after covariates.
    vart : float64 (groupings, genes)
        Variance of the expression after covariates.
    se : float64 (groupings, genes)
        Standard error of gamma.
    dof : float64 (groupings, genes)
        Degrees of freedom ν of the test.
    log10_pvalue : float64 (groupings, genes)
        log₁₀ of the P-value, without underflow.
    """

    pvalue: da.Array
    gamma: da.Array
    alpha: da.Array | None
    varg: da.Array
    vart: da.Array
    se: da.Array
    dof: da.Array
    log10_pvalue: da.Array

    def __iter__(self) -> Iterator[da.Array | None]:
        return iter(self._unpacked)

    def __len__(self) -> int:
        return len(self._unpacked)

    def __getitem__(self, position):
        return self._unpacked[position]

    @property
    def _unpacked(self) -> tuple[da.Array | None, ...]:
        return self.pvalue, self.gamma, self.alpha, self.varg, self.vart


@shows_its_fields
@dataclass(frozen=True)
class Coexpression:
    """Co-expression of all gene pairs.

    Unpacks, iterates and indexes as Normalisr's (pvalue, dot, var); log10_pvalue is an attribute only.
    ``dask.compute(*result)`` computes the three, ``dask.compute(result)`` all four.

    Attributes
    ----------
    pvalue : float64 (genes, genes)
        Two-sided P-value; symmetric, 0 on the diagonal.
    dot : float64 (genes, genes)
        Mean product of the residuals; symmetric, 0 on the diagonal.
    var : float64 (genes,)
        Variance after covariates. Pearson R = dot / sqrt(var[i] var[j]).
    log10_pvalue : float64 (genes, genes)
        log₁₀ of the P-value, without underflow; symmetric, 0 on the diagonal.
    """

    pvalue: da.Array
    dot: da.Array
    var: da.Array
    log10_pvalue: da.Array

    def __iter__(self) -> Iterator[da.Array]:
        return iter(self._unpacked)

    def __len__(self) -> int:
        return len(self._unpacked)

    def __getitem__(self, position):
        return self._unpacked[position]

    @property
    def _unpacked(self) -> tuple[da.Array, ...]:
        return self.pvalue, self.dot, self.var


@shows_its_fields
@dataclass(frozen=True)
class Network:
    """Significant gene pairs as lists.

    Attributes
    ----------
    edges : tuple of Delayed
        One a panel of genes, in order; each gives row and column (int64 positions of genes), r, p_value and q_value
        (float64) as arrays of length edges, ordered by row and column.
    degree : int64 (genes,)
        Number of edges of every gene.
    """

    edges: tuple[Delayed, ...]
    degree: da.Array


@shows_its_fields
class Enrichment(NamedTuple):
    """Gene Ontology terms enriched among genes.

    Attributes
    ----------
    goe : pandas.DataFrame
        One row a term, by ascending P-value: name, depth, p_uncorrected, p_bonferroni, odds_ratio, ratio_in_study,
        ratio_in_pop, GO (identifier), study_items (genes, with commas between).
    gotop : str
        Identifier of the top term.
    genes : list of str or None
        Those of the genes compared with that belong to the top term.
    """

    goe: pd.DataFrame
    gotop: str
    genes: list[str] | None


@shows_its_fields
class TopTerm(NamedTuple):
    """The Gene Ontology term that stands out among the genes with most edges.

    Attributes
    ----------
    principals : list of str
        Principal genes: those with most edges.
    goe : pandas.DataFrame
        Enrichment of all terms, as of :class:`Enrichment`.
    gotop : str
        Identifier of the top term.
    genes : list of str
        Genes that belong to it.
    """

    principals: list[str]
    goe: pd.DataFrame
    gotop: str
    genes: list[str]


@shows_its_fields
class _NamedValues(dict):
    """A dict whose values are attributes, too."""

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            msg = f"there is no {name!r}; there is {', '.join(map(str, self))}{did_you_mean(name, self)}"
            raise AttributeError(msg) from None


class EList(_NamedValues):
    """Log-expression ``E`` (genes, samples) with ``weights``, ``genes``, ``design`` or ``targets``, as far as given."""


class LinearFit(_NamedValues):
    """A linear model of every gene; ``vooma_lm_fit`` and ``lm_fit`` say what is in it."""


@shows_its_fields
class GeneSetLevel(NamedTuple):
    """Co-expression after some gene sets were removed, and the gene set that dominates it.

    Attributes
    ----------
    level : int
        Number of gene sets removed before.
    covariates : float64 (covariates + level, cells)
        Covariates of this level: those given, and a principal component of each gene set removed; lazy.
    network : Network
        Significant gene pairs; lazy.
    degree : int64 (genes,)
        Number of edges of every gene, in memory.
    top : TopTerm or None
        Term that stands out; None where none does, and then this is the last level.
    """

    level: int
    covariates: da.Array
    network: Network
    degree: NDArray[np.int64]
    top: TopTerm | None
