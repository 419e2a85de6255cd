"""The gate: how far to step, and whether the encoder found there may be committed.

*Step search* tries the server's direction at every step and at 0 on the search pool; the best step that keeps the
conditions is the candidate, ties going to the smaller. *Certification* then asks fresh chains of the certify pool,
drawn from a seed that is fixed only by the candidate's hash: is the data loss lower (one-sided paired t-test), are
the conditions kept, and does the affine encoder keep the homomorphism bound on every batch drawn? The bound tests
arithmetic, range and finiteness, not learning; the loss is what tests learning.

Shapes: P parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from scipy.stats import ttest_rel

from nerv_fl.config import PROTOCOL_BOUND, GateConfig
from nerv_fl.enclave.aggregate import Direction
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import Homomorphism
from nerv_fl.rng import stream
from nerv_fl.tasks.metrics import Measures, Summary
from nerv_fl.types import BoolArray, FloatArray, IntArray, Vector
from nerv_fl.vectors import Rows

NO_STEP: Final = "no step lowers the loss on the search pool and keeps the conditions"
SEARCH: Final = "search"
CERTIFY: Final = "certify"


class Evaluator(Protocol):
    """Measures encoders on the held-out pools, inside the enclave: it is given coalitions and single directions."""

    @property
    def moves_P(self) -> BoolArray | None:  # noqa: N802
        """Which coordinates a round may move, bool (P,), or None if all."""

    def num_chains(self, pool: str) -> int:
        """Return the number of chains of a pool."""

    def num_steps(self) -> int:
        """Return the number of steps of each chain."""

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> Sequence[Measures]:
        """Measure each candidate on the same samples."""

    def summarise(self, measures: Any) -> Summary:
        """Return the means of what was measured."""

    def broken_condition(self, before: Any, after: Any, *, limits: GateConfig) -> str:
        """Return the first condition that a model breaks against the one before, in words, or an empty string."""

    def bound(self, candidate: Vector, pool: str, sample_ids: IntArray, *, bound: float) -> Homomorphism | None:
        """Test what the model claims of itself on samples of a pool; None if it claims nothing."""

    def centred(self, theta_P: Vector) -> Vector:
        """Return the one representative of all models that compute the same: of an encoder, that with mean V = 0."""

    def data_free_descent(self, theta_P: Vector) -> Vector:
        """Return minus the gradient of the loss terms that need no data."""

    def gradient_products(self, theta_P: Vector, pool: str, sample_ids: IntArray, *, directions: Rows) -> FloatArray:
        """Return minus <grad of sample k's loss, direction i>, float64 (K, N)."""

    def mean_gradients(self, thetas: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[FloatArray]:
        """Return the gradient of the samples' mean loss at each point, float64 (P,)."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The best step on the search pool; step 0 is the encoder that stands."""

    step: float
    theta_P: Vector
    search_loss_B: FloatArray
    base_loss_B: FloatArray
    reason: str
    ungated: float


@dataclass(frozen=True, kw_only=True)
class Certification:
    """What the certify pool says of a candidate; `reason` is empty if it may be committed."""

    reason: str
    p_value: float | None
    before: Summary
    after: Summary
    homomorphism: Homomorphism | None
    sampling_seed: str


def search_step(direction: Direction, aggregate_P: Vector, *, evaluator: Evaluator, config: GateConfig) -> Candidate:
    """Return the best step of `config.steps` and 0 that keeps the conditions on the search pool."""
    ids = one_step_per_chain(np.arange(config.search_samples), evaluator.num_steps())
    steps = sorted(config.steps)
    candidates = [evaluator.centred(direction.candidate(aggregate_P, step=step)) for step in steps]
    thetas = [direction.theta_P, *candidates]
    base, *measured = evaluator.measure(thetas, SEARCH, ids)
    before = evaluator.summarise(base)
    best = Candidate(
        step=0.0,
        theta_P=direction.theta_P,
        search_loss_B=base.loss_B,
        base_loss_B=base.loss_B,
        reason=NO_STEP,
        ungated=_change_at_one(steps, measured, base),
    )
    if not config.enforce:
        finite = [evaluator.summarise(measures).finite for measures in measured]
        return _unconditional(best, steps, candidates=candidates, measured=measured, finite=finite)
    lowest = before.loss
    for step, theta_P, measures in zip(steps, candidates, measured, strict=True):
        after = evaluator.summarise(measures)
        condition = evaluator.broken_condition(before, after, limits=config)
        if condition and best.step == 0 and after.loss < lowest:
            lowest, best = after.loss, replace(best, reason=f"{NO_STEP}: at step {step:g} {condition}")
        if not condition and after.loss < float(best.search_loss_B.mean()):
            best = replace(best, step=step, theta_P=theta_P, search_loss_B=measures.loss_B, reason="")
    return best


def _nearest_to_one(steps: Sequence[float]) -> int:
    return min(range(len(steps)), key=lambda index: abs(steps[index] - 1))


def _change_at_one(steps: Sequence[float], measured: Sequence[Measures], base: Measures) -> float:
    return float((measured[_nearest_to_one(steps)].loss_B - base.loss_B).mean())


def _unconditional(
    standing: Candidate,
    steps: Sequence[float],
    *,
    candidates: Sequence[Vector],
    measured: Sequence[Measures],
    finite: Sequence[bool],
) -> Candidate:
    """Return step 1, or the nearest to it, whatever it does; numbers that are not finite are all that it refuses."""
    index = _nearest_to_one(steps)
    return replace(
        standing,
        step=steps[index],
        theta_P=candidates[index],
        search_loss_B=measured[index].loss_B,
        reason="" if finite[index] else "the encoder is not finite",
    )


def certify(
    theta_P: Vector, candidate: Candidate, *, evaluator: Evaluator, config: GateConfig, seed: int, round_number: int
) -> Certification:
    """Judge a candidate on chains drawn after its hash was fixed.

    Args:
        theta_P: The encoder that stands.
        candidate: Its challenger.
        evaluator: The held-out pools.
        config: Limits.
        seed: Seed of the run.
        round_number: Round.
    """
    sampling_seed = vector_hash(candidate.theta_P)
    draw = stream(seed, "certify", round_number, sampling_seed)
    chains = np.sort(draw.choice(evaluator.num_chains(CERTIFY), size=config.certify_samples, replace=False))
    steps = draw.integers(evaluator.num_steps(), size=config.certify_samples)
    ids = chains * evaluator.num_steps() + steps
    base, measured = evaluator.measure([theta_P, candidate.theta_P], CERTIFY, ids)
    before, after = evaluator.summarise(base), evaluator.summarise(measured)
    reason = evaluator.broken_condition(before, after, limits=config)
    p_value, homomorphism = None, None
    if after.finite:
        p_value = paired_p_value(base.loss_B, measured.loss_B)
        if p_value > 1 - config.confidence:
            reason = reason or f"p-value {p_value:.3g} of a lower loss is above {1 - config.confidence:.3g}"
        batches = draw.integers(evaluator.num_chains(CERTIFY) * evaluator.num_steps(), size=config.bound_batches)
        homomorphism = evaluator.bound(candidate.theta_P, CERTIFY, batches, bound=PROTOCOL_BOUND)
        if homomorphism is not None and homomorphism.violations:
            reason = reason or f"homomorphism bound broken on {homomorphism.violations} of {homomorphism.n} batches"
    return Certification(
        reason=reason,
        p_value=p_value,
        before=before,
        after=after,
        homomorphism=homomorphism,
        sampling_seed=sampling_seed,
    )


def paired_p_value(before_B: FloatArray, after_B: FloatArray) -> float:
    """Return the one-sided p-value of "the loss after is not lower", by a paired t-test; 1 if nothing changed."""
    if np.array_equal(before_B, after_B):
        return 1.0
    p_value = float(ttest_rel(before_B, after_B, alternative="greater").pvalue)
    return 1.0 if math.isnan(p_value) else p_value


def one_step_per_chain(chains: IntArray, num_steps: int) -> IntArray:
    """Return one sample of each chain, its step going round with the chain's number."""
    return chains * num_steps + chains % num_steps
