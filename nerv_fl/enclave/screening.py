"""Updates that no honest node sends: without their DP noise, too long for their cohort, or made of what is public.

    unnoised   more coordinates within 0.6745 tau than noise of standard deviation tau leaves there
    replay     far more of the update lies along the encoder's last move and the server's momentum than of the others'
    loud       the update is far longer than the others'

*Unnoised* is a test with a known false alarm. The last step adds N(0, tau^2) to each coordinate, independent of
everything before it, tau = eta sigma C / (q n); whatever it is added to, a coordinate is within tau z of 0 with at
most the probability that the noise alone is (Anderson 1955). So at z = 0.6745 the count is stochastically at most
Binomial(P, 1/2): an update above that distribution's upper quantile is without its noise, whatever its gradient was.
It sees noise that is a few percent short.

A codec that rounds moves a coordinate by less than a known spacing s: |decoded| + s <= tau z implies |u| <= tau z. So
the coordinates that keep s of distance are never more than those counted before rounding, and the false alarm stays
below the one asked for, however the rounding depends on the noise (int8's grid does). The price is the mass between
tau z - s and tau z: noise must be a few percent shorter to be seen.

*Replay* and *loud* compare with the cohort: the median plus `outlier_sigmas` robust standard deviations (1.4826
median absolute deviations, or what DP noise alone gives if that is more). An honest node of a very different shard can
be among them; such an update is left out and unpaid in that round, and costs no reputation. Both hold while most of a
cohort is honest, and bound what a hidden cheat adds to a few honest gradients' length.

Without a privacy mechanism, in a simulation for comparison, nothing is screened. Nothing bounds an honest update then
and no noise says how far honest ones spread: of six honest updates of a small forecaster two were hundreds of times as
long as the others, in every round.

Source: T. W. Anderson, "The integral of a symmetric unimodal function over a symmetric convex set", 1955, theorem 1.

Shapes: N admitted nodes, P parameters, K public directions.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from scipy.stats import binom, norm

from nerv_fl.config import RunConfig
from nerv_fl.crypto import rounding_spacing
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.update_statistics import Examiner, Traits, random_signs
from nerv_fl.types import BoolArray, FloatArray, Vector

UNNOISED: Final = "unnoised"
REPLAY: Final = "replay"
LOUD: Final = "loud"

MEDIAN_NORMAL: Final = float(norm.ppf(0.75))
"""0.6745: half of standard normal numbers are smaller in magnitude."""


def noise_std(config: RunConfig) -> float:
    """Return tau, the standard deviation of one local step's noise in each coordinate of an update."""
    training, privacy = config.training, config.privacy
    return training.learning_rate * privacy.noise_multiplier * privacy.clip / training.expected_batch


def examiner(public_KP: Vector, *, config: RunConfig, moves_P: BoolArray | None = None) -> Examiner:
    """Return what looks at a round's updates.

    Args:
        public_KP: Directions that anyone knows, float32 [K, P]; zero ones count for nothing.
        config: The mechanism and `enclave.outlier_sigmas`.
        moves_P: Which coordinates are trained, bool (P,), or None if all.
    """
    num_parameters, small = public_KP.shape[1], MEDIAN_NORMAL * noise_std(config)
    return Examiner(
        _basis(public_KP) if config.enclave.outlier_sigmas else np.zeros((0, num_parameters)),
        # What is not trained has no noise and is never small.
        small=small if moves_P is None else np.where(moves_P, small, -1.0),
        spacing=partial(rounding_spacing, codec=config.training.codec),
        signs_L=random_signs(num_parameters),
    )


def screen(traits: Sequence[Traits], *, num_parameters: int, config: RunConfig) -> list[str]:
    """Return a flag for each update: empty, "unnoised", "replay" or "loud"; empty for all without a mechanism.

    Args:
        traits: Of N finite updates.
        num_parameters: P, of the coordinates that are trained.
        config: The mechanism, `enclave.noise_alarm` and `enclave.outlier_sigmas`.
    """
    flags = [""] * len(traits)
    if not traits or not config.privacy.is_private:
        return flags
    tau, alarm, sigmas = noise_std(config), config.enclave.noise_alarm, config.enclave.outlier_sigmas
    small_N, length_N, public_N = np.array([(item.num_small, item.square, item.public) for item in traits]).T
    if sigmas:
        whole_tau = tau * math.sqrt(config.training.local_steps)
        # Noise alone spreads |u|^2 by this much.
        noise_floor = whole_tau**2 * math.sqrt(2 * num_parameters)
        _mark(flags, _outliers(length_N, sigmas=sigmas, floor=noise_floor), LOUD)
        _mark(flags, _outliers(public_N, sigmas=sigmas, floor=whole_tau), REPLAY)
    if alarm:
        _mark(flags, small_N > float(binom.isf(alarm, num_parameters, 0.5)), UNNOISED)
    return flags


def public_directions(optimizer: OptimizerState, *, move_P: Vector, epsilon: float) -> Vector:
    """Return what anyone who follows the chain knows: the last move, the momentum, and the momentum as Adam scales it.

    Args:
        optimizer: The state that stands.
        move_P: The encoder's last change, zeros before the first.
        epsilon: Adam's.
    """
    momentum_P, second_P = optimizer.momentum_P, optimizer.second_P
    return np.stack([move_P, momentum_P, momentum_P / (np.sqrt(second_P) + np.float32(epsilon))])


def _mark(flags: list[str], found_N: BoolArray, name: str) -> None:
    for index in np.flatnonzero(found_N):
        flags[index] = name


def _basis(public_KP: Vector) -> FloatArray:
    """Return an orthonormal basis of the span of the public directions, none if all are zero."""
    known_KP = public_KP[np.linalg.norm(public_KP, axis=1) > 0].astype(np.float64)
    if not len(known_KP):
        return np.zeros((0, public_KP.shape[1]))
    known_KP /= np.linalg.norm(known_KP, axis=1, keepdims=True)
    _, strength_K, basis_KP = np.linalg.svd(known_KP, full_matrices=False)
    return np.asarray(basis_KP[strength_K > 1e-6 * strength_K[0]])


def _outliers(score_N: FloatArray, *, sigmas: float, floor: float) -> BoolArray:
    """Return which scores lie above the median by `sigmas` robust standard deviations of at least `floor`."""
    median = float(np.median(score_N))
    spread = float(np.median(np.abs(score_N - median))) / MEDIAN_NORMAL
    return np.asarray(score_N > median + sigmas * max(spread, floor))
