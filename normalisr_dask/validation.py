"""Border checks that the steps, the pipeline and the command line share.

Each check returns nothing and raises with what was expected, what was found and, where there is one, a way out.
"""

import os.path
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory

_SHOWN_CHOICES = 10


def check_positive(value: float, name: str) -> None:
    """Refuse everything but finite numbers above 0.

    Raises
    ------
    TypeError
        If `value` is no real number.
    ValueError
        If `value` is 0, negative, infinite or NaN.
    """
    _check_number(value, name)
    if not 0 < value < float("inf"):
        msg = f"{name} must be a positive number, not {value}"
        raise ValueError(msg)


def check_not_negative(value: float, name: str) -> None:
    """Refuse everything but finite numbers of at least 0.

    Raises
    ------
    TypeError
        If `value` is no real number.
    ValueError
        If `value` is negative, infinite or NaN.
    """
    _check_number(value, name)
    if not 0 <= value < float("inf"):
        msg = f"{name} must be 0 or more, not {value}"
        raise ValueError(msg)


def check_count(value: int, name: str, *, minimum: int = 0) -> None:
    """Refuse everything but whole numbers of at least `minimum`.

    Raises
    ------
    TypeError
        If `value` is no integer.
    ValueError
        If `value` is below `minimum`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        msg = f"{name} must be a whole number, not {value!r}"
        raise TypeError(msg)
    if value < minimum:
        msg = f"{name} must be at least {minimum}, not {value}"
        raise ValueError(msg)


def check_fraction(value: float, name: str) -> None:
    """Refuse everything but numbers from 0 to 1, both included.

    Raises
    ------
    TypeError
        If `value` is no real number.
    ValueError
        If `value` is below 0, above 1 or NaN.
    """
    _check_number(value, name)
    if not 0 <= value <= 1:
        msg = f"{name} must lie between 0 and 1, not {value}"
        raise ValueError(msg)


def check_probability(value: float, name: str) -> None:
    """Refuse everything but numbers above 0 and below 1, as a significance level must be.

    Raises
    ------
    TypeError
        If `value` is no real number.
    ValueError
        If `value` is 0 or less, 1 or more, or NaN.
    """
    _check_number(value, name)
    if not 0 < value < 1:
        msg = f"{name} must be above 0 and below 1, not {value}"
        raise ValueError(msg)


def check_choice(value: object, choices: Sequence[object], name: str) -> None:
    """Refuse a value that is not among the choices, and suggest the closest one.

    Parameters
    ----------
    value
        What the caller gave.
    choices
        What there is to choose from.
    name
        What the value is called in the message.

    Raises
    ------
    ValueError
        If `value` is not one of `choices`.

    Examples
    --------
    >>> check_choice("exclud", ["ignore", "exclude"], "other_groupings")
    Traceback (most recent call last):
    ...
    ValueError: other_groupings 'exclud' is not one of 'ignore', 'exclude'; did you mean 'exclude'?
    """
    if value in choices:
        return
    names = [str(choice) for choice in choices]
    msg = f"{name} {value!r} is not one of {listing(names)}{did_you_mean(value, names)}"
    raise ValueError(msg)


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """Return the closest of the choices as the end of a message, or nothing if none is close.

    Examples
    --------
    >>> did_you_mean("gata1", ["GATA1", "GATA2"])
    "; did you mean 'GATA1'?"
    >>> did_you_mean("spi1", ["GATA1", "GATA2"])
    ''
    """
    by_folded = {str(choice).casefold(): str(choice) for choice in choices}
    closest = get_close_matches(str(value).casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[closest[0]]!r}?" if closest else ""


def listing(names: Collection[str], shown: int = _SHOWN_CHOICES) -> str:
    """Quote the first names of a list for a message, and count the rest.

    Examples
    --------
    >>> listing(["a", "b", "c"], shown=2)
    "'a', 'b' and 1 more"
    """
    first = ", ".join(repr(str(name)) for _, name in zip(range(shown), names, strict=False))
    rest = len(names) - shown
    return f"{first} and {rest:,} more" if rest > 0 else first or "nothing"


def _check_number(value: float, name: str) -> None:
    """Refuse what is no real number, truth values among it."""
    if not isinstance(value, Real) or isinstance(value, bool):
        msg = f"{name} must be a number, not {value!r}"
        raise TypeError(msg)


def check_writable(folder: str | Path, option: str) -> None:
    """Refuse a folder in which nothing can be written, whether it is there or will be made; leaves nothing behind.

    Parameters
    ----------
    folder
        Where something is to be written.
    option
        By which it was given, for the message.

    Raises
    ------
    ValueError
        If it or what is above it is a file, or cannot be written to.
    """
    path = Path(folder).absolute()
    existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not existing.is_dir():
        msg = f"{existing} is not a folder; give another place with {option}"
        raise ValueError(msg)
    try:
        with TemporaryDirectory(prefix=".normalisr-dask-", dir=existing):
            pass
    except OSError as error:
        msg = (
            f"nothing can be made in {existing} ({error.strerror}), expected a folder that can be written to; "
            f"give another place with {option}"
        )
        raise ValueError(msg) from error
