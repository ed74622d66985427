"""Tests in the shape in which scanpy's ``rank_genes_groups`` leaves its own, which scanpy's plots read."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ranking(names: list[str], genes: NDArray[np.object_], tests: dict[str, Floats]) -> dict[str, Any]:
    """Return record arrays with a field for each grouping, genes with the highest t first.

    Parameters
    ----------
    names
        Of the groupings.
    genes
        Names of all genes: scanpy's plots take no fewer.
    tests
        effect, se, pvalue, qvalue (genes, groupings); NaN for genes that were not tested, which come last.

    Returns
    -------
    dict
        names, scores (t = effect / se, 0 where nothing varies), logfoldchanges (base 2), pvals, pvals_adj.
    """
    effect, error = tests["effect"], tests["se"]
    score = np.divide(effect, error, out=np.where(np.isnan(effect), np.nan, 0.0), where=error > 0)
    order = np.argsort(-score, axis=0, kind="stable")
    columns = {
        "names": (genes[order], "O"),
        "scores": (np.take_along_axis(score, order, axis=0), "f4"),
        "logfoldchanges": (np.take_along_axis(effect, order, axis=0) / math.log(2), "f4"),
        "pvals": (np.take_along_axis(tests["pvalue"], order, axis=0), "f8"),
        "pvals_adj": (np.take_along_axis(tests["qvalue"], order, axis=0), "f8"),
    }
    return {
        name: pd.DataFrame(values, columns=names).to_records(index=False, column_dtypes=kind)
        for name, (values, kind) in columns.items()
    }
