"""The plain loop: one process, one thread, no DP, no message, no seal; the same batches, one model, a mean at the end.

Run by `bench_round`; prints one JSON list of CPU and wall seconds a round.

    python -m benchmarks.round_loop ROOT --rounds 3
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, optim

from benchmarks.round_work import Shards
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.threads import use_one_thread


def run_round(shards: Shards, model: Encoder, *, theta_P: Tensor, round_number: int) -> Tensor:
    """Return the weights after a round: the mean of what nodes change, each from the same start, is added."""
    training, num_nodes = shards.config.training, shards.config.federation.num_nodes
    optimizer = optim.SGD(model.parameters(), lr=training.learning_rate / training.expected_batch)
    total_P = torch.zeros_like(theta_P, dtype=torch.float64)
    for node in range(num_nodes):
        set_flat(model, theta_P)
        for batch in shards.batches(node, round_number):
            shards.task.objective(model)(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        total_P += get_flat(model) - theta_P
    return theta_P + (total_P / num_nodes).float()


def main() -> None:
    """Run the loop on a prepared folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_one_thread()
    shards = Shards(RunFolder(options.root))
    model, theta_P, found = shards.task.build(), shards.theta_P, []
    for round_number in range(1, options.rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        theta_P = run_round(shards, model, theta_P=theta_P, round_number=round_number)
        found.append({"wall": time.perf_counter() - wall, "driver": time.process_time() - cpu})
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
