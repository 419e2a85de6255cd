"""What the reports say of a model: its measures on fixed samples of the certify pool, and the final pool's verdict.

The monitor samples are the same in every round, so that curves can be compared; nothing is chosen by them.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import numpy as np
import torch
from scipy.stats import t as student_t

from nerv_fl.config import PROTOCOL_BOUND, RunConfig
from nerv_fl.enclave.evaluation import Pools
from nerv_fl.enclave.gate import CERTIFY, one_step_per_chain
from nerv_fl.errors import TaskError
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.privacy.accounting import epsilon_of, mechanism_of
from nerv_fl.records import EpsilonSpread, FinalPool, Homomorphism, Standing
from nerv_fl.rng import stream, torch_stream
from nerv_fl.tasks.metrics import Measures, Summary
from nerv_fl.types import Vector

FINAL: Final = "final"
FINAL_CONFIDENCE: Final = 0.95


class Monitor:
    """Measures standing models on the monitor samples.

    Args:
        pools: The held-out pools.
        config: The run's settings.
    """

    def __init__(self, pools: Pools, *, config: RunConfig) -> None:
        self._pools = pools
        self._config = config
        self._ids = one_step_per_chain(np.arange(config.gate.monitor_samples), pools.num_steps())
        self._trivial = pools.trivial(CERTIFY, self._ids)
        _require_finite_means(self._trivial, what="of a trivial model")

    def standing(self, theta_P: Vector, *, homomorphism: Homomorphism | None = None) -> Standing:
        """Measure a model; what it claims of itself is tested here if the gate has not done so."""
        measures = self._pools.measure([theta_P], CERTIFY, self._ids)[0]
        _require_finite_losses(measures, pool=CERTIFY)
        return self._standing(self._pools.summarise(measures), homomorphism or self._bound(theta_P))

    def references(self, theta_P: Vector) -> dict[str, object]:
        """Return the reference rows: random weights, and what the task makes of the start, such as V alone."""
        task = self._pools.task
        random, own = task.build(), task.build()
        task.draw_parameters(random, torch_stream(self._config.seed, "reference", "weights"))
        set_flat(own, torch.from_numpy(theta_P))
        made = task.references(own, self._pools.batch(CERTIFY, self._ids))
        rows = {"random_weights": self.standing(get_flat(random).numpy())}
        rows |= {name: self._standing(measures, self._bound(theta_P)) for name, measures in made.items()}
        return {name: asdict(row) for name, row in rows.items()}

    def final(self, before_P: Vector, after_P: Vector) -> FinalPool:
        """Open the final pool: one step of each of its chains, before against after."""
        ids = one_step_per_chain(np.arange(self._pools.num_chains(FINAL)), self._pools.num_steps())
        before, after = self._pools.measure([before_P, after_P], FINAL, ids)
        for measures in (before, after):
            _require_finite_losses(measures, pool=FINAL)
        change_B = after.loss_B - before.loss_B
        half = student_t.ppf(0.5 + FINAL_CONFIDENCE / 2, len(ids) - 1) * change_B.std(ddof=1) / np.sqrt(len(ids))
        return FinalPool(
            loss_before=float(before.loss_B.mean()),
            loss_after=float(after.loss_B.mean()),
            difference=float(change_B.mean()),
            ci_low=float(change_B.mean() - half),
            ci_high=float(change_B.mean() + half),
            chains=len(ids),
            confidence=FINAL_CONFIDENCE,
            drift_before=_mean(before, "drift_B"),
            drift_after=_mean(after, "drift_B"),
        )

    def _bound(self, theta_P: Vector) -> Homomorphism | None:
        num_samples = self._pools.num_chains(CERTIFY) * self._pools.num_steps()
        batches = stream(self._config.seed, "monitor", "bound").integers(
            num_samples, size=self._config.gate.bound_batches
        )
        return self._pools.bound(theta_P, CERTIFY, batches, bound=PROTOCOL_BOUND)

    def _standing(self, summary: Summary, homomorphism: Homomorphism | None) -> Standing:
        _require_finite_means(getattr(summary, "measures", {}), what="of the model")
        return self._pools.task.standing(summary, trivial=self._trivial, homomorphism=homomorphism)


def _require_finite_losses(measures: Measures, *, pool: str) -> None:
    """Raise if a record would hold a loss that is not finite; a candidate with one never gets here.

    Raises:
        TaskError: If a sample's loss is not finite.
    """
    wrong = np.flatnonzero(~np.isfinite(measures.loss_B))
    if len(wrong):
        raise TaskError(
            f"the loss of {len(wrong)} of {len(measures.loss_B)} samples of the {pool} pool is not finite, such as "
            f"{measures.loss_B[wrong[0]]}, expected finite ones: correct the task's losses, its weights or its data"
        )


def _require_finite_means(means: Mapping[str, float], *, what: str) -> None:
    for name, value in means.items():
        if not np.isfinite(value):
            raise TaskError(f"measure {name!r} {what} is {value} on the {CERTIFY} pool, expected a finite number")


def _mean(measures: Measures, name: str) -> float | None:
    """Return the mean of a column, None if the task has none of that name."""
    column = getattr(measures, name, None)
    return None if column is None else float(column.mean())


def epsilon_spread(participations: tuple[int, ...], *, config: RunConfig) -> EpsilonSpread:
    """Return the epsilon spent over all nodes, from the rounds each may have trained in; none without a mechanism."""
    privacy, steps = config.privacy, config.training.local_steps
    if not privacy.is_private:
        return EpsilonSpread(min=None, median=None, max=None, delta=privacy.delta, mechanism=privacy.deviation)
    mechanism = mechanism_of(config, sampling_rate=config.sampling_rate)
    spent = [epsilon_of(mechanism, rounds * steps, delta=privacy.delta) for rounds in participations]
    return EpsilonSpread(
        min=min(spent),
        median=float(np.median(spent)),
        max=max(spent),
        delta=privacy.delta,
        mechanism=privacy.deviation,
    )
