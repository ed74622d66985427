"""How numbers and times are written for people."""

from datetime import datetime

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def amount(n_bytes: float) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> amount(1_536_000_000)
    '1.5 GB'
    >>> amount(12)
    '12 B'
    """
    for unit in BYTE_UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.0f} {BYTE_UNITS[-1]}"


def counted(number: int, one: str, several: str) -> str:
    """Write how many there are.

    Examples
    --------
    >>> [counted(number, "pass", "passes") for number in (1, 1200)]
    ['1 pass', '1,200 passes']
    """
    return f"{number:,} {one if number == 1 else several}"


def duration(seconds: float) -> str:
    """Write a time.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.04, 12.34, 75, 3723)]
    ['0.0 s', '12.3 s', '1 min 15 s', '1 h 2 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def about(seconds: float) -> str:
    """Write a time that is only about known.

    Examples
    --------
    >>> [about(seconds) for seconds in (3, 42, 200, 5000)]
    ['under 10 s', 'about 40 s', 'about 3 min', 'about 1 h 23 min']
    """
    if seconds < 10:
        return "under 10 s"
    if seconds < 60:
        return f"about {10 * round(seconds / 10)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 60 else f"about {minutes // 60} h {minutes % 60} min"


def p_value(value: float) -> str:
    """Write a P-value or a Q-value.

    Examples
    --------
    >>> [p_value(value) for value in (0.0321, 4.44e-12, 0.0)]
    ['0.032', '4.4e-12', '< 1e-300']
    """
    if value == 0:
        return "< 1e-300"
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"


def effect(value: float) -> str:
    """Write an effect or a correlation.

    Examples
    --------
    >>> effect(-0.5)
    '-0.500'
    """
    return f"{value:.3f}"


def to_the_minute(time: str) -> str:
    """Write a time that is stored in the form of ISO 8601, in its own time zone.

    Examples
    --------
    >>> to_the_minute("2026-03-01T09:05:59+00:00")
    '2026-03-01 09:05'
    """
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")
