"""The correlation of samples of a block, such as a donor, common to all genes."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.rows import Matrix, RowPasses
from normalisr_dask.kernels.block_correlation import block_correlations, consensus, is_spanned
from normalisr_dask.steps.designs import Design, parse_design, weights_of
from normalisr_dask.steps.expression_input import read_expression
from normalisr_dask.steps.linear_models import Blocks
from normalisr_dask.validation import check_fraction


def say_why_no_correlation(blocks: Blocks, design: Design) -> str | None:
    """Return why these blocks cannot have a correlation, if so."""
    if blocks.largest == 1:
        return "all blocks have one sample: their correlation is taken to be 0"
    if blocks.codes.max() > 0 and is_spanned(blocks.codes, design.matrix):
        return "the design already tells the blocks apart: their correlation is taken to be 0"
    return None


def correlate_blocks(
    passes: RowPasses, design: Design, weights: Matrix | None, blocks: Blocks, trim: float = 0.15
) -> tuple[float, NDArray[np.float64]]:
    """Return the consensus correlation and the atanh of every gene's; one pass."""
    by_gene: dict[str, Any] = {"expression": passes.expression}
    shared: dict[str, Any] = {"design": design.matrix, "blocks": blocks.codes}
    if weights is not None:
        (by_gene if weights.shape[0] > 1 else shared)["weights"] = weights
    correlations = passes.values(_as_column, width=1, by_gene=by_gene, shared=shared)[:, 0]
    return consensus(correlations, largest_block=blocks.largest, trim=trim)


def _as_column(**arguments: Any) -> NDArray[np.float64]:
    return block_correlations(**arguments)[:, None]


def duplicate_correlation(
    M,  # noqa: N803  limma's own name
    design=None,
    ndups: int = 2,
    spacing: int | str = 1,
    block=None,
    trim: float = 0.15,
    weights=None,
    *,
    layer: str | None = None,
    weights_layer: str | None = None,
) -> dict[str, Any]:
    """Estimate the correlation of samples of the same block; computes, one pass over the genes.

    Every gene's correlation comes from its variance components by restricted maximum likelihood; the consensus is
    their trimmed mean on the scale of atanh [1]_.

    Parameters
    ----------
    M : array, DataFrame, EList, dict, AnnData, Dask array, Zarr array or store
        Log-expression (genes, samples). NaN is missing.
    design : array (samples, columns), DataFrame or formula, optional
        Design matrix; a column of ones if None.
    ndups, spacing
        Accepted for limma's sake; spots of arrays in duplicate are not.
    block : array (samples,)
        Labels of the blocks.
    trim : float
        Share of the genes to leave out at either end, below 0.5.
    weights : array, optional
        Relative precisions: (genes, samples), one for each gene, each sample, or all.
    layer, weights_layer : str, optional
        Layers of AnnData to read in place of X, and as weights.

    Returns
    -------
    dict
        ``consensus_correlation`` and ``cor`` (the same number), ``atanh_correlations`` float64 (genes,), NaN where
        a gene has too few samples.

    Raises
    ------
    ValueError
        If there is no block, shapes differ, or ``trim`` is out of range.
    TypeError
        If the data are no matrix of numbers.

    Warns
    -----
    UserWarning
        If all blocks have one sample, or the design tells them apart: the correlation is 0.

    Notes
    -----
    Time O(genes · samples · columns²). Memory: a block of genes of lazy data.

    References
    ----------
    .. [1] Smyth, Michaud & Scott, Bioinformatics 21:2067 (2005), doi:10.1093/bioinformatics/bti270.
    """
    del ndups, spacing
    check_fraction(trim, "trim")
    if block is None or trim >= 0.5:
        found = "no block" if block is None else f"trim {trim}"
        msg = f"expected a block for each sample and trim below 0.5, found {found}"
        raise ValueError(msg)
    given = read_expression(M, layer, weights_layer)
    passes = given.passes
    parsed = parse_design(given.design if design is None else design, given.shape[1], given.samples)
    blocks = Blocks.of(block, given.shape[1])
    reason = say_why_no_correlation(blocks, parsed)
    if reason is not None:
        warnings.warn(reason, UserWarning, stacklevel=2)
        correlation, transformed = 0.0, np.zeros(given.shape[0])
    else:
        matrix_weights = weights_of(given.weights if weights is None else weights, given.shape, is_lazy=passes.is_lazy)
        correlation, transformed = correlate_blocks(passes, parsed, matrix_weights, blocks, trim)
    return {"consensus_correlation": correlation, "cor": correlation, "atanh_correlations": transformed}
