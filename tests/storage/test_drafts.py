"""Outputs appear together, when all are whole, or not at all."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from normalisr_dask.storage.drafts import Drafts


def write(drafts: Drafts, *outputs: Path) -> None:
    for output in outputs:
        draft = Path(drafts[str(output)])
        assert draft != output
        assert draft.parent == output.parent
        if output.suffix == ".zarr":
            zarr.create_array(draft, data=np.array([1, 2]))
        else:
            draft.write_text("new")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_outputs_appear_at_the_end_and_replace_what_was_there(tmp_path):
    text, store = tmp_path / "a.tsv", tmp_path / "b.zarr"
    text.write_text("old")
    zarr.create_array(store, data=np.array([7]))
    (store / "old").write_text("of the old store")
    with Drafts([str(text), str(store)]) as drafts:
        write(drafts, text, store)
        scratch = drafts.scratch()
        assert scratch.parent == tmp_path
        assert text.read_text() == "old"
    assert names(tmp_path) == {"a.tsv", "b.zarr"}
    assert text.read_text() == "new"
    assert zarr.open_array(store)[:].tolist() == [1, 2]
    assert not (store / "old").exists()


def test_after_an_error_everything_is_as_before(tmp_path):
    text, store, kept = tmp_path / "a.tsv", tmp_path / "b.zarr", tmp_path / "c.tsv"
    kept.write_text("old")

    def fail() -> None:
        with Drafts(map(str, (text, store, kept))) as drafts:
            (drafts.scratch() / "file").write_text("needed meanwhile")
            write(drafts, text, store, kept)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert names(tmp_path) == {"c.tsv"}
    assert kept.read_text() == "old"


def test_a_file_takes_the_place_of_a_store_and_a_store_that_of_a_file(tmp_path):
    was_store, was_file = tmp_path / "a.tsv", tmp_path / "b.zarr"
    zarr.create_array(was_store, data=np.array([7]))
    was_file.write_text("old")
    with Drafts([str(was_store), str(was_file)]) as drafts:
        write(drafts, was_store, was_file)
    assert was_store.read_text() == "new"
    assert zarr.open_array(was_file)[:].tolist() == [1, 2]
    assert names(tmp_path) == {"a.tsv", "b.zarr"}


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.tsv", tmp_path / "link.tsv"
    real.write_text("old")
    link.symlink_to(real)
    with Drafts([str(link)]) as drafts:
        Path(drafts[str(link)]).write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_devices_and_urls_are_written_in_place():
    with Drafts(["/dev/null", "/dev/stdout", "s3://bucket/a.zarr"]) as drafts:
        assert drafts["/dev/null"] == Path("/dev/null")
        assert drafts["/dev/stdout"] == Path("/dev/stdout")  # even if it is a file
        assert drafts["s3://bucket/a.zarr"] == "s3://bucket/a.zarr"
    assert not Path("/dev/null").is_file()


def test_bad_names_are_refused_before_anything_is_done(tmp_path):
    (tmp_path / "folder").mkdir()
    for outputs, error, message in (
        (["a", "a"], ValueError, "a is named as an output twice"),
        ([str(tmp_path / "folder")], FileExistsError, "is a folder and no Zarr store"),
        ([str(tmp_path / "none" / "a.tsv")], FileNotFoundError, "there is no folder .*none to write a.tsv into"),
    ):
        with pytest.raises(error, match=message):
            Drafts(outputs)
    assert names(tmp_path) == {"folder"}
