"""Affine, live and mean read-out of the encoder after pretraining, with and without DP, beside random weights.

For each preset: one ledger of a profile (`genesis`: roles shuffled, so that nothing but the unigram can be learned of
a masked balance; `live`: roles in registry order); four trainings on it (balance-weighted and mean read-out, plain and
DP-SGD at sigma 0.5), each of 12,800 samples; every measure of `nerv_fl.models.evaluate` on 256 chains held out. The
affine rows are the same weights as the live ones, without their transformer: V alone. A second table says what int8
weights cost.

The folder keeps weights and ledgers: a second call measures them again without training.

python -m benchmarks.encoder_readouts FOLDER PROFILE [PRESET | PRESET:TRAINING ...]
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.measure import print_setting, print_table
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.data import Samples, open_ledger
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.evaluate import EncoderMeasures, measure_samples, measure_v_alone, summarise
from nerv_fl.models.homomorphism import float_errors, integer_mismatches
from nerv_fl.models.presets import get_preset
from nerv_fl.models.quantize_encoder import fixed_point_table, quantize_encoder, table_of_fixed_point
from nerv_fl.models.weights import load_encoder
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.rng import torch_stream

SEED = 7
CHAINS, HELDOUT = 1280, 256
PRESETS = ("quickstart", "small")
TRAININGS: dict[str, Flat] = {
    "plain": {"bootstrap.steps": 400, "bootstrap.batch_size": 32},
    "DP": {
        "bootstrap.dp": True,
        "bootstrap.steps": 100,
        "bootstrap.batch_size": 128,
        "bootstrap.warmup_steps": 10,
        "bootstrap.evaluate_every": 25,
    },
}
MEASURES = ["loss", "masked CE", "drift", "largest", "relative", "ratio", "residual share", "eff. rank", "mean |V|"]


class Trained(NamedTuple):
    """An encoder with how it was trained, what that cost, and epsilon if there is one."""

    training: str
    encoder: Encoder
    epsilon: float | None
    seconds: float


class Pool(NamedTuple):
    """The held-out chains, f of the loss, and the cross-entropies of the trivial models."""

    data: PublicData
    samples: Samples


def main() -> None:
    """Train, measure and print the tables."""
    profile, names = sys.argv[2], sys.argv[3:] or PRESETS
    folder = Path(sys.argv[1]) / profile
    folder.mkdir(parents=True, exist_ok=True)
    what = f"Held-out measures of {HELDOUT} chains of profile {profile}, seed {SEED}"
    print_setting(what, packages=("torch", "opacus"))
    for name in names:
        print_preset(folder, name)


def print_preset(folder: Path, asked: str) -> None:
    """Print both tables of one preset, of all trainings or of one."""
    name, _, training = asked.partition(":")
    trainings = [training] if training else list(TRAININGS)
    path = public_ledger(folder, name)
    with open_ledger(path) as ledger:
        data = PublicData(ledger, config=settings(name, "balance", training="plain"), preset=get_preset(name))
        first = data.num_samples
        chains = np.arange(HELDOUT)
        pool = Pool(data, ledger.read(first + chains * 8 + chains % 8, with_batches=True))
        unigram, per_account = data.trivial_cross_entropies()
        encoders = {
            readout: [*trained(folder, name, readout=readout, path=path, trainings=trainings), untrained(name, readout)]
            for readout in ("balance", "mean")
        }
        print(f"{name}: unigram {unigram:.3f} nats, per account {per_account:.3f}\n")
        print_table(["Read-out", "weights", *MEASURES], list(readout_rows(encoders, pool)))
        print()
        print_table(
            ["int8 against float32", "masked CE", "int8", "relative drift", "int8", "V moved by"],
            [int8_row(item, pool) for item in encoders["balance"]],
        )
        for item in encoders["balance"] + encoders["mean"]:
            epsilon = (
                ""
                if item.epsilon is None
                else f", epsilon {format_epsilon(item.epsilon)} at delta 1e-05 per step record"
            )
            print(f"\n{item.encoder.readout}, {item.training}: {item.seconds:.0f} s{epsilon}", end="")
        print(f"\n\n{bfloat16_line(encoders['balance'][0], pool)}", end="")
        print("\n" + "\n".join(bound_line(item, pool) for item in encoders["balance"]) + "\n")


def settings(name: str, readout: str, *, training: str) -> RunConfig:
    """Return the settings of one training."""
    chosen: Flat = {"seed": SEED, "model.preset": name, "model.readout": readout, "data.heldout_chains": HELDOUT}
    return build(chosen | TRAININGS[training])


def public_ledger(folder: Path, name: str) -> Path:
    """Return the preset's ledger of the folder's profile, made if it is not there."""
    path, num_accounts = folder / f"{name}.h5", get_preset(name).num_accounts
    if not path.exists():
        generate_ledger(path, LedgerShape(chains=CHAINS, accounts=num_accounts, profile=folder.name, seed=SEED))
    return path


def trained(folder: Path, name: str, *, readout: str, path: Path, trainings: Sequence[str]) -> Iterator[Trained]:
    """Yield the encoders of some trainings, trained if their files are not there."""
    for training in trainings:
        out = folder / f"{name}-{readout}-{training}.safetensors"
        note = out.with_suffix(".json")
        if not note.exists():
            started = time.process_time()
            pretrain(settings(name, readout, training=training), path, out=out, resume=True)
            note.write_text(json.dumps(time.process_time() - started))
        encoder = Encoder(get_preset(name), readout=readout)
        epsilon = load_encoder(out, encoder)["epsilon"]
        stated = epsilon if isinstance(epsilon, float) else None
        yield Trained(training, encoder, stated, json.loads(note.read_text()))


def untrained(name: str, readout: str) -> Trained:
    """Return an encoder with random weights."""
    encoder = Encoder(get_preset(name), readout=readout)
    encoder.reset_parameters(torch_stream(SEED, "bootstrap", "weights"))
    return Trained("random", encoder, None, 0.0)


def readout_rows(encoders: dict[str, list[Trained]], pool: Pool) -> Iterator[list[str]]:
    """Yield a row for each read-out and training."""
    batch = pool.data.heldout_batch()
    for item in encoders["balance"]:
        yield row("affine (V alone)", item.training, measure_v_alone(item.encoder, batch))
    for label, readout in (("live", "balance"), ("mean", "mean")):
        for item in encoders[readout]:
            yield row(label, item.training, measured(item.encoder, pool))


def measured(encoder: Encoder, pool: Pool) -> EncoderMeasures:
    """Return an encoder's measures on the held-out chains."""
    floor = pool.data.movement_floor
    return summarise(measure_samples(encoder, pool.data.heldout_batch(), movement_floor=floor, chunk=32))


def row(label: str, training: str, measures: EncoderMeasures) -> list[str]:
    """Return a row of the first table."""
    small = (measures.drift_mean, measures.drift_max, measures.drift_relative)
    shares = (measures.drift_ratio, measures.residual_share)
    figures = [f"{measures.loss:.3f}", f"{measures.masked_ce:.3f}", *(f"{value:.2e}" for value in small)]
    figures += [f"{value:.3g}" for value in shares]
    return [label, training, *figures, f"{measures.effective_rank:.1f}", f"{measures.mean_norm:.2f}"]


def int8_row(item: Trained, pool: Pool) -> list[str]:
    """Return what int8 does to an encoder: a row of the second table."""
    near = Encoder(item.encoder.preset)
    quantize_encoder(item.encoder).apply_to(near)
    before, after = measured(item.encoder, pool), measured(near, pool)
    tables = [table_of_fixed_point(fixed_point_table(encoder)) for encoder in (item.encoder, near)]
    moved = float(np.linalg.norm(tables[1] - tables[0]) / np.linalg.norm(tables[0]))
    pairs: Sequence[float] = (before.masked_ce, after.masked_ce, before.drift_relative, after.drift_relative)
    return [item.training, *(f"{value:.4f}" for value in pairs), f"{100 * moved:.1f} %"]


def bfloat16_line(item: Trained, pool: Pool) -> str:
    """Return how much of the drift is lost where the blocks run in bfloat16."""
    batch = pool.data.heldout_batch().part(0, 64)
    moved = []
    with torch.no_grad():
        table_AD = item.encoder.table()
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                hidden_B3TD = item.encoder.hidden(batch.tokens_B3T)
            residual_B2D = item.encoder.residual(hidden_B3TD.float()[:, :2], batch.weights_B2A, table=table_AD)
            moved.append(residual_B2D[:, 1] - residual_B2D[:, 0])
    share = ((moved[1] - moved[0]).norm(dim=1) / moved[0].norm(dim=1)).median().item()
    return f"drift of {item.training} weights in bfloat16: wrong by {share:.2f} of itself (median)"


def bound_line(item: Trained, pool: Pool) -> str:
    """Return what the affine read-out's arithmetic loses on the held-out batches."""
    raw_AD = fixed_point_table(item.encoder)
    errors = float_errors(pool.samples, table_of_fixed_point(raw_AD).astype(np.float64))
    wrong = int(integer_mismatches(pool.samples, raw_AD).sum())
    return (
        f"affine, {item.training}: float64 error at most {errors.max():.1e}, {wrong} of {len(errors)} integers differ"
    )


if __name__ == "__main__":
    main()
