"""One simulation, and what each of its rounds cost: CPU time of the driver, of the actors and of Ray's own processes.

The driver's time on the held-out pools, for step search, gate and Shapley values, and for the monitor, stands apart.
Run by `bench_round` in a process of its own; prints one JSON list of rounds, the first of which starts the actors.

    python -m benchmarks.round_ours ROOT --nodes 100 --rounds 4 --actors 2 --blocks 10 --work train
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from benchmarks import round_work
from benchmarks.processes import children_cpu_s
from nerv_fl.client.host import HostSettings
from nerv_fl.config import Flat
from nerv_fl.enclave import process as enclave_process
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.records import RewardRow, RoundRecord
from nerv_fl.server import app
from nerv_fl.server.monitor import Monitor
from nerv_fl.server.run_folder import RunFolder
from simulations import engine


class Meter:
    """Pools that know how much CPU time their calls took."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.cpu_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pools.close()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._pools, name)
        if not callable(found):
            return found

        def timed(*arguments: object, **keywords: object) -> object:
            started = time.process_time()
            try:
                return found(*arguments, **keywords)
            finally:
                self.cpu_s += time.process_time() - started

        return timed


class Rounds:
    """What each round took, from the end of the one before."""

    def __init__(self) -> None:
        self.evaluation: Meter | None = None
        self.monitoring: Meter | None = None
        self.found: list[dict[str, float]] = []
        self._last = self._now()

    def make_pools(self, settings: PoolSettings) -> Meter:
        """Return the enclave's pools."""
        self.evaluation = Meter(Pools(settings))
        return self.evaluation

    def make_monitor(self, pools: Meter, **keywords: Any) -> Monitor:
        """Return a monitor with a meter of its own on the same pools."""
        self.monitoring = Meter(pools._pools)
        return Monitor(self.monitoring, **keywords)  # type: ignore[arg-type]

    def finish(self, record: RoundRecord, _rows: Sequence[RewardRow]) -> None:
        """Take a round's costs."""
        now = self._now()
        if record.round:
            costs = {name: now[name] - self._last[name] for name in now}
            self.found.append(costs | {"accepted": float(record.accepted)})
        self._last = now

    def _now(self) -> dict[str, float]:
        return {
            "wall": time.perf_counter(),
            "driver": time.process_time(),
            "evaluation": self.evaluation.cpu_s if self.evaluation else 0.0,
            "monitor": self.monitoring.cpu_s if self.monitoring else 0.0,
            **children_cpu_s(),
        }


def measure(folder: RunFolder, work: Callable[..., Any]) -> list[dict[str, float]]:
    """Run a prepared folder and return what each round cost."""
    rounds, host_settings = Rounds(), engine.host_settings

    def with_work(run: RunFolder) -> HostSettings:
        return replace(host_settings(run), training=work)

    with (
        patch.object(enclave_process, "make_pools", rounds.make_pools),
        patch.object(app, "Monitor", rounds.make_monitor),
        patch.object(engine, "host_settings", with_work),
    ):
        engine.run(folder, on_round=rounds.finish)
    return rounds.found


def main() -> None:
    """Run one simulation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--work", choices=("train", "tiny", "nothing"), default="train")
    options = parser.parse_args()
    settings: Flat = {
        "federation.num_nodes": options.nodes,
        "federation.cohort_size": options.nodes,
        "federation.num_rounds": options.rounds,
        "simulation.actors": options.actors,
        "simulation.blocks": options.blocks,
    }
    base = round_work.WORK if options.work == "train" else round_work.TINY
    folder = round_work.prepared(options.root, base | settings)
    work = round_work.train_nothing if options.work == "nothing" else round_work.train
    print(json.dumps(measure(folder, work)), flush=True)


if __name__ == "__main__":
    main()
