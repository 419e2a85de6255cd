"""The gradient of a step: the same in parts, with blocks computed again, shared by workers; in bfloat16 nearly so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, optim

from nerv_fl.bootstrap.gradient import Objective, Team, plain_gradient, private_gradient
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.config import BootstrapConfig, PrivacyConfig
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import data_free_gradient, sample_losses
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.rng import stream, torch_stream
from tests.bootstrap.tiny import SETTINGS, TINY, make_config, make_data

FLOOR = 0.01
BATCH = 7


@pytest.fixture(scope="module")
def data(ledger_path: Path) -> PublicData:
    return make_data(ledger_path, make_config(replace(SETTINGS, batch_size=BATCH)))


@pytest.fixture
def batch(data: PublicData) -> StateBatch:
    return data.draw(stream(3, "batch"))


def make_encoder(*, checkpointing: bool = False) -> Encoder:
    encoder = Encoder(TINY, checkpoint_activations=checkpointing)
    encoder.reset_parameters(torch_stream(3, "weights"))
    return encoder


def make_objective(settings: BootstrapConfig, *, with_drift: bool = True, team: Team | None = None) -> Objective:
    return Objective(settings=settings, movement_floor=FLOOR, with_drift=with_drift, team=team or Team())


def flat_gradient(encoder: Encoder) -> Tensor:
    parts = [parameter.grad for parameter in encoder.parameters()]
    return torch.cat([part.reshape(-1) for part in parts if part is not None])


def plain(
    batch: StateBatch,
    *,
    micro_batch: int = 32,
    checkpointing: bool = False,
    precision: str = "float32",
    with_drift: bool = True,
    team: Team | None = None,
) -> tuple[float, Tensor]:
    encoder = make_encoder(checkpointing=checkpointing)
    settings = replace(SETTINGS, micro_batch=micro_batch, precision=precision)
    loss = plain_gradient(encoder, batch, objective=make_objective(settings, with_drift=with_drift, team=team))
    return loss, flat_gradient(encoder)


def private(
    batch: StateBatch,
    *,
    micro_batch: int = 32,
    checkpointing: bool = False,
    team: Team | None = None,
    privacy: PrivacyConfig | None = None,
) -> Tensor:
    encoder = make_encoder(checkpointing=checkpointing)
    adam = optim.AdamW(encoder.parameters())
    optimizer = private_optimizer(encoder, adam, privacy=privacy or PrivacyConfig(), expected_batch=BATCH)
    optimizer.noise = stream(3, "noise")
    settings = replace(SETTINGS, micro_batch=micro_batch, dp=True)
    private_gradient(encoder, optimizer, batch=batch, objective=make_objective(settings, team=team))
    return flat_gradient(encoder)


def assert_same_but_for_rounding(found_P: Tensor, expected_P: Tensor) -> None:
    assert float((found_P - expected_P).norm() / expected_P.norm()) < 2e-6


def one_at_a_time(batch: StateBatch) -> tuple[list[Tensor], Tensor]:
    """Return each sample's gradient by plain autograd, and that of the data-free terms."""
    encoder = make_encoder()
    table_AD = encoder.table().detach()
    rows = []
    for number in range(batch.num_samples):
        encoder.zero_grad()
        one = batch.part(number, number + 1)
        sample_losses(encoder, one, table_AD=table_AD, movement_floor=FLOOR).loss_B.sum().backward()
        rows.append(flat_gradient(encoder))
    return rows, data_free_gradient(encoder, spread_weight=SETTINGS.spread_weight, size_weight=SETTINGS.size_weight)


def test_plain_gradient_is_the_mean_of_each_samples(batch: StateBatch) -> None:
    rows, free_P = one_at_a_time(batch)
    _, found_P = plain(batch)
    assert_same_but_for_rounding(found_P, torch.stack(rows).mean(dim=0) + free_P)


@pytest.mark.parametrize("with_drift", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_parts_and_blocks_computed_again_change_no_gradient(
    batch: StateBatch, *, micro_batch: int, checkpointing: bool, with_drift: bool
) -> None:
    loss, whole_P = plain(batch, with_drift=with_drift)
    same_loss, parts_P = plain(batch, micro_batch=micro_batch, checkpointing=checkpointing, with_drift=with_drift)
    assert same_loss == pytest.approx(loss, rel=1e-6)
    assert_same_but_for_rounding(parts_P, whole_P)


def test_checkpointing_alone_gives_the_same_bits(batch: StateBatch) -> None:
    assert torch.equal(plain(batch)[1], plain(batch, checkpointing=True)[1])


@pytest.mark.parametrize("micro_batch", [1, 3, 32])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_private_gradient_is_clipped_record_by_record(
    batch: StateBatch, *, micro_batch: int, checkpointing: bool
) -> None:
    """Against a loop over records: clip each, sum, add the same noise once, divide by the expected batch."""
    rows, free_P = one_at_a_time(batch)
    assert max(float(row.norm()) for row in rows) > 1
    clipped_P = torch.stack([row / max(1.0, float(row.norm())) for row in rows]).sum(dim=0)
    noise = stream(3, "noise")
    shapes = [tuple(parameter.shape) for parameter in make_encoder().parameters()]
    noise_P = np.concatenate([0.5 * noise.standard_normal(shape).reshape(-1) for shape in shapes])
    expected_P = (clipped_P + torch.from_numpy(noise_P).float()) / BATCH + free_P
    found_P = private(batch, micro_batch=micro_batch, checkpointing=checkpointing)
    assert_same_but_for_rounding(found_P, expected_P)


def test_record_whose_gradient_is_not_finite_counts_as_none(batch: StateBatch) -> None:
    weights_B2A = batch.weights_B2A.clone()
    weights_B2A[2] = torch.nan
    kept = torch.tensor([0, 1, 3, 4, 5, 6])
    others = StateBatch(
        tokens_B3T=batch.tokens_B3T[kept],
        weights_B2A=batch.weights_B2A[kept],
        targets_BA=batch.targets_BA[kept],
        masked_BA=batch.masked_BA[kept],
    )
    assert_same_but_for_rounding(private(replace(batch, weights_B2A=weights_B2A)), private(others))


# --- Workers ----------------------------------------------------------------------------------------------------------


def shared(compute: Callable[[Team], object], *, size: int) -> list[Tensor]:
    """Return the vectors that each of `size` workers hands in to be added up."""
    handed: list[Tensor] = []

    def hand_in(vector_P: Tensor) -> Tensor:
        handed.append(vector_P.clone())
        return vector_P

    for rank in range(size):
        compute(Team(rank=rank, size=size, add_up=hand_in))
    return handed


@pytest.mark.parametrize("size", [2, 3, 7])
def test_workers_share_a_batch_without_loss(batch: StateBatch, size: int) -> None:
    shares = [Team(rank=rank, size=size).share(batch) for rank in range(size)]
    assert torch.equal(torch.cat([share.tokens_B3T for share in shares]), batch.tokens_B3T)
    assert max(share.num_samples for share in shares) - min(share.num_samples for share in shares) <= 1


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_of_all_workers_add_up_to_one_workers(batch: StateBatch, size: int) -> None:
    loss, alone_P = plain(batch)
    handed = shared(lambda team: plain(batch, team=team), size=size)
    sum_P = torch.stack(handed).sum(dim=0)
    found_loss, found_P = plain(batch, team=Team(rank=0, size=size, add_up=lambda _: sum_P))
    assert found_loss == pytest.approx(loss, rel=1e-6)
    assert_same_but_for_rounding(found_P, alone_P)


@pytest.mark.parametrize("num_samples", [1, BATCH])
def test_private_workers_add_noise_once_even_to_an_empty_share(batch: StateBatch, num_samples: int) -> None:
    some = batch.part(0, num_samples)
    handed = shared(lambda team: private(some, team=team), size=2)
    sum_P = torch.stack(handed).sum(dim=0)
    found_P = private(some, team=Team(rank=1, size=2, add_up=lambda _: sum_P))
    assert_same_but_for_rounding(found_P, private(some))


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def test_bfloat16_is_near_and_kept_out_of_what_must_be_exact(
    batch: StateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden states of the masked state come from bfloat16 products; logits, table and drift are float32's."""
    dtypes: list[torch.dtype] = []
    real = Encoder.balance_logits

    def spy(encoder: Encoder, hidden_BTD: Tensor) -> Tensor:
        logits = real(encoder, hidden_BTD)
        dtypes.extend([hidden_BTD.dtype, logits.dtype])
        return logits

    monkeypatch.setattr(Encoder, "balance_logits", spy)
    loss, exact_P = plain(batch, with_drift=False)
    near_loss, near_P = plain(batch, with_drift=False, precision="bfloat16")
    assert set(dtypes) == {torch.float32}
    assert near_P.dtype == torch.float32
    assert 0 < abs(near_loss - loss) < 0.02 * loss
    cosine = torch.nn.functional.cosine_similarity(exact_P, near_P, dim=0).item()
    assert 0.99 < cosine < 1
    drift = plain(batch, with_drift=True), plain(batch, with_drift=True, precision="bfloat16")
    assert torch.equal(drift[0][1], drift[1][1])
