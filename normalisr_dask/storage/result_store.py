"""The result store: one Zarr group a stage with named dimensions, published whole or not at all.

A stage is written to a work folder beside the results and published when it is complete: renamed into place, or at a
URL copied there with what readers know it by last. So what stands under ``results.zarr`` is always whole. A run that
would write the same goes on with what an interrupted one has left in the work folder: each of its chunks and files is
whole, since they appear by a rename, or are sent whole, too.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from normalisr_dask.schema import FORMAT_VERSION, STAGES, Variable, kind_of
from normalisr_dask.storage.damage import check_chunks, reading
from normalisr_dask.storage.locations import (
    ALL_CHUNKS,
    METADATA,
    as_path,
    for_tasks,
    has_file,
    is_local,
    make_folder,
    open_array,
    publish_folder,
    remove_folder,
    whole_file,
    zarr_store,
)

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
        The output folder, or its URL; it need not exist yet.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = as_path(output).absolute()  # workers may be in another folder
        self.path = self.output / RESULTS

    def create(self) -> None:
        """Make the empty store where there is none yet."""
        if not has_file(self.path / METADATA):
            zarr.create_group(zarr_store(self.path), zarr_format=3, attributes={"format_version": FORMAT_VERSION})

    def clear_work(self) -> None:
        """Remove the work folder, when nothing more is to be done."""
        remove_folder(self.output / WORK)

    def has(self, stage: str) -> bool:
        """Return whether the stage is there, whole."""
        return has_file(self.path / stage / METADATA)

    def check(self, stage: str) -> None:
        """Refuse a stage of which arrays or chunks are missing, as :meth:`stored` does."""
        variables = STAGES[kind_of(stage)]
        for name in {*variables, *(dim for variable in variables.values() for dim in variable.dims)}:
            self.stored(stage, name)

    def remove(self, stage: str) -> None:
        """Remove a stage that is to be made again, so that at no time readers see a part of it."""
        if not (self.path / stage).exists():
            return
        # The consolidated metadata of the root would go on to show the stage, with zeros in place of what is gone.
        root = zarr.open_group(zarr_store(self.path), mode="r+", use_consolidated=False)
        root.update_attributes({"format_version": FORMAT_VERSION})
        if not is_local(self.path):
            remove_folder(self.path / stage)
            return
        removed = self._work(f"{stage}.removed")
        remove_folder(removed)
        removed.parent.mkdir(exist_ok=True)
        (self.path / stage).rename(removed)
        remove_folder(removed)

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
        remove_folder(folder)
        attributes = {"format_version": FORMAT_VERSION, **({} if asked is None else {MADE_WITH: asked})}
        group = zarr.create_group(zarr_store(folder), zarr_format=3, attributes=attributes)
        for name, names in coordinates.items():
            strings = np.asarray(names).astype(np.dtypes.StringDType())
            group.create_array(name, data=strings, dimension_names=[name], config=ALL_CHUNKS)
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
                config=ALL_CHUNKS,
            )
        return arrays

    def publish(self, stage: str) -> None:
        """Move the filled stage into the results, where readers see it at once and whole."""
        publish_folder(self._work(stage), self.path / stage)
        with warnings.catch_warnings():
            # xarray opens consolidated stores without a warning; zarr warns that the format does not name them yet.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(zarr_store(self.path), zarr_format=3)

    def write(self, stage: str, coordinates: Mapping[str, NDArray[np.object_]], values: Mapping[str, Any]) -> None:
        """Write and publish a stage whose arrays are in memory."""
        arrays = self.begin(stage, coordinates)
        for name, array in arrays.items():
            array[...] = values[name]
        self.publish(stage)

    def begun_with(self, stage: str, dim: str) -> int:
        """Return the length of chunks along a dimension with which a stage was begun or made; 0 if it was not."""
        for folder in (self.path / stage, self._work(stage)):
            if has_file(folder / METADATA):
                attributes: dict[str, Any] = dict(zarr.open_group(zarr_store(folder), mode="r", zarr_format=3).attrs)
                return int(attributes.get(MADE_WITH, {}).get("chunks", {}).get(dim, 0))
        return 0

    def stored(self, stage: str, name: str) -> zarr.Array:
        """Return one array of a stage as it is stored; a slice of it is read when it is taken.

        Raises
        ------
        ValueError
            If chunks of it are missing, which Zarr would read as zeros, or it cannot be opened.
        """
        with self._reading(stage, name):
            array = open_array(self.path / stage / name)
        check_chunks(array, self.path, f"{stage}/{name}", self._way_out)
        return array

    def read(self, stage: str, name: str) -> NDArray[Any]:
        """Return one array of a stage, or the names of a dimension, in memory."""
        array = self.stored(stage, name)
        with self._reading(stage, name):
            return np.asarray(array[...])

    def _reading(self, stage: str, name: str) -> AbstractContextManager[None]:
        return reading(self.path, f"{stage}/{name}", self._way_out)

    @property
    def _way_out(self) -> str:
        return f"remove {self.output} and run again"

    def open(self, stage: str, name: str) -> da.Array:
        """Return one array of a stage as a lazy Dask array with the stored chunks."""
        return lazy(self.stored(stage, name))

    def work_folder(self, name: str, made_with: Mapping[str, Any]) -> Path:
        """Return a folder for what is not yet results: empty, or with what was made with the same before."""
        folder, asked = self._work(name), _as_json(made_with)
        label = folder / f"{MADE_WITH}.json"
        if not has_file(label) or json.loads(label.read_text(encoding="utf-8")) != asked:
            remove_folder(folder)
            make_folder(folder)
            with whole_file(label) as draft:
                draft.write_text(json.dumps(asked), encoding="utf-8")
        return folder

    def _work(self, stage: str) -> Path:
        return self.output / WORK / stage


def lazy(array: zarr.Array) -> da.Array:
    """Return a stored array as a Dask array with its chunks."""
    return da.from_array(for_tasks(array), chunks=array.chunks)


def _unfinished_arrays(
    folder: Path, variables: Mapping[str, Variable], asked: Mapping[str, Any] | None
) -> dict[str, zarr.Array] | None:
    """Return the arrays of an unfinished stage that was made with what is asked; None if there are none such."""
    if asked is None or not has_file(folder / METADATA):
        return None
    group = zarr.open_group(zarr_store(folder), mode="r+", zarr_format=3)
    if group.attrs.get(MADE_WITH) != asked or any(name not in group for name in variables):
        return None
    return {name: open_array(folder / name, mode="r+") for name in variables}


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
