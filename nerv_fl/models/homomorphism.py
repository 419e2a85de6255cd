"""The affine encoder's arithmetic, and the proof by test that it keeps the homomorphism bound.

    E(S)      = sum_i (b_i / T) V_i
    delta(tx) = (amount / T) (V_receiver - V_sender)      mint: + V_receiver, burn: - V_sender
    N(S)      = sum_i b_i round(2^16 V_i)                 the integer numerator: E = N / (2^16 T) is only its display

N reaches 70 times the range of int64, so it is kept in two int64 limbs, ``N = high 2^36 + low`` with 0 <= low < 2^36,
and never rounded. The bound tests arithmetic, range and finiteness, not learning: random weights pass it too.

Source: NERV whitepaper v1.01, section 2.2 (theorem and bound); `docs/homomorphism.md` (why the read-out must be
affine).

Shapes: B batches, A accounts, D width, X transactions of all batches together.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from nerv_fl.data import Batches, Samples
from nerv_fl.errors import DataError
from nerv_fl.records import Homomorphism
from nerv_fl.tokens import NO_ACCOUNT
from nerv_fl.types import BoolArray, FloatArray, IntArray

Number = TypeVar("Number", bound=np.generic)
Float = TypeVar("Float", np.float32, np.float64)

FRACTION_BITS = 16
LIMB_BITS = 18
LOW_BITS = 2 * LIMB_BITS
_LIMB_MASK = (1 << LIMB_BITS) - 1


@dataclass(frozen=True, kw_only=True)
class Numerator:
    """Integers ``high 2^36 + low`` of any shape, exact; 0 <= low < 2^36."""

    high: IntArray
    low: IntArray

    def plus(self, other: "Numerator") -> "Numerator":
        """Return the exact sum."""
        low = self.low + other.low
        return Numerator(high=self.high + other.high + (low >> LOW_BITS), low=low & ((1 << LOW_BITS) - 1))

    def differs(self, other: "Numerator") -> BoolArray:
        """Return where two numerators are not the same integer."""
        return np.asarray((self.high != other.high) | (self.low != other.low))


def integer_table(table_AD: npt.NDArray[np.float32]) -> IntArray:
    """Return round(2^16 V) as int64 (A, D).

    Raises:
        DataError: If an entry is not finite, or so large that the numerator would not be exact.
    """
    scaled = np.asarray(table_AD, dtype=np.float64) * 2.0**FRACTION_BITS
    limit = 2.0**53 / (2.0**LIMB_BITS * table_AD.shape[0])
    if not np.isfinite(scaled).all() or np.abs(scaled).max() >= limit:
        largest = float(np.abs(table_AD).max())
        raise DataError(f"table V has an entry {largest}, expected finite numbers below {limit / 2**FRACTION_BITS:g}")
    return np.rint(scaled).astype(np.int64)


def state_numerator(balances_BA: IntArray, table_AD: IntArray) -> Numerator:
    """Return N(S) of each state, exactly, (B, D).

    Balances are cut into three limbs of 18 bits, so that each product and sum stays below 2^53: the matrix products run
    in float64 and lose nothing.
    """
    table = table_AD.astype(np.float64)
    parts = [((balances_BA >> shift) & _LIMB_MASK).astype(np.float64) @ table for shift in (0, LIMB_BITS)]
    parts.append((balances_BA >> LOW_BITS).astype(np.float64) @ table)
    return _normalise(*(part.astype(np.int64) for part in parts))


def batch_numerator(batches: Batches, table_AD: IntArray) -> Numerator:
    """Return 2^16 T sum delta of each batch, exactly, (B, D), transaction by transaction."""
    difference_XD = _table_difference(batches, table_AD)
    amount_X1 = batches.amount_nano[:, None]
    parts = [_sum_batches(((amount_X1 >> shift) & _LIMB_MASK) * difference_XD, batches) for shift in (0, LIMB_BITS)]
    parts.append(_sum_batches((amount_X1 >> LOW_BITS) * difference_XD, batches))
    return _normalise(*parts)


def encode(balances_BA: IntArray, supply_B: IntArray, table_AD: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Return E(S) in the precision of the table, (B, D)."""
    weights_BA = (balances_BA / supply_B[:, None]).astype(table_AD.dtype)
    return np.asarray(weights_BA @ table_AD)


def batch_delta(batches: Batches, supply_B: IntArray, table_AD: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Return sum delta of each batch in the precision of the table, (B, D), transaction by transaction."""
    supply_X = np.repeat(supply_B, np.diff(batches.offset))
    share_X1 = (batches.amount_nano / supply_X).astype(table_AD.dtype)[:, None]
    return _sum_batches(np.asarray(share_X1 * _table_difference(batches, table_AD)), batches)


def float_errors(samples: Samples, table_AD: npt.NDArray[Float]) -> FloatArray:
    """Return |E(S') - (E(S) + sum delta)|, max-abs over coordinates, float64 (B,), in the precision of the table."""
    batches = _batches(samples)
    moved_BD = encode(samples.before, samples.supply_nano, table_AD) + batch_delta(
        batches, samples.supply_nano, table_AD
    )
    after_BD = encode(samples.after, samples.supply_nano, table_AD)
    error_BD = after_BD.astype(np.float64) - moved_BD.astype(np.float64)
    return np.asarray(np.abs(error_BD).max(axis=1))


def integer_mismatches(samples: Samples, table_AD: IntArray) -> BoolArray:
    """Return where N(S') is not N(S) + 2^16 T sum delta as integers, bool (B,)."""
    moved = state_numerator(samples.before, table_AD).plus(batch_numerator(_batches(samples), table_AD))
    return np.asarray(state_numerator(samples.after, table_AD).differs(moved).any(axis=1))


def check_bound(
    samples: Samples, table_AD: npt.NDArray[np.float32], *, bound: float, errors: FloatArray | None = None
) -> Homomorphism:
    """Test the affine encoder on every sample's batch: float64 error within the bound, integer error 0.

    Args:
        samples: B samples with their batches.
        table_AD: V, float32, multiples of 2^-16.
        bound: Largest error allowed, 1e-9 in the protocol.
        errors: Errors of another read-out, float64 (B,), to judge in place of the affine one's.

    Raises:
        DataError: If V is not finite.
    """
    mismatches = integer_mismatches(samples, integer_table(table_AD))
    if errors is None:
        errors = float_errors(samples, table_AD.astype(np.float64))
    return Homomorphism(
        max=float(errors.max()),
        p999=float(np.quantile(errors, 0.999)),
        mean=float(errors.mean()),
        bound=bound,
        n=len(errors),
        violations=int(((errors > bound) | mismatches).sum()),
    )


def clopper_pearson_low(successes: int, trials: int, *, confidence: float = 0.95) -> float:
    """Return the exact one-sided lower confidence bound of a proportion.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.

    >>> round(clopper_pearson_low(2_995, 2_995), 6)
    0.999
    >>> round(clopper_pearson_low(29_956, 29_956), 7)
    0.9999
    """
    if successes == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, successes, trials - successes + 1))


def _normalise(part0: IntArray, part1: IntArray, part2: IntArray) -> Numerator:
    part1 = part1 + (part0 >> LIMB_BITS)
    low = (part0 & _LIMB_MASK) | ((part1 & _LIMB_MASK) << LIMB_BITS)
    return Numerator(high=part2 + (part1 >> LIMB_BITS), low=low)


def _table_difference(batches: Batches, table_AD: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return V_receiver - V_sender of each transaction, an absent account counting as zero, (X, D)."""
    padded = np.concatenate([table_AD, np.zeros_like(table_AD[:1])])
    absent = len(table_AD)
    receiver = np.where(batches.receiver == NO_ACCOUNT, absent, batches.receiver)
    sender = np.where(batches.sender == NO_ACCOUNT, absent, batches.sender)
    difference: npt.NDArray[Number] = np.subtract(padded[receiver], padded[sender])
    return difference


def _sum_batches(values_XD: npt.NDArray[Number], batches: Batches) -> npt.NDArray[Number]:
    """Sum the transactions of each batch; no batch is empty."""
    return np.asarray(np.add.reduceat(values_XD, batches.offset[:-1], axis=0))


def _batches(samples: Samples) -> Batches:
    if samples.batches is None:
        raise DataError("samples were read without their transactions, expected with_batches=True")
    if (np.diff(samples.batches.offset) < 1).any():
        raise DataError("a batch has 0 transactions, expected at least 1")
    return samples.batches
