"""What Normalisr's commands do: compute where they are told to."""

from collections.abc import Callable
from typing import Any

from normalisr_dask.cli.computing import computing_in_threads
from normalisr_dask.cli.options import ClusterOptions
from normalisr_dask.commands import association, counts, normalisation

COMMANDS: dict[str, Callable[..., None]] = {
    "qc_reads": counts.qc_reads,
    "subset": counts.subset,
    "lcpm": counts.lcpm,
    "normcov": normalisation.normcov,
    "fitvar": normalisation.fitvar,
    "qc_outlier": normalisation.qc_outlier,
    "normvar": normalisation.normvar,
    "de": association.de,
    "coex": association.coex,
    "binnet": association.binnet,
    "gocovt": association.gocovt,
}


def call(command: str, cluster: ClusterOptions, n_threads: int, *arguments: Any, **options: Any) -> None:
    """Run a command with these arguments."""
    with computing_in_threads(cluster, n_threads):
        COMMANDS[command](*arguments, **options)
