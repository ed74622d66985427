"""How counts and results show themselves, at the prompt and in notebooks: what they hold, and how large it is.

Nothing is computed or read for it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from inspect import getdoc
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import pandas as pd

from normalisr_dask.wording import amount

Class = TypeVar("Class", bound=type)

LONGEST_TEXT = 60
#: An attribute in a docstring of numpydoc: name, type with dimensions, first line of the meaning.
ATTRIBUTE = re.compile(r"^(\w+) : (.+)\n {4}(.+)$", re.MULTILINE)
#: Colours are those of the page around, light or dark.
CELL = 'style="text-align: left; color: inherit; background: none; padding: 0.1em 0.8em 0.1em 0"'


def shows_its_fields(kind: Class) -> Class:
    """Give a named tuple, dataclass or dict of results a ``repr`` and a notebook display that list what it holds.

    Parameters
    ----------
    kind
        The class; its docstring says what its attributes mean.

    Returns
    -------
    type
        The same class.
    """
    shown: Any = kind
    shown.__repr__ = lambda self: as_text(type(self).__name__, _rows(self))
    shown._repr_html_ = lambda self: as_html(type(self).__name__, _rows(self))
    return kind


def as_text(title: str, rows: Iterable[Sequence[str]]) -> str:
    """Lay out names and what there is to say of them as lines below a title."""
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])


def as_html(title: str, rows: Iterable[Sequence[str]]) -> str:
    """Lay out the same as a table for notebooks; all text is escaped."""
    body = ""
    for name, *texts in rows:
        cells = "".join(f"<td {CELL}>{escape(text)}</td>" for text in texts)
        body += f'<tr><th scope="row" {CELL}>{escape(name)}</th>{cells}</tr>'
    caption = f'<caption style="text-align: left; color: inherit; font-weight: bold">{escape(title)}</caption>'
    return f"<table>{caption}<tbody>{body}</tbody></table>"


def _rows(result: Any) -> list[tuple[str, str, str]]:
    """Return name, size and meaning of all that a result holds."""
    known = {name: (kind, meaning) for name, kind, meaning in ATTRIBUTE.findall(getdoc(type(result)) or "")}
    rows = []
    for name, value in _values(result).items():
        kind, meaning = known.get(name, ("", ""))
        rows.append((name, _size(value, kind), re.sub(r":\w+:|`", "", meaning).rstrip(".")))
    return rows


def _values(result: Any) -> Mapping[str, Any]:
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    return result._asdict()


def _size(value: Any, kind: str) -> str:
    """Describe a value in some words; ``kind`` names the dimensions of arrays, behind their type."""
    if isinstance(value, da.Array | np.ndarray):
        shape = " × ".join("?" if np.isnan(length) else f"{length:,}" for length in value.shape) or "one number"
        text = " ".join([str(value.dtype), shape, *re.findall(r"\(.*\)", kind)])
        if isinstance(value, da.Array):
            size = "" if np.isnan(value.nbytes) else f", {amount(value.nbytes)} when computed"
            return f"{text}; lazy{size}"
        return f"{text}; {amount(value.nbytes)}"
    if isinstance(value, pd.DataFrame):
        return f"table of {len(value):,} rows: {_shortened(', '.join(map(str, value.columns)))}"
    if isinstance(value, list | tuple | dict) and len(value) > 1:
        return f"{type(value).__name__} of {len(value):,}"
    text = repr(value)
    return type(value).__name__ if "\n" in text else _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
