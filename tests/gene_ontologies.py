"""A small Gene Ontology: files of terms and annotations, and what the genes in them are called."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT, LIFE, GROWTH, REPAIR, SIGNAL = (f"GO:000000{number}" for number in (1, 2, 3, 4, 5))
ALTERNATIVE = "GO:0000033"
MEMBRANE, CATALYSIS = "GO:0000008", "GO:0000009"
GONE = "GO:0000010"

TERMS = f"""format-version: 1.2
data-version: releases/2020-01-01
! a comment

[Term]
id: {ROOT}
name: process
namespace: biological_process

[Term]
id: {LIFE}
name: life
namespace: biological_process
is_a: {ROOT} ! process

[Term]
id: {GROWTH}
name: growth
namespace: biological_process
alt_id: {ALTERNATIVE}
def: "Growing, as [things] do: so." [GOC:x]
is_a: {LIFE} {{source="x"}} ! life

[Term]
id: {REPAIR}
name: repair
namespace: biological_process
is_a: {LIFE} ! life
is_a: {SIGNAL} ! signal

[Term]
id: {SIGNAL}
name: signal
namespace: biological_process
is_a: {ROOT} ! process

[Term]
id: {MEMBRANE}
name: membrane
namespace: cellular_component

[Term]
id: {CATALYSIS}
name: catalysis
namespace: molecular_function

[Term]
id: {GONE}
name: obsolete thing
namespace: biological_process
is_obsolete: true

[Typedef]
id: part_of
name: part of
is_transitive: true
"""

N_GENES = 60
#: Symbols of the genes, as a data set has them; those of the annotations are the same, but for three synonyms.
SYMBOLS = [f"Gene{number}" for number in range(N_GENES)]
IDENTIFIERS = {name: f"{1000 + 7 * number}" for number, name in enumerate(SYMBOLS)}
#: Those annotated to growth by evidence that counts: the first twelve.
N_GROWING = 12


class Files(NamedTuple):
    """Where the files are, and which annotations count by default."""

    terms: Path
    annotations: Path
    counting: Path


def gaf_line(identifier: str, symbol: str, term: str, code: str, *, aspect="P", qualifier="", synonyms="") -> str:
    fields = ["DB", identifier, symbol, qualifier, term, "REF:1", code, "", aspect, "a name", synonyms, "gene"]
    return "\t".join([*fields, "taxon:9606", "20200101", "DB", "", ""])


def annotation_lines() -> list[tuple[str, bool]]:
    """Return the lines of the annotations, and whether their evidence counts by default."""
    random = np.random.default_rng(5)
    lines = []
    for number, name in enumerate(SYMBOLS):
        symbol, synonyms = (name, f"Alias{number}|Shared") if number % 20 else (f"Official{number}", f"{name}|Shared")
        gene = (IDENTIFIERS[name], symbol)
        term = GROWTH if number % 2 else ALTERNATIVE
        if number < N_GROWING:
            lines.append((gaf_line(*gene, term, "IDA", synonyms=synonyms), True))
        else:
            lines.append((gaf_line(*gene, REPAIR if random.random() < 0.4 else SIGNAL, "IBA", synonyms=synonyms), True))
        if random.random() < 0.3:
            lines.append((gaf_line(*gene, LIFE, "IEP", synonyms=synonyms), False))
        if random.random() < 0.3:
            lines.append((gaf_line(*gene, GROWTH, "IDA", qualifier="NOT|involved_in", synonyms=synonyms), True))
        lines.append((gaf_line(*gene, MEMBRANE, "IDA", aspect="C", synonyms=synonyms), True))
    return lines


def write_gene_ontology(folder: Path) -> Files:
    """Write the terms and annotations, gzipped, and those of the annotations that count by default."""
    header = "!gaf-version: 2.1\n! a comment\n"
    lines = annotation_lines()
    contents = {
        "terms.obo.gz": TERMS,
        "all.gaf.gz": header + "".join(f"{line}\n" for line, _ in lines),
        "counting.gaf.gz": header + "".join(f"{line}\n" for line, counts in lines if counts),
    }
    for name, text in contents.items():
        (folder / name).write_bytes(gzip.compress(text.encode()))
    return Files(*(folder / name for name in contents))


def unpacked(path: Path, folder: Path) -> str:
    """Return the name of an unpacked copy, since goatools reads no gzip."""
    plain = folder / path.stem
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    return str(plain)
