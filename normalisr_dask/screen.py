"""What a screen tests: guides or their targets, which of them are controls, and with which genes."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.screen_tables import read_name_list, read_pairs, read_targets
from normalisr_dask.storage.tables import NamedRows
from normalisr_dask.validation import check_choice, check_count, did_you_mean, listing


@dataclass(frozen=True)
class Screen:
    """What is tested, over the cells of the store.

    Attributes
    ----------
    groupings
        The groupings that are tested: guides, or the union of each target's guides.
    targets
        Target of each tested grouping; None where no targets are known.
    is_control
        bool (groupings,): which of them are negative controls.
    reference
        Controls that are left out of the tests, so that their cells count as in no grouping; often none.
    pairs
        bool (groupings, genes of the store), sparse: the tests to make; None for all.
    """

    groupings: NamedRows
    targets: tuple[str, ...] | None
    is_control: NDArray[np.bool_]
    reference: NamedRows
    pairs: sparse.csr_array | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether there are controls that tell how calibrated the tests are."""
        return bool(self.is_control.any()) or len(self.reference.names) > 0

    def select(self, rows: NDArray[np.int64]) -> "Screen":
        """Return the screen with these of the tested groupings only."""
        return replace(
            self,
            groupings=_rows(self.groupings, rows),
            targets=None if self.targets is None else tuple(self.targets[row] for row in rows),
            is_control=self.is_control[rows],
            pairs=None if self.pairs is None else self.pairs[rows],
        )


def check_screen_settings(settings: RunSettings) -> None:
    """Refuse settings of a screen that contradict each other or are out of range.

    Raises
    ------
    ValueError
        If there are no groupings, but settings that are about them; or one of several choices is unknown.
    """
    if settings.groupings is None and settings.groupby is None:
        given = {
            "--targets": settings.targets,
            "--control": settings.control,
            "--control-file": settings.control_file,
            "--pairs": settings.pairs,
            "--permutations": settings.permutations,
        }
        for option, value in given.items():
            if value:
                msg = f"{option} needs groupings to test (--groupings or --groupby)"
                raise ValueError(msg)
    if settings.test is not None:
        check_choice(settings.test, ("guides", "targets"), "test")
    if settings.test == "targets" and settings.targets is None:
        msg = "to test targets, give the table of guides and targets (--targets)"
        raise ValueError(msg)
    if settings.control_use is not None:
        check_choice(settings.control_use, ("reference", "negative"), "control_use")
        if not settings.control and settings.control_file is None:
            msg = "what to use controls for (--control-use) needs controls (--control or --control-file)"
            raise ValueError(msg)
    for name in ("min_grouping_cells", "permutations", "seed"):
        check_count(getattr(settings, name), name)


def design_screen(settings: RunSettings, guides: NamedRows, genes: Sequence[str] | NDArray[np.object_]) -> Screen:
    """Make groupings to test of guides (or any groupings), as the settings ask for.

    Parameters
    ----------
    settings
        Of the run; the tables they name are read.
    guides
        Groupings as given, over the cells of the store.
    genes
        Names of the store's genes.

    Returns
    -------
    Screen

    Raises
    ------
    FileNotFoundError
        If a table does not exist.
    ValueError
        If a table is malformed, a guide has no target, or a control or a pair has an unknown name.
    ValueError
        If targets are to be tested and guides have other values than 0 and 1, or nothing is left to test.

    Warns
    -----
    UserWarning
        If the table of targets has guides that are not among the groupings; they are ignored.
    """
    targets = None if settings.targets is None else _targets_of(guides.names, settings.targets)
    is_control = _controls(settings, guides.names, targets)
    reference = _rows(guides, np.arange(0))
    if control_use(settings) == "reference":
        if is_control.all():
            msg = f"all {len(guides.names):,} groupings are controls, and as reference none of them is tested"
            raise ValueError(msg)
        reference, rows = _rows(guides, np.flatnonzero(is_control)), np.flatnonzero(~is_control)
        guides, is_control = _rows(guides, rows), is_control[rows]
        targets = None if targets is None else tuple(targets[row] for row in rows)
    screen = Screen(guides, targets, is_control, reference)
    tests_targets = settings.test == "targets" or (settings.test is None and targets is not None)
    parts = np.arange(len(guides.names))
    if tests_targets:
        screen, parts = _by_target(screen)
    if settings.pairs is not None:
        screen = replace(screen, pairs=_pairs(settings.pairs, screen, guides.names, parts, genes))
    return screen


def groupings_with_enough_cells(screen: Screen, n_cells: NDArray[np.int64], minimum: int) -> NDArray[np.int64]:
    """Return which of the tested groupings have at least ``minimum`` cells (rows, ascending).

    Parameters
    ----------
    screen
        What is tested.
    n_cells
        Cells of every grouping that passed quality control, int64 (groupings,).
    minimum
        Cells that a grouping needs.

    Raises
    ------
    ValueError
        If none has.

    Warns
    -----
    UserWarning
        If some have not; says how many, and names the first.
    """
    enough = n_cells >= minimum
    if not enough.any():
        msg = (
            f"all {enough.size:,} groupings have fewer than {minimum:,} cells after quality control, at most "
            f"{n_cells.max(initial=0):,}; lower --min-grouping-cells"
        )
        raise ValueError(msg)
    few = np.flatnonzero(~enough)
    if len(few):
        msg = (
            f"{len(few):,} of {enough.size:,} groupings have fewer than {minimum:,} cells after quality control and "
            f"are not tested, the first is {screen.groupings.names[few[0]]!r} with {n_cells[few[0]]:,}; "
            "see --min-grouping-cells"
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    return np.flatnonzero(enough)


def control_use(settings: RunSettings) -> str | None:
    """Return what controls are for: as asked for; else the reference where other groupings' cells are excluded."""
    if not settings.control and settings.control_file is None:
        return None
    return settings.control_use or ("reference" if settings.other_groupings == "exclude" else "negative")


def _targets_of(guides: tuple[str, ...], path: str) -> tuple[str, ...]:
    """Return the target of every guide."""
    table = read_targets(path)
    positions = table.index.get_indexer(pd.Index(guides))
    missing = np.flatnonzero(positions < 0)
    if len(missing):
        msg = (
            f"{path} names no target of {len(missing):,} of {len(guides):,} groupings, "
            f"the first is {guides[missing[0]]!r}; its first column must name every guide"
        )
        raise ValueError(msg)
    n_others = len(table) - len(guides)
    if n_others:
        first = table.index.difference(pd.Index(guides), sort=False)[0]
        msg = f"{path}: {n_others:,} of {len(table):,} guides are not among the groupings and are ignored: {first!r}, …"
        warnings.warn(msg, UserWarning, stacklevel=2)
    return tuple(table.iloc[positions])


def _controls(settings: RunSettings, guides: tuple[str, ...], targets: tuple[str, ...] | None) -> NDArray[np.bool_]:
    """Return which guides are controls by their own name or by their target's."""
    names = [*settings.control]
    if settings.control_file is not None:
        names.extend(read_name_list(settings.control_file))
    known = _rows_by_name(guides, targets)
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = (
            f"{len(unknown):,} of {len(names):,} controls are neither groupings nor targets, the first is "
            f"{unknown[0]!r}; there are the groupings {listing(guides, shown=3)}"
        )
        if targets is not None:
            msg += f" and the targets {listing(dict.fromkeys(targets), shown=3)}"
        msg += did_you_mean(unknown[0], known)
        raise ValueError(msg)
    is_control = np.zeros(len(guides), dtype=bool)
    for name in names:
        is_control[known[name]] = True
    return is_control


def _by_target(screen: Screen) -> tuple[Screen, NDArray[np.int64]]:
    """Unite the guides of each target, but keep every negative control for itself: each is a null of its own.

    Returns
    -------
    The screen of targets, and the row in it of every guide.
    """
    guides, targets = screen.groupings, screen.targets or ()
    data = guides.values.data
    wrong = np.flatnonzero((data != 0) & (data != 1))
    if len(wrong):
        row = int(np.searchsorted(guides.values.indptr, wrong[0], side="right")) - 1
        msg = (
            f"the guides of a target are united where they are 0 or 1, but grouping {guides.names[row]!r} has "
            f"{data[wrong[0]]:g}; use --test guides"
        )
        raise ValueError(msg)
    own_names = [
        (guide if control else target, control)
        for guide, target, control in zip(guides.names, targets, screen.is_control, strict=True)
    ]
    row_of = {name: row for row, name in enumerate(dict.fromkeys(own_names))}
    names = tuple(name for name, _ in row_of)
    for name, n_rows in Counter(names).items():
        if n_rows > 1:
            msg = f"{name!r} is both a control guide and a target; rename one of them, or use --test guides"
            raise ValueError(msg)
    parts = np.array([row_of[name] for name in own_names], dtype=np.int64)
    n_guides = len(own_names)
    sums = sparse.csr_array((np.ones(n_guides), (parts, np.arange(n_guides))), shape=(len(names), n_guides))
    united = sparse.csr_array(sums @ guides.values)
    united.sum_duplicates()
    united.data = np.minimum(united.data, 1.0)
    united.eliminate_zeros()
    first = np.unique(parts, return_index=True)[1]
    return (
        Screen(
            NamedRows(names, guides.cells, united),
            tuple(targets[guide] for guide in first),
            screen.is_control[first],
            screen.reference,
        ),
        parts,
    )


def _pairs(
    path: str,
    screen: Screen,
    guides: tuple[str, ...],
    parts: NDArray[np.int64],
    genes: Sequence[str] | NDArray[np.object_],
) -> sparse.csr_array:
    """Return the tests that the pairs ask for; a name is that of a tested grouping, a target, or a guide."""
    pairs = read_pairs(path)
    known = {guide: parts[[row]] for row, guide in enumerate(guides)}
    known |= _rows_by_name(screen.groupings.names, screen.targets)
    _refuse_unknown(path, "groupings", [name for name in pairs.index if name not in known], list(known))
    gene_positions = pd.Index(genes).get_indexer(pd.Index(pairs.to_numpy()))
    _refuse_unknown(path, "genes", list(pairs.iloc[np.flatnonzero(gene_positions < 0)]), genes)
    rows = [known[name] for name in pairs.index]
    columns = np.repeat(gene_positions, [len(positions) for positions in rows])
    entries = (np.ones(len(columns), dtype=bool), (np.concatenate(rows), columns))
    tests = sparse.coo_array(entries, shape=(len(screen.groupings.names), len(genes))).tocsr()
    return sparse.csr_array(tests.astype(bool))


def _refuse_unknown(path: str, what: str, unknown: list[str], known: Sequence[str] | NDArray[np.object_]) -> None:
    """Name the first of the unknown names in a table of pairs."""
    if unknown:
        names = dict.fromkeys(unknown)
        msg = (
            f"{path}: {len(names):,} {what} of {len(unknown):,} pairs are unknown, the first is {unknown[0]!r}; "
            f"known are {listing(list(known[:3]), shown=3)} and so on{did_you_mean(unknown[0], known)}"
        )
        raise ValueError(msg)


def _rows_by_name(names: Sequence[str], targets: Sequence[str] | None) -> dict[str, NDArray[np.int64]]:
    """Return the rows that a name means: that of a grouping, or all of a target; groupings go first."""
    rows: dict[str, NDArray[np.int64]] = {}
    if targets is not None:
        codes, labels = pd.factorize(np.array(targets, dtype=object))
        order = np.argsort(codes, kind="stable")
        rows = dict(zip(labels, np.split(order, np.cumsum(np.bincount(codes))[:-1]), strict=True))
    return rows | {name: np.array([row]) for row, name in enumerate(names)}


def _rows(groupings: NamedRows, rows: NDArray[np.int64]) -> NamedRows:
    """Return some groupings."""
    names = tuple(groupings.names[row] for row in rows)
    return NamedRows(names, groupings.cells, sparse.csr_array(groupings.values[rows]))
