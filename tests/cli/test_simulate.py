"""`nerv-fl simulate` from a prepared folder to its result, its rounds run in this process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.server.folder import RunFolder
from nerv_fl.server.recorder import OnRound
from tests.federation.tiny_run import copy_run, run_rounds


def test_a_run_is_shown_and_its_result_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = copy_run(tmp_path / "run", **{"federation.num_rounds": 1, "valuation.method": "none"})

    def run(folder: RunFolder, *, ray: str, on_round: OnRound) -> None:
        assert ray == "local"
        run_rounds(folder, on_round=on_round)

    monkeypatch.setattr("simulations.engine.run", run)
    arguments = ["simulate", str(prepared.config_path), "--out", str(prepared.root), "--resume", "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "100", "TERM": "dumb"})
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["last"]["round"] == 1
    assert found["final"]["chains"] == 16
    assert "tiny  seed 7" in result.stderr
    assert "top earner" in result.stderr
