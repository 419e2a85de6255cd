"""Masks, tensors and weights of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nerv_fl.data import Samples
from nerv_fl.models.batch import StateBatch, balance_weights, draw_masks, evaluation_masks, movement
from nerv_fl.rng import stream
from nerv_fl.tokens import bucket, tokens


def test_every_sample_has_a_masked_balance() -> None:
    assert draw_masks(stream(1, "masks"), num_samples=5000, num_accounts=2).any(axis=1).all()


def test_mask_rates_follow_their_law() -> None:
    """Uniform in 0.15..1, and 1 with probability 0.1: mean 0.1 + 0.9 x 0.575."""
    masked = draw_masks(stream(2, "masks"), num_samples=4000, num_accounts=256)
    rate = masked.mean(axis=1)
    assert rate.mean() == pytest.approx(0.6175, abs=0.015)
    assert (rate == 1).mean() == pytest.approx(0.1, abs=0.02)
    assert 0.05 < rate.min() < 0.15
    quarters = np.quantile(rate[rate < 1], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [0.3625, 0.575, 0.7875], atol=0.03)


def test_masks_of_nothing() -> None:
    assert draw_masks(stream(1, "masks"), num_samples=0, num_accounts=8).shape == (0, 8)


def picked(samples: Samples, rows: list[int]) -> Samples:
    columns = {name: getattr(samples, name)[rows] for name in ("before", "after", "supply_nano", "chain", "step")}
    return replace(samples, **columns, batches=None)


def test_evaluation_masks_are_fixed_by_seed_chain_and_step(samples: Samples) -> None:
    whole = evaluation_masks(3, samples)
    assert np.array_equal(evaluation_masks(3, picked(samples, [5, 2])), whole[[5, 2]])
    assert not np.array_equal(evaluation_masks(4, samples), whole)
    later = replace(samples, step=samples.step + 1)
    assert not np.array_equal(evaluation_masks(3, later), whole)
    assert evaluation_masks(3, picked(samples, [])).shape == (0, 8)


def test_batch_holds_the_three_states(samples: Samples, batch: StateBatch) -> None:
    masked = batch.masked_BA.numpy()
    assert batch.num_samples == 12
    assert np.array_equal(batch.tokens_B3T[:, 0].numpy(), tokens(samples.before))
    assert np.array_equal(batch.tokens_B3T[:, 1].numpy(), tokens(samples.after))
    assert np.array_equal(batch.tokens_B3T[:, 2].numpy(), tokens(samples.before, masked=masked))
    assert np.array_equal(batch.targets_BA.numpy(), bucket(samples.before))
    assert batch.tokens_B3T.dtype == torch.int64


def test_masked_state_hides_its_targets(batch: StateBatch) -> None:
    hidden = batch.tokens_B3T[:, 2, 2::2]
    assert bool((hidden[batch.masked_BA] == 0).all())
    assert bool((hidden[~batch.masked_BA] == 9 + batch.targets_BA[~batch.masked_BA]).all())


def test_weights_are_shares_of_the_supply_at_the_start(samples: Samples, batch: StateBatch) -> None:
    assert batch.weights_B2A.dtype == torch.float32
    share = int(samples.after[7, 2]) / int(samples.supply_nano[7])
    assert float(batch.weights_B2A[7, 1, 2]) == pytest.approx(share, rel=1e-6)
    assert np.array_equal(balance_weights(samples), batch.weights_B2A.numpy())


def test_part_and_device_keep_every_column(batch: StateBatch) -> None:
    part = batch.part(2, 5).to(torch.device("cpu"))
    assert part.num_samples == 3
    for name in ("tokens_B3T", "weights_B2A", "targets_BA", "masked_BA"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[2:5])


def test_movement_by_hand(samples: Samples) -> None:
    one = replace(
        picked(samples, [0]),
        before=np.array([[50, 50, 0]]),
        after=np.array([[20, 50, 40]]),
        supply_nano=np.array([100]),
    )
    assert movement(one).tolist() == pytest.approx([0.5])
