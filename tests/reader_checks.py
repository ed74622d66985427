"""What holds for every reader and any bytes: it refuses them in words, or reads what a plain reader reads."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plain_readers
from gene_ontologies import gaf_line

from normalisr_dask.storage.count_source import CountSource
from normalisr_dask.storage.gene_ontology_files import read_annotations, read_conversion, read_terms
from normalisr_dask.storage.matrix_market import MatrixMarketSource
from normalisr_dask.storage.number_text import read_rows
from normalisr_dask.storage.tables import read_groupings
from normalisr_dask.storage.text_matrix import TextMatrixSource

GENES, CELLS = ["a", "b", "c"], ["u", "v"]


def read_or_refuse(read: Callable[[Path], Any], path: Path, content: bytes) -> Any:
    """Return what is read of the bytes; None where they are refused, in words that name the file."""
    path.write_bytes(content)
    try:
        return read(path)
    except (ValueError, OSError) as error:
        refusal = str(error)
    assert path.name in refusal
    return None


def check_matrix_market(content: bytes, folder: Path) -> bool:
    """Check the Matrix Market reader of `ingest`; tells whether it took the file."""

    def read(path: Path) -> plain_readers.Entries:
        genes, cells = folder / "genes.tsv", folder / "barcodes.tsv"
        genes.write_text("\n".join(GENES))
        cells.write_text("\n".join(CELLS))
        return entries_of(MatrixMarketSource(path, genes=genes, cells=cells, block_bytes=48))

    found = read_or_refuse(read, folder / "counts.mtx", content)
    assert found is None or found == plain_readers.matrix_market(plain_readers.plain_text(content))
    return found is not None


def check_count_table(content: bytes, folder: Path) -> bool:
    """Check the reader of dense tables of counts."""

    def read(path: Path) -> plain_readers.Table:
        source = TextMatrixSource(path, block_bytes=48)
        values = np.zeros((len(source.var), len(source.obs)), dtype=np.int64)
        for place, count in entries_of(source).items():
            values[place] = count
        return plain_readers.Table(list(source.var.index), list(source.obs.index), values.tolist())

    found = read_or_refuse(read, folder / "counts.tsv", content)
    assert found is None or found == plain_readers.count_table(plain_readers.plain_text(content))
    return found is not None


def check_numbers(content: bytes, folder: Path) -> bool:
    """Check the reader of matrices of numbers."""
    found = read_or_refuse(
        lambda path: np.concatenate(list(read_rows(path, block_bytes=48))), folder / "m.tsv", content
    )
    if found is not None:
        np.testing.assert_array_equal(found, plain_readers.numbers(plain_readers.plain_text(content)), strict=True)
    return found is not None


def check_groupings(content: bytes, folder: Path) -> bool:
    """Check the reader of tables of groupings."""
    found = read_or_refuse(read_groupings, folder / "groupings.tsv", content)
    if found is not None:
        expected = plain_readers.grouping_table(plain_readers.plain_text(content))
        assert (list(found.cells), list(found.names)) == (expected.rows, expected.columns)
        # pandas rounds the last bit of numbers with far more digits than a float has
        np.testing.assert_allclose(found.values.toarray().T, expected.values, rtol=3e-16, atol=0)
    return found is not None


def check_sparse_groupings(content: bytes, folder: Path) -> bool:
    """Check the reader of groupings as Matrix Market."""
    (folder / "names.txt").write_text("\n".join(GENES))
    found = read_or_refuse(
        lambda path: read_groupings(path, names=folder / "names.txt", cells=CELLS), folder / "groupings.mtx", content
    )
    if found is not None:
        expected = plain_readers.matrix_market(plain_readers.plain_text(content), float)
        values = found.values.tocoo()
        places = zip(*(axis.tolist() for axis in values.coords), strict=True)
        assert {place: value for place, value in zip(places, values.data, strict=True) if value} == expected
    return found is not None


def check_annotations(content: bytes, folder: Path) -> bool:
    """Check the reader of GAF files."""
    found = read_or_refuse(
        lambda path: read_annotations(path, evidence=None, namespace="biological_process"), folder / "a.gaf", content
    )
    if found is not None:
        assert (found.terms, found.identifiers) == plain_readers.annotations(plain_readers.plain_text(content))
    return found is not None


def check_terms(content: bytes, folder: Path) -> bool:
    """Check that the reader of OBO files keeps its promises: every parent is a term, none is obsolete."""
    found = read_or_refuse(read_terms, folder / "terms.obo", content)
    if found is not None:
        assert all(set(term.parents) <= found.keys() and not term.obsolete for term in found.values())
    return found is not None


def check_conversion(content: bytes, folder: Path) -> bool:
    """Check the reader of gene names and what annotations call them."""
    found = read_or_refuse(read_conversion, folder / "names.tsv", content)
    if found is not None:
        lines = [line.rstrip("\r ") for line in plain_readers.plain_text(content).split("\n")]
        assert found == dict(line.split("\t") for line in lines if line)
    return found is not None


def entries_of(source: CountSource) -> plain_readers.Entries:
    """Return the counts of a source by gene and cell."""
    entries: plain_readers.Entries = {}
    for block in source.entries():
        for gene, cell, count in zip(block.genes.tolist(), block.cells.tolist(), block.counts.tolist(), strict=True):
            entries[gene, cell] = entries.get((gene, cell), 0) + count
    return {place: count for place, count in entries.items() if count}


#: What turns a good file into one that is nearly good.
SCRAPS = [
    *(b"\n", b"\r", b"\t", b" ", b",", b'"', b"-", b"+", b".", b"e", b"_", b"%", b"#", b"!", b"\0", b"\x0c", b"\xff"),
    *(b"\xc3\xa9", b"\xc2\xa0", b"nan", b"inf", b"1e999", b"9" * 20, b"0x1", b"4294967296", b"NA", b"True", b"[Term]"),
]
MTX = b"%%MatrixMarket matrix coordinate integer general\n% a comment\n3 2 4\n1 1 7\n3 1 12\n2 2 1\n3 2 300\n"
REAL = MTX.replace(b"integer", b"real").replace(b"12", b"1.2e+01")
GAF_LINES = [
    gaf_line("1", "A", "GO:1", "IDA", synonyms="x|y"),
    gaf_line("2", "B", "GO:2", "IDA", qualifier="NOT|is"),
    gaf_line("2", "B", "GO:1", "ND", qualifier="is"),
    gaf_line("3", "C", "GO:3", "IEA", aspect="C"),
]
GAF = "\n".join(["!gaf-version: 2.1", *GAF_LINES, ""])
OBO = b"format-version: 1.2\n\n[Term]\nid: GO:1\nname: a\n\n[Term]\nid: GO:2\nis_a: GO:1 ! a\nalt_id: GO:3\n"


class Reader(NamedTuple):
    """The check of a reader, and good files to begin from."""

    check: Callable[[bytes, Path], bool]
    files: list[bytes]


#: By name.
READERS: dict[str, Reader] = {
    name: Reader(check, [*files, gzip.compress(files[0], mtime=0)])
    for name, check, *files in (
        ("matrix_market", check_matrix_market, MTX, REAL, MTX.replace(b"\n", b"\r\n")),
        (
            "count_table",
            check_count_table,
            b"gene\tu\tv\na\t1\t0\nb\t0\t25\n",
            b'u,v,w\n"a,b",1,0,3\nc,1e1,+2,4.0\n',
            b"g\tu\r\na\t 7 \r\nb\t0\r\n",
        ),
        ("numbers", check_numbers, b"1\t-2.5\t3e-7\n# note\n0\tnan\tinf\n\n4\t.5\t6\n", b"1.25\r\n-0\r\n17\r\n"),
        (
            "groupings",
            check_groupings,
            b"cell\tg\th\nu\t1\t0\nv\t0\t2.5\n",
            b'"cell"\t"g"\r\n"u"\tTrue\r\n"v"\tFalse\r\n',
            b"cell\tg\nu\t1e-3\nv\t-1\n",
        ),
        ("sparse_groupings", check_sparse_groupings, MTX, REAL),
        ("annotations", check_annotations, GAF.encode()),
        ("terms", check_terms, OBO),
        ("conversion", check_conversion, b"a\t1\nb\t2\r\n\nc\t3\n"),
    )
}
