"""Stored results of limma's functions, and how results are compared with them; tests/data/limma/README.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "data" / "limma"
#: Suggested with the fixtures: relative tolerance of each slot, 1e-9 where none is named.
TOLERANCES = {"correlation": 1e-10, "sample_weights": 1e-10, "p_value": 1e-8, "F_p_value": 1e-8, "adj_p_value": 1e-8}
#: Slots whose values may be near zero.
ABSOLUTE = {"coefficients": 1e-10, "t": 1e-9, "lods": 1e-8, "voom_line_y": 1e-12}
EXACT = {"df_residual", "pivot", "rank"}


def load(name: str) -> dict[str, NDArray[Any]]:
    with np.load(next(FOLDER.glob(f"{name}*.npz"))) as stored:
        return dict(stored)


def part_of(stored: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Slots that begin with the prefix, without it; numbers as such."""
    return {
        name.removeprefix(prefix): value if value.ndim else value.item()
        for name, value in stored.items()
        if name.startswith(prefix)
    }


def flat(fit: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a fit and of the mappings in it."""
    for name, value in fit.items():
        if isinstance(value, Mapping):
            inner = "" if name in {"targets", "EList"} else f"{name}_"
            yield from flat(value, f"{prefix}{inner}")
        else:
            yield f"{prefix}{name}", value


def assert_same(found: Any, expected: Any, name: str, *, rtol: float | None = None) -> None:
    """Compare one slot: shape and NaN exactly, values to the tolerance of the slot."""
    found, expected = np.asarray(found), np.asarray(expected)
    if expected.dtype.kind not in "fiu" or name in EXACT:
        np.testing.assert_array_equal(found, expected, err_msg=name)
        return
    slot = name.split(".")[-1]
    np.testing.assert_allclose(
        found,
        expected,
        rtol=rtol or TOLERANCES.get(slot, 1e-9),
        atol=ABSOLUTE.get(slot, 0.0),
        err_msg=name,
    )


def assert_slots(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    values = dict(flat(found))
    for name, value in expected.items():
        assert_same(values[name], value, name)
