"""What the runs of a sweep came to, and what a setting is worth: means over seeds with Student's t intervals.

gap closed        (unigram - masked CE) / (unigram - per account)       on the monitor samples; 0 at the unigram
central share     (loss before - loss after) / (loss before - loss of central training)      on the final pool
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student_t

from nerv_fl.records import FinalPool
from nerv_fl.server.folder import RunFolder
from simulations.sweep.central import Central
from simulations.sweep.grid import SLACK, Point

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to.

    Attributes:
        label: Its setting in words.
        seed: Its seed.
        epsilon: Spent by the node that took part most often, at `delta` per `unit`, Poisson sampling.
        delta: Of the epsilon.
        unit: Of the epsilon: a step record, or a chain.
        samples_per_node: Of the epsilon's sampling rate, too.
        rounds: Federated rounds.
        accepted: Of them.
        difference: Data loss on the final pool, after minus before, nats; 0 if no round was accepted.
        ci_low: Lower end of its interval over chains.
        ci_high: Upper end.
        masked_ce: Masked cross-entropy after the last round, nats; `unigram` and `per_account` are the trivial models'.
        gap_closed: Share of the gap between the two that is closed.
        central_share: Share of central training's loss reduction, or None if there was none to compare with.
        central_masked_ce: Masked cross-entropy of central training, or None.
        drift: Mean drift after the last round.
        relative_drift: And relative to the batches' own movement.
        seconds: Wall time of the rounds.
    """

    label: str
    seed: int
    epsilon: float | None
    delta: float
    unit: str
    samples_per_node: int
    rounds: int
    accepted: int
    difference: float
    ci_low: float
    ci_high: float
    masked_ce: float
    unigram: float
    per_account: float
    gap_closed: float
    central_share: float | None
    central_masked_ce: float | None
    drift: float
    relative_drift: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds and the half width of its interval, None where there is one seed."""

    mean: float
    half: float | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting over its seeds; `over_limit` says that some seed spent more than the sweep's epsilon."""

    label: str
    seeds: tuple[int, ...]
    epsilon: float | None
    over_limit: bool
    accepted: Interval
    difference: Interval
    masked_ce: Interval
    gap_closed: Interval
    central_share: Interval | None
    relative_drift: Interval


def outcome_of(point: Point, folder: RunFolder, *, central: Central | None) -> Outcome:
    """Read what a finished run came to."""
    records, config = folder.rounds(), point.config
    last, final = records[-1], _final_pool(folder)
    masked_ce, drift = last.encoder.masked_ce, last.encoder.drift
    gap = masked_ce.unigram - masked_ce.per_account
    return Outcome(
        label=point.label,
        seed=config.seed,
        epsilon=last.epsilon.max if last.epsilon else None,
        delta=config.privacy.delta,
        unit=config.privacy_unit,
        samples_per_node=config.data.samples_per_node,
        rounds=last.round,
        accepted=sum(record.accepted for record in records[1:]),
        difference=final.difference if final else 0.0,
        ci_low=final.ci_low if final else 0.0,
        ci_high=final.ci_high if final else 0.0,
        masked_ce=masked_ce.value,
        unigram=masked_ce.unigram,
        per_account=masked_ce.per_account,
        gap_closed=(masked_ce.unigram - masked_ce.value) / gap,
        central_share=_central_share(final, central) if central else None,
        central_masked_ce=central.masked_ce if central else None,
        drift=drift.mean,
        relative_drift=drift.relative,
        seconds=sum(record.seconds.total for record in records),
    )


def _final_pool(folder: RunFolder) -> FinalPool | None:
    """Return a run's result on the final pool, or None if it stayed closed: the model has not changed."""
    final = folder.read_manifest().get("final")
    return None if final is None else FinalPool(**final)


def _central_share(final: FinalPool | None, central: Central) -> float:
    return -final.difference / (final.loss_before - central.loss) if final else 0.0


def settings_of(outcomes: Sequence[Outcome], *, epsilon: float) -> list[Setting]:
    """Return the settings of some outcomes, in the order in which they come first.

    Args:
        outcomes: Of any seeds.
        epsilon: What no run should have spent more than.
    """
    settings = []
    for label in dict.fromkeys(outcome.label for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.label == label]
        shares = [outcome.central_share for outcome in own if outcome.central_share is not None]
        spent = None if any(item.epsilon is None for item in own) else max(item.epsilon or 0.0 for item in own)
        settings.append(
            Setting(
                label=label,
                seeds=tuple(outcome.seed for outcome in own),
                epsilon=spent,
                over_limit=spent is not None and spent > epsilon + SLACK,
                accepted=interval([outcome.accepted for outcome in own]),
                difference=interval([outcome.difference for outcome in own]),
                masked_ce=interval([outcome.masked_ce for outcome in own]),
                gap_closed=interval([outcome.gap_closed for outcome in own]),
                central_share=interval(shares) if shares else None,
                relative_drift=interval([outcome.relative_drift for outcome in own]),
            )
        )
    return settings


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and the half width of its two-sided 95 % t interval, s t / sqrt(n).

    >>> round(interval([1.0, 3.0]).half, 6)
    12.706205
    >>> interval([1.0])
    Interval(mean=1.0, half=None)
    """
    if len(values) == 1:
        return Interval(mean=float(values[0]), half=None)
    quantile = float(student_t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1))
    return Interval(mean=fmean(values), half=quantile * stdev(values) / math.sqrt(len(values)))
