"""Vectors of local Zarr arrays read in the calling thread: what Zarr reads, or an error."""

import json

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec

from normalisr_dask.storage.local_vectors import LocalVector, as_local_vector

DTYPES = ["uint8", "uint16", "uint32", "int32", "int64"]
VALUES = np.arange(1, 24, dtype=np.uint16)


def make(folder, values=VALUES, *, chunk=4, shard=8, codec=None, **options):
    array = zarr.create_array(
        folder,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk,) * values.ndim,
        shards=None if shard is None else (shard,) * values.ndim,
        compressors=codec or BloscCodec(cname="zstd", clevel=1, typesize=values.dtype.itemsize),
        **options,
    )
    array[...] = values
    return array


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), n=st.integers(0, 60), chunk=st.integers(1, 9))
def test_every_run_is_what_zarr_reads(tmp_path_factory, data, dtype, n, chunk):
    chunks_per_shard = data.draw(st.sampled_from([None, 1, 2, 3]))
    values = np.random.default_rng(0).integers(0, 3, n).astype(dtype)
    values[data.draw(st.integers(0, n)) :] = 0  # Zarr writes neither chunks nor files of zeros
    shard = None if chunks_per_shard is None else chunk * chunks_per_shard
    array = make(tmp_path_factory.mktemp("vector") / "a.zarr", values, chunk=chunk, shard=shard)
    vector = as_local_vector(array)
    assert isinstance(vector, LocalVector)
    start, stop = data.draw(st.integers(-2, n + 3)), data.draw(st.integers(-2, n + 3))
    for place in (slice(start, stop), slice(None), slice(start, None)):
        found = vector[place]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array[place])


@pytest.mark.parametrize(
    "options",
    [
        {"codec": GzipCodec()},
        {"codec": [BloscCodec(), GzipCodec()]},
        {"fill_value": 7},
        {"values": VALUES.astype(np.float64)},
        {"values": VALUES.reshape(1, -1)},
        {"serializer": BytesCodec(endian="big")},
        {"zarr_format": 2, "shard": None, "codec": "auto"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_arrays_stay_as_they_are(tmp_path, options):
    array = make(tmp_path / "a.zarr", **options)
    assert as_local_vector(array) is array


def test_arrays_that_are_not_in_a_folder_stay_as_they_are():
    array = make(zarr.storage.MemoryStore())
    assert as_local_vector(array) is array


@pytest.mark.parametrize("shard", [8, None])
def test_a_file_that_was_cut_off_or_changed_is_an_error(tmp_path, shard):
    vector = as_local_vector(make(tmp_path / "a.zarr", shard=shard))
    file = tmp_path / "a.zarr" / "c" / "1"
    content = file.read_bytes()
    for harmed in (content[:-1], content[1:], b"", content[:3], content[:20], b"\xff" * len(content)):
        file.write_bytes(harmed)
        with pytest.raises((ValueError, RuntimeError)):
            vector[:]


def test_values_that_were_changed_since_are_read_again(tmp_path):
    array = make(tmp_path / "a.zarr")
    vector = as_local_vector(array)
    assert vector[1:3].tolist() == [2, 3]
    array[:] = VALUES + 1
    assert vector[1:3].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"separator":"/"', '"separator":"."'),
        ('"index_location":"end"', '"index_location":"start"'),
        ('"index_codecs"', '"other"'),
    ],
)
def test_other_layouts_of_files_are_left_to_zarr(tmp_path, old, new):
    array = make(tmp_path / "a.zarr")
    file = tmp_path / "a.zarr" / "zarr.json"
    text = json.dumps(json.loads(file.read_text()), separators=(",", ":"))
    assert old in text
    file.write_text(text.replace(old, new))
    assert as_local_vector(array) is array


def test_places_beyond_the_file_are_an_error(tmp_path):
    vector = as_local_vector(make(tmp_path / "a.zarr"))
    file = tmp_path / "a.zarr" / "c" / "0"
    content = file.read_bytes()
    for place in (2**63, 2**40):
        index = place.to_bytes(8, "little") + content[-28:-4]
        file.write_bytes(content[:-36] + index + google_crc32c.value(index).to_bytes(4, "little"))
        with pytest.raises(ValueError, match="it was cut off"):
            vector[:1]


def test_a_change_of_the_index_is_an_error(tmp_path):
    vector = as_local_vector(make(tmp_path / "a.zarr"))
    file = tmp_path / "a.zarr" / "c" / "0"
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="the checksum of its index differs"):
        vector[:1]
