"""`nerv-fl bootstrap` as a user meets it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.resume import checkpoint_path
from nerv_fl.cli.main import app
from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.privacy.epsilon import format_epsilon

RUNNER = CliRunner()
SHORT = ("--set", "bootstrap.steps=4", "--set", "bootstrap.evaluate_every=2", "--set", "data.heldout_chains=8")


def invoke(*arguments: str) -> str:
    """Run `nerv-fl` in this process and return its output; it must succeed."""
    result = RUNNER.invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def genesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("data") / "genesis.h5"
    generate_ledger(path, LedgerShape(chains=24, profile="genesis", seed=5))
    return path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("encoder", ("--data", "--out", "--preset", "--dp", "--start", "--resume", "--ray", "--workers", "--curve")),
        ("sweep", ("--data", "--preset", "--low", "--high", "--rates", "--steps", "--set", "--json")),
    ],
)
def test_each_command_explains_its_options(command: str, words: tuple[str, ...]) -> None:
    text = invoke("bootstrap", command, "--help")
    assert [word for word in words if word not in text] == []
    assert "tee" in text


def test_encoder_draws_its_curve_and_states_the_trivial_models(genesis: Path, tmp_path: Path) -> None:
    out, curve = tmp_path / "encoder.safetensors", tmp_path / "curve.png"
    text = invoke("bootstrap", "encoder", "--data", str(genesis), "--out", str(out), "--curve", str(curve), *SHORT)
    assert "nats (unigram " in text
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.safetensors", "curve.png"}


def test_encoder_says_why_it_stopped(genesis: Path, tmp_path: Path) -> None:
    wild = ("--set", "bootstrap.learning_rate=10", "--set", "bootstrap.warmup_steps=0", "--set", "bootstrap.patience=1")
    result = RUNNER.invoke(
        app,
        ["bootstrap", "encoder", "--data", str(genesis), "--out", str(tmp_path / "x"), *SHORT, *wild],
        env={"TERM": "dumb"},
    )
    assert result.exit_code == 0
    assert "stopped: no better held-out loss in 1 evaluations up to step 2" in result.stderr


def test_sweep_prints_a_table_and_the_pick(genesis: Path) -> None:
    options = ["--data", str(genesis), "--low", "1e-5", "--high", "1e-2", "--rates", "3", "--steps", "6"]
    options += ["--set", "data.heldout_chains=8", "--set", "bootstrap.batch_size=4"]
    found = json.loads(invoke("bootstrap", "sweep", *options, "--json"))
    assert [trial["learning_rate"] for trial in found["trials"]] == pytest.approx([1e-5, 10**-3.5, 1e-2])
    assert found["pick"] in [trial["learning_rate"] for trial in found["trials"]]
    lines = invoke("bootstrap", "sweep", *options).splitlines()
    assert lines[0].split() == ["learning", "rate", "loss", "masked", "rel.", "drift"]
    assert next(line for line in lines if line.endswith("<-")).split()[0] == f"{found['pick']:.2e}"
    assert lines[-1].startswith(f"pick {found['pick']:.2e}")


def test_the_encoder_is_pretrained(genesis: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"

    text = invoke("bootstrap", "encoder", "--data", str(genesis), "--out", str(out), *SHORT)

    assert text.startswith(f"{out}: best at step ")
    assert "masked cross-entropy" in text
    assert "epsilon" not in text
    assert out.stat().st_size > 4 * 49_000


def test_private_pretraining_states_its_epsilon(genesis: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"
    options = ("--data", str(genesis), "--out", str(out), "--dp", *SHORT)

    stated = json.loads(invoke("bootstrap", "encoder", *options, "--json"))

    assert str(tmp_path) not in json.dumps(stated)
    assert stated["best_step"] >= 0
    assert stated["epsilon"] > 0
    text = invoke("bootstrap", "encoder", *options)
    assert (
        f"epsilon {format_epsilon(stated['epsilon'])} at delta 1e-05 per step record, Poisson sampling, sigma 0.5"
        in text
    )


def test_bootstrap_on_data_of_another_account_number(genesis: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(
        app, ["bootstrap", "encoder", "--data", str(genesis), "--out", str(tmp_path / "x"), "--preset", "tee"]
    )
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == f"{genesis} has 64 accounts, expected 1024 (the model's)"


def test_killed_training_is_not_begun_anew_by_mistake(genesis: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"
    checkpoint_path(out).write_bytes(b"of an earlier training")
    result = RUNNER.invoke(app, ["bootstrap", "encoder", "--data", str(genesis), "--out", str(out), *SHORT])
    assert isinstance(result.exception, CheckpointError)
    assert str(result.exception).startswith(f"{checkpoint_path(out)} holds an unfinished training, expected --resume")
