"""The files of the Gene Ontology, gzipped or not: the terms (OBO), and which genes are annotated to them (GAF)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from normalisr_dask.storage.text_file import TextFile

BLOCK_BYTES = 1 << 22
STANZA = re.compile(r"\[\w+\]")
TAG = re.compile(r"([\w-]+):\s*(.*)")
#: Letters of the third namespace of terms in a GAF file.
ASPECTS = {"P": "biological_process", "F": "molecular_function", "C": "cellular_component"}
#: Fields of a GAF line in version 1; version 2 has two more.
GAF_FIELDS = 15
#: Evidence "no biological data available": such a line annotates nothing.
NO_DATA = "ND"


@dataclass
class Term:
    """One term of an OBO file.

    Attributes
    ----------
    line
        Where its stanza begins.
    identifier, name, namespace
        Such as GO:0006412, translation, biological_process.
    alternatives
        Further identifiers.
    parents
        Identifiers of the terms that it is a kind of.
    obsolete
        Whether it is no longer in use.
    """

    line: int
    identifier: str = ""
    name: str = ""
    namespace: str = ""
    alternatives: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    obsolete: bool = False

    def add(self, tag: str, value: str) -> None:
        """Take over a line of the stanza."""
        if tag == "id":
            self.identifier = value
        elif tag == "name":
            self.name = value
        elif tag == "namespace":
            self.namespace = value
        elif tag == "alt_id":
            self.alternatives.append(value)
        elif tag == "is_a":
            self.parents.append(value.split()[0] if value else "")
        elif tag == "is_obsolete":
            self.obsolete = value == "true"


@dataclass(frozen=True)
class Annotations:
    """What a GAF file says of genes; they go by the identifiers of its second column.

    Attributes
    ----------
    terms
        Gene → terms it is annotated to.
    symbols
        Symbol → genes, in the order of the file.
    synonyms
        Synonym → genes, in the order of the file.
    identifiers
        All genes of the file, also those without an annotation that counts.
    """

    terms: dict[str, set[str]]
    symbols: dict[str, list[str]]
    synonyms: dict[str, list[str]]
    identifiers: set[str]


def read_terms(path: Path) -> dict[str, Term]:
    """Read the terms of an OBO file that are in use, by identifier.

    Parameters
    ----------
    path
        Such as go-basic.obo or go-basic.obo.gz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or cut off, is no OBO file, or a term lacks its identifier, occurs twice, or is a kind of one
        that the file does not have, or, by way of others, of itself.
    """
    terms: dict[str, Term] = {}
    for term in _stanzas(path):
        if not term.identifier:
            msg = f"{path}, line {term.line}: expected a term with an id, found none up to the next stanza"
            raise ValueError(msg)
        if term.identifier in terms:
            msg = f"{path}, line {term.line}: term {term.identifier} was defined in line {terms[term.identifier].line}"
            raise ValueError(msg)
        if not term.obsolete:
            terms[term.identifier] = term
    if not terms:
        msg = f"{path} defines no term; expected an OBO file with stanzas [Term], such as go-basic.obo"
        raise ValueError(msg)
    for term in terms.values():
        for parent in term.parents:
            if parent not in terms:
                msg = (
                    f"{path}, line {term.line}: {term.identifier} is a kind of {parent!r}, which the file does not "
                    "define; is it cut off? Download it again"
                )
                raise ValueError(msg)
    try:
        TopologicalSorter({term.identifier: term.parents for term in terms.values()}).prepare()
    except CycleError as error:
        msg = f"{path} has terms that are kinds of each other: {' -> '.join(error.args[1])}"
        raise ValueError(msg) from error
    return terms


def _stanzas(path: Path) -> Iterator[Term]:
    """Yield the stanzas of terms; others, such as those of relations, are passed over."""
    term: Term | None = None
    for number, line in _lines(path):
        if not line or line.startswith("!"):
            continue
        if STANZA.fullmatch(line):
            if term is not None:
                yield term
            term = Term(number) if line.lower() == "[term]" else None
            continue
        tagged = TAG.match(line)
        if tagged is None:
            msg = (
                f"{path}, line {number}: expected a tag and its value, such as 'id: GO:0006412', or [Term], as in an "
                f"OBO file, found {line[:60]!r}"
            )
            raise ValueError(msg)
        if term is not None:
            term.add(tagged[1], tagged[2])
    if term is not None:
        yield term


def read_annotations(path: Path, *, evidence: frozenset[str] | None, namespace: str) -> Annotations:
    """Read which genes a GAF file annotates to which terms.

    Parameters
    ----------
    path
        Such as goa_human.gaf or goa_human.gaf.gz.
    evidence
        Codes of the evidence that counts; None for all. "No biological data available" (ND) never does.
    namespace
        Of the terms that count: biological_process, molecular_function or cellular_component.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or cut off, or is no GAF file; names the line.

    Notes
    -----
    Lines that say NOT count for names alone. Memory: the annotations, some hundred MB for the human genome.
    """
    found = Annotations({}, {}, {}, set())
    for number, line in _lines(path):
        if not line or line.startswith("!"):
            continue
        fields = line.split("\t")
        if len(fields) < GAF_FIELDS:
            msg = (
                f"{path}, line {number}: expected {GAF_FIELDS} or more fields separated by tabs, as in a GAF file, "
                f"found {len(fields)}"
            )
            raise ValueError(msg)
        gene, symbol, qualifier, term, code, aspect, synonyms = (fields[place] for place in (1, 2, 3, 4, 6, 8, 10))
        if aspect not in ASPECTS or not gene or not term:
            msg = (
                f"{path}, line {number}: expected a gene, a term and one of the aspects {', '.join(ASPECTS)} in fields "
                f"2, 5 and 9, as in a GAF file, found {gene!r}, {term!r} and {aspect!r}"
            )
            raise ValueError(msg)
        if gene not in found.identifiers:
            found.identifiers.add(gene)
            found.symbols.setdefault(symbol, []).append(gene)
            for synonym in filter(None, synonyms.split("|")):
                found.synonyms.setdefault(synonym, []).append(gene)
        counts = code != NO_DATA and (evidence is None or code in evidence)
        if counts and ASPECTS[aspect] == namespace and "not" not in qualifier.lower().split("|"):
            found.terms.setdefault(gene, set()).add(term)
    if not found.identifiers:
        msg = f"{path} annotates no gene; expected a GAF file, such as goa_human.gaf"
        raise ValueError(msg)
    return found


def read_conversion(path: Path) -> dict[str, str]:
    """Read names of genes and what the annotation calls them: two columns, separated by tabs, no header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, a line does not have two fields, or gives a name another meaning than a line before.
    """
    conversion: dict[str, str] = {}
    for number, line in _lines(path):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 2 or not all(fields):
            msg = (
                f"{path}, line {number}: expected a gene name and an annotation ID, separated by a tab, "
                f"found {line[:60]!r}"
            )
            raise ValueError(msg)
        name, identifier = fields
        if conversion.setdefault(name, identifier) != identifier:
            msg = f"{path}, line {number}: gene {name!r} is {identifier!r}, but was {conversion[name]!r} before"
            raise ValueError(msg)
    return conversion


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers and lines of a text file, without line ends and blanks at the end."""
    number = 0
    with TextFile(path) as file:
        for block in file.blocks(BLOCK_BYTES):
            for line in block.text.tobytes().decode(errors="replace").split("\n")[:-1]:
                number += 1
                yield number, line.rstrip("\r ")
