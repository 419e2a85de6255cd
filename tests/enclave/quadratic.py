"""Held-out pools on which every number is known: each sample's loss is a parabola around one optimum.

    loss_k(x) = a_k |x - optimum|^2 / 2 + e_k

Shapes: B samples, N directions, P parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nerv_fl.config import GateConfig
from nerv_fl.models.evaluate import EncoderMeasures, SampleMeasures, summarise
from nerv_fl.records import Homomorphism
from nerv_fl.rng import stream
from nerv_fl.tasks.encoder import broken_condition
from nerv_fl.types import BoolArray, FloatArray, IntArray, Vector
from nerv_fl.vectors import Rows

Quirk = Callable[[Vector, SampleMeasures], SampleMeasures]


def no_quirk(_theta_P: Vector, measures: SampleMeasures) -> SampleMeasures:
    """Change nothing."""
    return measures


@dataclass
class QuadraticPools:
    """An `Evaluator` whose losses are parabolas.

    Attributes:
        optimum_P: Where every sample's loss is lowest.
        spread: Standard deviation of the curvatures a_k, whose mean is 1.
        quirk: Changes what is measured of an encoder, so that a condition can be broken.
        violations: What `bound` reports.
        free_P: The data-free descent direction.
        moves_P: Which coordinates a round may move.
        asked: Every (pool, samples) measured.
    """

    optimum_P: Vector
    spread: float = 0.3
    quirk: Quirk = no_quirk
    violations: int = 0
    free_P: Vector | None = None
    moves_P: BoolArray | None = None
    asked: list[tuple[str, IntArray]] = field(default_factory=list)

    def num_chains(self, pool: str) -> int:
        """Return 64 for every pool."""
        return 64

    def num_steps(self) -> int:
        """Return 4."""
        return 4

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[SampleMeasures]:
        """Return the losses; drift, rank and norm are the same everywhere unless there is a quirk."""
        self.asked.append((pool, sample_ids))
        return [self.quirk(theta_P, self._measure(theta_P, pool, sample_ids)) for theta_P in candidates]

    def summarise(self, measures: SampleMeasures) -> EncoderMeasures:
        """Return the means, as of an encoder."""
        return summarise(measures)

    def broken_condition(self, before: EncoderMeasures, after: EncoderMeasures, *, limits: GateConfig) -> str:
        """Return the encoder's verdict."""
        return broken_condition(before, after, limits=limits)

    def bound(self, candidate: Vector, pool: str, sample_ids: IntArray, *, bound: float) -> Homomorphism:
        """Return a bound test with the violations it was told to report."""
        self.asked.append((f"{pool} bound", sample_ids))
        return Homomorphism(
            max=1e-15, p999=1e-15, mean=1e-16, bound=bound, n=len(sample_ids), violations=self.violations
        )

    def centred(self, theta_P: Vector) -> Vector:
        """Return the weights as they are: a parabola has no origin to move."""
        return theta_P

    def data_free_descent(self, theta_P: Vector) -> Vector:
        """Return the given direction, zero by default."""
        return np.zeros_like(theta_P) if self.free_P is None else self.free_P

    def gradient_products(self, theta_P: Vector, pool: str, sample_ids: IntArray, *, directions: Rows) -> FloatArray:
        """Return minus <a_k (x - optimum), direction i>."""
        slope_N = directions.stacked().astype(np.float64) @ (theta_P - self.optimum_P).astype(np.float64)
        return -self._curvature(pool, sample_ids)[:, None] * slope_N

    def mean_gradients(self, thetas: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[FloatArray]:
        """Return mean_k a_k (x - optimum)."""
        curvature = self._curvature(pool, sample_ids).mean()
        return [curvature * (theta_P - self.optimum_P).astype(np.float64) for theta_P in thetas]

    def _measure(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> SampleMeasures:
        distance = float(np.square((theta_P - self.optimum_P).astype(np.float64)).sum())
        loss_B = self._curvature(pool, sample_ids) * distance / 2
        ones_B = np.ones(len(sample_ids))
        generator = stream(1, pool, "residual")
        residual_BD = generator.normal(0, 0.1, (len(sample_ids), 4)).astype(np.float32)
        return SampleMeasures(
            loss_B=loss_B,
            drift_B=0.1 * ones_B,
            delta_B=ones_B,
            masked_ce_B=2 * ones_B,
            residual_BD=residual_BD,
            live_BD=residual_BD + 1,
            table_AD=np.eye(4, dtype=np.float32),
        )

    def _curvature(self, pool: str, sample_ids: IntArray) -> FloatArray:
        draws = stream(1, pool, "curvature").normal(1, self.spread, self.num_chains(pool) * self.num_steps())
        return np.asarray(np.abs(draws[sample_ids]), dtype=np.float64)


def with_measures(**columns: object) -> Quirk:
    """Return a quirk that replaces some measures of every encoder but the one at the origin."""

    def quirk(theta_P: Vector, measures: SampleMeasures) -> SampleMeasures:
        return replace(measures, **columns) if theta_P.any() else measures  # type: ignore[arg-type]

    return quirk
