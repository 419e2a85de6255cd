"""What held-out samples say of a model: its loss and further measures, sample by sample, and their means.

Shapes: B samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from nerv_fl.types import FloatArray


class Measures(Protocol):
    """Measures of B samples, in their order."""

    @property
    def loss_B(self) -> FloatArray:  # noqa: N802
        """The loss of each sample, float64."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the measures of consecutive parts as one."""


class Summary(Protocol):
    """Means over a pool, a dataclass of numbers."""

    @property
    def loss(self) -> float:
        """Mean loss."""

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Loss and further measures of each sample, float64 [B] each."""

    loss_B: FloatArray
    columns: Mapping[str, FloatArray]

    @classmethod
    def joined(cls, parts: Sequence["Measured"]) -> "Measured":
        """Return the measures of consecutive parts as one."""
        return cls(
            loss_B=np.concatenate([part.loss_B for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        )


@dataclass(frozen=True, kw_only=True)
class Means:
    """Mean loss, and the mean of each further measure; the lower the better, all of them."""

    loss: float
    measures: Mapping[str, float]
    finite: bool


def mean_of(measures: Measured) -> Means:
    """Return the means over samples."""
    means = {name: float(column.mean()) for name, column in measures.columns.items()}
    loss = float(measures.loss_B.mean())
    return Means(loss=loss, measures=means, finite=bool(np.isfinite([loss, *means.values()]).all()))


def broken_ratio(before: Means, after: Means, *, max_ratio: float) -> str:
    """Return the first measure that rose above `max_ratio` times what it was, in words, or an empty string.

    >>> start, worse = (Means(loss=1.0, measures={"error": error}, finite=True) for error in (2.0, 3.0))
    >>> broken_ratio(start, worse, max_ratio=1.01)
    'error is 1.5000 x before, above 1.01 x'
    """
    if not after.finite:
        return "the model is not finite"
    for name, value in after.measures.items():
        times = ratio(value, before.measures[name])
        if times > max_ratio:
            return f"{name} is {times:.4f} x before, above {max_ratio:g} x"
    return ""


def ratio(after: float, before: float) -> float:
    """Return after / before; 1 if both are 0, infinite if only `before` is."""
    if before == 0:
        return 1.0 if after == 0 else np.inf
    return after / before
