"""What a section of the page is, and what all sections are made from."""

from dataclasses import dataclass, field
from typing import Any

from normalisr_dask.storage.linear_fits import STAGE
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore


@dataclass(frozen=True)
class FinishedRun:
    """A run whose results are stored.

    Attributes
    ----------
    results
        Its result store.
    manifest
        What made it.
    """

    results: ResultStore
    manifest: Manifest

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the last call of the run."""
        return dict(self.manifest.content["settings"])

    def has(self, stage: str) -> bool:
        """Return whether a stage is recorded and stored."""
        return self.manifest.is_done(stage) and self.results.has(stage)


@dataclass(frozen=True)
class FinishedFit:
    """Linear models whose fit is stored.

    Attributes
    ----------
    entries
        Of the fit, by name.
    manifest
        What made it.
    """

    entries: dict[str, Any]
    manifest: Manifest

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return dict(self.manifest.content["settings"])

    @property
    def hits(self) -> dict[str, list[int]]:
        """Number of significant genes up and down, by contrast."""
        return dict(self.manifest.stage(STAGE)["hits"])


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    anchor
        Its id on the page.
    title
        Its heading.
    content
        What its template, ``templates/<anchor>.html``, shows.
    facts
        Numbers for the head of the page, by name.
    cautions
        What the reader should know before trusting the numbers.
    data
        What the script of the page needs.
    """

    anchor: str
    title: str
    content: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
