"""The manifest of a run: what made the results, which stages are done, and what they took."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from normalisr_dask.schema import FORMAT_VERSION
from normalisr_dask.storage.folder_lock import LOCK
from normalisr_dask.storage.locations import as_path, has_file, is_local, make_folder, remove_folder, whole_file
from normalisr_dask.storage.outputs import check_outside_stores
from normalisr_dask.storage.url_errors import url_errors
from normalisr_dask.validation import did_you_mean, listing

MANIFEST = "manifest.json"
DRAFT = "manifest.json.partial"
PACKAGES = ("normalisr-dask", "dask", "distributed", "zarr", "numpy", "scipy", "numba", "anndata")
#: What every manifest has beside its version.
PARTS = ("stages", "versions", "settings", "inputs")
#: Settings that may change between runs into the same folder: they add to it, or remake what depends on them.
FREE_SETTINGS = frozenset(
    {
        *("output", "store", "groupings", "grouping_names", "grouping_cells", "covariates"),
        *("targets", "control_file", "pairs"),
        *("coex", "coex_store", "qcut", "go", "go_levels", "go_names", "permutations", "seed"),
    }
)


class Manifest:
    """``manifest.json`` of an output folder; every change is written at once, whole or not at all.

    Parameters
    ----------
    output
        The output folder.
    """

    def __init__(self, output: str | Path) -> None:
        self.path = as_path(output) / MANIFEST
        self.content: dict[str, Any] = {}

    @classmethod
    def read(cls, output: str | Path) -> "Manifest":
        """Read the manifest of a folder.

        Raises
        ------
        FileNotFoundError
            If the folder holds no run.
        ValueError
            If the manifest is damaged or of another format version.
        """
        manifest = cls(output)
        try:
            with url_errors(output):
                manifest.content = json.loads(manifest.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(_what_is_in_place_of_a_run(output)) from error
        except ValueError as error:
            msg = f"{manifest.path} is damaged ({error}); remove the folder {output} and run again"
            raise ValueError(msg) from error
        if not isinstance(manifest.content, dict):
            msg = f"{manifest.path} is damaged (it holds no table); remove the folder {output} and run again"
            raise ValueError(msg)
        found = manifest.content.get("format_version")
        if found != FORMAT_VERSION:
            msg = (
                f"{manifest.path} is of format version {found}, expected {FORMAT_VERSION}; choose another output folder"
            )
            raise ValueError(msg)
        missing = [part for part in PARTS if not isinstance(manifest.content.get(part), dict)]
        if missing:
            msg = f"{manifest.path} is damaged (it lacks {listing(missing)}); remove the folder {output} and run again"
            raise ValueError(msg)
        return manifest

    @classmethod
    def begin(cls, output: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> "Manifest":
        """Open the folder of a run and write what the run is; arguments and errors of :meth:`of_run`."""
        manifest = cls.of_run(output, settings, inputs)
        if not manifest.stages():
            manifest.content["started"] = _now()
        manifest.write()
        return manifest

    @classmethod
    def of_run(cls, output: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> "Manifest":
        """Return the manifest of a folder, a new one or one that the same run has begun; writes nothing.

        Raises
        ------
        ValueError
            If the folder holds another run, or files that are no run's.
        """
        folder = as_path(output)
        check_outside_stores(output)
        # As JSON will give them back, so that runs can be compared.
        settings, inputs = (json.loads(json.dumps(values)) for values in (settings, inputs))
        with url_errors(output):
            is_begun = has_file(folder / MANIFEST)
            is_taken = not is_begun and folder.exists() and not _is_free(folder)
        if is_taken:
            msg = f"output folder {output} holds other files and no run; give an empty or a new folder"
            raise ValueError(msg)
        if is_begun:
            manifest = cls.read(folder)
            if manifest.stages():
                manifest._refuse_another_run(settings, inputs)
        else:
            manifest = cls(folder)
            manifest.content = {"format_version": FORMAT_VERSION, "stages": {}}
        manifest.content |= {
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "settings": settings,
            "inputs": inputs,
        }
        return manifest

    def stages(self) -> list[str]:
        """Return the stages that are recorded as done, in order."""
        return list(self.content["stages"])

    def is_done(self, stage: str) -> bool:
        """Return whether the stage is recorded as done."""
        return stage in self.content["stages"]

    def stage(self, stage: str) -> dict[str, Any]:
        """Return what was recorded of a stage that is done."""
        return dict(self.content["stages"][stage])

    @property
    def cells_per_block(self) -> int:
        """Cells of the blocks in which the first of the stages was made that are done; 0 if none is."""
        return next((int(stage.get("cells_per_block", 0)) for stage in self.content["stages"].values()), 0)

    def record(self, stage: str, details: Mapping[str, Any]) -> None:
        """Record a stage as done, with seconds, peak memory and whatever else is known."""
        self.content["stages"][stage] = dict(details)
        self.content["finished"] = _now()
        self.write()

    def record_warnings(self, texts: Sequence[str]) -> None:
        """Record what the inputs of the last call gave rise to."""
        self.content["warnings"] = list(texts)
        self.write()

    def forget(self, stage: str) -> None:
        """Record that a stage is to be made again."""
        self.content["stages"].pop(stage, None)
        self.write()

    def write(self) -> None:
        """Write the manifest, whole or not at all."""
        make_folder(self.path.parent)
        with whole_file(self.path) as draft, draft.open("w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def _refuse_another_run(self, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        before = self.content
        for name, value in settings.items():
            found = before["settings"].get(name)
            if name not in FREE_SETTINGS and found != value:
                msg = (
                    f"{self.path.parent} holds another run: it has {name} = {found!r}, asked for is {value!r}; "
                    "choose another output folder, or remove this one"
                )
                raise ValueError(msg)
        for name in inputs.keys() | before["inputs"].keys():
            if before["inputs"].get(name) != inputs.get(name):
                msg = (
                    f"{self.path.parent} holds a run on other {name}; choose another output folder, or remove this one"
                )
                raise ValueError(msg)


def _now() -> str:
    """Return the time, the same in all time zones, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_free(folder: Path) -> bool:
    """Whether a run may begin in a folder: it is empty but for what a run left that died over its manifest."""
    return folder.is_dir() and all(path.name == DRAFT or path.name.startswith(LOCK) for path in folder.iterdir())


def is_new_output(output: str | Path) -> bool:
    """Return whether an output folder is yet to be made, on a disk."""
    folder = as_path(output)
    return is_local(folder) and not folder.exists()


@contextmanager
def nothing_left_of_bad_input(output: str | Path, *, is_new: bool) -> Iterator[None]:
    """Remove a new output where bad input ends its first run before any stage is done, so that there is no run in it.

    To be entered with the lock of the output, so that nobody else's is removed.

    Parameters
    ----------
    output
        The output folder.
    is_new
        Whether it was new before its lock was taken, which makes it.

    Raises
    ------
    ValueError
        As the block does.
    """
    folder = as_path(output)
    try:
        yield
    except ValueError:
        if is_new and not (has_file(folder / MANIFEST) and Manifest.read(folder).stages()):
            remove_folder(folder)
        raise


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, by which a later run knows its input again."""
    digest, n_bytes = hashlib.sha256(), 0
    with as_path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            n_bytes += len(block)
    return {"bytes": n_bytes, "sha256": digest.hexdigest()}


def _what_is_in_place_of_a_run(output: str | Path) -> str:
    """Say what is in a place where a run was looked for."""
    path = as_path(output)
    if is_local(path):
        if not path.exists():
            return f"there is no folder {output}{did_you_mean(path.name, _outputs_in(path.parent))}"
        whole = path.resolve().parent
        if has_file(whole / MANIFEST):
            return f"{output} is a part of the output {whole}; give that folder"
        if near := _outputs_in(path):
            return f"{output} holds no run; in it are {listing(near)}"
    return f"{output} holds no run: there is no {MANIFEST} in it"


def _outputs_in(folder: Path) -> list[str]:
    """Return the names of the outputs in a folder, sorted; none if it is no folder."""
    return sorted(path.name for path in folder.iterdir() if has_file(path / MANIFEST)) if folder.is_dir() else []
