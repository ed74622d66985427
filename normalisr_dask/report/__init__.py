"""The report of a run: one HTML file with figures and tables, made of its result store alone.

Drawing needs the packages of the extra ``report``, which are imported when a report is written.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from normalisr_dask.storage.locations import as_path

REPORT = "report.html"
#: Packages of the extra.
NEEDED = ("jinja2", "matplotlib")


def write_report(output: str | Path) -> Path:
    """Write ``report.html`` into the output folder of a run.

    Parameters
    ----------
    output
        The output folder.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    FileNotFoundError
        If the folder holds no run.
    ImportError
        If a package of the extra ``report`` is not installed.
    ValueError
        If quality control and normalisation of the run are not done yet.

    Notes
    -----
    Reads the stored tests a block of groupings at a time, and the table of edges a batch at a time. Memory: vectors of
    length genes and cells, and some 400 MB. Time: some 5 ms a grouping of 20,000 genes, and 1 s for 3 million edges.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        msg = (
            f"the report needs {' and '.join(missing)}: install them with pip install 'normalisr-dask[report]', "
            f"then run normalisr-dask report {output}"
        )
        raise ImportError(msg)
    path: Path = import_module("normalisr_dask.report.page").write(as_path(output), REPORT)
    return path
