"""Central pretraining of the encoder on public data: what the federation starts from.

AdamW with a cosine schedule on the data loss and the data-free terms; the drift term enters every `drift_every`-th
step, the others see the masked state alone. The output bias starts at the log unigram of the data. The best weights
by held-out loss are kept. With ``dp`` the gradients are Opacus' (clip, noise, Poisson sampling), as a node's.

A checkpoint lies beside the file that is to be written, from before the first step until the end, and a killed training
goes on from it with the same bits.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nerv_fl.bootstrap.public import PublicData
from nerv_fl.bootstrap.resume import begun_with, checkpoint_path, require_begun
from nerv_fl.bootstrap.training import Point, Standing
from nerv_fl.bootstrap.workers import Assignment, Cluster, Worker, working
from nerv_fl.config import Flat, PrivacyConfig, RunConfig
from nerv_fl.data import open_ledger
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.evaluate import EncoderMeasures
from nerv_fl.models.presets import get_preset
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.threads import use_one_thread

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, held-out loss so far)."""


@dataclass(frozen=True, kw_only=True)
class BootstrapResult:
    """What pretraining gives: the path of the weights, f of the loss, and the measures on held-out chains.

    `epsilon` is None without DP; with it, epsilon at `privacy.delta` per step record under Poisson sampling. It
    covers the gradients: the output bias, f and the choice of the best step read the public data as they are.
    `stopped` says why it ended before the last step, or is empty. `unigram` and `per_account` are the masked
    cross-entropies of the two trivial models on the same chains, nats.
    """

    path: Path
    movement_floor: float
    best_step: int
    measures: EncoderMeasures
    epsilon: float | None
    stopped: str
    curve: tuple[Point, ...]
    unigram: float
    per_account: float


def pretrain(
    config: RunConfig,
    ledger_path: Path,
    *,
    out: Path,
    progress: Progress | None = None,
    resume: bool = False,
    start: Path | None = None,
    cluster: Cluster | None = None,
) -> BootstrapResult:
    """Train the encoder of `config.model` on a public ledger and write the best weights to `out`.

    The last `data.heldout_chains` chains of the ledger are held out. A loss that is not finite ends the training; the
    best weights before it are written all the same, and the result says so.

    Args:
        config: The run's settings.
        ledger_path: Ledger file of the `genesis` profile.
        out: Safetensors file to write.
        progress: Told of each evaluation.
        resume: Go on from the checkpoint beside `out`, if there is one.
        start: Weights to begin with, in place of random ones.
        cluster: The Ray cluster whose workers share each batch; this process alone if left out.

    Raises:
        DataError: If the ledger is not the model's, or too small.
        CheckpointError: If there is a checkpoint and `resume` is false, or it is damaged, or `start` is of another
            preset.
        ConfigError: If the checkpoint's training began with other settings, data or workers, or `bootstrap.weights` is
            set: that names weights to use, not to train on from.
        OSError: If a file cannot be written; the checkpoint before stays whole.
    """
    use_one_thread()
    if config.bootstrap.weights:
        raise ConfigError(f"bootstrap.weights is {config.bootstrap.weights!r}, expected none: a training has a start")
    path = checkpoint_path(out)
    with open_ledger(ledger_path) as ledger:
        data = PublicData(ledger, config=config, preset=get_preset(config.model.preset))
        epsilon = _epsilon(config, num_samples=data.num_samples) if config.bootstrap.dp else None
        begun = begun_with(config, data_sha256=data.content_sha256, num_workers=cluster.workers if cluster else 1)
        stored = _stored(path, out=out, begun=begun, resume=resume)
        assignment = Assignment(config=config, ledger_path=ledger_path, begun=begun, start=start)
        with working(assignment, data, cluster=cluster) as worker:
            standing = _train(worker, config, path=path, stored=stored, progress=progress)
            file, measures = worker.finish(_facts(data, standing=standing, epsilon=epsilon, privacy=config.privacy))
    unigram, per_account = data.trivial_cross_entropies()
    write_atomically(out, file)
    path.unlink()
    return BootstrapResult(
        path=out,
        movement_floor=data.movement_floor,
        best_step=standing.best.step,
        measures=measures,
        epsilon=epsilon,
        stopped=standing.stopped,
        curve=standing.curve,
        unigram=unigram,
        per_account=per_account,
    )


def _facts(data: PublicData, *, standing: Standing, epsilon: float | None, privacy: PrivacyConfig) -> dict[str, object]:
    """Return what is written into the file of the weights."""
    return {
        "movement_floor": data.movement_floor,
        "best_step": standing.best.step,
        "epsilon": epsilon,
        "stopped": standing.stopped,
        "data_sha256": data.content_sha256,
        **({} if epsilon is None else {"delta": privacy.delta}),
        **({} if epsilon is None or not privacy.deviation else {"mechanism": privacy.deviation}),
    }


def _epsilon(config: RunConfig, *, num_samples: int) -> float:
    mechanism = Mechanism(
        sigma=config.privacy.noise_multiplier, sampling_rate=config.bootstrap.batch_size / num_samples
    )
    return epsilon_of(mechanism, config.bootstrap.steps, delta=config.privacy.delta)


def _stored(path: Path, *, out: Path, begun: Flat, resume: bool) -> bytes | None:
    """Return the checkpoint to go on from, or None to begin."""
    if not path.exists():
        if resume and out.exists():
            raise CheckpointError(f"{path} does not exist, expected a checkpoint to resume: {out} is finished")
        return None
    if not resume:
        raise CheckpointError(f"{path} holds an unfinished training, expected --resume to go on, or another file")
    data = path.read_bytes()
    require_begun(data, begun, source=path)
    return data


def _train(
    worker: Worker, config: RunConfig, *, path: Path, stored: bytes | None, progress: Progress | None
) -> Standing:
    """Take all steps, with a checkpoint now and then; the first, before any, shows that the disk takes it."""
    settings = config.bootstrap
    if stored is None:
        write_atomically(path, worker.snapshot())
    else:
        worker.restore(stored, source=path)
    standing = worker.standing()
    while standing.step < settings.steps and not standing.stopped:
        told = len(standing.curve)
        pause = _steps_to_pause(standing.step, evaluate=settings.evaluate_every, save=settings.checkpoint_every)
        standing = worker.advance(pause)
        if progress and len(standing.curve) > told:
            progress(standing.step, settings.steps, standing.best.measures.loss)
        if standing.step % settings.checkpoint_every == 0:
            write_atomically(path, worker.snapshot())
    if standing.stopped:
        kept = standing.best.step
        logger.warning("pretraining stopped: %s; the best weights, of step %d, are kept", standing.stopped, kept)
    return standing


def _steps_to_pause(step: int, *, evaluate: int, save: int) -> int:
    """Return how many steps lie before the next evaluation or checkpoint.

    >>> _steps_to_pause(90, evaluate=100, save=40)
    10
    """
    return min(every - step % every for every in (evaluate, save))
