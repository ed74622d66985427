"""Enrichment of Gene Ontology terms: against normalisr and goatools, by every kind of gene names, and refusals."""

from pathlib import Path

import oracles
import pandas as pd
import pytest
from gene_ontologies import (
    ALTERNATIVE,
    GROWTH,
    IDENTIFIERS,
    N_GROWING,
    SYMBOLS,
    Files,
    unpacked,
    write_gene_ontology,
)
from goatools.obo_parser import GODag

import normalisr_dask as nd
from normalisr_dask import ontology
from normalisr_dask.storage.gene_ontology_files import read_terms

GENES = [*SYMBOLS[: N_GROWING - 2], *SYMBOLS[30:36]]
IN_STUDY, IN_POPULATION = "ratio_in_study", "ratio_in_pop"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_gene_ontology(tmp_path_factory.mktemp("ontology"))


@pytest.fixture(scope="module")
def plain(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The same files as normalisr can read them."""
    folder = tmp_path_factory.mktemp("plain")
    return Files(*(Path(unpacked(path, folder)) for path in files))


def goe(files: Files, genes=GENES, bg=SYMBOLS, **options):
    return nd.goe(genes, files.terms, files.annotations, bg=bg, **options)


def assert_same_table(found: pd.DataFrame, published: pd.DataFrame) -> None:
    """Compare with a table of normalisr, whose rows of equal P-value are in no order."""
    expected = published.sort_values(["p_uncorrected", "depth", "GO"], ascending=[True, False, True], ignore_index=True)
    in_any_order = {"study_items": lambda table: table["study_items"].map(lambda names: sorted(names.split(",")))}
    pd.testing.assert_frame_equal(found.assign(**in_any_order), expected.assign(**in_any_order), rtol=1e-12)


class TestItIsNormalisrs:
    def test_with_the_evidence_that_counts(self, files, plain):
        """Given the lines that count alone, since its goatools does not sort them out."""
        with oracles.gene_names(IDENTIFIERS):
            published = oracles.goe(
                list(GENES), str(plain.terms), str(plain.counting), bg=list(SYMBOLS), conversion=oracles.CONVERSION
            )
        found = goe(files)
        assert_same_table(found.goe, published[0])
        assert found.gotop == published[1] == GROWTH
        # normalisr's list lacks those annotated by an alternative identifier of the term, which its table counts
        assert found.genes == SYMBOLS[:N_GROWING]
        assert published[2] == SYMBOLS[1:N_GROWING:2]

    def test_with_all_evidence(self, files, plain):
        with oracles.gene_names(IDENTIFIERS):
            published = oracles.goe(
                list(GENES), str(plain.terms), str(plain.annotations), bg=list(SYMBOLS), conversion=oracles.CONVERSION
            )
        found = goe(files, evidence_set=None)
        assert_same_table(found.goe, published[0])
        assert found.gotop == published[1]
        assert (found.goe["p_uncorrected"] != goe(files).goe["p_uncorrected"]).any()

    @pytest.mark.parametrize("with_background", [True, False])
    def test_by_identifiers(self, files, plain, with_background):
        genes = [IDENTIFIERS[name] for name in GENES]
        background = [*IDENTIFIERS.values(), "unheard", "of"] if with_background else None
        published = oracles.goe(list(genes), str(plain.terms), str(plain.counting), bg=background)
        found = goe(files, genes, background)
        assert_same_table(found.goe, published[0])
        assert found.gotop == published[1]
        assert (found.genes is None) == (not with_background)

    def test_from_the_web_service(self, files, plain):
        """Which stands in for itself; of its answers the one with the highest score counts."""
        with oracles.gene_names(IDENTIFIERS) as service:
            published = oracles.goe(
                list(GENES), str(plain.terms), str(plain.counting), bg=list(SYMBOLS), conversion=oracles.CONVERSION
            )
            asked, service.asked = service.asked, {}
            found = goe(files, conversion=oracles.CONVERSION)
            assert service.asked == asked == {"scopes": "symbol", "fields": "ids.of", "species": "human"}
        assert_same_table(found.goe, published[0])

    def test_a_web_service_that_does_not_answer(self, files, monkeypatch):
        """Really asked, at an address where nothing listens."""
        for proxy in ("http_proxy", "https_proxy", "all_proxy"):
            for name in (proxy, proxy.upper()):
                monkeypatch.setenv(name, "http://127.0.0.1:9")
        with pytest.raises(ConnectionError, match=r"MyGene.info cannot be asked .*; leave out the conversion by web"):
            goe(files, conversion=oracles.CONVERSION)


class TestGeneNames:
    def test_all_ways_lead_to_the_same(self, files, tmp_path):
        table = tmp_path / "names.tsv"
        table.write_text("".join(f"{name}\t{identifier}\n" for name, identifier in IDENTIFIERS.items()))
        expected = goe(files)
        for conversion in (IDENTIFIERS, table, str(table)):
            found = goe(files, conversion=conversion)
            pd.testing.assert_frame_equal(found.goe, expected.goe)
            assert found[1:] == expected[1:]

    def test_synonyms_of_several_genes_stand_for_none(self, files):
        expected = goe(files)
        found = goe(files, [*GENES, "Shared"], [*SYMBOLS, "Shared"])
        pd.testing.assert_frame_equal(found.goe, expected.goe)

    def test_names_of_the_same_gene_stand_together(self, files):
        found = goe(files, [*GENES, "Alias1"], [*SYMBOLS, "Alias1"])
        (row,) = found.goe.loc[found.goe["GO"] == GROWTH].itertuples()
        assert row.ratio_in_study == f"{N_GROWING - 2}/{len(GENES)}"
        assert {"Gene1", "Alias1"} < set(row.study_items.split(","))
        assert {"Gene1", "Alias1"} < set(found.genes)

    def test_genes_without_identifier_are_left_out(self, files):
        some = {name: identifier for name, identifier in IDENTIFIERS.items() if name != "Gene0"}
        found = goe(files, conversion=some)
        assert found.goe[IN_POPULATION].str.endswith(f"/{len(SYMBOLS) - 1}").all()
        assert "Gene0" not in found.genes

    @pytest.mark.parametrize(
        ("conversion", "message"),
        [
            (None, r"none of the 2 genes, the first 'x', is annotated in .*; give a file .or, as conversion, a dict."),
            (
                {"x": "no"},
                "none of the 2 genes, the first 'x', .*; check that conversion leads .* to the second column",
            ),
        ],
    )
    def test_names_that_nobody_knows_are_refused(self, files, conversion, message):
        with pytest.raises(ValueError, match=message):
            goe(files, ["x"], ["x", "y"], conversion=conversion)

    @pytest.mark.parametrize(
        ("conversion", "message"),
        [
            (["a", "b"], "expected conversion as a dict, .* found list"),
            (("symbol", "MGI"), r"by web service as \(name_from, name_to, species\), .* found \('symbol', 'MGI'\)"),
        ],
    )
    def test_conversions_of_another_kind_are_refused(self, files, conversion, message):
        with pytest.raises(TypeError, match=message):
            goe(files, conversion=conversion)


class TestBadInput:
    def test_no_genes(self, files):
        with pytest.raises(ValueError, match="expected genes to look for enrichment in, found none"):
            goe(files, [])

    def test_genes_that_are_not_compared_with(self, files):
        with pytest.raises(ValueError, match=r"among those to compare with \(bg\), which lack 'x', 'y'"):
            goe(files, [*GENES, "y", "x"])

    def test_genes_without_annotation(self, files):
        conversion = IDENTIFIERS | {"x": "none"}
        with pytest.raises(ontology.NoEnrichmentError, match="none of the 1 genes, the first 'x', is annotated to a"):
            goe(files, ["x"], [*SYMBOLS, "x"], conversion=conversion)

    def test_nothing_enriched_with_so_many_genes(self, files):
        with pytest.raises(ontology.NoEnrichmentError, match="no term is enriched with 30 or more of the genes"):
            goe(files, nmin=30)

    def test_files_in_the_wrong_order(self, files):
        with pytest.raises(ValueError, match=r"all\.gaf\.gz, line 3: expected a tag and its value"):
            nd.goe(GENES, files.annotations, files.terms, bg=SYMBOLS)

    @pytest.mark.parametrize(
        ("module", "options", "message"),
        [
            ("GOEnrichmentStudy", {}, r"GO enrichment needs goatools, .* pip install 'normalisr-dask\[go\]'"),
            (
                "biothings_client",
                {"conversion": oracles.CONVERSION},
                r"web service needs biothings-client, .* pip install 'normalisr-dask\[go-web\]'",
            ),
        ],
    )
    def test_a_missing_extra_is_named(self, files, monkeypatch, module, options, message):
        monkeypatch.setattr(ontology, module, None)
        with pytest.raises(ImportError, match=message):
            goe(files, **options)


class TestTermsOfGoatools:
    def test_alternative_identifiers_lead_to_the_term(self, files):
        found = ontology.goatools_terms(read_terms(files.terms))
        assert found[ALTERNATIVE] is found[GROWTH]

    def test_they_are_as_goatools_reads_them(self, files, plain):
        self.assert_same_terms(files.terms, plain.terms)

    @pytest.mark.slow
    def test_they_are_as_goatools_reads_them_of_the_whole_ontology(self, real_data, tmp_path):
        path = real_data / "go" / "go-basic_2021-12-15.obo.gz"
        self.assert_same_terms(path, unpacked(path, tmp_path))

    @staticmethod
    def assert_same_terms(path, plain):
        found = ontology.goatools_terms(read_terms(path))
        expected = GODag(str(plain), prt=None)
        assert found.keys() == expected.keys()
        for identifier, term in expected.items():
            own = found[identifier]
            assert (own.item_id, own.id, own.name, own.namespace) == (term.item_id, term.id, term.name, term.namespace)
            assert (own.level, own.depth, own.alt_ids) == (term.level, term.depth, term.alt_ids)
            for kin in ("parents", "children"):
                assert {other.id for other in getattr(own, kin)} == {other.id for other in getattr(term, kin)}
