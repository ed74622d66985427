"""The simulated screen shows what its docstring says, judged by normalisr 1.0.0's own chain and not by ours."""

from dataclasses import dataclass

import normalisr.normalisr as oracle
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from normalisr_dask.testing import SimulatedScreen, simulate_screen

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # normalisr warns of its own doings


@dataclass(frozen=True)
class Analysed:
    """P-values of the kept genes, and which of them are planted."""

    screen: SimulatedScreen
    n_cells: int
    p_of_guides: np.ndarray  # (n_guides, n_genes)
    p_of_pairs: np.ndarray  # (n_genes, n_genes)
    edges: np.ndarray  # (n_genes, n_genes), from the gene of a row
    effects: np.ndarray  # (n_guides, n_genes)
    module_pairs: np.ndarray  # (n_genes, n_genes), both ways
    perturbed_pairs: np.ndarray


@pytest.fixture(scope="module")
def analysed() -> Analysed:
    screen = simulate_screen()
    genes, cells = oracle.qc_reads(screen.counts.toarray().astype(int), 0, 50, 0.02, 500, 100, 0)
    counts = screen.counts.toarray().astype(int)[np.ix_(genes, cells)]
    expression, _, _, covariates = oracle.lcpm(counts, nth=1)
    covariates = oracle.normcov(covariates)
    weights = oracle.compute_var(expression, covariates)
    kept = oracle.qc_outlier(weights)
    groupings = screen.groupings.toarray().astype(float)[:, cells][:, kept]
    normalised = oracle.normvar(
        expression[:, kept], covariates[:, kept], weights[kept], oracle.scaling_factor(counts), nth=1
    )
    p_of_pairs = oracle.coex(*normalised, nth=1)[0]
    number = {screen.gene_names[gene]: position for position, gene in enumerate(genes)}

    def marked(rows: pd.Series, columns: pd.Series, row_number: dict[str, int], n_rows: int) -> np.ndarray:
        marks = np.zeros((n_rows, len(number)), dtype=bool)
        for row, column in zip(rows, columns, strict=True):
            if row in row_number and column in number:
                marks[row_number[row], number[column]] = True
        return marks

    def both_ways(pairs: pd.DataFrame) -> np.ndarray:
        marks = marked(pairs["gene"], pairs["gene_2"], number, len(number))
        return marks | marks.T

    guide_number = {name: row for row, name in enumerate(screen.grouping_names)}
    return Analysed(
        screen=screen,
        n_cells=groupings.shape[1],
        p_of_guides=oracle.de(groupings, *normalised, nth=1)[0],
        p_of_pairs=p_of_pairs,
        edges=oracle.binnet(p_of_pairs, 0.05),
        effects=marked(screen.effects["grouping"], screen.effects["gene"], guide_number, len(guide_number)),
        module_pairs=both_ways(screen.module_pairs()),
        perturbed_pairs=both_ways(screen.perturbed_pairs()),
    )


def test_quality_control_removes_the_poor_cells_and_genes_only(analysed: Analysed) -> None:
    n_genes, n_cells = analysed.screen.counts.shape
    assert 0.97 < analysed.n_cells / n_cells < 0.99
    assert 0.95 < len(analysed.p_of_pairs) / n_genes < 0.98


def test_most_effects_are_found_and_few_others(analysed: Analysed) -> None:
    found = false_discovery_control(analysed.p_of_guides, axis=1) <= 0.05
    assert 0.85 < found[analysed.effects].mean() < 0.99
    assert (found & ~analysed.effects).sum() / found.sum() < 0.08


def test_p_values_of_controls_are_uniform(analysed: Analysed) -> None:
    controls = analysed.p_of_guides[-6:]
    for level in (0.05, 0.01):
        assert (controls <= level).mean() == pytest.approx(level, rel=0.2)


def test_most_module_pairs_are_found_and_few_others(analysed: Analysed) -> None:
    assert 0.8 < analysed.edges[analysed.module_pairs].mean() < 0.97
    unplanted = ~(analysed.module_pairs | analysed.perturbed_pairs)
    assert (analysed.edges & unplanted).sum() / analysed.edges.sum() < 0.07


def test_p_values_of_unplanted_pairs_are_uniform(analysed: Analysed) -> None:
    unplanted = np.triu(~(analysed.module_pairs | analysed.perturbed_pairs), 1)
    p_values = analysed.p_of_pairs[unplanted]
    for level in (0.05, 0.01, 0.001):
        assert (p_values <= level).mean() == pytest.approx(level, rel=0.1)
