"""Central pretraining of the encoder on public data: what the federation starts from.

AdamW with a cosine schedule on the data loss and the data-free terms; the drift term enters every `drift_every`-th
step, the others see the masked state alone. The output bias starts at the log unigram of the data. The best weights
by held-out loss are kept. With ``dp`` the gradients are Opacus' (clip, noise, Poisson sampling), as a node's.

Shapes: B samples, A accounts, K buckets, D width, T tokens.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, optim

from nerv_fl.client.privacy import Mechanism, epsilon_of, private_optimizer
from nerv_fl.config import BootstrapConfig, RunConfig
from nerv_fl.errors import DataError
from nerv_fl.models.batch import StateBatch, draw_masks, evaluation_masks, make_batch, movement
from nerv_fl.models.encoder import Encoder, centre, get_flat, set_flat
from nerv_fl.models.evaluate import BalanceBaselines, EncoderMeasures, measure_samples, summarise
from nerv_fl.models.layers import empty_grad_samples, per_sample_gradients
from nerv_fl.models.losses import MOVEMENT_FLOOR, data_free_gradient, masked_cross_entropy, sample_losses
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import stream, torch_stream
from nerv_fl.store import Ledger, Samples, open_ledger
from nerv_fl.threads import use_one_thread

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss so far)."""


@dataclass(frozen=True, kw_only=True)
class BootstrapResult:
    """What pretraining gives: the path of the weights, f of the loss, and the measures on held-out chains.

    `epsilon` is None without DP; with it, epsilon at `privacy.delta` per step record under Poisson sampling. It
    covers the gradients: the output bias, f and the choice of the best step read the public data as they are.
    """

    path: Path
    movement_floor: float
    best_step: int
    measures: EncoderMeasures
    epsilon: float | None


def pretrain(config: RunConfig, ledger_path: Path, *, out: Path, progress: Progress | None = None) -> BootstrapResult:
    """Train the encoder of `config.model` on a public ledger and write the best weights to `out`.

    The last `data.heldout_chains` chains of the ledger are held out.

    Args:
        config: The run's settings.
        ledger_path: Ledger file of the `genesis` profile.
        out: Safetensors file to write.
        progress: Told of each evaluation.

    Raises:
        DataError: If the ledger is not the model's, is too small, or the loss stops being finite.
    """
    use_one_thread()
    encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
    encoder.reset_parameters(torch_stream(config.seed, "bootstrap", "weights"))
    with open_ledger(ledger_path) as ledger:
        ledger.require_accounts(encoder.preset.num_accounts)
        train, heldout = _split(ledger, heldout_chains=config.data.heldout_chains)
    epsilon = _epsilon(config, num_samples=len(train.chain)) if config.bootstrap.dp else None
    floor = MOVEMENT_FLOOR * float(np.median(movement(train)))
    _start_output_bias(encoder, train)
    best = _fit(encoder, train, heldout, config=config, floor=floor, progress=progress)
    set_flat(encoder, best.theta_P)
    centre(encoder)
    batch = make_batch(heldout, evaluation_masks(config.seed, heldout))
    best = _evaluate(encoder, batch, step=best.step, floor=floor, config=config)
    save_encoder(out, encoder, facts={"movement_floor": floor, "best_step": best.step, "epsilon": epsilon})
    return BootstrapResult(path=out, movement_floor=floor, best_step=best.step, measures=best.measures, epsilon=epsilon)


def _epsilon(config: RunConfig, *, num_samples: int) -> float:
    mechanism = Mechanism(sigma=config.privacy.sigma, sampling_rate=config.bootstrap.batch_size / num_samples)
    return epsilon_of(mechanism, config.bootstrap.steps, delta=config.privacy.delta)


@dataclass(frozen=True, kw_only=True)
class _Best:
    step: int
    theta_P: Tensor
    measures: EncoderMeasures


def _split(ledger: Ledger, *, heldout_chains: int) -> tuple[Samples, Samples]:
    info = ledger.info
    if info.chains <= heldout_chains:
        raise DataError(
            f"{ledger.path} has {info.chains} chains, expected more than data.heldout_chains = {heldout_chains}"
        )
    first_heldout = (info.chains - heldout_chains) * info.steps
    heldout_ids = first_heldout + np.arange(heldout_chains) * info.steps + np.arange(heldout_chains) % info.steps
    return ledger.read(np.arange(first_heldout)), ledger.read(heldout_ids)


def _start_output_bias(encoder: Encoder, train: Samples) -> None:
    unigram_K = BalanceBaselines.fit(train.before).unigram_K
    with torch.no_grad():
        encoder.balance_head.bias.copy_(torch.from_numpy(unigram_K.astype(np.float32)))


def _fit(
    encoder: Encoder,
    train: Samples,
    heldout: Samples,
    *,
    config: RunConfig,
    floor: float,
    progress: Progress | None,
) -> _Best:
    settings = config.bootstrap
    optimizer = optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, settings))
    step_once = (
        _private_step(encoder, optimizer, config=config) if settings.dp else _plain_step(encoder, optimizer, config)
    )
    heldout_batch = make_batch(heldout, evaluation_masks(config.seed, heldout))
    best = _evaluate(encoder, heldout_batch, step=0, floor=floor, config=config)
    for step, batch in enumerate(_batches(train, encoder, config=config), 1):
        step_once(batch, floor, step % settings.drift_every == 0)
        schedule.step()
        if step % settings.evaluate_every == 0 or step == settings.steps:
            current = _evaluate(encoder, heldout_batch, step=step, floor=floor, config=config)
            best = current if current.measures.loss < best.measures.loss else best
            if progress:
                progress(step, settings.steps, best.measures.loss)
    return best


def _cosine(step: int, settings: BootstrapConfig) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(train: Samples, encoder: Encoder, *, config: RunConfig) -> Iterator[StateBatch]:
    """Yield a batch for each step: Poisson-sampled under DP, else of fixed size."""
    rng = stream(config.seed, "bootstrap", "batches")
    settings, num_samples = config.bootstrap, len(train.chain)
    for _ in range(settings.steps):
        if settings.dp:
            rows = np.flatnonzero(rng.random(num_samples) < settings.batch_size / num_samples)
        else:
            rows = rng.integers(num_samples, size=settings.batch_size)
        picked = replace(
            train,
            before=train.before[rows],
            after=train.after[rows],
            supply_nano=train.supply_nano[rows],
            chain=train.chain[rows],
            step=train.step[rows],
        )
        yield make_batch(picked, draw_masks(rng, num_samples=len(rows), num_accounts=encoder.preset.num_accounts))


def _plain_step(
    encoder: Encoder, optimizer: optim.Optimizer, config: RunConfig
) -> Callable[[StateBatch, float, bool], None]:
    def step(batch: StateBatch, floor: float, with_drift: bool) -> None:
        optimizer.zero_grad()
        if with_drift:
            table_AD = encoder.table().detach()
            loss_B = sample_losses(encoder, batch, table_AD=table_AD, movement_floor=floor).loss_B
        else:
            loss_B = masked_cross_entropy(encoder, encoder.hidden(batch.tokens_B3T[:, 2:])[:, 0], batch)
        loss = loss_B.mean()
        if not bool(torch.isfinite(loss)):
            raise DataError(
                f"pretraining loss is {loss.item()}, expected a finite number: lower bootstrap.learning_rate"
            )
        loss.backward()
        _add_data_free_gradient(encoder, config)
        optimizer.step()

    return step


def _private_step(
    encoder: Encoder, optimizer: optim.Optimizer, *, config: RunConfig
) -> Callable[[StateBatch, float, bool], None]:
    private = private_optimizer(encoder, optimizer, privacy=config.privacy, expected_batch=config.bootstrap.batch_size)
    private.noise = stream(config.seed, "bootstrap", "noise")

    def step(batch: StateBatch, floor: float, _with_drift: bool) -> None:
        table_AD = encoder.table().detach()
        if batch.num_samples == 0:
            empty_grad_samples(encoder)
        else:
            with per_sample_gradients(encoder):
                losses = sample_losses(encoder, batch, table_AD=table_AD, movement_floor=floor)
                losses.loss_B.sum().backward()
        private.pre_step()
        _add_data_free_gradient(encoder, config)
        optimizer.step()
        private.zero_grad()

    return step


def _add_data_free_gradient(encoder: Encoder, config: RunConfig) -> None:
    weights = config.bootstrap
    gradient_P = data_free_gradient(encoder, spread_weight=weights.spread_weight, size_weight=weights.size_weight)
    parameters = list(encoder.parameters())
    for parameter, part in zip(parameters, gradient_P.split([item.numel() for item in parameters]), strict=True):
        free = part.reshape(parameter.shape)
        parameter.grad = free.clone() if parameter.grad is None else parameter.grad + free


def _evaluate(encoder: Encoder, batch: StateBatch, *, step: int, floor: float, config: RunConfig) -> _Best:
    measures = summarise(measure_samples(encoder, batch, movement_floor=floor, chunk=config.enclave.chunk))
    return _Best(step=step, theta_P=get_flat(encoder), measures=measures)
