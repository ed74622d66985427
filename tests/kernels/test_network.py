"""Significant pairs of rows, where only the candidates are sorted."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from normalisr_dask.kernels import network


@given(st.integers(0, 5), st.integers(2, 12), st.integers(0, 2**32), st.sampled_from([0.01, 0.1, 0.5, 0.99]))
def test_edges_of_rows_are_benjamini_hochbergs(n_rows, n_genes, seed, qcut):
    random = np.random.default_rng(seed)
    n_rows = min(n_rows, n_genes)
    first = int(random.integers(0, n_genes - n_rows + 1))
    p_values = random.choice([0.0, 1e-5, 0.002, 0.02, 0.2, 0.7, 1.0], size=(n_rows, n_genes))
    expected = np.full((n_rows, n_genes), np.nan)
    for row in range(n_rows):
        others = np.arange(n_genes) != first + row
        expected[row, others] = false_discovery_control(p_values[row, others])
    significant = expected <= qcut * (1 + 1e-12)
    correlation = random.uniform(-1, 1, size=(n_rows, n_genes))
    tiles = [
        network.stored_candidates(
            p_values[:, columns],
            4 * correlation[:, columns],
            first_row=first,
            first_column=columns.start,
            qcut=qcut,
        )
        for columns in (slice(0, n_genes // 2), slice(n_genes // 2, n_genes))
    ]
    pieces = list(network.stored_edges_in_pieces(tiles, np.full(n_genes, 4.0), first_row=first, qcut=qcut))
    if pieces:
        found = network.joined(0, iter(pieces))
        np.testing.assert_array_equal([found.row - first, found.column], np.nonzero(significant))
        np.testing.assert_array_equal(found.p_value, p_values[significant])
        np.testing.assert_allclose(found.q_value, expected[significant], rtol=1e-12)
        np.testing.assert_allclose(found.r, correlation[significant], rtol=1e-12)
    assert bool(pieces) == (n_rows > 0)
    packed = network.network_rows(p_values, np.arange(first, first + n_rows), qcut=qcut)
    assert network.count_edges(packed) == significant.sum()
    if significant.any():
        found = network.unpack_rows(packed, network.count_edges(packed), n_genes=n_genes, qcut=qcut)
        np.testing.assert_array_equal(found, significant)


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_candidates_are_the_pairs_below_the_cut(is_diagonal):
    correlation = np.array([[1.0, 0.5, -0.9], [0.5, 1.0, 0.0], [-0.9, 0.0, 1.0]])
    arguments = {name: np.ones(3) for name in ("row_variance", "column_variance")}
    arguments |= {name: np.full(3, 20.0) for name in ("row_degrees", "column_degrees")}
    found = network.tile_candidates(correlation, is_diagonal=is_diagonal, qcut=0.04, **arguments)
    np.testing.assert_array_equal(found.toarray(), correlation - np.eye(3) if is_diagonal else correlation)
    assert found.nnz == (4 if is_diagonal else 7)
    np.testing.assert_array_equal(network.transpose(found).toarray(), found.toarray().T)


def test_pieces_make_the_whole(monkeypatch):
    random = np.random.default_rng(1)
    correlation = random.uniform(0, 0.6, size=(7, 40)) * (random.random((7, 40)) < 0.4)
    correlation[2] = 0
    panel = scipy.sparse.csr_array(correlation)
    degrees = np.full(40, 30.0)
    whole = network.edges_of_candidates(panel, first_row=5, degrees=degrees, qcut=0.3)
    for size in (1, 20, 10**6):
        monkeypatch.setattr(network, "PIECE_VALUES", size)
        found = network.joined(0, network.edges_in_pieces(panel, first_row=5, degrees=degrees, qcut=0.3))
        np.testing.assert_array_equal(found.row, whole.row + 5)
        for name in ("column", "r", "p_value", "q_value"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert whole.row.size


@pytest.mark.parametrize("value", [np.nan, -1e-9, 1.0001])
def test_p_values_out_of_range(value):
    with pytest.raises(ValueError, match=r"expected P-values in \[0, 1\]"):
        network.stored_candidates(np.array([[0.5, value]]), np.ones((1, 2)), first_row=0, first_column=0, qcut=0.1)
