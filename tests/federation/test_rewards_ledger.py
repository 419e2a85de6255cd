"""Every NANO of a run is in its rewards ledger, after a kill too, and whoever changes it is found out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import DataError, NervError
from nerv_fl.records import read_rewards
from nerv_fl.rewards import round_emission
from nerv_fl.rewards.ledger import balances
from nerv_fl.server.checkpoint import load_state
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.verify_rewards import verify_rewards
from tests.federation.conftest import NewRun
from tests.federation.test_resume import kill_at_checkpoint
from tests.federation.tiny_run import NUM_ROUNDS, run_rounds


def movements(folder: RunFolder) -> list[tuple[int, str, str, str, int]]:
    """What moved, without the hashes, which name the run."""
    return [(entry.round, entry.kind, entry.source, entry.target, entry.amount_nano) for entry in folder.read_ledger()]


def test_every_nano_is_accounted_for(undisturbed: RunFolder) -> None:
    checked = verify_rewards(undisturbed)
    emissions = [round_emission(number) for number in range(1, NUM_ROUNDS + 1)]
    emitted = sum(item.gradient_nano + item.validation_nano + item.public_goods_nano for item in emissions)
    paid = sum(row.payout_nano for row in read_rewards(undisturbed.rewards_path))
    held = balances(undisturbed.read_ledger())

    assert checked["emitted_nano"] == emitted == -held["emission"]
    assert checked["paid_nano"] == paid > 0
    assert checked["rounds"] == NUM_ROUNDS
    assert held["pool/validation"] == sum(item.validation_nano for item in emissions)
    for record in undisturbed.rounds()[1:]:
        assert record.rewards is not None
        assert record.rewards.paid_nano == sum(
            row.payout_nano for row in read_rewards(undisturbed.rewards_path) if row.round == record.round
        )


def test_a_kill_before_the_checkpoint_pays_nobody_twice(
    new_run: NewRun, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_run()
    kill_at_checkpoint(folder, monkeypatch, round_number=2)
    assert {entry.round for entry in folder.read_ledger()} == {1, 2}
    folder.ledger_path.write_bytes(folder.ledger_path.read_bytes()[:-30])
    run_rounds(folder)

    assert movements(folder) == movements(undisturbed)
    verify_rewards(folder)


def edit_amount(folder: RunFolder) -> None:
    text = folder.ledger_path.read_text()
    amount = folder.read_ledger()[0].amount_nano
    folder.ledger_path.write_text(text.replace(str(amount), str(amount + 1), 1))


def drop_last(folder: RunFolder) -> None:
    lines = folder.ledger_path.read_text().splitlines(keepends=True)
    folder.ledger_path.write_text("".join(lines[:-1]))


def pay_another(folder: RunFolder) -> None:
    rows = folder.rewards_path.read_text().splitlines(keepends=True)
    paid = next(row for row in read_rewards(folder.rewards_path) if row.payout_nano)
    changed = [row.replace(str(paid.payout_nano), "1") for row in rows]
    folder.rewards_path.write_text("".join(changed))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (edit_amount, r"ledger\.jsonl line 1 has the hash"),
        (drop_last, r"ledger\.jsonl ends after \d+ entries with hash \w+, expected \d+ with \w+: the checkpoint holds"),
        (pay_another, r"rewards\.csv pays node \d 1 NANO in round \d, expected \d+: the ledger says that"),
    ],
)
def test_tampering_is_found(
    undisturbed: RunFolder, tmp_path: Path, tamper: Callable[[RunFolder], None], *, message: str
) -> None:
    folder = RunFolder(shutil.copytree(undisturbed.root, tmp_path / "run"))
    tamper(folder)
    with pytest.raises(DataError, match=message):
        verify_rewards(folder)


def test_a_run_does_not_go_on_from_a_ledger_that_was_changed(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run()
    kill_at_checkpoint(folder, monkeypatch, round_number=2)
    edit_amount(folder)
    with pytest.raises(NervError, match=r"ledger\.jsonl was changed: "):
        run_rounds(folder)


def run_command(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["rewards", *arguments], env={"COLUMNS": "100"})
    assert result.exception is None, result.exception
    return result.stdout


def test_the_command_prints_balances_a_history_and_a_verdict(undisturbed: RunFolder) -> None:
    root, state = str(undisturbed.root), load_state(undisturbed.checkpoint)
    held = json.loads(run_command(root, "--json"))
    best = max(range(len(state.balances_nano)), key=lambda node: state.balances_nano[node])
    assert held[f"node/{best}"] == state.balances_nano[best]
    table = run_command(root)
    assert table.index(f"node {best}") < table.index("pool gradient") < table.index("emitted")

    history = json.loads(run_command(root, "--node", str(best), "--json"))
    assert sum(item["amount_nano"] for item in history) == state.balances_nano[best]
    assert f"Node {best}" in run_command(root, "--node", str(best))
    assert json.loads(run_command(root, "--verify", "--json"))["head"] == state.ledger.hash
    assert run_command(root, "--verify").startswith(f"valid: {state.ledger.num_entries} entries, {NUM_ROUNDS} rounds, ")


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["rewards", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == f"{tmp_path / 'ledger.jsonl'} is missing, expected the folder of a run"
