"""What the same bits every time cost: CPU time of a fixed order, width and cut, over a way that gives them up.

The quickstart's encoder (49,376 parameters): 50 updates summed, 256 held-out samples measured, one node's streams.

    python -m benchmarks.bench_determinism
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.bench_dp_step import MOVEMENT_FLOOR, SEED, draw_batch, make_encoder
from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl.client.local_training import seeded_streams
from nerv_fl.config import ServerConfig
from nerv_fl.enclave.aggregate import aggregate
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import sample_losses
from nerv_fl.rng import stream
from nerv_fl.types import Vector
from nerv_fl.vectors import Rows

NODES, CHUNK, COPIES = 50, 32, 4


def main() -> None:
    """Measure each pair and print the table."""
    encoder, batch = make_encoder(), draw_batch()
    updates_NP = stream(SEED, "updates").standard_normal((NODES, encoder.num_parameters)).astype(np.float32)
    parts = [batch.part(start, start + CHUNK) for start in range(0, batch.num_samples, CHUNK)]
    rows, shared = Rows.of(updates_NP), np.random.Generator(np.random.Philox(SEED))
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "sum of 50 updates: node order in float64, or as they come in float32": (
            lambda: aggregate(rows, config=ServerConfig()),
            lambda: as_they_come(updates_NP),
        ),
        f"losses of {COPIES * batch.num_samples} samples: chunks of {CHUNK}, or {batch.num_samples}": (
            lambda: [losses(encoder, part) for part in COPIES * parts],
            lambda: [losses(encoder, batch) for _ in range(COPIES)],
        ),
        "noise of a node: a stream of its own, or one that all share": (
            lambda: seeded_streams(SEED, 1, 1).noise.standard_normal((encoder.num_parameters,)),
            lambda: shared.standard_normal(encoder.num_parameters),
        ),
    }
    lines = []
    for name, (fixed, free) in pairs.items():
        times = median_cpu_ms({"fixed": fixed, "free": free}, repeats=15)
        lines.append([name, f"{times['fixed']:.2f}", f"{times['free']:.2f}", f"{times['fixed'] / times['free']:.2f}"])
    print_setting("What determinism costs", packages=["torch", "numpy"])
    print_table(["what", "CPU ms, fixed", "CPU ms, free", "ratio"], lines)


def as_they_come(updates_NP: Vector) -> Vector:
    """Return the sum in the order of arrival, in the updates' own precision: other bits with each order."""
    total_P: Vector = np.zeros_like(updates_NP[0])
    for update_P in updates_NP:
        total_P += update_P
    return total_P


def losses(encoder: Encoder, batch: StateBatch) -> Tensor:
    """Return the losses of a batch, as the enclave measures them."""
    with torch.no_grad():
        table_AD = encoder.table()
        return sample_losses(encoder, batch, table_AD=table_AD, movement_floor=MOVEMENT_FLOOR).loss_B


if __name__ == "__main__":
    main()
