"""What a codec costs and saves: bytes, CPU time at the node and in the enclave, and what rounding does to the learning.

One update of the quickstart, pure noise of the standard deviation that DP-SGD adds: sealed by a node from a float32
vector, opened by the enclave back into one. "Rounding" is its variance over the noise's. The same frame holds 77.8
million parameters at the whitepaper's size.

`--learning` runs the quickstart with 20 nodes and 5 rounds from one bootstrap of 100 steps a seed, once with each:
the same nodes, batches, noise and masks, so what differs is the rounding and what follows from it.

python -m benchmarks.bench_codecs [--learning SEED ...]
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl import rng
from nerv_fl.arrays import Vector
from nerv_fl.config import CODEC_NAMES, RunConfig
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.sealing import (
    Context,
    OpeningKey,
    SigningKey,
    decode_update,
    encode_update,
    open_envelope,
    seal,
    update_size_bytes,
)
from nerv_fl.server.folder import RunFolder
from nerv_fl.strategy.screening import noise_std
from simulations.engine import run
from simulations.prepare import load_recipe, open_folder, prepare

REPEATS = 200
WHITEPAPER_PARAMETERS = 77_757_184
SHORT = (
    "federation.num_nodes=20",
    "federation.cohort_size=20",
    "federation.num_rounds=5",
    "bootstrap.steps=100",
    "valuation.method=surrogate",
    "simulation.actors=1",
    "simulation.blocks=1",
    "enclave.workers=1",
)


def main() -> None:
    """Measure and print the table that was asked for."""
    if sys.argv[1:2] == ["--learning"]:
        print_learning([int(seed) for seed in sys.argv[2:]] or [7])
    else:
        print_costs()


def print_costs() -> None:
    """Print bytes, CPU time and the variance of rounding."""
    size = Encoder(get_preset("quickstart")).num_parameters
    update_P = rng.stream(7, "update").standard_normal(size, dtype=np.float32) * np.float32(noise_std(RunConfig()))
    node, enclave = SigningKey.generate(), OpeningKey.generate()
    context = Context(run="bench", round=1, node=3, base_hash="ab" * 32)
    rounding = rng.stream(7, "codec")

    def sent(codec: str) -> bytes:
        payload = encode_update(update_P, codec=codec, rounding=rounding)
        return seal(payload, context=context, sealing_key=enclave.sealing_key, signing_key=node)

    def opened(envelope: bytes, codec: str) -> Vector:
        payload = open_envelope(envelope, expected=context, roster={3: node.verify_key}, opening_key=enclave)
        return decode_update(payload, num_parameters=size, codec=codec)

    envelopes = {codec: sent(codec) for codec in CODEC_NAMES}
    calls: dict[str, Callable[[], object]] = {f"seal {codec}": partial(sent, codec) for codec in CODEC_NAMES}
    calls |= {f"open {codec}": partial(opened, envelope, codec) for codec, envelope in envelopes.items()}
    times_ms = median_cpu_ms(calls, repeats=REPEATS, warm_up=5)

    print_setting(
        f"One update of the quickstart, P = {size:,}; medians of {REPEATS}", packages=("numpy", "cryptography")
    )
    rows = []
    for codec, envelope in envelopes.items():
        error_P = opened(envelope, codec).astype(np.float64) - update_P
        variance = np.square(error_P).mean() / np.square(update_P, dtype=np.float64).mean()
        sizes = [f"{update_size_bytes(number, codec=codec):,}" for number in (size, WHITEPAPER_PARAMETERS)]
        times = [f"{times_ms[f'{what} {codec}']:.2f}" for what in ("seal", "open")]
        rows.append([codec, *sizes, *times, f"{variance:.1e}"])
    print_table(["codec", "bytes", "bytes, whitepaper", "encode and seal, ms", "open and decode, ms", "rounding"], rows)


def print_learning(seeds: list[int]) -> None:
    """Print what five rounds reach with each codec."""
    print_setting("The quickstart with 20 nodes and 5 rounds", packages=("torch", "flwr"))
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        for seed in seeds:
            shared = prepared(Path(parent) / f"{seed}", seed=seed, codec="fp32")
            for codec in CODEC_NAMES:
                folder = prepared(Path(parent) / f"{seed}-{codec}", seed=seed, codec=codec, shared=shared)
                run(folder)
                records = folder.rounds()
                steps = " ".join(f"{record.step:g}" for record in records[1:])
                rows.append([f"{seed}", codec, steps, f"{records[0].loss:.5f}", f"{records[-1].loss:.5f}"])
    print_table(["seed", "codec", "steps accepted", "loss before", "loss after"], rows)


def prepared(root: Path, *, seed: int, codec: str, shared: RunFolder | None = None) -> RunFolder:
    """Return a folder with data and a bootstrap, those of another folder if one is given."""
    config = load_recipe("quickstart", overrides=[*SHORT, f"seed={seed}", f"training.codec={codec}"])
    folder = open_folder(root, config, resume=False)
    if shared is not None:
        for name in ("data", "bootstrap.safetensors"):
            (root / name).symlink_to(shared.root / name)
    prepare(folder)
    return folder


if __name__ == "__main__":
    main()
