"""Controls: games whose Shapley values are known, used to explain most of a game whose values are not.

A control need not be right. Whatever it fails to explain is estimated from the evaluations, so a bad control costs
accuracy and never correctness. With gains a_i and a symmetric curvature Q,

    linear        v(C) = sum_C a_i                                phi_i = a_i
    quadratic     v(C) = sum_C a_i + 1/2 sum_{i,j in C} Q_ij      phi_i = a_i + 1/2 sum_j Q_ij
    mean          v(C) = the same of the members' weighted mean: a_i -> w_i a_i / W_C, Q_ij -> w_i w_j Q_ij / W_C^2

The first two have the phi of any quadratic game: a pair's term is shared equally (Shapley 1953, by linearity). The
third has a closed form for equal weights, below; for others its values are means over random orders, which cost no
evaluation of the game (`nerv_fl.shapley.permutation_sampling`).

Equal weights. With c members before i, S their sum and the others' mean gain m_i = mean_{j != i} a_j, E S = c m_i, so

    phi_i = 1/N [ a_i sum_{c=0}^{N-1} (c+1)^-p + m_i sum_{c=1}^{N-1} c ((c+1)^-p - c^-p) ]       for v(C) = |C|^-p
    sum_C a_i

and p = 1 is the mean. For the quadratic part the expectations of sum_{j,k in C} Q_jk and sum_{j in C} Q_ij over C of
size c take their place.

Shapes: M coalitions, N players.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from nerv_fl.errors import ConfigError
from nerv_fl.shapley.game import MaskArray
from nerv_fl.shapley.permutation_sampling import mean_over_orders
from nerv_fl.types import FloatArray


@runtime_checkable
class Control(Protocol):
    """A game of known Shapley value."""

    def __call__(self, masks_MN: MaskArray) -> FloatArray:
        """Return the value of each coalition, float64 [M]; 0 for the empty one."""

    def shapley(self) -> FloatArray:
        """Return its Shapley values, float64 [N]."""


@dataclass(frozen=True, eq=False)
class LinearControl:
    """The additive game of gains, float64 [N]."""

    gains_N: FloatArray

    def __post_init__(self) -> None:
        """Refuse what is not a finite vector."""
        _check_vector("gains", self.gains_N)

    def __call__(self, masks_MN: MaskArray) -> FloatArray:
        """Return sum_C a_i, float64 [M]."""
        return masks_MN.astype(np.float64) @ self.gains_N

    def shapley(self) -> FloatArray:
        """Return the gains."""
        return self.gains_N


@dataclass(frozen=True, eq=False)
class QuadraticControl:
    """The game of gains, float64 [N], and a symmetric curvature, float64 [N, N]."""

    gains_N: FloatArray
    curvature_NN: FloatArray

    def __post_init__(self) -> None:
        """Refuse shapes that do not match."""
        _check_vector("gains", self.gains_N)
        _check_curvature(self.curvature_NN, num_players=len(self.gains_N))

    def __call__(self, masks_MN: MaskArray) -> FloatArray:
        """Return sum_C a_i + 1/2 sum_{i,j in C} Q_ij, float64 [M]."""
        return _quadratic(masks_MN.astype(np.float64), self.gains_N, self.curvature_NN)

    def shapley(self) -> FloatArray:
        """Return a_i + 1/2 sum_j Q_ij."""
        return np.asarray(self.gains_N + 0.5 * self.curvature_NN.sum(axis=1))


@dataclass(frozen=True, eq=False)
class MeanControl:
    """The game of a coalition's weighted mean: of gains alone, or of gains and curvature.

    Attributes:
        gains_N: float64 [N].
        weights_N: float64 [N], positive.
        curvature_NN: float64 [N, N], symmetric, or None.
        permutations: Random orders that unequal weights need, in antithetic pairs.
        seed: Seed of these orders.
    """

    gains_N: FloatArray
    weights_N: FloatArray
    curvature_NN: FloatArray | None = None
    permutations: int = 10_000
    seed: int = 0
    _equal: bool = field(init=False)

    def __post_init__(self) -> None:
        """Refuse shapes that do not match and weights that are not positive."""
        _check_vector("gains", self.gains_N)
        _check_vector("weights", self.weights_N)
        if len(self.weights_N) != len(self.gains_N) or not (self.weights_N > 0).all():
            raise ConfigError(
                f"weights are {len(self.weights_N)} numbers from {self.weights_N.min():g}, "
                f"expected {len(self.gains_N)} positive ones"
            )
        if self.curvature_NN is not None:
            _check_curvature(self.curvature_NN, num_players=len(self.gains_N))
        object.__setattr__(self, "_equal", bool((self.weights_N == self.weights_N[0]).all()))

    def __call__(self, masks_MN: MaskArray) -> FloatArray:
        """Return the value of each coalition's mean, float64 [M]."""
        held_MN = masks_MN * self.weights_N
        share_MN = held_MN / np.maximum(held_MN.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return _quadratic(share_MN, self.gains_N, self.curvature_NN)

    def shapley(self) -> FloatArray:
        """Return its values: in closed form for equal weights, else means over random orders."""
        if not self._equal:
            curvature_NN = np.zeros((0, 0)) if self.curvature_NN is None else self.curvature_NN
            return mean_over_orders(
                self.gains_N, curvature_NN, self.weights_N, permutations=self.permutations, seed=self.seed
            )
        values_N = inverse_size_values(self.gains_N, power=1)
        if self.curvature_NN is not None:
            values_N = values_N + _mean_curvature_values(self.curvature_NN)
        return values_N


def inverse_size_values(gains_N: FloatArray, *, power: int) -> FloatArray:
    """Return the Shapley values of v(C) = |C|^-power sum_C a_i, by the formula at the top of this file.

    Args:
        gains_N: float64 [N], or [..., N].
        power: At least 0.

    >>> inverse_size_values(np.array([1.0, 3.0]), power=1).tolist()
    [0.0, 2.0]
    """
    num_players = gains_N.shape[-1]
    sizes = np.arange(1, num_players, dtype=np.float64)
    own = (np.arange(1, num_players + 1, dtype=np.float64) ** -power).sum()
    shared = (sizes * ((sizes + 1) ** -power - sizes**-power)).sum()
    others = (gains_N.sum(axis=-1, keepdims=True) - gains_N) / max(num_players - 1, 1)
    return np.asarray((own * gains_N + shared * others) / num_players)


def _mean_curvature_values(curvature_NN: FloatArray) -> FloatArray:
    """Return the Shapley values of v(C) = 1/2 |C|^-2 sum_{i,j in C} Q_ij."""
    num_players = len(curvature_NN)
    own_N = np.diag(curvature_NN)
    row_N = curvature_NN.sum(axis=1) - own_N
    trace_N = own_N.sum() - own_N
    cross_N = curvature_NN.sum() - own_N - 2 * row_N - trace_N
    others = max(num_players - 1, 1)
    values_N = 0.5 * own_N
    for size in range(1, num_players):
        inside_N = size / others * trace_N + size * (size - 1) / max(others * (others - 1), 1) * cross_N
        with_N = inside_N + 2 * size / others * row_N + own_N
        values_N = values_N + 0.5 * (with_N / (size + 1) ** 2 - inside_N / size**2)
    return np.asarray(values_N / num_players)


def _quadratic(share_MN: FloatArray, gains_N: FloatArray, curvature_NN: FloatArray | None) -> FloatArray:
    values_M = share_MN @ gains_N
    if curvature_NN is not None:
        values_M = values_M + 0.5 * np.einsum("mi,mi->m", share_MN @ curvature_NN, share_MN)
    return np.asarray(values_M)


def _check_vector(name: str, vector_N: FloatArray) -> None:
    if vector_N.dtype != np.float64 or vector_N.ndim != 1 or not len(vector_N) or not np.isfinite(vector_N).all():
        raise ConfigError(
            f"{name} are {vector_N.dtype} of shape {vector_N.shape}, expected finite float64 of shape (N,)"
        )


def _check_curvature(curvature_NN: FloatArray, *, num_players: int) -> None:
    expected = (num_players, num_players)
    if curvature_NN.dtype != np.float64 or curvature_NN.shape != expected or not np.isfinite(curvature_NN).all():
        raise ConfigError(
            f"curvature is {curvature_NN.dtype} of shape {curvature_NN.shape}, expected finite float64 of {expected}"
        )
    if not np.allclose(curvature_NN, curvature_NN.T, rtol=1e-6, atol=1e-12 * float(np.abs(curvature_NN).max())):
        raise ConfigError("curvature is not symmetric, expected Q_ij = Q_ji")
