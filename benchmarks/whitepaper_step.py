"""CPU time and peak memory of one DP-SGD step of the whitepaper's encoder in a node, over the same step of plain SGD.

One record, 77.8 million parameters, one thread. Each step is a process of its own, in turn, whose peak resident memory
the operating system keeps. The private step is a node's own (`nerv_fl.client.local_training.Trainer.update`): it reads
the record, forms and clips its gradient, draws noise for every parameter, and returns the update.

python -m benchmarks.whitepaper_step [--turns N] [--checkpointing]

A turn takes about 150 CPU seconds; `--checkpointing` adds both steps with blocks that are computed again.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, optim

from benchmarks.measure import print_setting, print_table
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl import rng
from nerv_fl.client.local_training import Trainer, seeded_streams
from nerv_fl.config import ModelConfig, RunConfig, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.tasks.encoder import EncoderTask
from nerv_fl.threads import use_one_thread

SEED = 7
MOVEMENT_FLOOR = 0.01
PRESET = get_preset("whitepaper")
PLAIN, PRIVATE = "plain SGD", "DP-SGD"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    modes = (False, True) if options.checkpointing else (False,)
    kinds = [(name, checkpointing) for checkpointing in modes for name in (PLAIN, PRIVATE)]
    seconds: dict[tuple[str, bool], list[float]] = {kind: [] for kind in kinds}
    peaks: dict[tuple[str, bool], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.h5"
        generate_ledger(path, LedgerShape(chains=1, steps=1, accounts=PRESET.num_accounts, seed=SEED))
        for _ in range(options.turns):
            for kind in kinds:
                found = measured(path, *kind)
                seconds[kind].append(found["cpu_s"])
                peaks[kind] = max(peaks.get(kind, 0), int(found["peak_bytes"]))
    print_setting(f"One step, whitepaper preset, one record; medians of {options.turns}", packages=("torch", "opacus"))
    rows = []
    for name, checkpointing in kinds:
        cpu_s = statistics.median(seconds[name, checkpointing])
        ratio = cpu_s / statistics.median(seconds[PLAIN, checkpointing])
        what = f"{name}, checkpointing" if checkpointing else name
        rows.append([what, f"{cpu_s:.1f}", f"{ratio:.2f}", f"{peaks[name, checkpointing] / 10**6:,.0f}"])
    print_table(["Step", "CPU, s", "over plain SGD", "peak, MB"], rows)


def measured(path: Path, name: str, checkpointing: bool) -> dict[str, float]:
    """Return CPU seconds and peak bytes of a fresh process that takes this step."""
    command = [sys.executable, "-m", "benchmarks.whitepaper_step", "--child", str(path), name, str(checkpointing)]
    result: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return result


def child(path: Path, name: str, checkpointing: bool) -> None:
    """Take one step, and print what it took."""
    use_one_thread()
    training = TrainingConfig(expected_batch=1, micro_batch=1, checkpointing=checkpointing)
    config = replace(RunConfig(), model=ModelConfig(preset=PRESET.name), training=training)
    task = EncoderTask(config, {"movement_floor": MOVEMENT_FLOOR})
    encoder = task.build()
    task.draw_parameters(encoder, rng.torch_stream(SEED, "weights"))
    theta_P = get_flat(encoder)
    with LedgerFile(path) as ledger:
        if name == PRIVATE:
            del encoder
            trainer = Trainer(task)
            step = partial(trainer.update, samples=np.arange(1), streams=seeded_streams(SEED, 1, 0))
        else:
            step = partial(plain_update, task=task, encoder=encoder)
        started = time.process_time()
        step(theta_P, ledger)
        cpu_s = time.process_time() - started
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_s": cpu_s, "peak_bytes": peak_bytes}))


def plain_update(theta_P: Tensor, ledger: LedgerFile, *, task: EncoderTask, encoder: Encoder) -> Tensor:
    """Return the update of a step of SGD on the same record."""
    set_flat(encoder, theta_P)
    batch = task.draw(ledger, np.arange(1), seeded_streams(SEED, 1, 0).masks)
    optimizer = optim.SGD(encoder.parameters(), lr=1.0)
    task.objective(encoder)(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return get_flat(encoder) - theta_P


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "True")
    else:
        main()
