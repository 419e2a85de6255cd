"""What the runs of a sweep came to, and what a setting is worth: means over seeds with Student's t intervals.

gap closed        (unigram - masked CE) / (unigram - per account)       on the monitor samples; 0 at the unigram
central share     (loss before - loss after) / (loss before - loss of central training)      on the final pool
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from scipy.stats import t as student_t

from nerv_fl.records import FinalPool, RoundRecord
from nerv_fl.server.run_folder import RunFolder
from simulations.sweep.centralized_baseline import Central
from simulations.sweep.grid import SLACK, Point

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to; what only an encoder has is None of another task.

    Attributes:
        label: Its setting in words.
        seed: Its seed.
        epsilon: Spent by the node that took part most often, at `delta` per `unit`, Poisson sampling; None if infinite.
        delta: Of the epsilon.
        unit: Of the epsilon: a step record, a window, a sample, or a chain.
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
        loss: Loss after the last round on the monitor samples.
        mechanism: How the privacy mechanism differs from the protocol's, in words; empty if it does not.
        measures: Further measures of a task other than the encoder after the last round, by name.
        trivial: What trivial models reach of them.
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
    masked_ce: float | None
    unigram: float | None
    per_account: float | None
    gap_closed: float | None
    central_share: float | None
    central_masked_ce: float | None
    drift: float | None
    relative_drift: float | None
    seconds: float
    loss: float
    mechanism: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    trivial: Mapping[str, float] = field(default_factory=dict)


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
    masked_ce: Interval | None
    gap_closed: Interval | None
    central_share: Interval | None
    relative_drift: Interval | None
    loss: Interval
    mechanism: str = ""
    measures: Mapping[str, Interval] = field(default_factory=dict)


def outcome_of(point: Point, folder: RunFolder, *, central: Central | None) -> Outcome:
    """Read what a finished run came to."""
    records, config = folder.rounds(), point.config
    last, final = records[-1], _final_pool(folder)
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
        central_share=_share(final, central) if central else None,
        central_masked_ce=central.masked_ce if central else None,
        seconds=sum(record.seconds.total for record in records),
        loss=last.loss,
        mechanism=config.privacy.deviation,
        measures=last.measures,
        trivial=last.trivial,
        **_encoders_own(last),
    )


def _final_pool(folder: RunFolder) -> FinalPool | None:
    """Return a run's result on the final pool, or None if it stayed closed: the model has not changed."""
    final = folder.read_manifest().get("final")
    return None if final is None else FinalPool(**final)


def _share(final: FinalPool | None, central: Central) -> float | None:
    """Return the share of central training's loss reduction, 0 if no round was accepted; None where that is none."""
    if final is None:
        return 0.0
    reduction = final.loss_before - central.loss
    return -final.difference / reduction if reduction > 0 else None


def _encoders_own(last: RoundRecord) -> dict[str, float | None]:
    """Return what only an encoder is measured by, each None of another task."""
    cross_entropy, drift = last.masked_ce, last.drift
    if cross_entropy is None or drift is None:
        names = ("masked_ce", "unigram", "per_account", "gap_closed", "drift", "relative_drift")
        return dict.fromkeys(names)
    gap = cross_entropy.unigram - cross_entropy.per_account
    return {
        "masked_ce": cross_entropy.value,
        "unigram": cross_entropy.unigram,
        "per_account": cross_entropy.per_account,
        "gap_closed": (cross_entropy.unigram - cross_entropy.value) / gap,
        "drift": drift.mean,
        "relative_drift": drift.relative,
    }


def settings_of(outcomes: Sequence[Outcome], *, epsilon: float | None) -> list[Setting]:
    """Return the settings of some outcomes, in the order in which they come first.

    Args:
        outcomes: Of any seeds.
        epsilon: What no run should have spent more than; None for no limit.
    """
    labels = dict.fromkeys(outcome.label for outcome in outcomes)
    return [_setting([item for item in outcomes if item.label == label], epsilon=epsilon) for label in labels]


def _setting(own: Sequence[Outcome], *, epsilon: float | None) -> Setting:
    """Return one setting from its runs."""
    spent = [item.epsilon for item in own if item.epsilon is not None]
    most = max(spent) if len(spent) == len(own) else None
    return Setting(
        label=own[0].label,
        seeds=tuple(outcome.seed for outcome in own),
        epsilon=most,
        over_limit=epsilon is not None and most is not None and most > epsilon + SLACK,
        accepted=interval([outcome.accepted for outcome in own]),
        difference=interval([outcome.difference for outcome in own]),
        masked_ce=_interval_if_any([outcome.masked_ce for outcome in own]),
        gap_closed=_interval_if_any([outcome.gap_closed for outcome in own]),
        central_share=_interval_if_any([outcome.central_share for outcome in own]),
        relative_drift=_interval_if_any([outcome.relative_drift for outcome in own]),
        loss=interval([outcome.loss for outcome in own]),
        mechanism=own[0].mechanism,
        measures={name: interval([outcome.measures[name] for outcome in own]) for name in own[0].measures},
    )


def _interval_if_any(values: Sequence[float | None]) -> Interval | None:
    known = [value for value in values if value is not None]
    return interval(known) if known else None


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
