"""The picture of a mean-variance trend; needs matplotlib."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

try:
    from matplotlib import pyplot
except ImportError:  # an extra: fits need no pictures
    pyplot = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

X_LABEL = "mean log-expression"
Y_LABEL = "square root of residual standard deviation"


def draw_trend(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    curve_x: NDArray[np.float64],
    curve_y: NDArray[np.float64],
    axes: "Axes | None" = None,
) -> Any:
    """Draw genes as dots and their trend as a red line.

    Parameters
    ----------
    x, y
        Of every gene (genes,).
    curve_x, curve_y
        Points of the trend, ascending (m,).
    axes
        Where to draw; a new figure if None.

    Returns
    -------
    The axes, or None without matplotlib.

    Warns
    -----
    UserWarning
        If matplotlib is not installed.
    """
    if pyplot is None:
        warnings.warn("no picture of the trend: it needs matplotlib, which is not installed", UserWarning, stacklevel=3)
        return None
    if axes is None:
        axes = pyplot.subplots(layout="constrained")[1]
    axes.scatter(x, y, s=3, color="0.3", linewidths=0, rasterized=True)
    axes.plot(curve_x, curve_y, color="tab:red")
    axes.set(xlabel=X_LABEL, ylabel=Y_LABEL)
    return axes


def save_trend(fit: Any, path: Path) -> None:
    """Write the picture of a trend that ``save_plot`` kept in a fit; warns without matplotlib."""
    if pyplot is None:
        draw_trend(*(np.empty(0),) * 4)
        return
    figure, axes = pyplot.subplots(layout="constrained")
    points, line = fit["voom_xy"], fit["voom_line"]
    draw_trend(points["x"], points["y"], line["x"], line["y"], axes)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
