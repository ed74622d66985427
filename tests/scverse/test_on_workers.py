"""AnnData in place, computed by workers in other processes."""

from pathlib import Path

import anndata
import pytest
from anndata_chain import assert_same_results, run_chain
from distributed import Client


@pytest.mark.slow
@pytest.mark.parametrize("is_backed", [True, False])
def test_workers_find_the_same(
    is_backed: bool, client: Client, original: anndata.AnnData, processed: anndata.AnnData, tmp_path: Path
) -> None:
    adata = original.copy()
    if is_backed:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert_same_results(run_chain(adata).to_memory(), processed, 1e-9)
    assert client.scheduler_info()["workers"]
