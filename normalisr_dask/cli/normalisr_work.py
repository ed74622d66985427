"""What Normalisr's commands do, but for gocovt, which needs more."""

from normalisr_dask.commands.association import binnet, coex, de
from normalisr_dask.commands.counts import lcpm, qc_reads, subset
from normalisr_dask.commands.normalisation import fitvar, normcov, normvar, qc_outlier

__all__ = ["binnet", "coex", "de", "fitvar", "lcpm", "normcov", "normvar", "qc_outlier", "qc_reads", "subset"]
