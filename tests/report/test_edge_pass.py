"""One pass over the table of edges finds the strongest ones and those between chosen genes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from normalisr_dask.report.edge_pass import extract_edges


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, np.ndarray, pd.DataFrame]:
    """A table of edges; most pairs stand twice, some are significant for one of their genes only."""
    random = np.random.default_rng(4)
    genes = np.array([f"gene{number}" for number in range(40)], dtype=object)
    first, second = np.triu_indices(40, 1)
    r = random.uniform(-1, 1, first.size)
    both = pd.concat(
        [
            pd.DataFrame({"first": first, "second": second, "r": r}),
            pd.DataFrame({"first": second, "second": first, "r": r}),
        ]
    )
    both["qvalue"] = random.random(len(both)) * 0.05
    edges = both[random.random(len(both)) < 0.6].sample(frac=1, random_state=1).reset_index(drop=True)
    dictionary = pa.array(genes, pa.string())
    table = pa.table(
        {
            "gene": pa.DictionaryArray.from_arrays(pa.array(edges["first"], pa.int32()), dictionary),
            "gene_2": pa.DictionaryArray.from_arrays(pa.array(edges["second"], pa.int32()), dictionary),
            "r": edges["r"],
            "pvalue": edges["qvalue"],
            "qvalue": edges["qvalue"],
        }
    )
    pq.write_table(table, tmp_path / "edges.parquet", row_group_size=100)
    return tmp_path / "edges.parquet", genes, edges


@pytest.mark.parametrize("batch_rows", [1, 7, 1 << 18])
def test_strongest_edges(network, batch_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normalisr_dask.report.edge_pass.BATCH_ROWS", batch_rows)
    path, genes, edges = network
    found = extract_edges(path, genes, np.arange(3), 12)
    pairs = edges.assign(low=edges[["first", "second"]].min(axis=1), high=edges[["first", "second"]].max(axis=1))
    expected = pairs.groupby(["low", "high"], as_index=False).agg(r=("r", "first"), q=("qvalue", "min"))
    expected = expected.iloc[(-expected["r"].abs()).argsort()[:12]]
    np.testing.assert_array_equal(np.column_stack([found.first, found.second]), expected[["low", "high"]])
    np.testing.assert_array_equal(np.column_stack([found.r, found.q]), expected[["r", "q"]])
    assert found.n_positive == (edges["r"] > 0).sum()


def test_correlations_of_chosen_genes(network) -> None:
    path, genes, edges = network
    chosen = np.array([30, 2, 17, 5])
    found = extract_edges(path, genes, chosen, 3).correlation
    expected = np.full((40, 40), np.nan)
    expected[edges["first"], edges["second"]] = edges["r"]
    expected[edges["second"], edges["first"]] = edges["r"]
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_array_equal(found, expected[np.ix_(chosen, chosen)])


def test_network_without_edges(network, tmp_path: Path) -> None:
    path, genes, _ = network
    pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "none.parquet")
    found = extract_edges(tmp_path / "none.parquet", genes, np.arange(2), 5)
    assert found.first.size == found.n_positive == 0
