"""The same rounds as Flower's examples write them: a message a node, and Opacus' `make_private` in each client.

A client builds the model, loads the node's whole shard and a DataLoader, has `make_private` wrap them with Poisson
sampling, takes two steps, and sends its weights and number of records; `FedAvg` averages them. Prints one JSON list of
CPU and wall seconds a round. Run by `bench_round`.

    python -m benchmarks.round_flower ROOT --nodes 100 --rounds 3 --actors 2
"""

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.processes import children_cpu_s
from benchmarks.round_flower_client import client_app, shards_at
from nerv_fl.models.encoder import set_flat
from simulations.engine import QUIET


class Timed(FedAvg):
    """FedAvg that knows what each round took."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=num_nodes, min_available_nodes=num_nodes
        )
        self.found: list[dict[str, float]] = []
        self._last = self._now()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and take the round's costs."""
        result = super().aggregate_train(server_round, replies)
        now = self._now()
        self.found.append({name: now[name] - self._last[name] for name in now})
        self._last = now
        return result

    @staticmethod
    def _now() -> dict[str, float]:
        return {"wall": time.perf_counter(), "driver": time.process_time(), **children_cpu_s()}


def main() -> None:
    """Run the rounds on a prepared folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    os.environ.update(QUIET)
    from flwr.simulation import run_simulation  # noqa: PLC0415 (reads the environment when imported)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    server, strategy = ServerApp(), Timed(options.nodes)

    @server.main()
    def serve(grid: Grid, _context: Context) -> None:
        shards = shards_at(str(options.root))
        model = shards.task.build()
        set_flat(model, shards.theta_P)
        strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=options.rounds)

    run_simulation(
        server_app=server,
        client_app=client_app(str(options.root)),
        num_supernodes=options.nodes,
        backend_config={
            "init_args": {
                "num_cpus": options.actors,
                "_node_ip_address": "127.0.0.1",
                "include_dashboard": False,
                "log_to_driver": False,
            },
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    print(json.dumps(strategy.found), flush=True)


if __name__ == "__main__":
    main()
