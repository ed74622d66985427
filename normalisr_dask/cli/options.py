"""Options that several commands share, as dataclasses, and the decorator that makes them options."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from normalisr_dask.cli.completion import columns_of_store

CLUSTER = "Where to compute (by default on all cores of this machine)"
GROUPINGS = "What to test and what to account for"
SCREEN = "CRISPR screens: targets, controls, which tests, and their calibration"
QUALITY = "Quality control: what a gene or a cell needs to stay (0: no such condition)"


class OtherGroupings(StrEnum):
    """What to do about a cell's other groupings when one is tested."""

    IGNORE = "ignore"
    EXCLUDE = "exclude"
    COVARIATES = "covariates"


class Tested(StrEnum):
    """What to test of a screen."""

    GUIDES = "guides"
    TARGETS = "targets"


class ControlUse(StrEnum):
    """What controls are for."""

    REFERENCE = "reference"
    NEGATIVE = "negative"


Typed = TypeVar("Typed", str | None, list[str])


def path_given(value: Typed) -> Typed:
    """Refuse an empty path, such as a script's variable that is not set leaves: it would be the current folder."""
    if value == "" or (isinstance(value, list) and "" in value):
        msg = "expected the path of a folder or file, found an empty one"
        raise typer.BadParameter(msg)
    return value


@dataclass(frozen=True)
class ClusterOptions:
    """The fields of `normalisr_dask.cluster.ClusterSettings`, as one types them."""

    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address of a running Dask scheduler: tcp://HOST:PORT.", rich_help_panel=CLUSTER
        ),
    ] = None
    scheduler_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File that `dask scheduler --scheduler-file` has written.", rich_help_panel=CLUSTER
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes of the local cluster. By default cores / threads per worker.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    threads_per_worker: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tasks a local worker runs at a time.", rich_help_panel=CLUSTER)
    ] = 1
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Memory of a local worker, such as 1.5GB. By default 80 % of the machine's, shared equally.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    local_directory: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            callback=path_given,
            help="Fast disk for what local workers have to spill.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    tls_ca: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Authority, to encrypt all connections (PEM).", rich_help_panel=CLUSTER),
    ] = None
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate (PEM).", rich_help_panel=CLUSTER)
    ] = None
    tls_key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Its key, if in another file (PEM).", rich_help_panel=CLUSTER),
    ] = None
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard", help="Serve the local cluster's dashboard, to this machine only.", rich_help_panel=CLUSTER
        ),
    ] = False


@dataclass(frozen=True)
class LogOptions:
    """What else than the terminal is told how a command goes."""

    log_json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=path_given,
            help="Add what happens to this file as JSON, one event a line: plan, stages, warnings, and how it ended.",
        ),
    ] = None


@dataclass(frozen=True)
class GroupingOptions:
    """What `run` tests and accounts for; fields of `normalisr_dask.pipeline.RunSettings`."""

    groupings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Groupings to test, such as guides: TSV, CSV (each also .gz) or Parquet with the cells' names in the "
            "first column and a grouping in each other one; or Matrix Market, groupings × cells as in the store.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    grouping_names: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="For groupings in Matrix Market: a name on each line.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    grouping_cells: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="For groupings in Matrix Market whose cells are not those of the store in their order: a cell's name "
            "on each line.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    groupby: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            autocompletion=columns_of_store,
            help="Instead of a file: test each label in this column of the store's cell table.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="With --groupby: the label whose cells are in no grouping.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    other_groupings: Annotated[
        OtherGroupings,
        typer.Option(
            help="What to do with the other groupings while one is tested: ignore them, exclude the cells that are in "
            "others, or take all others as covariates.",
            rich_help_panel=GROUPINGS,
        ),
    ] = OtherGroupings.IGNORE
    covariates: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="TSV, CSV (each also .gz) or Parquet with the cells' names in the first column and a covariate in "
            "each other one. A column of labels becomes one covariate for each label but the first.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None
    covariate_columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            autocompletion=columns_of_store,
            help="Columns of the store's cell table to take as covariates.",
            rich_help_panel=GROUPINGS,
        ),
    ] = None


@dataclass(frozen=True)
class ScreenOptions:
    """What else `run` can do with the groupings of a screen; fields of `normalisr_dask.pipeline.RunSettings`."""

    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table (TSV, CSV or Parquet) with guides in the first column and their targets in the second.",
            rich_help_panel=SCREEN,
        ),
    ] = None
    test: Annotated[
        Tested | None,
        typer.Option(
            help="Test each guide, or the cells with any guide of a target. By default targets where --targets is "
            "given. Negative controls are tested guide by guide.",
            rich_help_panel=SCREEN,
        ),
    ] = None
    control: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Controls, such as non-targeting: names of groupings, or of targets for all their guides.",
            rich_help_panel=SCREEN,
        ),
    ] = None
    control_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Controls, a name on each line.", rich_help_panel=SCREEN),
    ] = None
    control_use: Annotated[
        ControlUse | None,
        typer.Option(
            help="reference: do not test controls, and take their cells to be in no grouping; with --other-groupings "
            "exclude, compare with these cells only. negative: test them, and calibrate with them. By default "
            "reference with --other-groupings exclude, else negative.",
            rich_help_panel=SCREEN,
        ),
    ] = None
    min_grouping_cells: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Cells, after quality control, that a grouping needs to be tested.",
            rich_help_panel=SCREEN,
        ),
    ] = 10
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Table with groupings, guides or targets in the first column and genes in the second: test, and "
            "correct for, these pairs only.",
            rich_help_panel=SCREEN,
        ),
    ] = None
    permutations: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Permute the cells of the groupings N times, test again, and tell how calibrated P-values are.",
            rich_help_panel=SCREEN,
        ),
    ] = 0
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the permutations.", rich_help_panel=SCREEN)] = 0


@dataclass(frozen=True)
class QualityOptions:
    """Bounds of quality control; fields of `normalisr_dask.pipeline.RunSettings`."""

    min_gene_reads: Annotated[
        int, typer.Option(metavar="N", min=0, help="Reads of a gene in all cells.", rich_help_panel=QUALITY)
    ] = 0
    min_gene_cells: Annotated[
        int, typer.Option(metavar="N", min=0, help="Cells in which a gene is seen.", rich_help_panel=QUALITY)
    ] = 50
    min_gene_cell_fraction: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="The same, as a fraction of the cells.", rich_help_panel=QUALITY),
    ] = 0.02
    min_cell_reads: Annotated[
        int, typer.Option(metavar="N", min=0, help="Reads of a cell in all genes.", rich_help_panel=QUALITY)
    ] = 500
    min_cell_genes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Genes seen in a cell.", rich_help_panel=QUALITY)
    ] = 100
    min_cell_gene_fraction: Annotated[
        float,
        typer.Option(metavar="P", min=0, max=1, help="The same, as a fraction of the genes.", rich_help_panel=QUALITY),
    ] = 0.0


def takes_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every dataclass among its parameters.

    Typer makes one option of each parameter. Without this, each command would repeat the ten parameters of the cluster.

    Parameters
    ----------
    command
        A function with parameters that are annotated with dataclasses of options.

    Returns
    -------
    callable
        A function with their fields as keyword parameters in place of the dataclasses.
    """
    given = inspect.signature(command).parameters.values()
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation for parameter in given if is_dataclass(parameter.annotation)
    }
    plain = [parameter for parameter in given if parameter.name not in groups]
    expanded = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for group in groups.values()
        for hints in [get_type_hints(group, include_extras=True)]
        for field in fields(group)
    ]

    @wraps(command)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    parameters = [*plain, *expanded]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call
