"""normalisr 1.0.0, quiet and in one thread, and the whole chain computed by it: what results are compared with."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from typing import Any
from unittest.mock import patch

import biothings_client
import goatools.associations  # noqa: F401 - binds stdout when first imported, so not in a test that replaces it
import numpy as np
import sklearn.decomposition
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its docstrings hold invalid escape sequences
    import normalisr.gocovt
    import normalisr.normalisr as published

Floats = NDArray[np.float64]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep normalisr's warnings and log lines, which tell of its own doings, out of the tests."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _quietly(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **given: Any) -> Any:
        with quiet():
            return function(*arguments, **options, **given)

    return call


qc_reads = _quietly(published.qc_reads)
qc_outlier = _quietly(published.qc_outlier)
lcpm = _quietly(published.lcpm, nth=1)
scaling_factor = _quietly(published.scaling_factor)
normcov = _quietly(published.normcov)
compute_var = _quietly(published.compute_var)
normvar = _quietly(published.normvar, nth=1)
de = _quietly(published.de, nth=1)
coex = _quietly(published.coex, nth=1)
binnet = _quietly(published.binnet)
goe = _quietly(normalisr.gocovt.goe)
gotop = _quietly(published.gotop)


def pccovt(*arguments: Any, **options: Any) -> Floats:
    """Return what normalisr does, but for its randomised SVD, which is wrong by up to 1 %, and the sign."""
    exact = partial(sklearn.decomposition.TruncatedSVD, algorithm="arpack", tol=0)
    with quiet(), patch.object(sklearn.decomposition, "TruncatedSVD", exact):
        return published.pccovt(*arguments, **options)


class GeneNames:
    """Stands in for the web service of gene names, which normalisr asks and tests cannot reach."""

    def __init__(self, identifiers: dict[str, str]) -> None:
        self.identifiers = identifiers
        self.asked: dict[str, str] = {}

    def querymany(self, names: list[str], **asked: str) -> list[dict[str, Any]]:
        """Answer as the service does: with a score, with the identifiers nested, and with what was not found."""
        self.asked = asked
        found = [
            {"query": name, "_score": 2.0, "ids": {"of": self.identifiers[name]}}
            for name in names
            if name in self.identifiers
        ]
        worse = [answer | {"_score": 1.0, "ids": {"of": "another"}} for answer in found]
        return [*found, *worse, *({"query": name, "notfound": True} for name in names if name not in self.identifiers)]


@contextmanager
def gene_names(identifiers: dict[str, str]) -> Iterator[GeneNames]:
    """Answer questions to the web service from a dict; to be asked with ``conversion=CONVERSION``."""
    service = GeneNames(identifiers)
    with patch.object(biothings_client, "get_client", lambda _: service):
        yield service


CONVERSION = ("symbol", "ids.of", "human")


@dataclass(frozen=True)
class PublishedChain:
    """A data set and what normalisr makes of it, each step when it is first asked for.

    Attributes
    ----------
    reads
        Counts (genes, cells), dense int64, before quality control.
    given_groupings
        0 and 1 (groupings, cells).
    bounds
        Arguments of qc_reads.
    """

    reads: NDArray[np.int64]
    given_groupings: Floats
    bounds: tuple[float, ...]

    @cached_property
    def kept(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return qc_reads(self.reads, *self.bounds)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        return np.ascontiguousarray(self.reads[np.ix_(*self.kept)])

    @cached_property
    def log_cpm(self) -> Floats:
        return self._log_cpm[0]

    @cached_property
    def summary(self) -> Floats:
        return self._log_cpm[3]

    @cached_property
    def _log_cpm(self) -> tuple[Floats, ...]:
        return lcpm(self.counts)

    @cached_property
    def scaling(self) -> Floats:
        return scaling_factor(self.counts)

    @cached_property
    def covariates(self) -> Floats:
        return normcov(self.summary)

    @cached_property
    def weights(self) -> Floats:
        return compute_var(self.log_cpm, self.covariates)

    @cached_property
    def inliers(self) -> NDArray[np.bool_]:
        return qc_outlier(self.weights)

    @cached_property
    def groupings(self) -> Floats:
        """Groupings of the cells that are left at the end."""
        return self.given_groupings[:, self.kept[1]][:, self.inliers]

    @cached_property
    def normalised(self) -> tuple[Floats, Floats]:
        cells = self.inliers
        return tuple(normvar(self.log_cpm[:, cells], self.covariates[:, cells], self.weights[cells], self.scaling))

    @cached_property
    def differential(self) -> tuple[Floats, ...]:
        return de(self.groupings, *self.normalised, lowmem=False)
