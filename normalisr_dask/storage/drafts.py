"""Output files under temporary names, which become the real ones together, when all of them are whole."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.disk_space import DISK_FULL, disk_full_errors
from normalisr_dask.storage.outputs import check_outside_stores


class Drafts:
    """The outputs of one command: written beside their places, moved there where a ``with`` block ends without error.

    Parameters
    ----------
    outputs
        Names of files or Zarr stores to write; what is there already is replaced at the end. URLs are written in place.

    Raises
    ------
    FileNotFoundError
        If there is no folder for an output.
    FileExistsError
        If an output is a folder that is no Zarr store.
    ValueError
        If two outputs have one name, or one lies inside a Zarr store.
    OSError
        At the end of the block, if the disk is full.

    Notes
    -----
    After an error nothing is left but what is at URLs. Devices and pipes, such as /dev/null, are written in place.
    """

    def __init__(self, outputs: Iterable[str]) -> None:
        self._drafts: dict[str, Path | str] = {}
        self._targets: dict[Path, Path] = {}
        self._cleanup = ExitStack()
        for output in outputs:
            if output in self._drafts:
                msg = f"{output} is named as an output twice; give each its own name"
                raise ValueError(msg)
            local = output.removeprefix("file://")
            self._drafts[output] = output if "://" in local else self._draft(Path(local))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._cleanup, disk_full_errors(self._folder(), "nothing was written; make room and run it again"):
            for draft in self._targets:
                self._cleanup.callback(_remove, draft)
            if error is None:
                for draft, target in self._targets.items():
                    _replace(draft, target)
            elif isinstance(error, OSError) and error.errno in DISK_FULL:
                raise error

    def __getitem__(self, output: str) -> Path | str:
        """Where to write an output."""
        return self._drafts[output]

    def scratch(self) -> Path:
        """Make a folder for what is needed until the outputs are done; beside the first of them, if it can be."""
        folder = tempfile.TemporaryDirectory(prefix=".normalisr-dask-", dir=self._folder(), ignore_cleanup_errors=True)
        return Path(self._cleanup.enter_context(folder))

    def _folder(self) -> Path:
        """Return the folder of the first output that has one; else that of temporary files."""
        return next((target.parent for target in self._targets.values()), Path(tempfile.gettempdir()))

    def _draft(self, output: Path) -> Path:
        """Check that the output can be written, and return its temporary name."""
        if output.is_relative_to("/dev") or (output.exists() and not output.is_dir() and not output.is_file()):
            return output
        target = output.resolve()
        if target.is_dir() and not is_store(target):
            msg = f"{output} is a folder and no Zarr store; give another name"
            raise FileExistsError(msg)
        if not target.parent.is_dir():
            msg = f"there is no folder {target.parent} to write {output.name} into"
            raise FileNotFoundError(msg)
        if not os.access(target.parent, os.W_OK):
            msg = f"the folder {target.parent} may not be written; choose another one for {output.name}"
            raise PermissionError(msg)
        check_outside_stores(target)
        draft = target.with_name(f".{uuid4().hex[:8]}.partial")
        self._targets[draft] = target
        return draft


def _replace(draft: Path, target: Path) -> None:
    """Move a draft to its place; of a folder that is there, or is to come, there is no rename that replaces it."""
    if not target.is_dir() and not (draft.is_dir() and target.exists()):
        draft.replace(target)
        return
    replaced = target.with_name(f".{target.name}.{uuid4().hex[:8]}.replaced")
    target.rename(replaced)
    draft.rename(target)
    _remove(replaced)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
