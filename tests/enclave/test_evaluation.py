from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.errors import DataError
from nerv_fl.models.evaluate import BalanceBaselines
from nerv_fl.records import Homomorphism
from nerv_fl.server.run_folder import POOLS
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows
from tests.federation.pretrained import Pretrained, pretrained_run

IDS = np.array([0, 5, 17, 30, 63], dtype=np.int64)


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrained_run()


@pytest.fixture(scope="module")
def pools(pretrained: Pretrained) -> Iterator[Pools]:
    with pretrained.pools(pretrained.config) as opened:
        yield opened


def test_sizes(pools: Pools) -> None:
    assert [pools.num_chains(pool) for pool in POOLS] == [32, 64, 16]
    assert pools.num_steps() == 4


def test_a_sample_is_measured_the_same_whoever_is_measured_beside_it(pools: Pools, pretrained: Pretrained) -> None:
    other = pretrained.weights + np.float32(1e-3)

    alone = pools.measure([pretrained.weights], "search", IDS)[0]
    beside = pools.measure([other, pretrained.weights], "search", IDS)

    assert np.array_equal(beside[1].loss_B, alone.loss_B)
    assert not np.array_equal(beside[0].loss_B, alone.loss_B)


def test_samples_keep_their_order(pools: Pools, pretrained: Pretrained) -> None:
    loss_B = pools.measure([pretrained.weights], "search", IDS)[0].loss_B
    reversed_B = pools.measure([pretrained.weights], "search", IDS[::-1].copy())[0].loss_B

    assert np.allclose(loss_B, reversed_B[::-1], rtol=1e-6)


def test_masks_are_fixed_by_seed_chain_and_step(pools: Pools, pretrained: Pretrained) -> None:
    masked_BA = pools.batch("search", IDS).masked_BA
    with pretrained.pools(pretrained.settings({"seed": 8})) as other:
        assert not masked_BA.equal(other.batch("search", IDS).masked_BA)
    assert masked_BA[2:].equal(pools.batch("search", IDS[2:]).masked_BA)


def test_trivial_models_are_fitted_on_the_search_pool_and_weighted_by_sample(pools: Pools) -> None:
    search = pools._files["search"].read_chains(0, 32).balances
    samples = pools._files["certify"].read(IDS)
    masked_BA = pools.batch("certify", IDS).masked_BA.numpy()

    unigram, per_account = BalanceBaselines.fit(search).cross_entropy(samples.before, masked_BA)

    assert pools.trivial("certify", IDS) == {"unigram": unigram, "per_account": per_account}
    assert 0 < per_account < unigram


def bound_of(pools: Pools, theta_P: Vector, *, bound: float) -> Homomorphism:
    found = pools.bound(theta_P, "certify", IDS, bound=bound)
    assert found is not None
    return found


def test_bound_is_tested_on_the_batches_asked_for(pools: Pools, pretrained: Pretrained) -> None:
    found = bound_of(pools, pretrained.weights, bound=1e-9)

    assert (found.n, found.violations, found.bound) == (5, 0, 1e-9)
    assert found.mean <= found.p999 <= found.max <= 1e-9
    assert bound_of(pools, pretrained.weights, bound=1e-19).violations > 0


def test_the_mean_read_out_is_judged_by_what_it_really_does(pretrained: Pretrained) -> None:
    with pretrained.pools(pretrained.settings({"model.readout": "mean"})) as pools:
        found = bound_of(pools, pretrained.weights, bound=1e-9)

    assert found.violations == found.n == 5
    assert found.max > 1e-6


def test_data_free_descent_lowers_the_data_free_loss(pretrained: Pretrained, pools: Pools) -> None:
    """A small move along it brings the norms of V nearer to 1 and its rows further apart."""
    direction_P = pools.data_free_descent(pretrained.weights)
    moved_P = np.asarray(pretrained.weights + np.float32(0.05) * direction_P, dtype=np.float32)

    before, after = (
        vars(pools.measure_one(theta_P, "search", IDS))["table_AD"] for theta_P in (pretrained.weights, moved_P)
    )

    def free_loss(table_AD: npt.NDArray[np.float32]) -> float:
        norm_A = np.linalg.norm(table_AD, axis=1)
        unit_AD = table_AD / norm_A[:, None]
        gram_AA = unit_AD @ unit_AD.T - np.eye(len(table_AD))
        return float(3.0 * (gram_AA**2).mean() + 0.3 * ((norm_A - 1) ** 2).mean())

    predicted = 0.05 * float(direction_P.astype(np.float64) @ direction_P)
    assert free_loss(before) - free_loss(after) == pytest.approx(predicted, rel=0.2)


def test_gradient_products_are_the_losses_slopes(pretrained: Pretrained, pools: Pools) -> None:
    """Against a central difference along three directions."""
    updates_NP = np.stack([pretrained.honest_updates[node] for node in (0, 1, 2)])
    updates_NP /= np.linalg.norm(updates_NP, axis=1, keepdims=True)
    step = np.float32(0.02)

    products_KN = pools.gradient_products(pretrained.weights, "search", IDS, directions=Rows.of(updates_NP))

    ends = [pretrained.weights + sign * step * row for row in updates_NP for sign in (1, -1)]
    losses = [item.loss_B for item in pools.measure([np.asarray(e, dtype=np.float32) for e in ends], "search", IDS)]
    slopes_KN = np.stack(
        [(ahead - behind) / (2 * step) for ahead, behind in zip(losses[::2], losses[1::2], strict=True)], axis=1
    )
    assert np.allclose(products_KN, -slopes_KN, rtol=0.05, atol=0.02 * np.abs(slopes_KN).max())


def test_zero_directions_have_zero_products(pretrained: Pretrained, pools: Pools) -> None:
    zeros_NP = np.zeros((2, len(pretrained.weights)), dtype=np.float32)

    assert not pools.gradient_products(pretrained.weights, "search", IDS, directions=Rows.of(zeros_NP)).any()


def test_pool_of_another_account_number(pretrained: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    generate_ledger(path, LedgerShape(chains=8, steps=4, accounts=32, max_transactions=4, profile="live", seed=1))
    settings = PoolSettings(config=pretrained.config, paths={"search": path}, constants={"movement_floor": 0.01})

    with pytest.raises(DataError) as caught:
        Pools(settings)

    assert str(caught.value) == f"{path} has 32 accounts, expected 64 (the model's)"


def test_missing_pool(pretrained: Pretrained, tmp_path: Path) -> None:
    settings = PoolSettings(
        config=pretrained.config, paths={"search": tmp_path / "none.h5"}, constants={"movement_floor": 0.01}
    )

    with pytest.raises(DataError, match=r"none\.h5 does not exist, expected a ledger file$"):
        Pools(settings)


def test_chunks_change_the_last_bits_at_most(pretrained: Pretrained) -> None:
    losses = []
    for chunk in (1, 64):
        config = pretrained.config
        with pretrained.pools(replace(config, enclave=replace(config.enclave, chunk=chunk))) as pools:
            losses.append(pools.measure([pretrained.weights], "search", IDS)[0].loss_B)

    assert np.allclose(losses[0], losses[1], rtol=1e-5)
