"""How the report writes numbers: few digits, one style, the same unit everywhere."""

import math
from typing import Final

from nerv_fl.tokens import NANO_PER_NERV

MISSING: Final = "\N{EN DASH}"
"""What stands where a number does not exist."""
MINUS: Final = "\N{MINUS SIGN}"
PLAIN_LOW, PLAIN_HIGH = 1e-3, 1e7
"""Magnitudes that are written without an exponent."""
PLAIN_TINY: Final = 0.1
MINUTE_S: Final = 60


def short(value: float | None, *, digits: int = 3) -> str:
    """Return a number in at most `digits` significant digits, with an exponent where it is tiny or huge.

    >>> [short(item) for item in (0.0, 3.76049, -0.0331, 0.00026481, 4e-16, 30000.0, None)]
    ['0', '3.76', '−0.0331', '2.65e-4', '4e-16', '30,000', '–']
    """
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return _sign(str(value))
    if not PLAIN_LOW <= abs(value) < PLAIN_HIGH:
        return exponential(value, digits=digits)
    if abs(value) >= 10 ** (digits - 1):
        return _sign(f"{value:,.0f}")
    return _sign(f"{float(f'{value:.{digits}g}'):,.{_places(value, digits=digits)}f}")


def exponential(value: float, *, digits: int = 3) -> str:
    """Return a number with an exponent, without trailing zeros.

    >>> [exponential(item) for item in (2.5e-4, -1e-16, 0.0)]
    ['2.5e-4', '−1e-16', '0']
    """
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    trimmed = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return _sign(f"{trimmed}e{int(exponent)}") if value else "0"


def tiny(value: float | None) -> str:
    """Return a measured small number with two digits, whatever they are; columns of them line up.

    >>> tiny(6e-4), tiny(0.0), tiny(None)
    ('6.0e-4', '0', '–')
    """
    if not value or abs(value) >= PLAIN_TINY:
        return short(value, digits=2)
    mantissa, exponent = f"{value:.1e}".split("e")
    return _sign(f"{mantissa}e{int(exponent)}")


def signed(value: float, *, digits: int = 3) -> str:
    """Return a number with its sign.

    >>> signed(0.0331), signed(-2e-5)
    ('+0.0331', '−2e-5')
    """
    return f"+{short(value, digits=digits)}" if value > 0 else short(value, digits=digits)


def fixed(value: float | None, *, places: int) -> str:
    """Return a number with a fixed number of decimals.

    >>> fixed(3.7, places=3), fixed(-1.0, places=1)
    ('3.700', '−1.0')
    """
    return MISSING if value is None else _sign(f"{value:,.{places}f}")


def percent(value: float | None, *, digits: int = 3) -> str:
    """Return a share as a percentage.

    >>> percent(0.4263)
    '42.6 %'
    """
    return MISSING if value is None else f"{short(100 * value, digits=digits)} %"


def nerv(nano: int, *, places: int = 2) -> str:
    """Return NANO as NERV, rounded half up in integers.

    >>> nerv(1_234_567_891_234), nerv(5_000_000, places=4), nerv(0)
    ('1,234.57', '0.0050', '0.00')
    """
    unit = NANO_PER_NERV // 10**places
    whole, part = divmod((abs(nano) + unit // 2) // unit, 10**places)
    return f"{MINUS if nano < 0 else ''}{whole:,}" + (f".{part:0{places}d}" if places else "")


def exact_nano(nano: int) -> str:
    """Return NANO in full.

    >>> exact_nano(1_234_567_891_234)
    '1,234,567,891,234 NANO'
    """
    return f"{_sign(f'{nano:,}')} NANO"


def duration(seconds: float) -> str:
    """Return a wall time.

    >>> duration(8.234), duration(192.0), duration(7322.0)
    ('8.2 s', '3 min 12 s', '2 h 02 min')
    """
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE_S)
    if minutes < MINUTE_S:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // MINUTE_S} h {minutes % MINUTE_S:02d} min"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "round"), plural(2000, "node")
    ('1 round', '2,000 nodes')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _places(value: float, *, digits: int) -> int:
    text = f"{abs(value):.{digits}g}"
    return len(text.partition(".")[2])


def _sign(text: str) -> str:
    return MINUS + text[1:] if text.startswith("-") else text
