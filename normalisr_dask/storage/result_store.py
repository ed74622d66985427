"""The result store: one Zarr group a stage with named dimensions, published whole or not at all.

A stage is written to a work folder beside the results and renamed into place when it is complete, so that what stands
under ``results.zarr`` is always whole. A run that would write the same goes on with what an interrupted one has left in
the work folder: each of its chunks and files is whole, since they appear by a rename, too.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from normalisr_dask.schema import FORMAT_VERSION, STAGES, Variable, kind_of

RESULTS, WORK = "results.zarr", "work"
#: Attribute of an unfinished stage, and file of a folder of unfinished work: what tells whether to go on with it.
MADE_WITH = "made_with"
#: Largest chunk of a stored array.
CHUNK_BYTES = 16 << 20


class ResultStore:
    """Results of a run in an output folder.

    Parameters
    ----------
    output
        The output folder; it need not exist yet.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.path = self.output / RESULTS

    def create(self) -> None:
        """Make the empty store where there is none yet."""
        if not (self.path / "zarr.json").is_file():
            zarr.create_group(self.path, zarr_format=3, attributes={"format_version": FORMAT_VERSION})

    def clear_work(self) -> None:
        """Remove the work folder, when nothing more is to be done."""
        shutil.rmtree(self.output / WORK, ignore_errors=True)

    def has(self, stage: str) -> bool:
        """Return whether the stage is there, whole."""
        return (self.path / stage / "zarr.json").is_file()

    def remove(self, stage: str) -> None:
        """Remove a stage that is to be made again, so that at no time readers see a part of it."""
        if not (self.path / stage).exists():
            return
        # The consolidated metadata of the root would go on to show the stage, with zeros in place of what is gone.
        root = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        root.update_attributes({"format_version": FORMAT_VERSION})
        removed = self._work(f"{stage}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        removed.parent.mkdir(exist_ok=True)
        (self.path / stage).rename(removed)
        shutil.rmtree(removed)

    def begin(
        self,
        stage: str,
        coordinates: Mapping[str, NDArray[np.object_]],
        chunks: Mapping[str, int] | None = None,
        *,
        made_with: Mapping[str, Any] | None = None,
    ) -> dict[str, zarr.Array]:
        """Make the stage's arrays in the work folder and return them by name, to be filled.

        Parameters
        ----------
        stage
            A stage of :data:`normalisr_dask.schema.STAGES`.
        coordinates
            Names along every dimension of the stage.
        chunks
            Length of chunks along dimensions; whole dimensions where not given.
        made_with
            All else that the values depend on, as JSON. Arrays that an interrupted run has made with the same are
            returned as they are, with the chunks that it has filled: see :func:`stored_chunks`.
        """
        folder = self._work(stage)
        layout = {name: [len(names), _digest(names)] for name, names in coordinates.items()}
        asked = None if made_with is None else _as_json({**made_with, "layout": layout, "chunks": dict(chunks or {})})
        unfinished = _unfinished_arrays(folder, STAGES[kind_of(stage)], asked)
        if unfinished is not None:
            return unfinished
        shutil.rmtree(folder, ignore_errors=True)
        attributes = {"format_version": FORMAT_VERSION, **({} if asked is None else {MADE_WITH: asked})}
        group = zarr.create_group(folder, zarr_format=3, attributes=attributes)
        for name, names in coordinates.items():
            group.create_array(name, data=np.asarray(names).astype(np.dtypes.StringDType()), dimension_names=[name])
        arrays = {}
        for name, variable in STAGES[kind_of(stage)].items():
            shape = tuple(len(coordinates[dim]) for dim in variable.dims)
            arrays[name] = group.create_array(
                name,
                shape=shape,
                dtype=variable.dtype,
                chunks=_chunk_shape(variable.dims, shape, variable.dtype, chunks or {}),
                dimension_names=list(variable.dims),
                attributes={"long_name": variable.meaning},
            )
        return arrays

    def publish(self, stage: str) -> None:
        """Move the filled stage into the results, in one rename."""
        self._work(stage).rename(self.path / stage)
        with warnings.catch_warnings():
            # xarray opens consolidated stores without a warning; zarr warns that the format does not name them yet.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(self.path, zarr_format=3)

    def write(self, stage: str, coordinates: Mapping[str, NDArray[np.object_]], values: Mapping[str, Any]) -> None:
        """Write and publish a stage whose arrays are in memory."""
        arrays = self.begin(stage, coordinates)
        for name, array in arrays.items():
            array[...] = values[name]
        self.publish(stage)

    def stored(self, stage: str, name: str) -> zarr.Array:
        """Return one array of a stage as it is stored; a slice of it is read when it is taken."""
        return zarr.open_array(self.path / stage / name, mode="r")

    def read(self, stage: str, name: str) -> NDArray[Any]:
        """Return one array of a stage, or the names of a dimension, in memory."""
        return np.asarray(self.stored(stage, name)[...])

    def open(self, stage: str, name: str) -> da.Array:
        """Return one array of a stage as a lazy Dask array with the stored chunks."""
        return da.from_zarr(self.stored(stage, name))

    def work_folder(self, name: str, made_with: Mapping[str, Any]) -> Path:
        """Return a folder for what is not yet results: empty, or with what was made with the same before."""
        folder, asked = self._work(name), _as_json(made_with)
        label = folder / f"{MADE_WITH}.json"
        if not label.is_file() or json.loads(label.read_text(encoding="utf-8")) != asked:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            draft = label.with_suffix(".partial")
            draft.write_text(json.dumps(asked), encoding="utf-8")
            draft.replace(label)
        return folder

    def _work(self, stage: str) -> Path:
        return self.output / WORK / stage


def stored_chunks(array: zarr.Array) -> NDArray[np.bool_]:
    """Return which chunks of an array in a folder are stored, in the shape of its grid of chunks.

    Chunks that hold nothing but zeros are not stored.
    """
    folder = Path(str(array.store_path).removeprefix("file://"))
    shape = array.cdata_shape
    keys = (array.metadata.encode_chunk_key(index) for index in np.ndindex(shape))
    return np.array([(folder / key).is_file() for key in keys], dtype=bool).reshape(shape)


def _unfinished_arrays(
    folder: Path, variables: Mapping[str, Variable], asked: Mapping[str, Any] | None
) -> dict[str, zarr.Array] | None:
    """Return the arrays of an unfinished stage that was made with what is asked; None if there are none such."""
    if asked is None or not (folder / "zarr.json").is_file():
        return None
    group = zarr.open_group(folder, mode="r+")
    if group.attrs.get(MADE_WITH) != asked or any(name not in group for name in variables):
        return None
    return {name: zarr.open_array(folder / name, mode="r+") for name in variables}


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON will give them back."""
    return dict(json.loads(json.dumps(values)))


def _digest(names: NDArray[np.object_]) -> str:
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def _chunk_shape(
    dims: tuple[str, ...], shape: tuple[int, ...], dtype: str, chunks: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the chunk shape: as asked for, and long vectors in pieces of at most CHUNK_BYTES."""
    lengths = [max(1, min(chunks.get(dim, size), size)) for dim, size in zip(dims, shape, strict=True)]
    others = int(np.prod(lengths[:-1])) * np.dtype(dtype).itemsize
    lengths[-1] = max(1, min(lengths[-1], CHUNK_BYTES // max(1, others)))
    return tuple(lengths)
