import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datagen.consensus.generate import RaceShape, generate_races, play_on
from nerv_fl.bootstrap.consensus_scores import Answers
from nerv_fl.bootstrap.distill import Distillation, DistillConfig, Heldout, calibrate
from nerv_fl.bootstrap.predictor import train_predictor
from nerv_fl.bootstrap.soft_labels import Lesson, Lessons
from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.predictor_files import load_predictor
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import save_encoder
from nerv_fl.rng import stream, torch_stream
from nerv_fl.types import FloatArray, IntArray

SHAPE = RaceShape(shards=20, races=24, accounts=64, max_transactions=6, seed=4)
CONFIG = DistillConfig(
    steps=4, num_shards=1, evaluate_every=2, warmup_steps=1, heldout_shards=2, max_shards=3, rollouts=4
)


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("races") / "races.h5"
    generate_races(path, SHAPE)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("encoder") / "encoder.safetensors", Encoder(get_preset("quickstart"))
    model.reset_parameters(torch_stream(1, "weights"))
    save_encoder(path, model, facts={})
    return path


@pytest.fixture(scope="module")
def trained(races: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("predictor") / "not" / "there"
    play = play_on(races, rollouts=4)
    result = train_predictor(CONFIG, races, encoder=encoder, out=out, play_on=play)
    assert [point.step for point in result.standing.curve] == [2, 4]
    return out


def test_training_leaves_weights_an_int8_file_and_scores(trained: Path) -> None:
    assert {path.name for path in trained.iterdir() if path.suffix != ".png"} == {
        "metrics.json",
        "predictor.int8.onnx",
        "predictor.safetensors",
    }
    assert {path.stem for path in trained.glob("*.png")} == {"training", "reliability", "confusion"}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["settings"]["steps"] == 4
    assert len(metrics["settings"]["data"]) == len(metrics["settings"]["encoder"]) == 64
    assert metrics["int8_bytes"] == (trained / "predictor.int8.onnx").stat().st_size
    assert [score["cut"] for score in metrics["float32"]] == [0.25, 0.5, 0.75, 1.0]
    assert all(score["races"] == 3 * SHAPE.races for score in metrics["int8"])
    assert metrics["float32"][3]["with_rule"] == 1.0


def test_a_stopped_training_goes_on_to_the_same_bits(
    trained: Path, races: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nerv_fl.bootstrap.predictor.CHECKPOINT_EVERY", 1)
    advance = Distillation.advance

    def stop(run: Distillation) -> object:
        if run.standing.step == 3:
            raise KeyboardInterrupt
        return advance(run)

    play = play_on(races, rollouts=4)
    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            train_predictor(CONFIG, races, encoder=encoder, out=tmp_path, play_on=play)
    assert {path.name for path in tmp_path.iterdir()} == {"chances.resume", "predictor.resume"}
    other = replace(CONFIG, learning_rate=0.5)
    with pytest.raises(ConfigError, match=r"^learning_rate is 0\.5, expected 0\.001: the training in .*resume began"):
        train_predictor(other, races, encoder=encoder, out=tmp_path, play_on=play, resume=True)
    train_predictor(CONFIG, races, encoder=encoder, out=tmp_path, play_on=play, resume=True)
    name = "predictor.safetensors"
    found, expected = load_file(tmp_path / name), load_file(trained / name)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not list(tmp_path.glob("*.resume"))


def test_what_cannot_be_resumed_or_trained_on_is_refused(races: Path, encoder: Path, tmp_path: Path) -> None:
    play = play_on(races, rollouts=1)
    with pytest.raises(
        CheckpointError, match=r"predictor\.resume does not exist, expected the checkpoint of a training"
    ):
        train_predictor(CONFIG, races, encoder=encoder, out=tmp_path, play_on=play, resume=True)
    (tmp_path / "predictor.resume").write_bytes(b"x" * 40)
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*\), expected the checkpoint of a predictor$"):
        train_predictor(CONFIG, races, encoder=encoder, out=tmp_path, play_on=play, resume=True)
    generate_races(tmp_path / "small.h5", replace(SHAPE, shards=2))
    with pytest.raises(DataError, match=r"small\.h5 has 1 validation and 0 test shards, expected some of each$"):
        train_predictor(CONFIG, tmp_path / "small.h5", encoder=encoder, out=tmp_path, play_on=play)
    copied = tmp_path / "copied.h5"
    copied.write_bytes(races.read_bytes())
    with pytest.raises(
        ConfigError, match=r"^seed of .*copied\.h5 is 4, that of .*races\.h5, expected another: its races were"
    ):
        train_predictor(CONFIG, races, encoder=encoder, out=tmp_path, play_on=play, test=copied)
    generate_races(tmp_path / "wide.h5", replace(SHAPE, accounts=32))
    with pytest.raises(ConfigError, match=r"encoder\.safetensors has 64 accounts, expected 32 \(the data's\)$"):
        train_predictor(CONFIG, tmp_path / "wide.h5", encoder=encoder, out=tmp_path, play_on=play)


class BrokenLessons(Lessons):
    """Lessons whose loss is not a number from the third step on."""

    def batch(self, step: int, *, num_shards: int) -> Lesson:
        found = super().batch(step, num_shards=num_shards)
        return found if step < 3 else replace(found, chances_BO=found.chances_BO * float("nan"))


def test_nan_stops_the_training_and_keeps_the_best(races: Path, tmp_path: Path) -> None:
    vectors = stream(1, "table").standard_normal((64, 8))
    with RaceFile(races) as file:
        lessons = BrokenLessons(
            file,
            vectors,
            seed=1,
            play_on=play_on(races, rollouts=1),
            max_shards=2,
            cache=tmp_path / "chances",
            cache_key="1",
        )
        run = Distillation(
            CONFIG,
            lessons,
            heldout=lambda _, step: Heldout(step=step, outcome=1.0, valid=0.0),
        )
        while not run.is_over:
            run.advance()
    assert run.standing.step == 3
    assert run.standing.best == Heldout(step=2, outcome=1.0, valid=0.0)
    assert run.standing.stopped == "the loss was nan at step 3, expected a finite number: lower the learning rate"
    assert all(torch.isfinite(weight).all() for weight in run.best.values())


def test_a_held_out_loss_that_is_no_number_is_never_the_best(races: Path, tmp_path: Path) -> None:
    vectors = stream(1, "table").standard_normal((64, 8))
    with RaceFile(races) as file:
        lessons = Lessons(
            file,
            vectors,
            seed=1,
            play_on=play_on(races, rollouts=1),
            max_shards=2,
            cache=tmp_path / "chances",
            cache_key="1",
        )
        run = Distillation(CONFIG, lessons, heldout=lambda _, step: Heldout(step=step, outcome=float("nan"), valid=0.0))
        while not run.is_over:
            run.advance()
    assert run.standing.best is None
    assert run.standing.stopped == (
        "the held-out loss was nan at step 2, expected a finite number: lower the learning rate"
    )


def test_patience_ends_a_training_that_gets_no_better(races: Path, tmp_path: Path) -> None:
    vectors = stream(1, "table").standard_normal((64, 8))
    with RaceFile(races) as file:
        lessons = Lessons(
            file,
            vectors,
            seed=1,
            play_on=play_on(races, rollouts=1),
            max_shards=2,
            cache=tmp_path / "chances",
            cache_key="1",
        )
        config = replace(CONFIG, steps=9, evaluate_every=1, patience=2)
        run = Distillation(config, lessons, heldout=lambda _, step: Heldout(step=step, outcome=1.0, valid=0.0))
        while not run.is_over:
            run.advance()
    assert run.standing.step == 3
    assert run.standing.stopped == "no better held-out loss in 2 evaluations up to step 3"


def test_calibration_finds_the_scale_by_which_logits_are_too_large() -> None:
    rng, model = stream(3, "calibration"), Predictor()
    model.reset_parameters(torch_stream(1, "weights"))
    true_BO = rng.standard_normal((4000, 5)) * 2
    chance_BO = np.exp(true_BO) / np.exp(true_BO).sum(axis=1, keepdims=True)
    outcome_B = np.array([rng.choice(5, p=row) for row in chance_BO])
    valid_N = rng.standard_normal(8000) * 2
    truth_N = rng.random(8000) < 1 / (1 + np.exp(-(0.5 * valid_N + 0.4)))
    wrong_BO = np.exp(3 * true_BO) / np.exp(3 * true_BO).sum(axis=1, keepdims=True)
    found = answers_of(wrong_BO, outcome_B, valid_N=1 / (1 + np.exp(-valid_N)), truth_N=truth_N)
    before = model.valid.weight.detach().clone()
    outcome, scale, shift = calibrate(model, [found])
    assert outcome == pytest.approx(1 / 3, rel=0.05)
    assert scale == pytest.approx(0.5, rel=0.1)
    assert shift == pytest.approx(0.4, abs=0.1)
    torch.testing.assert_close(model.valid.weight, before * scale)


def answers_of(
    chance_BO: FloatArray,
    outcome_B: IntArray,
    *,
    valid_N: FloatArray,
    truth_N: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Answers:
    nothing = np.zeros(len(outcome_B), dtype=np.int64)
    return Answers(
        chance_BO=chance_BO,
        outcome_B=outcome_B,
        honest_B=nothing == 0,
        rule_B=nothing,
        majority_B=nothing,
        reputation_B=nothing,
        valid_N=valid_N,
        truth_N=truth_N,
        error_B=nothing.astype(np.float64),
    )


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("learning_rate", 0.0), ("patience", -1), ("seed", -1)])
def test_impossible_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is {value}, expected a number in \["):
        DistillConfig(**{name: value})  # type: ignore[arg-type]


def test_weights_carry_their_settings(trained: Path) -> None:
    _, facts = load_predictor(trained / "predictor.safetensors")
    assert facts == json.loads((trained / "metrics.json").read_text())["settings"]
    assert facts["rollouts"] == CONFIG.rollouts == 4
