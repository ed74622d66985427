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
        Names of the tested genes.
    tests
        effect, se, pvalue, qvalue (groupings, genes).

    Returns
    -------
    dict
        names, scores (t = effect / se), logfoldchanges (base 2), pvals, pvals_adj; without a test, 0 and 1.
    """
    score = np.divide(tests["effect"], tests["se"], out=np.zeros_like(tests["effect"]), where=tests["se"] > 0)
    order = np.argsort(-score, axis=1, kind="stable")
    columns = {
        "names": (genes[order], "O"),
        "scores": (np.take_along_axis(score, order, axis=1), "f4"),
        "logfoldchanges": (np.take_along_axis(tests["effect"], order, axis=1) / math.log(2), "f4"),
        "pvals": (np.take_along_axis(tests["pvalue"], order, axis=1), "f8"),
        "pvals_adj": (np.take_along_axis(tests["qvalue"], order, axis=1), "f8"),
    }
    return {
        name: pd.DataFrame(values.T, columns=names).to_records(index=False, column_dtypes=kind)
        for name, (values, kind) in columns.items()
    }
