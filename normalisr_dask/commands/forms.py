"""Expression made of counts, and the vectors of it that a store keeps."""

from typing import Any

import dask.array as da

from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm
from normalisr_dask.storage.expression_store import StoredForm

LOG_CPM, NORMALISED = "log_cpm", "normalised"


def vectors_of(form: LogCpmForm | NormalisedForm) -> tuple[str, dict[str, da.Array]]:
    """Return the kind of a form, and its vectors by name; lazy."""
    if isinstance(form, LogCpmForm):
        return LOG_CPM, {"cell_offset": form.cell_offset}
    return NORMALISED, {
        "cell_offset": form.log_cpm.cell_offset,
        "covariates": form.covariates,
        "weights": form.weights,
        "gene_scaling": form.gene_scaling,
        "fit": form.fit,
    }


def form_of(stored: StoredForm) -> LogCpmForm | NormalisedForm:
    """Return the form that was stored."""
    counts, vectors = stored.counts, stored.vectors

    def by_cell(name: str) -> da.Array:
        values: Any = vectors[name]
        return da.from_array(values, chunks=(*values.shape[:-1], counts.chunks))

    log_cpm = LogCpmForm(counts.matrix, by_cell("cell_offset"))
    if stored.kind == LOG_CPM:
        return log_cpm
    return NormalisedForm.of_fit(
        log_cpm,
        by_cell("covariates"),
        by_cell("weights"),
        da.from_array(vectors["gene_scaling"], chunks=-1),
        da.from_array(vectors["fit"], chunks=-1),
    )
