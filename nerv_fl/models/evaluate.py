"""Every measure of an encoder, on held-out samples.

    drift          mean |R(S') - R(S)|                          falls as the encoder flattens
    relative       mean |R(S') - R(S)| / mean |sum delta|
    ratio          mean |R(S') - R(S)| / mean |R(S) - R(S~)|    S~: an unrelated state; flattening cannot lower it
    residual share var R / var E_live                           shows the flattening
    effective rank exp(H(s / sum s)), s the singular values of V
    masked CE      mean cross-entropy of masked balances, nats, beside the unigram and the per-account unigram

Source of the effective rank: Roy and Vetterli, "The effective rank", EUSIPCO 2007, equation 4.

Shapes: B samples, A accounts, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import masked_cross_entropy, sample_losses
from nerv_fl.tokens import NUM_BUCKETS, bucket
from nerv_fl.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class SampleMeasures:
    """Measures of B samples, in their order.

    Attributes:
        loss_B: float64, data loss.
        drift_B: float64, |R(S') - R(S)|.
        delta_B: float64, |sum delta|.
        masked_ce_B: float64, nats.
        residual_BD: float32, R(S) before the batch.
        live_BD: float32, E_live(S) before the batch.
        table_AD: float32, the encoder's table V.
    """

    loss_B: FloatArray
    drift_B: FloatArray
    delta_B: FloatArray
    masked_ce_B: FloatArray
    residual_BD: npt.NDArray[np.float32]
    live_BD: npt.NDArray[np.float32]
    table_AD: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence["SampleMeasures"]) -> "SampleMeasures":
        """Return the measures of consecutive parts, all of one encoder, as one."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in BY_SAMPLE}
        return cls(**columns, table_AD=parts[0].table_AD)


BY_SAMPLE: Final = ("loss_B", "drift_B", "delta_B", "masked_ce_B", "residual_BD", "live_BD")


@dataclass(frozen=True, kw_only=True)
class EncoderMeasures:
    """Means of the measures over a pool; see the module's docstring."""

    loss: float
    masked_ce: float
    drift_mean: float
    drift_max: float
    drift_relative: float
    drift_ratio: float
    residual_share: float
    effective_rank: float
    mean_norm: float
    finite: bool


def measure_samples(encoder: Encoder, batch: StateBatch, *, movement_floor: float, chunk: int) -> SampleMeasures:
    """Measure an encoder on every sample, `chunk` samples at a time (bits depend on it)."""
    with torch.no_grad():
        table_AD = encoder.table()
        parts = []
        for start in range(0, batch.num_samples, chunk):
            part = batch.part(start, start + chunk)
            losses = sample_losses(encoder, part, table_AD=table_AD, movement_floor=movement_floor)
            residual_BD = losses.residual_B2D[:, 0]
            live_BD = residual_BD + part.weights_B2A[:, 0] @ table_AD
            parts.append((losses.loss_B, losses.drift_B, losses.delta_B, losses.masked_ce_B, residual_BD, live_BD))
    loss, drift, delta, masked_ce, residual, live = (
        torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
    )
    return SampleMeasures(
        loss_B=loss.astype(np.float64),
        drift_B=drift.astype(np.float64),
        delta_B=delta.astype(np.float64),
        masked_ce_B=masked_ce.astype(np.float64),
        residual_BD=residual,
        live_BD=live,
        table_AD=table_AD.detach().cpu().numpy().copy(),
    )


def summarise(measures: SampleMeasures) -> EncoderMeasures:
    """Return the pool's measures. Unrelated states are neighbours in the pool: each is of another chain."""
    residual_BD = measures.residual_BD.astype(np.float64)
    unrelated = np.linalg.norm(residual_BD - np.roll(residual_BD, 1, axis=0), axis=1).mean()
    drift_mean, delta_mean = float(measures.drift_B.mean()), float(measures.delta_B.mean())
    table_AD = measures.table_AD.astype(np.float64)
    finite = bool(np.isfinite(measures.loss_B).all() and np.isfinite(table_AD).all())
    return EncoderMeasures(
        loss=float(measures.loss_B.mean()),
        masked_ce=float(measures.masked_ce_B.mean()),
        drift_mean=drift_mean,
        drift_max=float(measures.drift_B.max()),
        drift_relative=_ratio(drift_mean, delta_mean),
        drift_ratio=_ratio(drift_mean, float(unrelated)),
        residual_share=_ratio(_variance(residual_BD), _variance(measures.live_BD.astype(np.float64))),
        effective_rank=effective_rank(table_AD) if finite else 0.0,
        mean_norm=float(np.linalg.norm(table_AD, axis=1).mean()),
        finite=finite,
    )


def effective_rank(matrix: FloatArray) -> float:
    """Return exp of the entropy of the normalised singular values, between 1 and the rank; 0 for the zero matrix.

    >>> round(effective_rank(np.eye(3)), 9)
    3.0
    """
    singular = np.linalg.svd(matrix, compute_uv=False)
    if singular.sum() == 0:
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@dataclass(frozen=True)
class BalanceBaselines:
    """The two trivial models of a masked balance, smoothed so that no bucket is impossible.

    Attributes:
        unigram_K: Log-probability of each bucket, whoever's balance it is.
        per_account_AK: Log-probability of each bucket of each account.
    """

    unigram_K: FloatArray
    per_account_AK: FloatArray

    @classmethod
    def fit(cls, balances: IntArray) -> "BalanceBaselines":
        """Count buckets in states (..., A); the per-account model is smoothed towards the unigram."""
        return cls.from_counts(cls.count(balances))

    @staticmethod
    def count(balances: IntArray) -> FloatArray:
        """Return how often each account of states (..., A) is in each bucket, (A, K): counts of parts add up."""
        num_accounts = balances.shape[-1]
        buckets_NA = bucket(balances.reshape(-1, num_accounts))
        counts_AK = np.zeros((num_accounts, NUM_BUCKETS))
        np.add.at(counts_AK, (np.broadcast_to(np.arange(num_accounts), buckets_NA.shape), buckets_NA), 1.0)
        return counts_AK

    @classmethod
    def from_counts(cls, counts_AK: FloatArray) -> "BalanceBaselines":
        """Return the two models of counted buckets."""
        unigram_K = (counts_AK.sum(axis=0) + 0.1) / (counts_AK.sum() + 0.1 * NUM_BUCKETS)
        prior = 10.0
        per_account_AK = (counts_AK + prior * unigram_K) / (counts_AK.sum(axis=1, keepdims=True) + prior)
        return cls(np.log(unigram_K), np.log(per_account_AK))

    def cross_entropy(self, balances_BA: IntArray, masked_BA: BoolArray) -> tuple[float, float]:
        """Return the cross-entropies (unigram, per account), nats, weighted as the encoder's own: by sample."""
        buckets_BA = bucket(balances_BA)
        accounts_A = np.arange(balances_BA.shape[1])
        weight_BA = masked_BA / masked_BA.sum(axis=1, keepdims=True)
        unigram = -(self.unigram_K[buckets_BA] * weight_BA).sum(axis=1).mean()
        per_account = -(self.per_account_AK[accounts_A, buckets_BA] * weight_BA).sum(axis=1).mean()
        return float(unigram), float(per_account)


def _variance(values_BD: FloatArray) -> float:
    return float(values_BD.var(axis=0).sum())


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def measure_v_alone(encoder: Encoder, batch: StateBatch) -> EncoderMeasures:
    """Return the measures of the encoder's table without its transformer: no residual, balances predicted from blank.

    It has no drift at all and the same table, which is why drift is never shown alone.
    """
    with torch.no_grad():
        hidden_1TD = encoder.hidden(encoder.blank_tokens())[:, 0]
        table_AD = encoder.table_of(hidden_1TD)[0]
        masked_ce_B = masked_cross_entropy(encoder, hidden_1TD.expand(batch.num_samples, -1, -1), batch)
    masked_ce = float(masked_ce_B.double().mean())
    table = table_AD.cpu().numpy().astype(np.float64)
    return EncoderMeasures(
        loss=masked_ce,
        masked_ce=masked_ce,
        drift_mean=0.0,
        drift_max=0.0,
        drift_relative=0.0,
        drift_ratio=0.0,
        residual_share=0.0,
        effective_rank=effective_rank(table),
        mean_norm=float(np.linalg.norm(table, axis=1).mean()),
        finite=True,
    )
