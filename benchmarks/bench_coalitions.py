"""CPU time of a coalition's loss: one resident encoder against a copy, a functional call and vmap.

The quickstart's encoder, 64 held-out samples, 32 coalitions' weights. All give the same losses, which is checked.

    python -m benchmarks.bench_coalitions
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.bench_dp_step import MOVEMENT_FLOOR, SEED, draw_batch, make_encoder
from benchmarks.measure import median_cpu_ms, print_setting, print_table
from nerv_fl import rng
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.losses import sample_losses

COALITIONS = 32
CHUNK = 32
"""Samples at a time: `enclave.chunk`."""

OURS, COPY = "resident encoder, weights copied in", "a deep copy each"


def main() -> None:
    """Check that the ways agree, measure them and print the table."""
    encoder, batch = make_encoder(), draw_batch()
    noise_MP = torch.randn(COALITIONS, encoder.num_parameters, generator=rng.torch_stream(SEED, "coalitions"))
    theta_MP = get_flat(encoder) + 0.01 * noise_MP
    parts = [batch.part(start, start + CHUNK) for start in range(0, batch.num_samples, CHUNK)]
    ways: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: torch.stack([resident(encoder, theta_P, parts) for theta_P in theta_MP]),
        COPY: lambda: torch.stack([resident(copy.deepcopy(encoder), theta_P, parts) for theta_P in theta_MP]),
        "functional_call": lambda: torch.stack([functional(encoder, theta_P, parts) for theta_P in theta_MP]),
        "vmap of 8": lambda: mapped(encoder, theta_MP, parts, size=8),
        "vmap of 32": lambda: mapped(encoder, theta_MP, parts, size=32),
    }
    with torch.no_grad():
        expected_M = ways[OURS]()
        for name, way in ways.items():
            torch.testing.assert_close(way(), expected_M, rtol=1e-4, atol=1e-4, msg=f"{name} gives other losses")
        times_ms = median_cpu_ms(ways, repeats=3, warm_up=0)
    print_setting(f"{COALITIONS} coalitions, {batch.num_samples} samples, quickstart preset", packages=["torch"])
    rows = [
        [name, f"{ms / COALITIONS:.1f}", f"{1000 * COALITIONS / ms:.0f}", f"{ms / times_ms[COPY]:.2f}"]
        for name, ms in times_ms.items()
    ]
    print_table(["way", "CPU ms a coalition", "a second", "over a copy"], rows)


class Losses(nn.Module):
    """The encoder's mean loss as a module, for calls with weights from outside."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: StateBatch) -> Tensor:
        """Return the sum of the samples' losses."""
        losses = sample_losses(self.encoder, batch, table_AD=self.encoder.table(), movement_floor=MOVEMENT_FLOOR)
        return losses.loss_B.sum()


def resident(encoder: Encoder, theta_P: Tensor, parts: list[StateBatch]) -> Tensor:
    """Return the mean loss as the enclave measures it: the table once, then a chunk of samples at a time."""
    set_flat(encoder, theta_P)
    table_AD = encoder.table()
    losses = [sample_losses(encoder, part, table_AD=table_AD, movement_floor=MOVEMENT_FLOOR).loss_B for part in parts]
    return torch.cat(losses).mean()


def functional(encoder: Encoder, theta_P: Tensor, parts: list[StateBatch]) -> Tensor:
    """Return it by calls with weights from outside."""
    module, weights = Losses(encoder), by_name(encoder, theta_P)
    total = sum(functional_call(module, weights, (part,)) for part in parts)
    return torch.as_tensor(total) / sum(part.num_samples for part in parts)


def mapped(encoder: Encoder, theta_MP: Tensor, parts: list[StateBatch], *, size: int) -> Tensor:
    """Return it for `size` coalitions at a time."""
    together = vmap(lambda theta_P: functional(encoder, theta_P, parts))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no batching rule
        return torch.cat([together(some_P) for some_P in theta_MP.split(size)])


def by_name(encoder: Encoder, theta_P: Tensor) -> dict[str, Tensor]:
    """Return a flat vector as named weights of `Losses`."""
    sizes = [parameter.numel() for parameter in encoder.parameters()]
    pieces = theta_P.split(sizes)
    return {
        f"encoder.{name}": piece.view(parameter.shape)
        for (name, parameter), piece in zip(encoder.named_parameters(), pieces, strict=True)
    }


if __name__ == "__main__":
    main()
