"""Digests of results, by which runs are compared bit by bit."""

import hashlib
from pathlib import Path

import numpy as np
import zarr


def result_digests(output: str | Path, *, use_consolidated: bool | None = None) -> dict[str, str]:
    """Return a digest of every array and of every table in the output folder of a run, by name.

    Parameters
    ----------
    output
        Of a run that is done, or that was interrupted anywhere.
    use_consolidated
        Which metadata readers of the result store go by, as Zarr takes it: None for the consolidated if there are any.

    Returns
    -------
    dict
        For arrays type, shape, dimensions and SHA-256 of the values, by ``stage/array``; for tables SHA-256 of the
        file, by its name.

    Notes
    -----
    Memory: the largest array.
    """
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(output).glob("*.parquet")}
    path = Path(output) / "results.zarr"
    if (path / "zarr.json").exists():
        root = zarr.open_group(path, mode="r", use_consolidated=use_consolidated)
        for name, array in root.members(max_depth=None):
            if isinstance(array, zarr.Array):
                values = np.asarray(array[...])
                content = repr(values.tolist()).encode() if values.dtype.kind == "T" else values.tobytes()
                kind = f"{values.dtype} {array.shape} {array.metadata.to_dict()['dimension_names']}"
                found[name] = f"{kind} {hashlib.sha256(content).hexdigest()}"
    return found
