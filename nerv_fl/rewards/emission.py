"""How much is emitted in an epoch, and into which pools: 60 % gradients, 30 % validation, 10 % public goods.

Only gradients are paid from here. The other two pools fill up in their own accounts: validators and public goods are
not part of this system.

Source: NERV whitepaper v1.01, section 4.3 (pool split) and the emission table of its tokenomics.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

from nerv_fl.errors import ConfigError

TOTAL_SUPPLY_NANO: Final = 10**10 * 10**9
"""10^10 NERV."""
GRADIENT_SHARE: Final = Fraction(60, 100)
"""Part of the emission that pays for gradients."""
VALIDATION_SHARE: Final = Fraction(30, 100)
"""Part that pays for validation; public goods get the rest, 10 %."""
EPOCH_YEARS: Final = Fraction(30) / Fraction(1461, 4)
"""An epoch of 30 days, in years of 365.25 days."""
EMISSION_PERIODS: Final = ((2, Fraction(38, 100)), (3, Fraction(34, 100)), (5, Fraction(28, 100)))
"""(years, part of the total supply emitted evenly over them): years 1-2, 3-5 and 6-10. It sums to the whole supply."""
TAIL_PER_YEAR: Final = Fraction(5, 1000)
"""Part of the total supply emitted in each year after the tenth."""


@dataclass(frozen=True, kw_only=True)
class Emission:
    """What one epoch emits into each pool, in NANO."""

    gradient_nano: int
    validation_nano: int
    public_goods_nano: int


def round_emission(round: int) -> Emission:
    """Return the emission of a round's 30 days; what rounding leaves of the whole goes to public goods.

    Args:
        round: At least 1.

    Raises:
        ConfigError: If the round is below 1.

    >>> emission = round_emission(1)
    >>> emission.gradient_nano + emission.validation_nano + emission.public_goods_nano
    156057494866529774
    """
    share = _round_share(round)
    whole = floor(TOTAL_SUPPLY_NANO * share)
    gradient = floor(TOTAL_SUPPLY_NANO * GRADIENT_SHARE * share)
    validation = floor(TOTAL_SUPPLY_NANO * VALIDATION_SHARE * share)
    return Emission(gradient_nano=gradient, validation_nano=validation, public_goods_nano=whole - gradient - validation)


def round_pool_nano(round: int) -> int:
    """Return the gradient pool of a round: 60 % of what is emitted in its 30 days, rounded down.

    Each period's percentage is of the total supply and covers the whole period: years 1-2 emit 38 % together, so
    1.9 * 10^9 NERV a year. Round 1 is the first epoch; one that straddles two periods gets of each by its days.

    Args:
        round: At least 1.

    Returns:
        NANO.

    Raises:
        ConfigError: If the round is below 1.

    >>> round_pool_nano(1)
    93634496919917864
    """
    return round_emission(round).gradient_nano


def _round_share(round: int) -> Fraction:
    if round < 1:
        raise ConfigError(f"round is {round}, expected at least 1")
    return _emitted_share(round * EPOCH_YEARS) - _emitted_share((round - 1) * EPOCH_YEARS)


def _emitted_share(years: Fraction) -> Fraction:
    emitted = Fraction(0)
    for length, share in EMISSION_PERIODS:
        spent = min(years, Fraction(length))
        emitted += share * spent / length
        years -= spent
    return emitted + years * TAIL_PER_YEAR
