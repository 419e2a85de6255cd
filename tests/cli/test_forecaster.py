"""`nerv-fl bootstrap forecaster`: what it says, and that its defaults are the training's."""

import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datagen.sharding import generate_load
from nerv_fl.bootstrap.forecast_fit import ForecastSettings
from nerv_fl.bootstrap.forecast_windows import Amounts
from nerv_fl.cli.forecaster import forecaster
from nerv_fl.cli.main import app
from nerv_fl.errors import CheckpointError, ConfigError, DataError

RUNNER = CliRunner()
USAGE_ERROR = 2


def test_defaults_are_the_training_s() -> None:
    defaults = {name: each.default for name, each in inspect.signature(forecaster).parameters.items()}
    settings = ForecastSettings()
    for name in ("seed", "steps", "batch_size", "learning_rate", "dp"):
        assert defaults[name] == getattr(settings, name)
    assert defaults["days"] == Amounts().days
    assert defaults["windows"] == Amounts().uniform == Amounts().clean


def refused(*arguments: str | Path) -> str:
    error = RUNNER.invoke(app, ["bootstrap", "forecaster", *map(str, arguments)]).exception
    assert isinstance(error, CheckpointError | ConfigError | DataError), error
    return str(error)


def refused_by_the_command_line(*arguments: str | Path) -> str:
    result = RUNNER.invoke(app, ["bootstrap", "forecaster", *map(str, arguments)])
    assert result.exit_code == USAGE_ERROR
    return result.stderr


def test_what_is_refused(tmp_path: Path) -> None:
    data, out = tmp_path / "none.h5", tmp_path / "run"
    assert refused("--data", data, "--out", out) == f"{data} does not exist, expected a load file"
    assert refused("--data", data, "--out", out, "--steps", "0") == "steps is 0, expected a number in [1, 10000000]"
    assert "'--days': 0 is not in the range x>=1" in refused_by_the_command_line(
        "--data", data, "--out", out, "--days", "0"
    )


@pytest.mark.slow
def test_the_whole_model_in_two_steps(tmp_path: Path) -> None:
    data, out = tmp_path / "load.h5", tmp_path / "run"
    generate_load(data, shards=60, steps=1600, seed=7)
    command = ["bootstrap", "forecaster", "--data", str(data), "--out", str(out), "--steps", "2", "--days", "1"]
    command += ["--batch-size", "8", "--windows", "200", "--dp"]
    result = RUNNER.invoke(app, command, catch_exceptions=False)
    assert "step 2 of 2: overload " in result.stderr
    assert f"{out}: best at step " in result.stdout
    assert "at delta 1e-05 per window, Poisson sampling, sigma 0.5" in result.stdout
    again = RUNNER.invoke(app, [*command, "--resume", "--json"], catch_exceptions=False)
    table = json.loads(again.stdout)
    assert table["num_parameters"] == 1_085_828
    assert abs(table["size_bytes"] - 1_100_000) <= 22_000
