"""The same rounds in pfl-research, one process, with the adapter for per-example DP that it lacks.

Run by `bench_round` with an interpreter that has pfl, which asks for an older absl-py than our tools do:

    python -m venv /tmp/pfl && /tmp/pfl/bin/pip install torch==2.13.0 . pfl==0.6.0
    python -m benchmarks.bench_round --pfl-python /tmp/pfl/bin/python

Prints one JSON list of CPU and wall seconds a round.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from opacus import GradSampleModule
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.context import LocalResultMetaData
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import optim

from benchmarks.round_opacus import private_optimizer, teach_opacus, train
from benchmarks.round_work import Shards
from nerv_fl.models.encoder import set_flat
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.threads import use_one_thread


class PrivateModel(PyTorchModel):  # type: ignore[misc]
    """pfl's model, whose local training clips and noises per-example gradients of one resident Opacus engine."""

    def __init__(self, shards: Shards) -> None:
        model = shards.task.build()
        set_flat(model, shards.theta_P)
        GradSampleModule(model, loss_reduction="sum", strict=False)
        vars(model).update(loss=None, metrics=None)  # pfl asks for them, and this model does not use them
        super().__init__(
            model, local_optimizer_create=optim.SGD, central_optimizer=optim.SGD(model.parameters(), lr=1.0)
        )
        self._shards = shards
        self._private = private_optimizer(model, shards)

    def do_multiple_epochs_of(self, user_dataset: Any, *_: Any, **__: Any) -> LocalResultMetaData:
        """Take the node's steps."""
        train(self.pytorch_model, self._private, batches=user_dataset.raw_data, shards=self._shards)
        return LocalResultMetaData(num_steps=len(user_dataset.raw_data))

    def evaluate(self, *_: Any, **__: Any) -> Metrics:
        """Measure nothing: the others do not either."""
        return Metrics()


class Batches(Dataset):  # type: ignore[misc]
    """A node's batches, whose length is their records'."""

    def __len__(self) -> int:
        return sum(batch.num_samples for batch in self.raw_data)


class Clock(TrainingProcessCallback):  # type: ignore[misc]
    """CPU and wall time of each central iteration."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []
        self._last = time.perf_counter(), time.process_time()

    def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
        """Take a round's costs."""
        now = time.perf_counter(), time.process_time()
        self.found.append({"wall": now[0] - self._last[0], "driver": now[1] - self._last[1]})
        self._last = now
        return False, Metrics()


def main() -> None:
    """Run the rounds on a prepared folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_one_thread()
    teach_opacus()
    shards, asked = Shards(RunFolder(options.root)), iter(range(10**9))
    num_nodes = shards.config.federation.num_nodes

    def dataset(node: int) -> Batches:
        return Batches(raw_data=shards.batches(node, 1 + next(asked) // num_nodes), user_id=str(node))

    turns = iter(range(10**9))
    nodes = FederatedDataset(dataset, lambda: next(turns) % num_nodes)
    clock = Clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=num_nodes,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=nodes, val_data=None),
        model=PrivateModel(shards),
        model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=1.0, local_batch_size=None),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    print(json.dumps(clock.found), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
