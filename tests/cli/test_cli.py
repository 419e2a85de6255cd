"""The console script, as a user meets it: in a process of its own where the exit status matters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import copy_run, run_rounds

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "simulations" / "recipes").glob("*.toml"))
RUNNER = CliRunner()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `nerv-fl` in a process of its own."""
    command = [sys.executable, "-c", "from nerv_fl.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def invoke(*arguments: str) -> str:
    """Run `nerv-fl` in this process and return its output; it must succeed."""
    result = RUNNER.invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of one accepted round."""
    folder = copy_run(tmp_path_factory.mktemp("cli") / "run", **{"federation.num_rounds": 1})
    run_rounds(folder)
    assert folder.rounds()[1].accepted
    return folder


# --- Help -------------------------------------------------------------------------------------------------------------


def test_help_teaches_where_to_begin() -> None:
    text = invoke("--help")

    assert "nerv-fl simulate quickstart --out runs/quickstart" in text
    for command in ("simulate", "report", "verify", "datagen", "bootstrap"):
        assert command in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("simulate",), ("RECIPE", "--out", "--set", "--dp-engine", "--resume", "--json", "KEY=VALUE")),
        (("verify",), ("CERTIFICATE", "--root", "--json")),
        (("report",), ("FOLDER",)),
        (("datagen", "ledger"), ("--out", "--chains", "--accounts", "--profile", "--seed")),
        (("datagen", "verify"), ("FILE", "--json")),
        (("bootstrap", "encoder"), ("--data", "--out", "--preset", "--dp", "--set")),
    ],
)
def test_each_command_explains_its_options(command: tuple[str, ...], words: tuple[str, ...]) -> None:
    text = invoke(*command, "--help")

    assert [word for word in words if word.lower() not in text.lower()] == []


def test_without_a_command_the_help_is_shown() -> None:
    assert "Usage" in RUNNER.invoke(app, []).output


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("simulate", "quikstart"),
            f"error ConfigError: recipe is 'quikstart', expected a file or one of: {', '.join(RECIPES)}"
            " (did you mean 'quickstart'?)",
        ),
        (
            ("simulate", "--set", "sed=8"),
            "error ConfigError: setting 'sed' is unknown (did you mean 'seed'?)",
        ),
        (
            ("simulate", "--set", "privacy.sigma=0.4"),
            "error ConfigError: privacy.sigma is 0.4, expected 0.5: the protocol fixes it; "
            "a simulation may differ with privacy.protocol=false",
        ),
        (
            ("simulate", "--set", "training.dp_engine=layers", "--dp-engine", "opacs"),
            "error ConfigError: training.dp_engine is 'opacs', expected one of: layers, opacus"
            " (did you mean 'opacus'?)",
        ),
        (("verify", "nowhere.json", "--root", "nowhere.pub"), "error nowhere.pub: No such file or directory"),
        (("datagen", "verify", "nowhere.h5"), "error DataError: nowhere.h5 does not exist, expected a data file"),
    ],
)
def test_an_error_is_one_line_and_exit_status_1(arguments: tuple[str, ...], message: str) -> None:
    finished = call(*arguments)

    assert finished.stderr == f"{message}\n"
    assert finished.stdout == ""
    assert finished.returncode == 1


def test_unknown_option_is_a_usage_error() -> None:
    assert call("simulate", "--sede", "7").returncode == 2


def test_a_folder_that_holds_a_run_is_refused(finished: RunFolder) -> None:
    result = call("simulate", "--out", str(finished.root))

    assert result.returncode == 1
    assert result.stderr == (
        f"error CheckpointError: {finished.root} holds a run, expected a new folder, or --resume to go on with it\n"
    )


# --- Certificates and reports -----------------------------------------------------------------------------------------


def test_a_good_certificate_verifies(finished: RunFolder) -> None:
    path, record = finished.certificate_path(1), finished.rounds()[1]

    lines = invoke("verify", str(path)).splitlines()
    assert lines[0] == f"valid: round 1 of run {finished.read_manifest()['run']}"
    assert lines[1] == f"model {record.model_hash}"
    assert "all of 200 batches drawn: at least 98.513 % of the certify pool at 95 % confidence" in lines[2]
    assert lines[3].endswith("signed by an enclave whose hardware is mock")

    stated = json.loads(invoke("verify", str(path), "--json"))
    assert stated["model_hash"] == record.model_hash
    assert record.gate is not None
    assert stated["p_value"] == record.gate.p_value


def test_a_certificate_elsewhere_needs_a_root(finished: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "certificate.json"
    moved.write_bytes(finished.certificate_path(1).read_bytes())

    assert invoke("verify", str(moved), "--root", str(finished.enclave / "vendor-root.pub")).startswith(
        "valid: round 1"
    )
    assert call("verify", str(moved)).returncode == 1


def test_a_changed_certificate_does_not(finished: RunFolder, tmp_path: Path) -> None:
    changed = tmp_path / "certificate.json"
    text = finished.certificate_path(1).read_text()
    changed.write_text(text.replace('"round": 1', '"round": 2'))

    result = call("verify", str(changed), "--root", str(finished.enclave / "vendor-root.pub"))

    assert result.returncode == 1
    assert result.stderr.startswith(f"error SealError: {changed}: document is not signed by the enclave key ")
    assert result.stderr.count("\n") == 1


def test_report_is_written_again(finished: RunFolder) -> None:
    path = finished.root / "report.html"
    path.unlink()

    assert invoke("report", str(finished.root)).strip() == str(path)
    assert "<html" in path.read_text()


def test_report_of_no_run(tmp_path: Path) -> None:
    result = call("report", str(tmp_path))

    assert result.returncode == 1
    assert result.stderr.startswith("error ")
    assert result.stderr.count("\n") == 1


# --- Data and bootstrap -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genesis") / "genesis.h5"
    invoke("datagen", "ledger", "--out", str(path), "--chains", "48", "--steps", "4", "--profile", "genesis")
    return path


def test_a_ledger_is_generated_and_its_invariants_proved(genesis: Path) -> None:
    found = json.loads(invoke("datagen", "verify", str(genesis), "--json"))

    assert (found["chains"], found["samples"]) == (48, 192)
    lines = invoke("datagen", "verify", str(genesis)).splitlines()
    assert len(lines) == len(found)
    assert lines[0].split()[0] in found


def test_the_same_seed_gives_the_same_ledger(genesis: Path, tmp_path: Path) -> None:
    options = ("--chains", "48", "--steps", "4", "--profile", "genesis", "--json")
    same, other = (
        json.loads(invoke("datagen", "ledger", "--out", str(tmp_path / f"{seed}.h5"), *options, "--seed", str(seed)))
        for seed in (7, 8)
    )

    assert (tmp_path / "7.h5").read_bytes() == genesis.read_bytes()
    assert same["content_sha256"] != other["content_sha256"]
    assert same["chains"] == 48


def test_unknown_profile(tmp_path: Path) -> None:
    result = call("datagen", "ledger", "--out", str(tmp_path / "x.h5"), "--profile", "lively")

    assert result.returncode == 1
    assert "(did you mean 'live'?)" in result.stderr
    assert not list(tmp_path.iterdir())
