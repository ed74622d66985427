"""Tables of what was found in AnnData."""

from collections.abc import Sequence

import anndata
import pandas as pd

from normalisr_dask.scverse.containers import column, groupings_of, in_memory
from normalisr_dask.validation import check_choice

__all__ = ["de_df"]

COLUMNS = ("effect", "se", "pvalue", "log10_pvalue", "qvalue")


def __dir__() -> list[str]:
    """Show what is meant for users."""
    return __all__


def de_df(
    adata: anndata.AnnData,
    grouping: str | Sequence[str] | None = None,
    *,
    key: str = "de",
    qcut: float | None = None,
    effect_min: float | None = None,
    effect_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Return the differential expression of groupings as a table, as ``scanpy.get.rank_genes_groups_df`` does.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.tl.de` was run.
    grouping : str or sequence of str, optional
        One or some of the groupings; all if None.
    key : str
        ``key_added`` of :func:`normalisr_dask.tl.de`.
    qcut : float, optional
        Largest Q-value of rows.
    effect_min, effect_max : float, optional
        Smallest and largest effect of rows, natural logarithm.
    gene_symbols : str, optional
        Column of ``var`` to add.

    Returns
    -------
    DataFrame
        One row a tested gene, the smallest P-value first: grouping (but for one named by a str), gene, gene_symbols,
        effect, se, pvalue, log10_pvalue, which does not underflow, and qvalue.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there are no tests under the key, or no such grouping or column.
    """
    names = groupings_of(adata, key)
    chosen = names if grouping is None else [grouping] if isinstance(grouping, str) else list(grouping)
    for name in chosen:
        check_choice(name, names, "grouping")
    symbols = None if gene_symbols is None else column(adata.var, gene_symbols, "gene_symbols").to_numpy()
    tests = {name: in_memory(adata.varm[f"{key}_{name}"]) for name in COLUMNS}
    tables = []
    for name in chosen:
        table = pd.DataFrame({"gene": adata.var_names.to_numpy(dtype=object)})
        if gene_symbols is not None:
            table[gene_symbols] = symbols
        for of_test, values in tests.items():
            table[of_test] = values[:, names.index(name)]
        kept = table["pvalue"].notna()
        if qcut is not None:
            kept &= table["qvalue"] <= qcut
        if effect_min is not None:
            kept &= table["effect"] >= effect_min
        if effect_max is not None:
            kept &= table["effect"] <= effect_max
        tables.append(table[kept].sort_values("log10_pvalue", kind="stable"))
    if isinstance(grouping, str):
        return tables[0].reset_index(drop=True)
    if not chosen:
        msg = f"expected some groupings, found an empty list; there are {names}"
        raise ValueError(msg)
    return pd.concat(tables, keys=chosen, names=["grouping", None]).reset_index(level=0).reset_index(drop=True)
