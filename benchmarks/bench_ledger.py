"""Ledger samples a second at 1,024 accounts, over the plain loop: one sample at a time, one token at a time.

The baseline does what a first script does: opening balances by Zipf's law, each transaction drawn alone, each token
computed alone, one uncompressed HDF5 group a sample. Ours evolves chains, writes them compressed, and uses two
processes; wall time, start of the processes included. The three sizes show that time grows with the samples alone.

python -m benchmarks.bench_ledger [--large]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measure import print_setting, print_table
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl import rng
from nerv_fl.data import LedgerFile
from nerv_fl.types import IntArray

ACCOUNTS = 1024
STEPS = 128
WORKERS = 2
BATCH = 64
LOOP_SAMPLES = 400
READ_SAMPLES = 6400
SIZES = (10_000, 100_000)
LARGE = 1_000_000


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} samples: minutes, and 4 GB of disk")
    sizes = (*SIZES, LARGE) if parser.parse_args().large else SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_ledger(folder / "warm-up.h5", LedgerShape(chains=8, accounts=ACCOUNTS))  # compiles the kernels
        loop_per_s = timed(lambda: plain_loop(folder / "loop.h5"), LOOP_SAMPLES)
        rows = [["plain loop", f"{LOOP_SAMPLES:,}", f"{loop_per_s:,.0f}", "1", file_bytes(folder / "loop.h5"), ""]]
        for samples in sizes:
            path = folder / f"{samples}.h5"
            per_s = timed(lambda path=path, samples=samples: ours(path, samples), samples)  # type: ignore[misc]
            ratio = f"{per_s / loop_per_s:.0f}"
            rows.append(["ours, 2 workers", f"{samples:,}", f"{per_s:,.0f}", ratio, file_bytes(path), peak_mb()])
            if samples != SIZES[-1]:
                path.unlink()
        print_setting(
            f"Ledger, {ACCOUNTS:,} accounts, batches of 1 to 256", packages=("numpy", "h5py", "numba", "deflate")
        )
        print_table(["", "samples", "samples/s", "over the loop", "bytes a sample", "peak MB of a process"], rows)
        print()
        reading(folder / f"{SIZES[-1]}.h5", folder / "loop.h5")


def ours(path: Path, samples: int) -> None:
    """Write a ledger."""
    shape = LedgerShape(chains=samples // STEPS, steps=STEPS, accounts=ACCOUNTS, max_transactions=256)
    generate_ledger(path, shape, workers=WORKERS)


def reading(path: Path, loop: Path) -> None:
    """Print how fast random training batches are read, as states and as tokens, by one process."""
    # Imported here, so that the worker processes, which import this file, need not load torch.
    from torch.utils.data import DataLoader  # noqa: PLC0415

    from nerv_fl.data.torch_datasets import LedgerSamples, collate  # noqa: PLC0415

    stream = rng.stream(1, "reads")
    with LedgerFile(path) as ledger:
        ids = stream.integers(0, ledger.info.num_samples, (READ_SAMPLES // BATCH, BATCH))
        states_per_s = timed(lambda: [ledger.read(batch) for batch in ids], READ_SAMPLES)
    loader = DataLoader(LedgerSamples(path), batch_sampler=ids.tolist(), collate_fn=collate)
    tokens_per_s = timed(lambda: list(loader), READ_SAMPLES)
    with h5py.File(loop) as file:
        picks = stream.integers(0, LOOP_SAMPLES, 2000)
        groups_per_s = timed(
            lambda: [file[f"sample_{k}/{name}"][:] for k in picks for name in ("tokens_pre", "tokens_post")], 2000
        )
    rows = [
        ["plain layout, tokens before and after", f"{groups_per_s:,.0f}", "1"],
        ["ours, balances before and after", f"{states_per_s:,.0f}", f"{states_per_s / groups_per_s:.1f}"],
        ["ours, tokens before and after", f"{tokens_per_s:,.0f}", f"{tokens_per_s / groups_per_s:.1f}"],
    ]
    print_table([f"Random batches of {BATCH}, one process", "samples/s", "over the plain layout"], rows)


def plain_loop(path: Path) -> None:
    """Write samples one after another, as a first script would."""
    stream = rng.stream(1, "loop")
    with h5py.File(path, "w") as file:
        for number in range(LOOP_SAMPLES):
            before = opening(stream)
            batch = draw_batch(stream, before)
            after = before.copy()
            for sender, receiver, amount in batch:
                after[sender] -= amount
                after[receiver] += amount
            group = file.create_group(f"sample_{number}")
            group.create_dataset("tokens_pre", data=plain_tokens(before))
            group.create_dataset("tokens_post", data=plain_tokens(after))
            group.create_dataset("tx_batch", data=np.array(batch, dtype=np.int64))
            group.attrs["num_txs"] = len(batch)


def opening(stream: np.random.Generator) -> IntArray:
    """Return balances by Zipf's law, in random order."""
    weights = 1.0 / np.arange(1, ACCOUNTS + 1) ** 1.5
    balances: IntArray = np.floor(weights / weights.sum() * 1e16).astype(np.int64)
    stream.shuffle(balances)
    return balances


def draw_batch(stream: np.random.Generator, balances: IntArray) -> list[tuple[int, int, int]]:
    """Return 1 to 256 transfers of (sender, receiver, amount)."""
    batch = []
    for _ in range(stream.integers(1, 257)):
        sender = int(stream.integers(ACCOUNTS))
        receiver = int(stream.integers(ACCOUNTS))
        while receiver == sender:
            receiver = int(stream.integers(ACCOUNTS))
        amount = min(int(np.exp(stream.normal(10, 2))), int(balances[sender]) // 2)
        batch.append((sender, receiver, amount))
    return batch


def plain_tokens(balances: IntArray) -> IntArray:
    """Return the tokens of a state, one at a time."""
    sequence = np.zeros(1 + 2 * ACCOUNTS, dtype=np.uint16)
    for account in range(ACCOUNTS):
        balance = balances[account]
        bucket = min(max(int(np.log2(balance)) + 10, 0), 255) if balance else 0
        sequence[1 + 2 * account] = 1 + account
        sequence[2 + 2 * account] = 1 + ACCOUNTS + bucket
    return np.asarray(sequence, dtype=np.int64)


def timed(call: Callable[[], object], samples: int) -> float:
    """Return samples a second of wall time."""
    start = time.perf_counter()
    call()
    return samples / (time.perf_counter() - start)


def file_bytes(path: Path) -> str:
    """Return the bytes a sample takes on disk."""
    samples = LOOP_SAMPLES if path.stem == "loop" else int(path.stem)
    return f"{path.stat().st_size / samples:,.0f}"


def peak_mb() -> str:
    """Return the largest resident set so far of any process, this one or a worker."""
    found = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return f"{max(found) / 1024:,.0f}"


if __name__ == "__main__":
    main()
