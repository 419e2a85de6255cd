"""Every measure by hand, on tables and residuals small enough to see.

Shapes: B samples, A accounts, D width, K buckets.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nerv_fl.data import Samples
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.evaluate import (
    BalanceBaselines,
    SampleMeasures,
    effective_rank,
    measure_samples,
    measure_v_alone,
    summarise,
)
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import Preset
from nerv_fl.tokens import NUM_BUCKETS, bucket

FLOOR = 0.05


def make_measures(*, loss: float = 2.0) -> SampleMeasures:
    return SampleMeasures(
        loss_B=np.array([loss, 4.0, 6.0]),
        drift_B=np.array([0.1, 0.2, 0.6]),
        delta_B=np.array([1.0, 2.0, 3.0]),
        masked_ce_B=np.array([1.0, 1.5, 3.5]),
        residual_BD=np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]], dtype=np.float32),
        live_BD=np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 12.0]], dtype=np.float32),
        table_AD=np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32),
    )


def test_every_measure_by_hand() -> None:
    found = summarise(make_measures())
    assert found.loss == pytest.approx(4)
    assert found.masked_ce == pytest.approx(2)
    assert found.drift_mean == pytest.approx(0.3)
    assert found.drift_max == pytest.approx(0.6)
    assert found.drift_relative == pytest.approx(0.3 / 2)
    # Distances between neighbours, in a ring: 3, 5 and 4.
    assert found.drift_ratio == pytest.approx(0.3 / 4)
    # The columns of R are 0, 3, 3 and 0, 4, 0, of variance 2 and 32 / 9; those of the live embedding have 8 and 32.
    assert found.residual_share == pytest.approx((2 + 32 / 9) / 40)
    assert found.mean_norm == pytest.approx(3)
    assert found.effective_rank == pytest.approx(effective_rank(np.array([[3.0, 4.0], [0.0, 1.0]])))
    assert found.finite


def test_loss_that_is_not_finite_is_said() -> None:
    found = summarise(make_measures(loss=math.nan))
    assert not found.finite
    assert found.effective_rank == 0


def test_flat_encoder_has_no_drift_and_no_residual_share() -> None:
    """Also no division by zero: its ratio is reported as 0."""
    measures = make_measures()
    flat = SampleMeasures(
        loss_B=measures.loss_B,
        drift_B=np.zeros(3),
        delta_B=measures.delta_B,
        masked_ce_B=measures.masked_ce_B,
        residual_BD=np.full((3, 2), 5.0, dtype=np.float32),
        live_BD=measures.live_BD,
        table_AD=measures.table_AD,
    )
    found = summarise(flat)
    assert (found.drift_mean, found.drift_ratio, found.residual_share) == (0, 0, 0)


@pytest.mark.parametrize(
    ("singular", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([5.0, 0.0, 0.0], 1.0),
        ([2.0, 2.0, 0.0], 2.0),
        ([3.0, 1.0], math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))),
        ([0.0, 0.0], 0.0),
    ],
)
def test_effective_rank_of_known_singular_values(singular: list[float], expected: float) -> None:
    size = len(singular)
    rotation, _ = np.linalg.qr(np.arange(1.0, size * size + 1).reshape(size, size) ** 1.5 + np.eye(size))
    assert effective_rank(np.diag(singular) @ rotation) == pytest.approx(expected, rel=1e-9)


# --- Baselines --------------------------------------------------------------------------------------------------------


def naive_baselines(fitted: list[list[int]], scored: list[list[int]], masked: list[list[bool]]) -> tuple[float, float]:
    """Return both cross-entropies, counting one balance after another."""
    buckets = [[int(bucket(np.array([balance]))[0]) for balance in state] for state in fitted]
    everything = [place for state in buckets for place in state]
    totals = []
    for state, hidden in zip(scored, masked, strict=True):
        unigram_terms, account_terms = [], []
        for account, (balance, is_hidden) in enumerate(zip(state, hidden, strict=True)):
            if not is_hidden:
                continue
            place = int(bucket(np.array([balance]))[0])
            unigram = (everything.count(place) + 0.1) / (len(everything) + 0.1 * NUM_BUCKETS)
            own = [row[account] for row in buckets]
            unigram_terms.append(-math.log(unigram))
            account_terms.append(-math.log((own.count(place) + 10 * unigram) / (len(own) + 10)))
        totals.append((np.mean(unigram_terms), np.mean(account_terms)))
    unigram_B, account_B = zip(*totals, strict=True)
    return float(np.mean(unigram_B)), float(np.mean(account_B))


def test_baselines_equal_the_loop() -> None:
    fitted = [[0, 5, 10**16], [3, 5, 100], [0, 6, 100], [0, 5, 7]]
    scored = [[0, 5, 100], [9, 9, 9], [3, 6, 10**16]]
    masked = [[True, True, False], [False, False, True], [True, True, True]]
    found = BalanceBaselines.fit(np.array(fitted)).cross_entropy(np.array(scored), np.array(masked))
    assert found == pytest.approx(naive_baselines(fitted, scored, masked))


def test_baselines_are_distributions_and_take_whole_chains(samples: Samples) -> None:
    flat = BalanceBaselines.fit(samples.before)
    chains = BalanceBaselines.fit(samples.before.reshape(3, 4, 8))
    assert np.exp(flat.unigram_K).sum() == pytest.approx(1)
    np.testing.assert_allclose(np.exp(flat.per_account_AK).sum(axis=1), 1)
    np.testing.assert_array_equal(chains.per_account_AK, flat.per_account_AK)


# --- On an encoder ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_measures_are_those_of_the_losses(encoder: Encoder, batch: StateBatch) -> None:
    measures = measure_samples(encoder, batch, movement_floor=FLOOR, chunk=100)
    losses = sample_losses(encoder, batch, table_AD=encoder.table(), movement_floor=FLOOR)
    np.testing.assert_array_equal(measures.loss_B, losses.loss_B.numpy())
    np.testing.assert_array_equal(measures.drift_B, losses.drift_B.numpy())
    np.testing.assert_array_equal(measures.delta_B, losses.delta_B.numpy())
    np.testing.assert_array_equal(measures.masked_ce_B, losses.masked_ce_B.numpy())
    np.testing.assert_array_equal(measures.residual_BD, losses.residual_B2D[:, 0].numpy())
    np.testing.assert_array_equal(measures.table_AD, encoder.table().numpy())
    assert measures.loss_B.dtype == np.float64


@torch.no_grad()
def test_live_embedding_is_the_weighted_sum_of_account_vectors(encoder: Encoder, batch: StateBatch) -> None:
    measures = measure_samples(encoder, batch, movement_floor=FLOOR, chunk=100)
    vectors_BAD = encoder.account_vectors(encoder.hidden(batch.tokens_B3T[:, :1]))[:, 0].double()
    expected_BD = torch.einsum("ba,bad->bd", batch.weights_B2A[:, 0].double(), vectors_BAD)
    np.testing.assert_allclose(measures.live_BD, expected_BD.numpy(), atol=1e-5)


def test_chunk_does_not_matter(encoder: Encoder, batch: StateBatch) -> None:
    found = [measure_samples(encoder, batch, movement_floor=FLOOR, chunk=chunk) for chunk in (1, 5, 12, 100)]
    for other in found[1:]:
        for name in ("loss_B", "drift_B", "delta_B", "masked_ce_B", "residual_BD", "live_BD", "table_AD"):
            np.testing.assert_allclose(getattr(other, name), getattr(found[0], name), rtol=1e-5, atol=1e-6)


def test_measuring_changes_nothing(encoder: Encoder, batch: StateBatch, theta: Tensor) -> None:
    measure_samples(encoder, batch, movement_floor=FLOOR, chunk=5)
    measure_v_alone(encoder, batch)
    assert torch.equal(get_flat(encoder), theta)
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_nan_encoder_is_not_finite(encoder: Encoder, batch: StateBatch, theta: Tensor) -> None:
    set_flat(encoder, theta * torch.nan)
    assert not summarise(measure_samples(encoder, batch, movement_floor=FLOOR, chunk=5)).finite


@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_v_alone_has_the_same_table_no_drift_and_predicts_from_blank(
    *, tiny: Preset, theta: Tensor, batch: StateBatch, readout: str
) -> None:
    encoder = Encoder(tiny, readout=readout)
    set_flat(encoder, theta)
    alone = measure_v_alone(encoder, batch)
    whole = summarise(measure_samples(encoder, batch, movement_floor=FLOOR, chunk=100))
    assert (alone.drift_mean, alone.drift_max, alone.drift_relative, alone.residual_share) == (0, 0, 0, 0)
    assert alone.effective_rank == pytest.approx(whole.effective_rank)
    assert alone.mean_norm == pytest.approx(whole.mean_norm)
    with torch.no_grad():
        logits_AK = encoder.balance_logits(encoder.hidden(encoder.blank_tokens())[:, 0])[0].double()
    surprise_AK = -torch.log_softmax(logits_AK, dim=1)
    terms = []
    for row in range(batch.num_samples):
        hidden = torch.nonzero(batch.masked_BA[row]).flatten().tolist()
        terms.append(np.mean([float(surprise_AK[account, batch.targets_BA[row, account]]) for account in hidden]))
    assert alone.masked_ce == pytest.approx(float(np.mean(terms)), rel=1e-5)
    assert alone.loss == alone.masked_ce
    assert alone.masked_ce != pytest.approx(whole.masked_ce, rel=1e-4)
