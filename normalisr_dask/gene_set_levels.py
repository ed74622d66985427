"""Levels of a run: gene sets that dominate co-expression, found and removed one after the other.

Level 0 is co-expression as it is. Of its network the top Gene Ontology term is found, and the first principal component
of that term's genes is one covariate more at level 1; and so on. Every level is up to three stages of the result store.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.gene_pairs import store_gene_pairs, store_network
from normalisr_dask.ontology import NoEnrichmentError, check_gene_ontology
from normalisr_dask.partitions import Standing
from normalisr_dask.planning import RunPlan
from normalisr_dask.results import TopTerm
from normalisr_dask.schema import is_of_level, stage_of_level
from normalisr_dask.settings import RunSettings
from normalisr_dask.steps.gene_ontology import NoPrincipalGenesError, gotop, pccovt
from normalisr_dask.storage.counts import Counts
from normalisr_dask.storage.manifest import Manifest, fingerprint
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import remove_table, write_enrichment
from normalisr_dask.stored_expression import expression_of_level

#: Principal genes of a network, about, as Normalisr takes them; of few genes, a quarter.
PRINCIPAL_GENES = 100
TITLES = {"coex": "Co-expression", "edges": "Co-expression network", "go": "Gene set"}


def level_titles(last_level: int) -> dict[str, str]:
    """Return what to call the stages of all levels."""
    return {
        stage_of_level(kind, level): f"{title}, level {level}"
        for level in range(last_level + 1)
        for kind, title in TITLES.items()
        if level or kind == "go"
    }


def check_gene_sets(settings: RunSettings, genes: NDArray[np.object_]) -> None:
    """Refuse files of gene sets that are damaged or know none of the genes, before anything is computed.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As :func:`normalisr_dask.goe`.
    """
    if settings.go is not None:
        check_gene_ontology([str(gene) for gene in genes], *settings.go, conversion=settings.go_names)


@dataclass(frozen=True)
class GeneSetLevels:
    """The levels of a run after the network of level 0.

    Attributes
    ----------
    settings
        With files of gene sets.
    results, manifest
        Of the run.
    counts
        Of the whole count store.
    plan
        Of the run.
    standing
        Is told the share of a stage that an interrupted run has left.
    """

    settings: RunSettings
    results: ResultStore
    manifest: Manifest
    counts: Counts
    plan: RunPlan
    standing: Standing

    def stages(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Yield the stages and the work of each, which returns its details.

        A stage is to be done before the next one is asked for: where no term stands out, there is no further level.
        Stages that the manifest has as made with another ``qcut`` or other files are forgotten.
        """
        self._forget_others()
        for level in range(self.settings.go_levels + 1):
            if level > 0:  # a run has those of level 0 without gene sets, too
                gene_pairs = stage_of_level("coex", level)
                if self.settings.coex_store == "all":
                    yield gene_pairs, partial(self._gene_pairs, level)
                elif not self.manifest.is_done(gene_pairs):  # nobody knows with what they were made
                    self.results.remove(gene_pairs)
                yield stage_of_level("edges", level), partial(self._network, level)
            gene_set = stage_of_level("go", level)
            yield gene_set, partial(self._top_term, level)
            if self.manifest.stage(gene_set)["term"] is None:
                return

    @cached_property
    def _made_with(self) -> dict[str, Any]:
        names = () if self.settings.go_names is None else (self.settings.go_names,)
        return {"qcut": self.settings.qcut, "files": [fingerprint(path) for path in (*self._files, *names)]}

    @property
    def _files(self) -> tuple[str, str]:
        if self.settings.go is None:
            msg = "expected files of gene sets among the settings"
            raise ValueError(msg)
        return self.settings.go

    def _forget_others(self) -> None:
        """Remove the stages, with their tables, that were made with other values."""
        for stage in self.manifest.stages():
            done = self.manifest.stage(stage)
            if is_of_level(stage) and any(done[name] != value for name, value in self._made_with.items()):
                self.manifest.forget(stage)
                self.results.remove(stage)
                remove_table(self.results, stage)

    def _gene_pairs(self, level: int) -> dict[str, Any]:
        n_pairs = store_gene_pairs(self.results, self.counts, self.plan, level=level, standing=self.standing)
        return {"note": f"{n_pairs:,} gene pairs", **self._made_with}

    def _network(self, level: int) -> dict[str, Any]:
        qcut = self.settings.qcut
        n_edges = store_network(self.results, self.counts, self.plan, qcut, level=level, standing=self.standing)
        return {"note": f"{n_edges:,} edges at Q <= {qcut}", "edges": n_edges, **self._made_with}

    def _top_term(self, level: int) -> dict[str, Any]:
        """Find the top term of the level's network, and the principal component of its genes."""
        degrees = self.results.read(stage_of_level("edges", level), "degree")
        genes = self.results.read("normalisation", "gene").tolist()
        n_principals = min(PRINCIPAL_GENES, max(1, len(genes) // 4))
        try:
            found = gotop(degrees, genes, *self._files, n=n_principals, conversion=self.settings.go_names)
        except (NoEnrichmentError, NoPrincipalGenesError) as reason:
            self._write(level, genes, None)
            return {"note": f"no term: {reason}", "term": None, **self._made_with}
        self._write(level, genes, found)
        write_enrichment(self.results, level, found.goe)
        (top,) = found.goe.loc[found.goe["GO"] == found.gotop].itertuples()
        return {
            "note": f"{found.gotop} {top.name}, {len(found.genes):,} genes",
            "term": found.gotop,
            "name": top.name,
            "genes": len(found.genes),
            "p_value": top.p_uncorrected,
            "odds_ratio": top.odds_ratio,
            **self._made_with,
        }

    def _write(self, level: int, genes: list[str], found: TopTerm | None) -> None:
        """Fill the stage, with no term where none was found."""
        cells = self.results.read("normalisation", "cell")
        values = {
            "principal": np.zeros(len(genes), dtype=bool),
            "in_term": np.zeros((0, len(genes)), dtype=bool),
            "component": np.zeros((0, cells.size)),
        }
        if found is not None:
            expression, covariates = expression_of_level(self.results, self.counts, level)
            values = {
                "principal": np.isin(genes, found.principals),
                "in_term": np.isin(genes, found.genes)[None, :],
                "component": pccovt(expression, covariates, genes, found.genes)[-1:].compute(),
            }
        terms = np.array([] if found is None else [found.gotop], dtype=object)
        coordinates = {"gene": np.array(genes, dtype=object), "cell": cells, "term": terms}
        self.results.write(stage_of_level("go", level), coordinates, values)
