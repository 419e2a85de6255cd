"""What a node's past says of it: reputation, and what repeated harm costs.

    R <- R + rate (target - R)      target 1 if the value's interval lies above 0, target 0 if below; else R stays

With the default rate of 0.05 a node that is always shown to help closes half of its distance to 1 in 13.5 such rounds
and has 0.9 after 38; one that is always shown to harm loses half in 13.5. A new identity starts at 0.3. Leaving and
coming back clean pays only from below 0.3, which takes 1 to 30 harmful rounds, in each of which it earned nothing.

**Slashing.** A node whose interval lies below 0 has a strike; an interval above 0 clears them, one that holds 0 shows
nothing. From `slash_after` strikes on, each further one costs a part of its balance:

    min(slash_max, slash_min * (strikes - slash_after + 1))      0.5 %, 1 %, 1.5 % ... 5 %

It is taken once, when the round is settled, in whole NANO, and goes to public goods.

Source: NERV whitepaper v1.01, section 4.3: values below 0 are slashed, 0.5 to 5 %.
"""

from fractions import Fraction

from nerv_fl.config import RewardsConfig
from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range


def update_reputation(reputation: float, *, ci_low: float, ci_high: float, config: RewardsConfig) -> float:
    """Return the reputation after a valued round: an exponential average of what the node was shown to be.

        R <- R + rate * (target - R)      target 1 if the interval lies above 0, target 0 if it lies below

    An interval that holds 0 shows nothing and changes nothing, so a free rider (value exactly 0) stays where it began.

    Args:
        reputation: In [0, 1].
        ci_low: Lower end of the value's two-sided interval.
        ci_high: Upper end.
        config: Its `reputation_rate` is the weight of one round.

    Returns:
        In [0, 1].

    Raises:
        ConfigError: If the reputation is out of range, or the interval is empty or NaN.

    >>> round(update_reputation(0.3, ci_low=0.1, ci_high=0.2, config=RewardsConfig(reputation_rate=0.05)), 6)
    0.335
    """
    in_range("reputation", reputation, low=0, high=1)
    if not ci_low <= ci_high:
        raise ConfigError(f"interval is [{ci_low}, {ci_high}], expected its lower end first")
    if ci_low <= 0 <= ci_high:
        return reputation
    target = 1.0 if ci_low > 0 else 0.0
    return min(max(reputation + config.reputation_rate * (target - reputation), 0.0), 1.0)


def penalise(reputation: float, config: RewardsConfig) -> float:
    """Return the reputation after a fault that can be laid at the node's door, such as an update that is not finite.

        R <- R * (1 - fault_penalty)

    Below `initial_reputation` a node would gain by registering anew: what stops that is the price of registration.

    Args:
        reputation: In [0, 1].
        config: Its `fault_penalty` is the part of the reputation that is lost.

    Returns:
        In [0, 1].

    Raises:
        ConfigError: If the reputation is out of range.
    """
    in_range("reputation", reputation, low=0, high=1)
    return reputation * (1 - config.fault_penalty)


def count_strikes(strikes: int, *, ci_low: float, ci_high: float) -> int:
    """Return a node's strikes after a valued round: one more, none, or as before.

    Args:
        strikes: At least 0.
        ci_low: Lower end of the value's two-sided interval.
        ci_high: Upper end.

    >>> [count_strikes(3, ci_low=low, ci_high=high) for low, high in ((-2, -1), (-1, 1), (1, 2))]
    [4, 3, 0]
    """
    if ci_high < 0:
        return strikes + 1
    return 0 if ci_low > 0 else strikes


def slash_nano(balance_nano: int, strikes: int, *, config: RewardsConfig) -> int:
    """Return what a strike costs a node, rounded down.

    Args:
        balance_nano: What the node holds, at least 0.
        strikes: With the new one.
        config: Its `slash_after`, `slash_min` and `slash_max`.

    Raises:
        ConfigError: If the balance is negative.

    >>> [slash_nano(10_000, strikes, config=RewardsConfig()) for strikes in (1, 2, 3, 50)]
    [0, 50, 100, 500]
    """
    if balance_nano < 0:
        raise ConfigError(f"balance_nano is {balance_nano}, expected at least 0")
    steps = strikes - config.slash_after + 1
    if steps < 1:
        return 0
    rate = min(Fraction(str(config.slash_max)), Fraction(str(config.slash_min)) * steps)
    return int(balance_nano * rate)
