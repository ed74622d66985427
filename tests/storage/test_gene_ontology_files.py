"""Files of the Gene Ontology: what is read of them, and how bad ones are refused."""

import gzip
from pathlib import Path

import pytest
from gene_ontologies import (
    ALTERNATIVE,
    GONE,
    GROWTH,
    LIFE,
    MEMBRANE,
    ROOT,
    SIGNAL,
    TERMS,
    Files,
    gaf_line,
    write_gene_ontology,
)

from normalisr_dask.storage.gene_ontology_files import Annotations, read_annotations, read_conversion, read_terms

PROCESS = "biological_process"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_gene_ontology(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def annotations_of(path: Path, *lines: str, evidence: frozenset[str] | None = None) -> Annotations:
    return read_annotations(write(path, "\n".join(lines)), evidence=evidence, namespace=PROCESS)


class TestTerms:
    def test_gzipped_or_not(self, files, tmp_path):
        assert read_terms(files.terms) == read_terms(write(tmp_path / "terms.obo", TERMS))

    def test_line_ends_of_another_system(self, files, tmp_path):
        assert read_terms(write(tmp_path / "terms.obo", TERMS.replace("\n", "\r\n"))) == read_terms(files.terms)

    def test_what_is_read_of_a_term(self, files):
        terms = read_terms(files.terms)
        assert list(terms) == [ROOT, LIFE, GROWTH, "GO:0000004", SIGNAL, MEMBRANE, "GO:0000009"]
        assert GONE not in terms
        growth = terms[GROWTH]
        assert (growth.name, growth.namespace, growth.alternatives) == ("growth", PROCESS, [ALTERNATIVE])
        assert growth.parents == [LIFE]
        assert terms["GO:0000004"].parents == [LIFE, SIGNAL]

    def test_a_file_that_is_cut_off_is_refused(self, files):
        files.terms.write_bytes(files.terms.read_bytes()[:-40])
        with pytest.raises(ValueError, match=r"terms\.obo\.gz is truncated: its gzip stream ends too early"):
            read_terms(files.terms)

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no\.obo does not exist"):
            read_terms(tmp_path / "no.obo")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("!gaf-version: 2.1\n" + gaf_line("1", "A", GROWTH, "IDA"), "line 2: expected a tag and its value, .*OBO"),
            ("format-version: 1.2\n", "defines no term; expected an OBO file with stanzas"),
            ("[Term]\nname: a\n\n[Term]\nid: GO:1\n", "line 1: expected a term with an id, found none"),
            ("[Term]\nid: GO:1\n\n[Term]\nid: GO:1\n", "line 4: term GO:1 was defined in line 1"),
            ("[Term]\nid: GO:1\nis_a: GO:2 ! x\n", "line 1: GO:1 is a kind of 'GO:2', which the file does not define"),
            ("[Term]\nid: GO:1\nis_a:\n", "line 1: GO:1 is a kind of ''"),
            ("[Term]\nid: A\nis_a: B\n\n[Term]\nid: B\nis_a: A\n", "kinds of each other: [AB] -> [AB] -> [AB]"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_terms(write(tmp_path / "terms.obo", text))


class TestAnnotations:
    def test_which_lines_count(self, tmp_path):
        lines = [
            gaf_line("1", "A", "GO:1", "IDA", synonyms="X|Y"),
            gaf_line("1", "A", "GO:2", "IEA", synonyms="X|Y"),
            gaf_line("1", "A", "GO:3", "IDA", aspect="F", synonyms="X|Y"),
            gaf_line("1", "A", "GO:4", "IDA", qualifier="NOT", synonyms="X|Y"),
            gaf_line("1", "A", "GO:5", "IDA", qualifier="involved_in", synonyms="X|Y"),
            gaf_line("2", "B", "GO:1", "ND", synonyms="Y"),
            "",
        ]
        some = annotations_of(tmp_path / "some.gaf", *lines, evidence=frozenset({"IDA", "ND"}))
        assert some.terms == {"1": {"GO:1", "GO:5"}}
        every = annotations_of(tmp_path / "all.gaf", *lines)
        assert every.terms == {"1": {"GO:1", "GO:2", "GO:5"}}
        for found in (some, every):
            assert found.identifiers == {"1", "2"}
            assert found.symbols == {"A": ["1"], "B": ["2"]}
            assert found.synonyms == {"X": ["1"], "Y": ["1", "2"]}

    def test_version_1_has_two_fields_less(self, tmp_path):
        line = gaf_line("1", "A", "GO:1", "IDA").removesuffix("\t\t")
        assert annotations_of(tmp_path / "old.gaf", "!gaf-version: 1.0", line).terms == {"1": {"GO:1"}}

    def test_a_file_that_is_cut_off_is_refused(self, files):
        files.annotations.write_bytes(files.annotations.read_bytes()[:-40])
        with pytest.raises(ValueError, match=r"all\.gaf\.gz is truncated: its gzip stream ends too early"):
            read_annotations(files.annotations, evidence=None, namespace=PROCESS)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (TERMS, "line 1: expected 15 or more fields separated by tabs, as in a GAF file, found 1"),
            ("!gaf-version: 2.1\nA\tB\n", "line 2: expected 15 or more fields"),
            ("!gaf-version: 2.1\n", "annotates no gene; expected a GAF file"),
            (gaf_line("1", "A", "GO:1", "IDA", aspect="X"), "line 1: expected a gene, a term and one of the aspects"),
            (gaf_line("", "A", "GO:1", "IDA"), "line 1: .* found '', 'GO:1' and 'P'"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_annotations(write(tmp_path / "bad.gaf", text), evidence=None, namespace=PROCESS)


class TestConversion:
    def test_two_columns(self, tmp_path):
        text = "A\t1\nB\t2\r\n\nA\t1\n"
        path = write(tmp_path / "names.tsv", text)
        assert read_conversion(path) == {"A": "1", "B": "2"}
        path.write_bytes(gzip.compress(text.encode()))
        assert read_conversion(path) == {"A": "1", "B": "2"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("A\t1\nB\n", "line 2: expected a gene name and an annotation ID, separated by a tab, found 'B'"),
            ("A\t1\t2\n", "line 1: expected a gene name and an annotation ID"),
            ("A\t1\nA\t2\n", "line 2: gene 'A' is '2', but was '1' before"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_conversion(write(tmp_path / "names.tsv", text))
