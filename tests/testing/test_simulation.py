"""The simulated data hold what they promise."""

import numpy as np
import pytest

from normalisr_dask.testing import SimulatedScreen, simulate_counts, simulate_screen


@pytest.fixture(scope="module")
def screen() -> SimulatedScreen:
    return simulate_screen(
        600, 3000, 10, n_controls=2, n_downstream=4, n_modules=3, module_size=20, median_depth=2000, seed=3
    )


def test_counts_are_sparse_unsigned_and_sorted_without_stored_zeros() -> None:
    simulated = simulate_counts(300, 200, seed=1)
    assert simulated.counts.shape == (300, 200) == (len(simulated.gene_names), len(simulated.cell_names))
    assert simulated.counts.dtype == np.uint32
    assert simulated.counts.indices.dtype == np.int32
    assert simulated.counts.has_canonical_format
    assert (simulated.counts.data > 0).all()


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    first, again, other = (simulate_counts(50, 40, seed=seed).counts for seed in (5, 5, 6))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0


def test_blocks_of_cells_follow_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normalisr_dask.testing.simulation.BLOCK_ENTRIES", 100 * 7)
    counts = simulate_counts(100, 1000, median_depth=500, depth_spread=0.01).counts
    totals = counts.sum(axis=0)
    assert totals.mean() == pytest.approx(500, rel=0.05)
    # every block, the last and shorter one included, and every cell in it
    assert totals.min() > 200


def test_depths_and_gene_means_are_as_asked() -> None:
    counts = simulate_counts(2000, 2000, median_depth=20_000, depth_spread=0.5, decades=3, seed=2).counts
    totals = counts.sum(axis=0)
    assert np.median(totals) == pytest.approx(20_000, rel=0.05)
    assert np.log(totals).std() == pytest.approx(0.5, rel=0.1)
    means = counts.mean(axis=1)
    assert np.log10(means.max() / means.min()) == pytest.approx(3, abs=0.3)


def test_variance_is_that_of_the_negative_binomial() -> None:
    counts = simulate_counts(200, 20_000, dispersion=0.3, depth_spread=1e-6, median_depth=2000, seed=4).counts.toarray()
    means = counts.mean(axis=1)
    expected = means + 0.3 * means**2
    deviation = counts.var(axis=1) / expected - 1
    assert np.abs(np.median(deviation)) < 0.02


def test_cell_types_differ_in_a_tenth_of_the_genes() -> None:
    simulated = simulate_counts(400, 4000, n_cell_types=2, median_depth=20_000, decades=1, seed=8)
    assert set(simulated.cell_types) == {0, 1}
    first, second = (simulated.counts[:, simulated.cell_types == cell_type].mean(axis=1) for cell_type in (0, 1))
    changed = np.abs(np.log(first / second) - np.median(np.log(first / second))) > 0.2
    assert 0.1 < changed.mean() < 0.25


def test_knock_down_and_downstream_effects_have_the_planted_size(screen: SimulatedScreen) -> None:
    shares = screen.counts.toarray() / screen.counts.sum(axis=0)
    genes = {name: number for number, name in enumerate(screen.gene_names)}
    guides = {name: number for number, name in enumerate(screen.grouping_names)}
    carries = screen.groupings.toarray().astype(bool)
    perturbed = carries[:8].any(axis=0)
    log_ratios = []
    for grouping, gene, _ in screen.effects.itertuples(index=False):
        row = shares[genes[gene]]
        log_ratios.append(np.log(row[carries[guides[grouping]]].mean() / row[~perturbed].mean()))
    planted = screen.effects["log_fold_change"].to_numpy()
    assert set(np.round(planted, 3)) == {np.round(np.log(0.3), 3), -0.4, 0.4}
    for size in np.unique(planted):
        assert np.mean(np.array(log_ratios)[planted == size]) == pytest.approx(size, abs=0.12)


def test_a_cell_carries_one_guide_at_most_and_some_carry_none(screen: SimulatedScreen) -> None:
    per_cell = screen.groupings.sum(axis=0)
    assert set(per_cell) == {0, 1}
    assert (per_cell == 0).mean() == pytest.approx(0.1, abs=0.02)
    assert set(screen.groupings.data) == {1}


def test_many_guides_a_cell_are_drawn_by_themselves_but_for_those_that_come_along() -> None:
    many = simulate_screen(300, 4000, 10, n_controls=2, n_downstream=1, n_modules=0, guides_per_cell=2.0, linked=0.5)
    carries = many.groupings.toarray().astype(float)
    assert carries[:5].sum(axis=0).mean() == pytest.approx(1.0, rel=0.1)
    assert carries[5:].mean(axis=1) == pytest.approx([0.2 + 0.8 * 0.2 * 0.5] * 5, rel=0.15)
    together = np.corrcoef(carries)
    assert (np.diag(together, 5) > 0.25).all()
    assert np.abs(together[:5, :5][~np.eye(5, dtype=bool)]).max() < 0.06


def test_guides_are_named_after_their_target_and_controls_change_nothing(screen: SimulatedScreen) -> None:
    assert len(screen.grouping_names) == len(set(screen.grouping_names)) == 10
    assert screen.grouping_names[8:] == ["control_g1", "control_g2"]
    assert list(screen.effects["grouping"].unique()) == screen.grouping_names[:8]
    knocked_down = screen.effects.groupby("grouping", sort=False)["gene"].first()
    assert [f"{gene}_g{number % 2 + 1}" for number, gene in enumerate(knocked_down)] == list(knocked_down.index)


def test_no_gene_has_two_parts(screen: SimulatedScreen) -> None:
    changed = screen.effects.drop_duplicates("gene")["gene"].tolist()
    members = [gene for module in screen.modules for gene in module]
    assert len(changed) == 4 * (1 + 4)
    assert len(changed + members) == len(set(changed + members))


def test_module_genes_correlate_and_others_do_not(screen: SimulatedScreen) -> None:
    genes = {name: number for number, name in enumerate(screen.gene_names)}
    pairs = screen.module_pairs()
    assert len(pairs) == 3 * 20 * 19 // 2
    assert (pairs["gene"] < pairs["gene_2"]).all()
    members = sorted({genes[name] for name in pairs["gene"]} | {genes[name] for name in pairs["gene_2"]})
    counts = screen.counts.toarray()
    expected = np.outer(counts[members].sum(axis=1), counts.sum(axis=0)) / counts.sum()
    residuals = (counts[members] - expected) / np.sqrt(expected + 0.2 * expected**2)
    squared = np.corrcoef(residuals) ** 2
    planted = np.zeros_like(squared, dtype=bool)
    position = {gene: number for number, gene in enumerate(members)}
    for gene, partner in pairs.itertuples(index=False):
        planted[position[genes[gene]], position[genes[partner]]] = True
    unplanted = np.triu(~(planted | planted.T), 1)
    assert squared[planted].mean() > 5 * squared[unplanted].mean()


def test_perturbed_pairs_join_the_genes_of_each_guide_once(screen: SimulatedScreen) -> None:
    pairs = screen.perturbed_pairs()
    assert len(pairs) == len(pairs.drop_duplicates()) == 4 * (5 * 4 // 2)
    together = screen.effects.merge(screen.effects, on="grouping", suffixes=("", "_2"))
    assert set(pairs.itertuples(index=False, name=None)) <= set(zip(together["gene"], together["gene_2"], strict=True))


def test_a_screen_without_modules_or_targets_is_possible() -> None:
    screen = simulate_screen(200, 100, 2, n_controls=2, n_modules=0)
    assert screen.modules == []
    assert len(screen.effects) == len(screen.module_pairs()) == len(screen.perturbed_pairs()) == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_genes": 0}, "n_genes must be above 0, found 0"),
        ({"dispersion": 0.0}, "dispersion must be above 0"),
        ({"knockdown": 1.0}, "knockdown must be at least 0 and below 1, found 1.0"),
        ({"n_guides": 9}, "multiple of guides_per_target = 2, found 9 - 6"),
        ({"n_guides": 4}, "multiple of guides_per_target = 2, found 4 - 6"),
        ({"n_genes": 500}, "need 580 genes of middling expression, 500 genes hold 190; raise n_genes"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, int | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_screen(**parameters)
