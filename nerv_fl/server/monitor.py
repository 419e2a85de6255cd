"""What the reports say of an encoder: its measures on fixed samples of the certify pool, and the final pool's verdict.

The monitor samples are the same in every round, so that curves can be compared; nothing is chosen by them.
"""

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from scipy.stats import t as student_t

from nerv_fl.arrays import Vector
from nerv_fl.client.privacy import Mechanism, epsilon_of
from nerv_fl.config import PROTOCOL_BOUND, RunConfig
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.evaluate import EncoderMeasures, measure_v_alone, summarise
from nerv_fl.models.presets import get_preset
from nerv_fl.records import Drift, EpsilonSpread, FinalPool, Homomorphism, MaskedCrossEntropy
from nerv_fl.rng import stream, torch_stream
from nerv_fl.server.utility import Pools
from nerv_fl.strategy.gate import CERTIFY, one_step_per_chain

FINAL: Final = "final"
FINAL_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The measures of the encoder that stands, as a round's record holds them."""

    homomorphism: Homomorphism
    drift: Drift
    residual_share: float
    effective_rank: float
    loss: float
    masked_ce: MaskedCrossEntropy


class Monitor:
    """Measures standing encoders on the monitor samples.

    Args:
        pools: The held-out pools.
        config: The run's settings.
    """

    def __init__(self, pools: Pools, *, config: RunConfig) -> None:
        self._pools = pools
        self._config = config
        self._ids = one_step_per_chain(np.arange(config.gate.monitor_samples), pools.num_steps())
        self._unigram, self._per_account = pools.baselines(CERTIFY, self._ids)

    def standing(self, theta_P: Vector, *, homomorphism: Homomorphism | None = None) -> Standing:
        """Measure an encoder; its bound is tested here if the gate has not done so."""
        measures = summarise(self._pools.measure([theta_P], CERTIFY, self._ids)[0])
        return self._standing(measures, homomorphism or self._bound(theta_P))

    def references(self, theta_P: Vector) -> dict[str, object]:
        """Return the two reference rows: random weights, and the bootstrap's V alone."""
        random = Encoder(get_preset(self._config.model.preset), readout=self._config.model.readout)
        random.reset_parameters(torch_stream(self._config.seed, "reference", "weights"))
        own = Encoder(get_preset(self._config.model.preset), readout=self._config.model.readout)
        set_flat(own, torch.from_numpy(theta_P))
        alone = measure_v_alone(own, self._pools.batch(CERTIFY, self._ids))
        return {
            "random_weights": asdict(self.standing(get_flat(random).numpy())),
            "v_alone": asdict(self._standing(alone, self._bound(theta_P))),
        }

    def final(self, before_P: Vector, after_P: Vector) -> FinalPool:
        """Open the final pool: one step of each of its chains, before against after."""
        ids = one_step_per_chain(np.arange(self._pools.num_chains(FINAL)), self._pools.num_steps())
        before, after = self._pools.measure([before_P, after_P], FINAL, ids)
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
            drift_before=float(before.drift_B.mean()),
            drift_after=float(after.drift_B.mean()),
        )

    def _bound(self, theta_P: Vector) -> Homomorphism:
        num_samples = self._pools.num_chains(CERTIFY) * self._pools.num_steps()
        batches = stream(self._config.seed, "monitor", "bound").integers(
            num_samples, size=self._config.gate.bound_batches
        )
        return self._pools.bound(theta_P, CERTIFY, batches, bound=PROTOCOL_BOUND)

    def _standing(self, measures: EncoderMeasures, homomorphism: Homomorphism) -> Standing:
        return Standing(
            homomorphism=homomorphism,
            drift=Drift(
                mean=measures.drift_mean,
                relative=measures.drift_relative,
                ratio=measures.drift_ratio,
                max=measures.drift_max,
            ),
            residual_share=measures.residual_share,
            effective_rank=measures.effective_rank,
            loss=measures.loss,
            masked_ce=MaskedCrossEntropy(
                value=measures.masked_ce, unigram=self._unigram, per_account=self._per_account
            ),
        )


def epsilon_spread(participations: tuple[int, ...], *, config: RunConfig) -> EpsilonSpread:
    """Return the epsilon spent over all nodes, from the rounds each may have trained in."""
    mechanism = Mechanism(sigma=config.privacy.sigma, sampling_rate=config.sampling_rate)
    steps = config.training.local_steps
    spent = [epsilon_of(mechanism, rounds * steps, delta=config.privacy.delta) for rounds in participations]
    return EpsilonSpread(min=min(spent), median=float(np.median(spent)), max=max(spent), delta=config.privacy.delta)
