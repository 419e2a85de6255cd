"""From a consensus file to a predictor that nodes can load: training, resume, calibration, files, scores.

    predictor.safetensors   the weights, calibrated
    predictor.int8.onnx     what a node loads
    metrics.json            settings, hashes, the curve, and the scores of both on races that were not trained on
    *.png                   training, reliability, confusion

Shapes: P parameters.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from nerv_fl.bootstrap.consensus_scores import Logits, RaceScores, answers, score
from nerv_fl.bootstrap.distill import (
    Distillation,
    DistillConfig,
    Progress,
    apply,
    ask_heldout,
    calibrate,
    heldout_losses,
)
from nerv_fl.bootstrap.predictor_checkpoint import restore, snapshot
from nerv_fl.bootstrap.predictor_plots import plot_predictor
from nerv_fl.bootstrap.soft_labels import Continue, Lessons
from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import sha256_of
from nerv_fl.models.consensus import as_feed, longest_feed, open_onnx
from nerv_fl.models.consensus_inputs import RaceInputs
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.predictor_files import save_predictor, write_int8
from nerv_fl.models.weights import read_table
from nerv_fl.quorum import CUTS
from nerv_fl.threads import use_one_thread

WEIGHTS: Final = "predictor.safetensors"
INT8: Final = "predictor.int8.onnx"
METRICS: Final = "metrics.json"
CHECKPOINT: Final = "predictor.resume"
CHANCES: Final = "chances.resume"
CHECKPOINT_EVERY: Final = 100
TRIALS: Final = 200
Told = Callable[[int, int, float], None]
"""Called with (step, steps, best held-out loss)."""


@dataclass(frozen=True, kw_only=True)
class PredictorResult:
    """What training a predictor gives.

    Attributes:
        folder: Where the files lie.
        standing: How the training ended.
        scales: The outcome's scale, scale and shift of validity, from calibration.
        float32: Scores of the weights on test shards, at each cut.
        int8: Scores of the int8 file.
        int8_bytes: Its size.
        p95_ms: 95th percentile of its time for one race of 512 events, on one thread of this machine.
        seconds: Time of the training, soft targets included; after a resume, of the rest.
        test: Content hash of the file that was scored.
    """

    folder: Path
    standing: Progress
    scales: tuple[float, float, float]
    float32: tuple[RaceScores, ...]
    int8: tuple[RaceScores, ...]
    int8_bytes: int
    p95_ms: float
    seconds: float
    test: str


def train_predictor(
    config: DistillConfig,
    races: Path,
    *,
    encoder: Path,
    out: Path,
    play_on: Continue,
    test: Path | None = None,
    resume: bool = False,
    max_test_shards: int = 200,
    told: Told | None = None,
) -> PredictorResult:
    """Train a predictor, write its files, and score it on races that it has not seen.

    Args:
        config: How to train.
        races: Consensus file.
        encoder: Weights of the encoder whose V makes the deltas.
        out: Folder to write.
        play_on: Plays races of that file to their end.
        test: Another consensus file of as many accounts, all of which is scored; without one, the test shards are.
        resume: Whether to go on from the checkpoint in the folder; the result has the same bits.
        max_test_shards: Shards scored at most.
        told: Told of each evaluation.

    Raises:
        ConfigError: If the encoder is of another size, the test file has the training file's seed, no evaluation was
            finite, or the training to resume began with other settings.
        CheckpointError: If the encoder or the checkpoint cannot be read.
        DataError: If the file is damaged or has no shards of some split.
        OSError: If a file cannot be written.
    """
    use_one_thread()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with RaceFile(races) as file, RaceFile(test or races) as unseen:
        held, asked = _choose(file, unseen)
        tables = [read_table(encoder, num_accounts=of.info.accounts) for of in (file, unseen)]
        lessons = Lessons(
            file,
            tables[0],
            seed=config.seed,
            play_on=play_on,
            max_shards=config.max_shards,
            cache=out / CHANCES,
            cache_key=f"{config.rollouts} continuations",
        )
        ask = partial(ask_heldout, file=file, shards=held[: config.heldout_shards], table_AD=tables[0])
        run = Distillation(config, lessons, heldout=lambda model, step: heldout_losses(ask(model), step))
        facts = {**asdict(config), "data": file.info.content_sha256, "encoder": sha256_of(encoder)}
        _train(run, out / CHECKPOINT, begun=facts, resume=resume, steps=config.steps, told=told)
        if run.standing.best is None:
            raise ConfigError(f"no evaluation was finite: {run.standing.stopped}")
        seconds = time.monotonic() - began
        run.model.load_state_dict(run.best)
        scales = calibrate(run.model, ask(run.model))
        size = _save(run.model, out, facts=facts)
        examine = partial(answers, unseen, asked[:max_test_shards], table_AD=tables[1])
        exact, found = (
            {cut: examine(cut=cut, logits=logits) for cut in CUTS}
            for logits in (_of_model(run.model), of_onnx(out / INT8))
        )
    plot_predictor(out, curve=run.standing.curve, found=found)
    result = PredictorResult(
        folder=out,
        standing=run.standing,
        scales=scales,
        float32=tuple(score(cut, part) for cut, part in exact.items()),
        int8=tuple(score(cut, part) for cut, part in found.items()),
        int8_bytes=size,
        p95_ms=_p95_ms(out / INT8),
        seconds=seconds,
        test=unseen.info.content_sha256,
    )
    _write_results(result, facts=facts)
    return result


def _save(model: Predictor, out: Path, *, facts: dict[str, Any]) -> int:
    """Write the weights and the int8 file, and return the latter's size; old measures go first."""
    (out / METRICS).unlink(missing_ok=True)
    save_predictor(out / WEIGHTS, model, facts=facts)
    return write_int8(model, out / INT8)


def _write_results(result: PredictorResult, *, facts: dict[str, Any]) -> None:
    """Write the measures, and remove what only a resume would need."""
    report = {**asdict(result), "settings": facts}
    del report["folder"]  # it may be moved
    write_atomically(result.folder / METRICS, json.dumps(report, indent=1).encode())
    for name in (CHECKPOINT, CHANCES):
        (result.folder / name).unlink(missing_ok=True)


def _choose(file: RaceFile, unseen: RaceFile) -> tuple[list[int], list[int]]:
    """Return the shards to hold out, and those to score: the test shards, or all of another file."""
    other = unseen.path != file.path
    if other and unseen.info.seed == file.info.seed:
        raise ConfigError(
            f"seed of {unseen.path} is {unseen.info.seed}, that of {file.path}, expected another: its races were seen"
        )
    held = file.shards_of("validation").tolist()
    asked = list(range(unseen.info.shards)) if other else file.shards_of("test").tolist()
    if not held or not asked:
        raise DataError(f"{file.path} has {len(held)} validation and {len(asked)} test shards, expected some of each")
    return held, asked


def of_onnx(path: Path) -> Logits:
    """Return a predictor's ONNX file as a function."""
    run = open_onnx(path)

    def logits(inputs: RaceInputs) -> tuple[Tensor, Tensor]:
        valid_BC, outcome_BO, _ = run(as_feed(inputs))
        return torch.from_numpy(valid_BC), torch.from_numpy(outcome_BO)

    return logits


def _of_model(model: Predictor) -> Logits:
    def logits(inputs: RaceInputs) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return apply(model, inputs)

    return logits


def _train(
    run: Distillation,
    checkpoint: Path,
    *,
    begun: Mapping[str, Any],
    resume: bool,
    steps: int,
    told: Told | None,
) -> None:
    if resume:
        restore(run, checkpoint, begun=begun)
    while not run.is_over:
        curve = len(run.standing.curve)
        standing = run.advance()
        if told is not None and len(standing.curve) > curve and standing.best is not None:
            told(standing.step, steps, standing.best.loss)
        if standing.step % CHECKPOINT_EVERY == 0 or run.is_over:
            write_atomically(checkpoint, snapshot(run, begun=begun))


def _p95_ms(path: Path) -> float:
    """Measure the 95th percentile of the time of one race of 512 events."""
    run, feed = open_onnx(path), longest_feed()
    times: list[float] = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        run(feed)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.percentile(times, 95))
