"""Gene sets from the network: against normalisr on real and small data, every form of network, chunks, and refusals."""

import tarfile
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.sparse
from comparing import assert_close
from gene_ontologies import GROWTH, IDENTIFIERS, N_GENES, N_GROWING, SYMBOLS, Files, unpacked, write_gene_ontology
from hypothesis import given
from hypothesis import strategies as st
from layouts import DENSE_KINDS, EXPENSIVE, laid_out, partitions

import normalisr_dask as nd
from normalisr_dask.steps.gene_ontology import NoPrincipalGenesError
from normalisr_dask.testing import count_computes

RANDOM = np.random.default_rng(6)
N_PRINCIPAL = N_GROWING - 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_gene_ontology(tmp_path_factory.mktemp("ontology"))


@pytest.fixture(scope="module")
def network() -> np.ndarray:
    """Genes that grow have many edges, and others few; not symmetric."""
    hubs = np.arange(N_GENES) < N_GROWING
    random = np.random.default_rng(0)
    return random.random((N_GENES, N_GENES)) < np.where(hubs, 0.8, 0.1)[:, None]


class TestGotop:
    def test_it_is_normalisrs(self, files, network, tmp_path):
        with oracles.gene_names(IDENTIFIERS):
            published = oracles.gotop(
                network,
                np.array(SYMBOLS),
                unpacked(files.terms, tmp_path),
                unpacked(files.counting, tmp_path),
                n=N_PRINCIPAL,
                conversion=oracles.CONVERSION,
            )
        found = nd.gotop(network, SYMBOLS, files.terms, files.annotations, n=N_PRINCIPAL)
        assert found.principals == published[0]
        assert found.gotop == published[2] == GROWTH
        expected = in_order(published[1])
        numbers = [column for column in expected if column != "study_items"]
        pd.testing.assert_frame_equal(found.goe[numbers], expected[numbers], rtol=1e-12)

    def test_every_form_of_network_gives_the_same(self, files, network):
        degrees = network.sum(axis=1)
        forms = [
            network,
            network.astype(np.uint8),
            da.from_array(network, chunks=(7, 11)),
            degrees,
            nd.degree(da.from_array(network, chunks=(13, 60))),
        ]
        results = [nd.gotop(net, np.array(SYMBOLS), files.terms, files.annotations, n=N_PRINCIPAL) for net in forms]
        for found in results:
            assert found.principals == results[0].principals
            pd.testing.assert_frame_equal(found.goe, results[0].goe)
            assert found[2:] == results[0][2:]

    def test_genes_of_equal_degree_share_their_fate(self, files):
        degrees = np.ones(N_GENES, dtype=np.int64)
        degrees[:N_PRINCIPAL] = 5
        for n in range(1, N_PRINCIPAL):
            found = nd.gotop(degrees, SYMBOLS, files.terms, files.annotations, n=n)
            assert found.principals == SYMBOLS[:N_PRINCIPAL]

    def test_the_degrees_are_computed_once_and_nothing_else(self, files, network):
        with count_computes() as counter:
            nd.gotop(da.from_array(network, chunks=(7, 60)), SYMBOLS, files.terms, files.annotations, n=N_PRINCIPAL)
        assert counter.computes == 1

    @pytest.mark.parametrize(
        ("n", "message"),
        [
            (0, "n must be at least 1, not 0"),
            (N_GENES, "n must be below the number of genes, 60, not 60"),
        ],
    )
    def test_n_out_of_range_is_refused(self, files, network, n, message):
        with pytest.raises(ValueError, match=message):
            nd.gotop(network, SYMBOLS, files.terms, files.annotations, n=n)

    def test_too_few_genes_with_edges_are_refused(self, files):
        degrees = np.zeros(N_GENES, dtype=np.int64)
        degrees[:3] = 4
        with pytest.raises(
            NoPrincipalGenesError, match="expected more than 5 genes with edges, found 3; take a smaller"
        ):
            nd.gotop(degrees, SYMBOLS, files.terms, files.annotations, n=5)

    def test_networks_without_hubs_are_refused(self, files):
        with pytest.raises(
            NoPrincipalGenesError, match="some genes with more edges than others, but all have 4 or more"
        ):
            nd.gotop(np.full(N_GENES, 4), SYMBOLS, files.terms, files.annotations, n=5)

    def test_networks_of_another_shape_are_refused(self, files, network):
        with pytest.raises(ValueError, match=r"a column for each of 60 genes of namet, found shape \(59, 60\)"):
            nd.gotop(network[1:], SYMBOLS, files.terms, files.annotations, n=5)
        with pytest.raises(ValueError, match=r"one value for each of 60 genes, found shape \(59,\)"):
            nd.gotop(np.ones(59, dtype=int), SYMBOLS, files.terms, files.annotations, n=5)

    def test_a_network_read_from_text_is_one(self, files, network):
        expected = nd.gotop(network, SYMBOLS, files.terms, files.annotations, n=5)
        found = nd.gotop(network.astype(float), SYMBOLS, files.terms, files.annotations, n=5)
        assert found.principals == expected.principals
        assert found.gotop == expected.gotop

    def test_p_values_in_place_of_a_network_are_refused(self, files, network):
        with pytest.raises(TypeError, match=r"expected net as an array of booleans, .* found float64"):
            nd.gotop(network * 0.5, SYMBOLS, files.terms, files.annotations, n=5)
        with pytest.raises(TypeError, match=r"expected net .* found list"):
            nd.gotop(network.tolist(), SYMBOLS, files.terms, files.annotations, n=5)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of normalisr, whose rows of equal P-value are in no order, in ours."""
    return table.sort_values(["p_uncorrected", "depth", "GO"], ascending=[True, False, True], ignore_index=True)


def symbols_of_pbmc3k(folder: Path) -> np.ndarray:
    with tarfile.open(folder / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        lines = archive.extractfile("filtered_gene_bc_matrices/hg19/genes.tsv").read().decode().splitlines()
    return np.array([line.split("\t")[1] for line in lines])


@pytest.mark.slow
def test_levels_of_pbmc3k_are_normalisrs(whole_pbmc3k_chain, real_data, tmp_path):
    """Two levels of Normalisr's co-expression example with the real ontology, normalisr given the same gene names."""
    chain = whole_pbmc3k_chain
    names = symbols_of_pbmc3k(real_data)[chain.kept[0]]
    terms = real_data / "go" / "go-basic_2021-12-15.obo.gz"
    annotations = real_data / "go" / "orgHsEgDb_3.16.0_human.gaf.gz"
    plain = unpacked(terms, tmp_path), unpacked(annotations, tmp_path)
    identifiers = {}
    for line in Path(plain[1]).read_text().splitlines():
        if not line.startswith("!"):
            fields = line.split("\t")
            identifiers[fields[2]] = fields[1]
    synonyms = [name for name in names if name not in identifiers]
    own = {name: identifiers[name] for name in names if name in identifiers}

    expression, covariates = chain.normalised
    network = oracles.binnet(oracles.coex(expression, covariates)[0], 1e-8)
    tops = []
    for _ in range(2):
        lazy = nd.binnet(nd.coex(expression, covariates).pvalue, 1e-8)
        found = nd.gotop(nd.degree(lazy), names, terms, annotations, conversion=own, evidence_set=None)
        network = lazy.compute() if tops else network  # the second one from ours, for the sake of time
        with oracles.gene_names(own):
            published = oracles.gotop(network, names, *plain, conversion=oracles.CONVERSION)
        assert found.principals == published[0]
        expected = in_order(published[1])
        pd.testing.assert_frame_equal(
            found.goe.drop(columns="study_items"), expected.drop(columns="study_items"), rtol=1e-9
        )
        # terms of equal P-value are in no order in normalisr
        p_values = expected.set_index("GO")["p_uncorrected"]
        assert p_values[found.gotop] == p_values[published[2]]
        tops.append(found.gotop)
        following = nd.pccovt(expression, covariates, names, found.genes).compute()
        assert_same_component(following, oracles.pccovt(expression, covariates, names, found.genes))
        covariates = following
    assert len(set(tops)) == 2
    assert synonyms  # by which the default finds more genes
    by_default = nd.gotop(nd.degree(lazy), names, terms, annotations)
    assert set(by_default.principals) == set(found.principals)


def assert_same_component(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-8) -> None:
    """Compare covariates whose last is a principal component, up to its sign."""
    np.testing.assert_array_equal(found[:-1], expected[:-1])
    sign = np.sign(found[-1] @ expected[-1])
    assert_close(found[-1], sign * expected[-1], tolerance)


@pytest.fixture(scope="module")
def names(simulated_chain) -> np.ndarray:
    return np.array([f"gene{number}" for number in range(len(simulated_chain.normalised[0]))])


@pytest.fixture(scope="module")
def from_counts(simulated_chain):
    """Normalised expression of the simulated chain in its implicit form, in blocks of cells."""
    counts = scipy.sparse.csc_array(simulated_chain.counts[:, simulated_chain.inliers])
    matrix = laid_out(counts.toarray(), "csc_array", ((counts.shape[0],), (100, 1, counts.shape[1] - 101)))
    cells = simulated_chain.inliers
    return nd.normvar(
        nd.lcpm(matrix).lcpm,
        simulated_chain.covariates[:, cells],
        simulated_chain.weights[cells],
        simulated_chain.scaling,
    )


class TestPccovt:
    @pytest.mark.parametrize("n_chosen", [2, 3, 40, 200])
    @pytest.mark.parametrize("condcov", [True, False])
    def test_it_is_normalisrs(self, simulated_chain, names, n_chosen, condcov):
        expression, covariates = simulated_chain.normalised
        genes = list(RANDOM.permutation(names)[:n_chosen])
        found = nd.pccovt(expression, covariates, names, genes, condcov).compute()
        assert_same_component(found, oracles.pccovt(expression, covariates, names, genes, condcov))

    def test_covariates_of_any_scale(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        scaled = np.vstack([covariates[:2] * 1e6 + 1e7, covariates[:1], np.full(covariates.shape[1], 3.0)])
        genes = list(names[:30])
        found = nd.pccovt(expression, scaled, names, genes).compute()
        assert_same_component(found, oracles.pccovt(expression, scaled, names, genes))

    def test_without_covariates(self, simulated_chain, names):
        expression = simulated_chain.normalised[0]
        none = np.empty((0, expression.shape[1]))
        found = nd.pccovt(expression, none, names, names[:20]).compute()
        assert_same_component(found, oracles.pccovt(expression, none, names, names[:20]))

    def test_the_sum_of_the_loadings_is_positive(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        for sign in (1, -1):
            found = nd.pccovt(sign * expression, covariates, names, names[:20], condcov=False)[-1].compute()
            standardised = sign * (expression[:20] - expression[:20].mean(axis=1, keepdims=True))
            standardised /= standardised.std(axis=1, keepdims=True)
            assert (standardised @ found).sum() > 0

    def test_it_does_not_depend_on_the_order_of_the_genes(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        found = [nd.pccovt(expression, covariates, names, genes).compute() for genes in (names[:30], names[:30][::-1])]
        np.testing.assert_array_equal(*found)

    def test_genes_that_covariates_determine_have_no_part(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        determined = np.vstack([expression[:9], covariates[0] * 2 + 1, np.full(expression.shape[1], 5.0)])
        found, expected = (
            nd.pccovt(determined, covariates, names[:11], names[:number]).compute() for number in (11, 9)
        )
        assert_close(found, expected, 1e-10)

    def test_the_implicit_form_gives_the_same(self, simulated_chain, from_counts, names):
        genes = list(names[5:60:3])
        expression, covariates = from_counts
        published = oracles.pccovt(*simulated_chain.normalised, names, genes)
        found = nd.pccovt(expression, covariates, names, genes).compute()
        assert_close(found[:-1], published[:-1], 1e-10)
        sign = np.sign(found[-1] @ published[-1])
        assert_close(found[-1], sign * published[-1], 1e-8)
        dense = expression.map_blocks(np.asarray, dtype=float, meta=np.empty((0, 0)))
        assert_close(found, nd.pccovt(dense, covariates, names, genes).compute(), 1e-10)

    def test_no_other_gene_is_made_dense(self, from_counts, names):
        expression, covariates = from_counts
        found = nd.pccovt(expression, covariates, names, names[:7])
        sizes = []

        def remember(key, result, graph, state, worker):
            sizes.append(getattr(result, "size", 0) if isinstance(result, np.ndarray) else 0)

        with dask.callbacks.Callback(posttask=remember), dask.config.set({"optimization.fuse.active": False}):
            found.compute(scheduler="synchronous")
        assert 0 < max(sizes) <= max(32 * len(names), 10 * expression.shape[1]) < expression.size / 4

    @EXPENSIVE
    @given(st.sampled_from(DENSE_KINDS), partitions(60), partitions(250), st.sampled_from(["synchronous", "threads"]))
    def test_any_chunks_give_the_same(self, simulated_chain, names, kind, gene_chunks, cell_chunks, scheduler):
        expression, covariates = (rows[:, :250] for rows in simulated_chain.normalised)
        expected = nd.pccovt(expression[:60], covariates, names[:60], names[10:40]).compute()
        rows = laid_out(expression[:60], kind, (gene_chunks, cell_chunks))
        found = nd.pccovt(rows, covariates, names[:60], names[10:40]).compute(scheduler=scheduler)
        assert_close(found, expected, 1e-10)

    @EXPENSIVE
    @given(partitions(90), partitions(110))
    def test_any_chunks_of_counts_give_the_same(self, counts, gene_chunks, cell_chunks):
        names = [f"gene{number}" for number in range(90)]
        results = []
        for chunks in ((gene_chunks, cell_chunks), ((90,), (110,))):
            log_cpm = nd.lcpm(laid_out(counts, "csc_array", chunks))
            expression, covariates = nd.normvar(log_cpm.lcpm, nd.normcov(log_cpm.cov), WEIGHTS, SCALING)
            results.append(nd.pccovt(expression, covariates, names, names[20:50]).compute())
        assert_close(*results, 1e-10)

    def test_every_pass_reads_the_counts_anew(self, count_store):
        """So that no pass keeps them for the next: blocks are read in the tasks of the kernels."""
        counts = nd.open_counts(count_store, cells_per_block=16)
        expression, covariates = nd.normvar(nd.lcpm(counts.matrix).lcpm, np.ones((1, 110)), WEIGHTS, SCALING)
        graph = dict(nd.pccovt(expression, covariates, counts.genes, counts.genes[:20]).__dask_graph__())
        assert not [key for key in graph if "read-counts" in str(key)]

    @pytest.mark.parametrize(
        ("genes", "message"),
        [
            ([], "expected genes to take the principal component of, found none"),
            (["gene1", "x", "y", "x"], "expected genes named in namet, found 2 others: 'x', 'y'"),
        ],
    )
    def test_genes_that_are_not_there_are_refused(self, simulated_chain, names, genes, message):
        with pytest.raises(ValueError, match=message):
            nd.pccovt(*simulated_chain.normalised, names, genes)

    def test_shapes_that_do_not_fit_are_refused(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        with pytest.raises(ValueError, match="expected a name in namet for each of"):
            nd.pccovt(expression, covariates, names[1:], names[:3])
        with pytest.raises(ValueError, match=r"expected dc with .* cells"):
            nd.pccovt(expression, covariates[:, 1:], names, names[:3])

    def test_genes_that_do_not_vary_are_refused(self, simulated_chain, names):
        expression, covariates = simulated_chain.normalised
        constant = da.from_array(np.ones((2, expression.shape[1])))
        with pytest.raises(ValueError, match="expected genes that vary after covariates, found none"):
            nd.pccovt(constant, covariates, names[:2], names[:2]).compute()


WEIGHTS, SCALING = RANDOM.uniform(1, 3, 110), RANDOM.uniform(0, 1, 90)
