"""`nerv-fl simulate` from a prepared folder to its result, its rounds run in this process."""

import json
from pathlib import Path

import pytest
from flwr.app import Message
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import NoUpdateError
from nerv_fl.server.recorder import OnRound
from nerv_fl.server.run_folder import RunFolder
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
    assert (found["accepted"], found["final_closed"]) == (1, None)
    assert "tiny  seed 7" in result.stderr
    assert "top earner" in result.stderr


def half_heard(folder: RunFolder, *, ray: str, on_round: OnRound) -> None:
    """Run rounds of which one of two replies is lost."""
    seen: list[Message] = []

    def lose(reply: Message) -> Message | None:
        seen.append(reply)
        return reply if len(seen) % 2 else None

    run_rounds(folder, on_round=on_round, meddle=lose)


def test_a_run_of_which_no_round_was_accepted_says_so_on_the_terminal_and_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = copy_run(tmp_path / "run", **{"federation.num_rounds": 1})
    monkeypatch.setattr("simulations.engine.run", half_heard)
    arguments = ["simulate", str(prepared.config_path), "--out", str(prepared.root), "--resume"]
    environment = {"COLUMNS": "200", "TERM": "dumb"}

    shown = CliRunner().invoke(app, arguments, catch_exceptions=False, env=environment)
    printed = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False, env=environment)

    closed = "none of 1 rounds was accepted, so the model is the one that the run began with"
    assert (shown.exit_code, printed.exit_code) == (0, 0)
    assert f"final pool not opened: {closed}" in shown.stderr
    found = json.loads(printed.stdout)
    assert (found["accepted"], found["final"], found["final_closed"]) == (0, None, closed)


def test_a_run_without_any_update_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = copy_run(tmp_path / "run", **{"federation.num_rounds": 1})

    def run(folder: RunFolder, *, ray: str, on_round: OnRound) -> None:
        run_rounds(folder, on_round=on_round, meddle=lambda _reply: None)

    monkeypatch.setattr("simulations.engine.run", run)
    arguments = ["simulate", str(prepared.config_path), "--out", str(prepared.root), "--resume", "--json"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})

    assert isinstance(result.exception, NoUpdateError)
    assert result.stdout == ""
