"""Figures as inline SVG that takes its colours and its font from the page, so that it follows light, dark and print.

Matplotlib draws in stand-in colours, which become variables of the page's style sheet.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

#: Variable of the style sheet → what stands for it while Matplotlib draws.
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "first": "#030303",
    "second": "#040404",
    "third": "#050505",
    "positive": "#060606",
    "negative": "#070707",
    "card": "#080808",
}
VARIABLE_OF = {colour: variable for variable, colour in COLOURS.items()}
INK, MUTED, FIRST, SECOND, THIRD, POSITIVE, NEGATIVE, CARD = COLOURS.values()
#: Steps of opacity in which densities and correlations are drawn.
LEVELS = 8
#: Up to which ratio a logarithmic axis has labels at 2 and 5, too.
FEW_DECADES = 50
#: Labels of a longer one, at most.
MOST_DECADES = 5
STYLE: Any = {  # Matplotlib types every key
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a gene's name may hold a dollar sign
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


class Picture(NamedTuple):
    """A figure of the page.

    Attributes
    ----------
    svg
        To stand inside the page.
    caption
        Stands below it.
    """

    svg: str
    caption: str


class Drawing:
    """A figure that is being drawn.

    Parameters
    ----------
    name
        Unique on the page; letters and dashes.
    width, height
        In inches.
    """

    def __init__(self, name: str, width: float, height: float) -> None:
        self.name = name
        self.figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(self.figure)

    def axes(self) -> Axes:
        """Return the one pair of axes."""
        return self.figure.subplots()

    def picture(self, *, alternative: str, caption: str) -> Picture:
        """Return the figure.

        Parameters
        ----------
        alternative
            What a screen reader says in place of the figure.
        caption
            Stands below it.
        """
        text = io.StringIO()
        self.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return Picture(_inline(text.getvalue(), self.name, alternative), caption)


@contextmanager
def drawing(name: str, *, width: float = 4.0, height: float = 3.0) -> Iterator[Drawing]:
    """Draw a figure in the style of the page; arguments as of :class:`Drawing`."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        yield Drawing(name, width, height)


def log_x(axes: Axes) -> None:
    """Make the x axis logarithmic, with labels such as 10,000; call it when the data are drawn."""
    axes.set_xscale("log")
    _plain_labels(axes.xaxis, *axes.get_xlim())


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with labels such as 10,000; call it when the data are drawn."""
    axes.set_yscale("log")
    _plain_labels(axes.yaxis, *axes.get_ylim())


def _plain_labels(axis: Axis, low: float, high: float) -> None:
    is_short = high < FEW_DECADES * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if is_short else LogLocator(numticks=MOST_DECADES))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def draw_histogram(
    axes: Axes,
    values: NDArray[np.float64],
    kept: NDArray[np.bool_],
    *,
    cuts: Sequence[tuple[float, str]],
    bins: int = 60,
    log: bool,
) -> None:
    """Draw how values are distributed, those kept over those left out, and the cuts as dashed lines.

    Parameters
    ----------
    axes
        Where to draw.
    values
        Not negative; on a logarithmic axis zeros stand at 0.5.
    kept
        Which of them are kept.
    cuts
        Value and name of every cut; a cut of 0 is none.
    bins
        Number of bins.
    log
        Whether the axis is logarithmic.
    """
    shown = np.maximum(values, 0.5) if log else values
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.5, 1.0)
    if low == high:
        low, high = low * 0.9 - (not log) * 0.5, high * 1.1 + (not log) * 0.5
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    of_all, of_kept = np.histogram(shown, edges)[0], np.histogram(shown[kept], edges)[0]
    if not kept.all():
        axes.stairs(of_all, edges, fill=True, color=SECOND, label="left out")
    axes.stairs(of_kept, edges, fill=True, color=FIRST, label="kept")
    for cut, name in cuts:
        if cut > 0:
            axes.axvline(max(cut, 0.5) if log else cut, color=INK, linestyle="--", linewidth=1.2, label=name)
    if log:
        log_x(axes)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)


def draw_density(
    axes: Axes,
    numbers: NDArray[np.int64],
    x_edges: NDArray[np.float64],
    y_edges: NDArray[np.float64],
    colour: str,
) -> None:
    """Draw how many points are in every bin (x bins, y bins), as opacity on a logarithmic scale."""
    if not numbers.any():
        return
    strength = np.log1p(numbers) / np.log1p(numbers.max())
    levels = np.ceil(strength * LEVELS).astype(np.int64)
    draw_tiles(axes, levels, x_edges, y_edges, colour)


def draw_tiles(
    axes: Axes, levels: NDArray[np.int64], x_edges: NDArray[np.float64], y_edges: NDArray[np.float64], colour: str
) -> None:
    """Draw tiles (x, y) in one colour: level 0 is not drawn, level LEVELS is opaque. One path a level."""
    for level in range(1, LEVELS + 1):
        columns, rows = np.nonzero(levels == level)
        if not columns.size:
            continue
        x0, x1, y0, y1 = x_edges[columns], x_edges[columns + 1], y_edges[rows], y_edges[rows + 1]
        corners = np.stack(
            [np.stack(pair, axis=-1) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))], axis=1
        )
        codes = np.tile([Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY], x0.size)
        axes.add_patch(
            PathPatch(
                Outline(corners.reshape(-1, 2), codes),
                facecolor=colour,
                edgecolor="none",
                alpha=0.12 + 0.88 * level / LEVELS,
                antialiased=False,  # or seams show between tiles
            )
        )
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])


def _inline(text: str, name: str, alternative: str) -> str:
    """Turn Matplotlib's SVG file into an element of the page."""
    start = text.index("<svg")
    head_end = text.index(">", start)
    view_box = re.search(r'viewBox="([^"]+)"', text[start:head_end])
    body = text[head_end + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # it would hold for the page
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r'(id="|url\(#|href="#)([\w.-]+)', rf"\g<1>{name}-\g<2>", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(?<= )(?:style|d|transform|x|y)="[^"]*"', _plainer, body)
    body = re.sub(r"\n\s*", "\n", body)
    view = f' viewBox="{view_box[1]}"' if view_box else ""
    label = alternative.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg xmlns="http://www.w3.org/2000/svg"{view} role="img" aria-label="{label}">{body.strip()}'


def _plainer(attribute: re.Match[str]) -> str:
    """Leave colours and font of an attribute to the page, and its coordinates two digits."""
    text = re.sub(r"font: (?:\w+ )*?([\d.]+px)[^;\"]*", r"font-size: \1", attribute[0])  # of some versions; others:
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    return re.sub(r"(\.\d\d)\d+", r"\1", text)
