"""What a codec costs and saves: bytes, CPU time at the node and in the enclave, and what rounding does to the learning.

One update of the quickstart, pure noise of the standard deviation that DP-SGD adds: sealed by a node from a float32
vector, opened by the enclave back into one. "Rounding" is its variance over the noise's. The second table counts which
of 50 updates, gradients included, the enclave takes for updates without their noise, by how much of it they have.

`--learning` runs 20 nodes and 5 rounds of the quickstart from one bootstrap of 100 steps a seed, once with each codec:
the same nodes, batches, noise and masks. Every round commits step 1 without the gate, whose yes or no would hide a
small change.

python -m benchmarks.bench_codecs [--learning SEED ...]
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl import rng
from nerv_fl.config import CODEC_NAMES, RunConfig
from nerv_fl.crypto import (
    Context,
    OpeningKey,
    SigningKey,
    decode_update,
    encode_update,
    open_envelope,
    seal,
    update_size_bytes,
)
from nerv_fl.enclave.screening import UNNOISED, examiner, noise_std, screen
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.types import Vector
from simulations.engine import run
from simulations.prepare import load_recipe, open_folder, prepare

REPEATS = 200
WHITEPAPER_PARAMETERS = 77_757_184
SHARES = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9)
SHORT = (
    "federation.num_nodes=20",
    "federation.cohort_size=20",
    "federation.num_rounds=5",
    "bootstrap.steps=100",
    "gate.enforce=false",
    "gate.search_samples=64",
    "gate.certify_samples=64",
    "gate.bound_batches=1000",
    "valuation.method=surrogate",
    "valuation.gradient_samples=64",
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
    print()
    rows = [[codec, *(f"{flagged(codec, share, size=size)}" for share in SHARES)] for codec in CODEC_NAMES]
    print_table(["flagged of 50 with", *(f"{share:.0%} noise" for share in SHARES)], rows)


def flagged(codec: str, share: float, *, size: int) -> int:
    """Return how many of 50 rounded updates with a share of the noise are flagged; heavy-tailed gradients, as real."""
    base, generator = RunConfig(), rng.stream(7, "screening", codec, f"{share:g}")
    config = replace(
        base,
        training=replace(base.training, codec=codec),
        enclave=replace(base.enclave, outlier_sigmas=0.0),
    )

    look = examiner(np.zeros((1, size), np.float32), config=config)

    def update() -> Vector:
        gradient_P = generator.standard_t(3, size)
        gradient_P *= 0.15 / np.linalg.norm(gradient_P)
        exact_P = gradient_P + share * noise_std(config) * generator.standard_normal(size)
        payload = encode_update(exact_P.astype(np.float32), codec=codec, rounding=generator)
        return decode_update(payload, num_parameters=size, codec=codec)

    return screen([look(update()) for _ in range(50)], num_parameters=size, config=config).count(UNNOISED)


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
                losses = [record.loss for record in records]
                rows.append(
                    [f"{seed}", codec, f"{losses[0]:.5f}", f"{losses[-1]:.5f}", f"{losses[-1] - losses[0]:+.5f}"]
                )
    print_table(["seed", "codec", "loss before", "loss after", "change"], rows)


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
