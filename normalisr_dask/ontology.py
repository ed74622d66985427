"""Enrichment of Gene Ontology terms among genes, by goatools, on files that are on disk."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pandas as pd

from normalisr_dask.results import Enrichment
from normalisr_dask.storage.gene_ontology_files import Annotations, Term, read_annotations, read_conversion, read_terms
from normalisr_dask.validation import listing

try:
    from goatools.go_enrichment import GOEnrichmentStudy
    from goatools.obo_parser import GOTerm
except ImportError:  # belongs to the extra "go"
    GOEnrichmentStudy = GOTerm = None
try:
    import biothings_client
except ImportError:  # belongs to the extra "go-web"
    biothings_client = None  # type: ignore[assignment]

#: Codes of evidence that does not come from expression, which would make the argument circular.
EVIDENCE = frozenset(
    {
        *("EXP", "IDA", "IPI", "IMP", "IGI", "HTP", "HDA", "HMP", "HGI"),
        *("IBA", "IBD", "IKR", "IRD", "ISS", "ISO", "ISA", "ISM"),
    }
)
#: The terms that are looked at, as goatools has it where nothing else is asked for.
NAMESPACE = "biological_process"
COLUMNS = (
    *("name", "depth", "p_uncorrected", "p_bonferroni", "odds_ratio"),
    *("ratio_in_study", "ratio_in_pop", "GO", "study_items"),
)


class NoEnrichmentError(ValueError):
    """No term is enriched as asked for."""


def goe(
    genelist: Sequence[str],
    go_file: str | Path,
    goa_file: str | Path,
    bg: Sequence[str] | None = None,
    nmin: int = 5,
    conversion: Mapping[str, str] | str | Path | tuple[str, str, str] | None = None,
    evidence_set: Collection[str] | None = EVIDENCE,
) -> Enrichment:
    """Find the biological processes (Gene Ontology) that are enriched among genes, with goatools.

    Parameters
    ----------
    genelist : sequence of str
        Genes to look at.
    go_file : str or Path
        Terms of the Gene Ontology: an OBO file such as go-basic.obo, or gzipped.
    goa_file : str or Path
        Annotations of genes: a GAF file such as goa_human.gaf, or gzipped.
    bg : sequence of str, optional
        Genes to compare with, among them ``genelist``; all annotated genes where None.
    nmin : int
        Genes of ``genelist`` that the top term must have.
    conversion : dict, str or Path, tuple of 3 str, or None
        What the annotations call the genes (second column of the GAF file). A dict from names to identifiers, or a file
        of these two columns, separated by tabs. None: the names are identifiers themselves, or the file's symbols and
        synonyms, whichever fits more genes. A tuple asks the web service MyGene.info, as Normalisr does: naming system
        of the genes, such as "symbol,alias"; that of the annotations, such as "uniprot.Swiss-Prot"; and the species.
    evidence_set : collection of str, optional
        Codes of the evidence that counts; None for all. By default all but evidence from expression.

    Returns
    -------
    Enrichment
        Table of all terms, identifier of the top term, and those genes of ``bg`` that are annotated to it or to what
        is a kind of it (None without ``bg``). Unpacks in this order.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ImportError
        If goatools (or, for the web service, biothings-client) is not installed.
    TypeError
        If ``conversion`` is none of the above.
    ValueError
        If ``genelist`` is empty or has genes that ``bg`` lacks, a file is damaged or of another format, no gene is
        annotated, or no term is enriched (odds ratio above 1) with ``nmin`` genes.

    Notes
    -----
    The top term has the smallest P-value among those with odds ratio above 1 and at least ``nmin`` genes; of equal
    P-values that of the deepest term, then the first identifier. A synonym of several genes stands for none, a symbol
    of several for the first. Genes without identifier are left out of the comparison. Cost: seconds, most of it for
    reading the files.

    normalisr 1.0.0 asks goatools for the same, but today's goatools does not know the name under which it is handed
    ``evidence_set``, and takes all evidence: ``evidence_set=None`` gives the numbers of that. normalisr's list of genes
    lacks those that are annotated by an alternative identifier of the top term, which its table counts.

    References
    ----------
    .. [1] Klopfenstein, D. V. et al. (2018). GOATOOLS: a Python library for Gene Ontology analyses. Scientific Reports
       8, 10872. https://doi.org/10.1038/s41598-018-28948-z.
    """
    _check_installed(GOEnrichmentStudy, "goatools", "GO enrichment", "go")
    genes, background = list(genelist), None if bg is None else list(bg)
    if not genes:
        msg = "expected genes to look for enrichment in, found none"
        raise ValueError(msg)
    missing = set() if background is None else set(genes).difference(background)
    if missing:
        msg = f"expected all genes of genelist among those to compare with (bg), which lack {listing(sorted(missing))}"
        raise ValueError(msg)
    evidence = None if evidence_set is None else frozenset(evidence_set)
    terms = read_terms(Path(go_file))
    annotations = read_annotations(Path(goa_file), evidence=evidence, namespace=NAMESPACE)
    names = genes if background is None else background
    identifiers = identifiers_of(names, annotations, conversion, goa_file)
    ontology = goatools_terms(terms)
    # goatools adds to these sets in place, and wants the main identifier of each term
    population = annotations.terms if background is None else set(identifiers.values())
    annotated = {
        gene: {ontology[term].item_id for term in annotations.terms[gene] if term in ontology}
        for gene in population
        if gene in annotations.terms
    }
    table = _study(genes, identifiers, sorted(population), annotated, ontology, goa_file)
    top = _top_term(table, max(1, nmin))
    if background is None:
        return Enrichment(table, top, None)
    kinds = {top, *ontology[top].get_all_children()}
    return Enrichment(
        table,
        top,
        [name for name in background if not kinds.isdisjoint(annotated.get(identifiers.get(name, ""), ()))],
    )


def check_gene_ontology(
    names: Sequence[str], go_file: str | Path, goa_file: str | Path, conversion: str | Path | None = None
) -> None:
    """Refuse files that :func:`goe` could not use for these genes; arguments and errors as there."""
    _check_installed(GOEnrichmentStudy, "goatools", "GO enrichment", "go")
    read_terms(Path(go_file))
    annotations = read_annotations(Path(goa_file), evidence=EVIDENCE, namespace=NAMESPACE)
    identifiers_of(names, annotations, conversion, goa_file)


def identifiers_of(
    names: Sequence[str],
    annotations: Annotations,
    conversion: Mapping[str, str] | str | Path | tuple[str, str, str] | None,
    goa_file: str | Path,
) -> dict[str, str]:
    """Return what the annotations call the genes, by name; genes that they do not know are left out, or kept as named.

    Raises
    ------
    TypeError
        If ``conversion`` is of another kind than :func:`goe` takes.
    ValueError
        If no gene is found.
    """
    if conversion is None:
        found = _own_names(names, annotations)
    elif isinstance(conversion, tuple):
        found = _from_web(names, *_web_query(conversion))
    elif isinstance(conversion, Mapping):
        found = {name: conversion[name] for name in names if name in conversion}
    elif isinstance(conversion, str | Path):
        from_file = read_conversion(Path(conversion))
        found = {name: from_file[name] for name in names if name in from_file}
    else:
        msg = (
            "expected conversion as a dict, the name of a file of two columns, (name_from, name_to, species), or None, "
            f"found {type(conversion).__name__}"
        )
        raise TypeError(msg)
    if annotations.identifiers.isdisjoint(found.values()):
        way = (
            "give a file (or, as conversion, a dict) of gene names and annotation IDs"
            if conversion is None
            else "check that conversion leads from these names to the second column of the file"
        )
        msg = f"none of the {len(names):,} genes, the first {names[0]!r}, is annotated in {goa_file}; {way}"
        raise ValueError(msg)
    return found


def _own_names(names: Sequence[str], annotations: Annotations) -> dict[str, str]:
    """Take names for identifiers, or for symbols and synonyms of the annotations, whichever fits more of them."""
    as_symbols = {}
    for name in names:
        if name in annotations.symbols:
            as_symbols[name] = annotations.symbols[name][0]
        elif len(annotations.synonyms.get(name, ())) == 1:
            as_symbols[name] = annotations.synonyms[name][0]
    if len(annotations.identifiers.intersection(names)) >= len(as_symbols):
        return {name: name for name in names}
    return as_symbols


def _web_query(conversion: tuple[str, ...]) -> tuple[str, str, str]:
    if len(conversion) != 3:
        msg = (
            "expected conversion by web service as (name_from, name_to, species), such as "
            f"('symbol,alias', 'uniprot.Swiss-Prot', 'human'), found {conversion!r}"
        )
        raise TypeError(msg)
    return conversion[0], conversion[1], conversion[2]


def _from_web(names: Sequence[str], name_from: str, name_to: str, species: str) -> dict[str, str]:
    """Ask MyGene.info; of several answers to a name the one with the highest score counts."""
    _check_installed(biothings_client, "biothings-client", "conversion of gene names by web service", "go-web")
    try:
        client: Any = biothings_client.get_client("gene")
        answers = client.querymany(sorted(set(names)), scopes=name_from, fields=name_to, species=species)
    except Exception as error:  # of one of the libraries that biothings-client may ask with
        msg = (
            f"MyGene.info cannot be asked for annotation IDs of gene names ({type(error).__name__}: {error}); leave "
            "out the conversion by web service, since the annotations' own symbols and synonyms serve too, or give a "
            "file of gene names and annotation IDs"
        )
        raise ConnectionError(msg) from error
    found = {}
    for answer in sorted(answers, key=lambda answer: answer.get("_score", 0.0)):
        identifier = answer
        for part in name_to.split("."):
            identifier = identifier.get(part, {}) if isinstance(identifier, dict) else {}
        if identifier:
            found[answer["query"]] = identifier if isinstance(identifier, str) else identifier[0]
    return {name: found[name] for name in names if name in found}


def goatools_terms(terms: Mapping[str, Term]) -> dict[str, Any]:
    """Return the terms as goatools has them: GOTerm by identifier, alternative ones too, each with kin and depth."""
    found: dict[str, Any] = {}
    for identifier in TopologicalSorter({term.identifier: term.parents for term in terms.values()}).static_order():
        term, made = terms[identifier], GOTerm()
        made.id = made.item_id = identifier
        made.name, made.namespace, made.alt_ids = term.name, term.namespace, set(term.alternatives)
        made.parents = {found[parent] for parent in term.parents}
        made.level = 1 + min((parent.level for parent in made.parents), default=-1)
        made.depth = 1 + max((parent.depth for parent in made.parents), default=-1)
        for parent in made.parents:
            parent.children.add(made)
        found[identifier] = made
    return found | {other: found[term.identifier] for term in terms.values() for other in term.alternatives}


def _study(
    genes: Sequence[str],
    identifiers: Mapping[str, str],
    population: Sequence[str],
    annotated: dict[str, set[str]],
    ontology: Mapping[str, Any],
    goa_file: str | Path,
) -> pd.DataFrame:
    """Test all terms; by ascending P-value, and of equal ones the most special first."""
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(genes):
        if name in identifiers:
            names.setdefault(identifiers[name], []).append(name)
    if annotated.keys().isdisjoint(names):
        msg = f"none of the {len(genes):,} genes, the first {genes[0]!r}, is annotated to a {NAMESPACE} in {goa_file}"
        raise NoEnrichmentError(msg)
    study = GOEnrichmentStudy(population, annotated, ontology, methods=["bonferroni"], log=None)
    rows = [_row(record, names) for record in study.run_study(sorted(names))]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"depth": "uint8"})
    return table.sort_values(
        ["p_uncorrected", "depth", "GO"], ascending=[True, False, True], kind="stable", ignore_index=True
    )


def _row(record: Any, names: Mapping[str, Iterable[str]]) -> tuple[Any, ...]:
    """Return a row of the table of one result of goatools."""
    (n_study, study_size), (n_population, population_size) = record.ratio_in_study, record.ratio_in_pop
    return (
        record.name,
        record.depth,
        float(record.p_uncorrected),
        float(record.p_bonferroni),
        n_study / study_size / (n_population / population_size),
        f"{n_study}/{study_size}",
        f"{n_population}/{population_size}",
        record.GO,
        ",".join(name for identifier in sorted(record.study_items) for name in names[identifier]),
    )


def _top_term(table: pd.DataFrame, nmin: int) -> str:
    n_study = table["ratio_in_study"].str.split("/").str[0].astype(int)
    enriched = table.loc[(table["odds_ratio"] > 1) & (n_study >= nmin), "GO"]
    if enriched.empty:
        msg = f"no term is enriched with {nmin} or more of the genes; lower nmin, or take more genes"
        raise NoEnrichmentError(msg)
    return str(enriched.iloc[0])


def _check_installed(module: Any, package: str, what: str, extra: str) -> None:
    if module is None:
        msg = f"{what} needs {package}, which is not installed; pip install 'normalisr-dask[{extra}]'"
        raise ImportError(msg)
