"""What the enclave looks at in every update, in the one pass that opens it: enough to screen it and to find its clones.

Each coordinate of a sketch is a sum of the update's coordinates under random signs: for unit vectors a sketched inner
product is right in expectation, and its variance is at most 2 / D. The first half of a sketch added to the second is
again a sketch, half as long.

Source: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.

Shapes: P parameters, K public directions, D numbers of a sketch, L = P rounded up to a multiple of D.
"""

import math
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, Vector

SKETCH: Final = 1024
"""D, numbers that an update is sketched in."""


class Traits(NamedTuple):
    """What is seen of one update.

    Attributes:
        num_small: Coordinates that are at most `Examiner.small` in magnitude.
        square: |u|^2.
        public: Length of the part of u that lies along what is public.
        sketch_D: float32 [D], a sketch of u / |u|; zeros if u is zero.
    """

    num_small: int
    square: float
    public: float
    sketch_D: Vector


class Examiner:
    """Looks at updates; several threads may.

    Args:
        basis_KP: float64 [K, P], an orthonormal basis of what is public; K may be 0.
        small: Bound of a small coordinate, or one for each, float64 [P].
        spacing: Returns how far each coordinate may have been rounded; a small one is small however it was.
        signs_L: float64 [L], random signs, the same in every round.
    """

    def __init__(
        self,
        basis_KP: FloatArray,
        *,
        small: float | FloatArray,
        spacing: Callable[[Vector], Vector],
        signs_L: FloatArray,
    ) -> None:
        self._basis_KP = basis_KP
        self._small = small
        self._spacing = spacing
        self._signs_L = signs_L
        self._scratch = _Scratch(len(signs_L))

    def __call__(self, update_P: Vector) -> Traits:
        """Return the traits of an update, float32 [P]; if not finite, `square` says so alone."""
        wide_L = self._scratch.wide_L
        wide_P = wide_L[: len(update_P)]
        with np.errstate(invalid="ignore"):  # a signalling NaN warns as it is widened
            wide_P[:] = update_P
        square = float(wide_P @ wide_P)
        if not math.isfinite(square):
            return Traits(num_small=0, square=square, public=0.0, sketch_D=np.zeros(SKETCH, dtype=np.float32))
        public = float(np.linalg.norm(self._basis_KP @ wide_P)) if len(self._basis_KP) else 0.0
        wide_L *= self._signs_L
        sketch_D = wide_L.reshape(-1, SKETCH).sum(axis=0)
        if square > 0:
            sketch_D /= square**0.5
        return Traits(
            num_small=int(np.count_nonzero(np.abs(update_P) + self._spacing(update_P) <= self._small)),
            square=square,
            public=public,
            sketch_D=sketch_D.astype(np.float32),
        )


class _Scratch(threading.local):
    """Each thread's own room for one update: the system's pages, taken anew for each, cost more than the sums."""

    def __init__(self, length: int) -> None:
        self.wide_L: FloatArray = np.zeros(length)


def random_signs(num_parameters: int) -> FloatArray:
    """Return the signs of a sketch, float64 [L], each 1 or -1."""
    length = -(-num_parameters // SKETCH) * SKETCH
    return 2 * stream(0, "clones").integers(2, size=length, dtype=np.int8).astype(np.float64) - 1
