"""The public data: what is held out, what is drawn, and what is counted block by block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nerv_fl.bootstrap import public
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.data import LedgerFile, Samples
from nerv_fl.models.batch import evaluation_masks, movement
from nerv_fl.models.evaluate import BalanceBaselines
from nerv_fl.rng import stream
from tests.bootstrap.tiny import HELDOUT, NUM_TRAINED, SETTINGS, STEPS, make_config, make_data


@pytest.fixture
def data(ledger_path: Path) -> PublicData:
    return make_data(ledger_path, make_config())


@pytest.fixture(scope="module")
def trained(ledger_path: Path) -> Samples:
    with LedgerFile(ledger_path) as ledger:
        return ledger.read(np.arange(NUM_TRAINED))


def test_one_step_of_each_of_the_last_chains_is_held_out(data: PublicData) -> None:
    assert data.num_samples == NUM_TRAINED
    assert data.heldout.chain.tolist() == list(range(NUM_TRAINED // STEPS, NUM_TRAINED // STEPS + HELDOUT))
    assert data.heldout.step.tolist() == [number % STEPS for number in range(HELDOUT)]


@pytest.mark.parametrize("balances", [8, 40, 10**6])
def test_counting_in_blocks_of_any_size_is_counting_at_once(
    ledger_path: Path, trained: Samples, *, balances: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "BLOCK_BALANCES", balances)
    data, whole = make_data(ledger_path, make_config()), BalanceBaselines.fit(trained.before)
    assert data.movement_floor == 0.1 * float(np.median(movement(trained)))
    assert np.array_equal(data.baselines.unigram_K, whole.unigram_K)
    assert np.array_equal(data.baselines.per_account_AK, whole.per_account_AK)
    masked_BA = evaluation_masks(7, data.heldout)
    assert data.trivial_cross_entropies() == whole.cross_entropy(data.heldout.before, masked_BA)


def test_draws_are_of_the_size_asked_for_and_fixed_by_their_stream(data: PublicData) -> None:
    one, same, other = (data.draw(stream(seed, "batches")) for seed in (1, 1, 2))
    assert one.num_samples == SETTINGS.batch_size
    assert one.tokens_B3T.equal(same.tokens_B3T)
    assert not one.tokens_B3T.equal(other.tokens_B3T)


def test_under_dp_each_sample_is_drawn_with_the_same_probability(ledger_path: Path) -> None:
    """Over 300 Poisson batches of expected size 14 the mean lies within four standard errors."""
    data = make_data(ledger_path, make_config(replace(SETTINGS, dp=True, batch_size=14)))
    rng = stream(1, "batches")
    sizes = [data.draw(rng).num_samples for _ in range(300)]
    rate = 14 / NUM_TRAINED
    assert abs(np.mean(sizes) - 14) < 4 * (NUM_TRAINED * rate * (1 - rate) / 300) ** 0.5
    assert len(set(sizes)) > 5
