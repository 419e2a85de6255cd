"""What central training without DP makes of as many samples of the nodes' own data: the most that was to be had.

It begins with the run's bootstrap, reads `rounds x cohort x local steps x expected batch` samples of the nodes' data by
AdamW on the bootstrap's schedule, and keeps the best weights by chains of those data which it does not train on. An
encoder is pretrained further; any other task is trained by `simulations.sweep.central_task`.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.config import RunConfig
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.gate import CERTIFY, one_step_per_chain
from nerv_fl.io.atomic import write_atomically
from nerv_fl.server.monitor import FINAL
from nerv_fl.server.run_folder import POOLS, RunFolder
from nerv_fl.tasks.registry import find_task, make_task
from nerv_fl.types import Vector
from simulations.sweep.central_task import EVALUATIONS, train_centrally

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps)."""


@dataclass(frozen=True, kw_only=True)
class Central:
    """A central training: its samples, and what it reached from the same bootstrap on the same pools.

    `loss` is the data loss on the final pool, `masked_ce` an encoder's masked cross-entropy of the monitor samples,
    nats, as in a run's records.
    """

    num_samples: int
    loss: float
    masked_ce: float | None


def samples_of(config: RunConfig) -> int:
    """Return how many samples a run's rounds are expected to train on."""
    federation, training = config.federation, config.training
    units = federation.num_rounds * federation.cohort_size * training.local_steps * training.expected_batch
    return units * config.records_per_unit


def central_reference(folder: RunFolder, *, num_samples: int, progress: OnStep | None = None) -> Central:
    """Return the central training of a prepared run folder: trained and measured once, then read.

    Args:
        folder: The run folder; results stand beside its data.
        num_samples: Samples to train on.
        progress: Told of each evaluation.
    """
    path = folder.root / f"central-{num_samples}.json"
    if not path.exists():
        train = _pretrained if folder.config.task == "encoder" else _trained
        theta_P = train(folder, path.with_suffix(".safetensors"), num_samples=num_samples, progress=progress)
        write_atomically(path, json.dumps(asdict(_measure(folder, theta_P, num_samples=num_samples))).encode())
    return Central(**json.loads(path.read_text(encoding="utf-8")))


def _pretrained(folder: RunFolder, weights: Path, *, num_samples: int, progress: OnStep | None) -> Vector:
    """Return an encoder that was pretrained further on the nodes' ledger."""
    if not weights.exists():
        pretrain(
            _settings(folder.config, num_samples=num_samples),
            folder.data("nodes"),
            out=weights,
            start=folder.bootstrap_path,
            resume=True,
            progress=(lambda step, of, _loss: progress(step, of)) if progress else None,
        )
    return find_task("encoder").read_start(weights, folder.config)[0]


def _trained(folder: RunFolder, _weights: Path, *, num_samples: int, progress: OnStep | None) -> Vector:
    """Return another task's weights after as many samples of the nodes' data."""
    config = _settings(folder.config, num_samples=num_samples)
    start_P, constants = find_task(config.task).read_start(folder.bootstrap_path, config)
    return train_centrally(make_task(config, constants), folder.data("nodes"), start_P=start_P, progress=progress)


def _settings(config: RunConfig, *, num_samples: int) -> RunConfig:
    steps = max(1, num_samples // config.bootstrap.batch_size)
    schedule = replace(
        config.bootstrap,
        steps=steps,
        warmup_steps=min(config.bootstrap.warmup_steps, steps // 10),
        evaluate_every=max(1, steps // EVALUATIONS),
        checkpoint_every=max(1, steps // EVALUATIONS),
        hint_share=0.0,
        dp=False,
        weights="",
    )
    return replace(config, bootstrap=schedule)


def _measure(folder: RunFolder, theta_P: Vector, *, num_samples: int) -> Central:
    config = folder.config
    _, constants = find_task(config.task).read_start(folder.bootstrap_path, config)
    paths = {name: folder.data(name) for name in POOLS}
    with Pools(PoolSettings(config=config, paths=paths, constants=constants)) as pools:
        final = one_step_per_chain(np.arange(pools.num_chains(FINAL)), pools.num_steps())
        monitored = one_step_per_chain(np.arange(config.gate.monitor_samples), pools.num_steps())
        standing = pools.summarise(pools.measure_one(theta_P, CERTIFY, monitored))
        return Central(
            num_samples=num_samples,
            loss=float(pools.measure_one(theta_P, FINAL, final).loss_B.mean()),
            masked_ce=getattr(standing, "masked_ce", None),
        )
