"""CPU time of one DP-SGD step over the same step of plain SGD, with three ways to form per-sample gradients.

All take the quickstart preset, 64 records in micro-batches of 32, and the same masks. The three private ones differ in
nothing but the per-sample gradients (`nerv_fl.privacy.grad_sample`), which are checked to agree: ours, Opacus' hooks,
and Opacus' functorch mode.

python -m benchmarks.bench_dp_step
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, optim

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl import rng
from nerv_fl.config import PrivacyConfig, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.batch import StateBatch, draw_masks, make_batch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import get_preset
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.privacy.grad_sample import Engine, layers_engine, opacus_engine
from nerv_fl.privacy.layers import drop_non_finite

SEED = 7
REPEATS = 21
MOVEMENT_FLOOR = 0.01
TRAINING = TrainingConfig(expected_batch=64, micro_batch=32)
PLAIN, OURS, HOOKS, FUNCTORCH = "plain SGD", "our layers", "Opacus hooks", "Opacus functorch"
MODES: dict[str, Callable[[Encoder], Engine]] = {
    OURS: layers_engine,
    HOOKS: opacus_engine,
    FUNCTORCH: partial(opacus_engine, force_functorch=True),
}


def main() -> None:
    """Measure the four steps and print their table."""
    batch = draw_batch()
    check_agreement(batch)
    steps = {PLAIN: plain_step(make_encoder(), batch)}
    steps |= {name: private_step(make_encoder(), batch, make_engine=make) for name, make in MODES.items()}
    times_ms = median_cpu_ms(steps, repeats=REPEATS)
    size = f"batch {TRAINING.expected_batch}, micro-batch {TRAINING.micro_batch}, P = {make_encoder().num_parameters:,}"
    print_setting(f"One step, quickstart preset, {size}; medians of {REPEATS}", packages=("torch", "opacus"))
    rows = [[name, f"{ms:.0f}", f"{ms / times_ms[PLAIN]:.2f}"] for name, ms in times_ms.items()]
    print_table(["Step", "CPU, ms", "over plain SGD"], rows)


def draw_batch() -> StateBatch:
    """Return 64 records of a synthetic ledger under drawn masks."""
    preset = get_preset("quickstart")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.h5"
        generate_ledger(path, LedgerShape(chains=TRAINING.expected_batch // 8, accounts=preset.num_accounts, seed=SEED))
        with LedgerFile(path) as ledger:
            samples = ledger.read(range(TRAINING.expected_batch))
    masks = draw_masks(rng.stream(SEED, "masks"), num_samples=len(samples.chain), num_accounts=preset.num_accounts)
    return make_batch(samples, masks)


def make_encoder() -> Encoder:
    """Return the quickstart's encoder, the same each time."""
    encoder = Encoder(get_preset("quickstart"))
    encoder.reset_parameters(rng.torch_stream(SEED, "weights"))
    return encoder


def backward(encoder: Encoder, part: StateBatch, *, table_AD: Tensor) -> None:
    """Form the gradients of the summed loss."""
    sample_losses(encoder, part, table_AD=table_AD, movement_floor=MOVEMENT_FLOOR).loss_B.sum().backward()


def plain_step(encoder: Encoder, batch: StateBatch) -> Callable[[], None]:
    """Return one step of SGD, its gradient summed over the micro-batches."""
    optimizer = optim.SGD(encoder.parameters(), lr=TRAINING.learning_rate / TRAINING.expected_batch)

    def step() -> None:
        with torch.no_grad():
            table_AD = encoder.table()
        for start in range(0, batch.num_samples, TRAINING.micro_batch):
            backward(encoder, batch.part(start, start + TRAINING.micro_batch), table_AD=table_AD)
        optimizer.step()
        optimizer.zero_grad()

    return step


def private_step(
    encoder: Encoder, batch: StateBatch, *, make_engine: Callable[[Encoder], Engine]
) -> Callable[[], None]:
    """Return one step as a node takes it (`nerv_fl.client.local_training`): clip records, sum, add noise, divide."""
    sgd = optim.SGD(encoder.parameters(), lr=TRAINING.learning_rate)
    optimizer = private_optimizer(encoder, sgd, privacy=PrivacyConfig(), expected_batch=TRAINING.expected_batch)
    optimizer.noise = rng.stream(SEED, "noise")
    starts, engine = range(0, batch.num_samples, TRAINING.micro_batch), make_engine(encoder)

    def step() -> None:
        with torch.no_grad():
            table_AD = encoder.table()
        for start in starts:
            with engine():
                backward(encoder, batch.part(start, start + TRAINING.micro_batch), table_AD=table_AD)
            drop_non_finite(encoder)
            optimizer.signal_skip_step(do_skip=start != starts[-1])
            optimizer.step()
            optimizer.zero_grad()

    return step


def check_agreement(batch: StateBatch) -> None:
    """Stop unless all modes form the same per-sample gradients."""
    part, found = batch.part(0, 8), {}
    for name, make_engine in MODES.items():
        encoder = make_encoder()
        with torch.no_grad():
            table_AD = encoder.table()
        with make_engine(encoder)():
            backward(encoder, part, table_AD=table_AD)
        rows = [vars(parameter)["grad_sample"].flatten(start_dim=1) for parameter in encoder.parameters()]
        found[name] = torch.cat(rows, dim=1)
    for name, gradients in found.items():
        error = float((gradients - found[OURS]).norm() / found[OURS].norm())
        if not error < 1e-5:
            raise SystemExit(f"{name}: per-sample gradients differ by {error:g} of their norm, expected rounding")


if __name__ == "__main__":
    main()
