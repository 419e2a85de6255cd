"""Hints say what they should, to whom they should, and only while a pretraining trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nerv_fl.bootstrap.privileged_features import Hints, hinted
from nerv_fl.config import BootstrapConfig
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.rng import stream
from nerv_fl.tokens import NUM_BUCKETS
from nerv_fl.types import FloatArray
from tests.bootstrap.tiny import SETTINGS, TINY, make_config, make_data, run, weights

WIDTH = 16


def unigram(buckets: dict[int, float]) -> FloatArray:
    chance_K = np.full(NUM_BUCKETS, 1e-300)
    for bucket, chance in buckets.items():
        chance_K[bucket] = chance
    return np.asarray(np.log(chance_K), dtype=np.float64)


def make_hints(*, share: float = 1.0, precision: float = 4.0, norm: float = 1.5) -> Hints:
    settings = BootstrapConfig(hint_share=share, hint_precision=precision, hint_norm=norm)
    return Hints.of(unigram({100: 0.5, 104: 0.5}), settings=settings, seed=7, width=WIDTH)


def make_batch(num_samples: int, *, bucket: int) -> StateBatch:
    shape = (num_samples, 8)
    return StateBatch(
        tokens_B3T=torch.zeros((num_samples, 3, 17), dtype=torch.int64),
        weights_B2A=torch.zeros((num_samples, 2, 8)),
        targets_BA=torch.full(shape, bucket),
        masked_BA=torch.ones(shape, dtype=torch.bool),
    )


def natural(hints: Hints, batch: StateBatch) -> FloatArray:
    """Return (k z, k) / K of each sample's accounts, read back from the vectors."""
    assert batch.hint_BAD is not None
    basis_D2 = np.linalg.pinv(hints.directions_2D.double().numpy())
    return np.asarray(batch.hint_BAD.double().numpy() @ basis_D2, dtype=np.float64)


def test_balances_are_measured_in_deviations_from_the_public_mean() -> None:
    hints = make_hints()
    assert (hints.mean, hints.std) == pytest.approx((102.0, 2.0))
    assert hints.directions_2D.norm(dim=1).tolist() == pytest.approx([1.5, 1.5])


def test_beliefs_are_gaussian_around_the_truth() -> None:
    """Given k, k z is k y with variance k; k is uniform up to the largest, and one sample has one k."""
    hints = make_hints()
    belief_BA2 = 4.0 * natural(hints, hints.give(make_batch(4000, bucket=104), stream(1, "hints")))
    k_BA = belief_BA2[:, :, 1]
    assert np.abs(k_BA - k_BA[:, :1]).max() < 1e-5
    assert (k_BA.min() > -1e-5, k_BA.max() < 4 + 1e-5, k_BA.mean()) == (True, True, pytest.approx(2.0, abs=0.1))
    error_BA = (belief_BA2[:, :, 0] - k_BA) / np.sqrt(np.maximum(k_BA, 1e-3))
    assert error_BA[k_BA > 0.01].mean() == pytest.approx(0, abs=0.03)
    assert error_BA[k_BA > 0.01].std() == pytest.approx(1, abs=0.03)


def test_the_share_is_that_of_samples_and_the_rest_are_told_nothing() -> None:
    hints = make_hints(share=0.25)
    given = hints.give(make_batch(4000, bucket=104), stream(1, "hints")).hint_BAD
    assert given is not None
    told_B = given.abs().sum(dim=(1, 2)) > 0
    assert float(told_B.double().mean()) == pytest.approx(0.25, abs=0.03)


def test_without_hints_nothing_is_drawn(ledger_path: Path) -> None:
    """So that a pretraining without them has the bits that it always had."""
    rng, same = stream(1, "hints"), stream(1, "hints")
    assert make_hints(share=0.0).give(make_batch(4, bucket=104), rng).hint_BAD is None
    assert rng.random() == same.random()


def test_hints_move_the_positions_of_balances_alone_and_only_for_a_while() -> None:
    encoder = Encoder(TINY)
    tokens_BGT, hint_BAD = torch.zeros((2, 3, 17), dtype=torch.int64), torch.ones((2, 8, 8))
    seen: list[torch.Tensor] = []
    spy = encoder.blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    with hinted(encoder, hint_BAD):
        encoder.hidden(tokens_BGT)
    encoder.hidden(tokens_BGT)
    spy.remove()
    moved_BGTD = seen[0] - seen[1]
    expected_T = torch.tensor([0.0, *([0.0, 1.0] * 8)])
    assert torch.allclose(moved_BGTD, expected_T[None, None, :, None].expand_as(moved_BGTD), atol=1e-6)


def test_a_batch_keeps_its_hints_when_it_is_cut(ledger_path: Path) -> None:
    data = make_data(ledger_path, make_config(replace(SETTINGS, hint_share=1.0)))
    batch = data.draw(stream(1, "batches"))
    assert batch.hint_BAD is not None
    part = batch.part(3, 5).to(torch.device("cpu"))
    assert part.hint_BAD is not None
    assert torch.equal(part.hint_BAD, batch.hint_BAD[3:5])
    assert data.heldout_batch().hint_BAD is None


@pytest.mark.usefixtures("tiny_preset")
def test_a_pretraining_with_hints_learns_otherwise(ledger_path: Path, tmp_path: Path) -> None:
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    without = run(ledger_path, tmp_path / "without")
    told = run(ledger_path, tmp_path / "with", replace(SETTINGS, hint_share=1.0))
    assert weights(without.path) != weights(told.path)
