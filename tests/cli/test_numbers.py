"""A number on the command line that names nothing, or lies out of range, is refused before anything is made."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nerv_fl.cli.main import app
from nerv_fl.errors import NervError
from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import copy_run, run_rounds

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = copy_run(tmp_path_factory.mktemp("numbers") / "run", **{"federation.num_rounds": 1})
    run_rounds(folder)
    return folder


def refusal(*arguments: str) -> str:
    """Return why a command refuses, whichever layer says it."""
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code != 0, result.output
    if isinstance(result.exception, SystemExit):
        return result.output
    assert isinstance(result.exception, NervError | OSError), repr(result.exception)
    return str(result.exception)


@pytest.mark.parametrize("node", ["999", "8", "-1"])
def test_rewards_of_a_node_that_does_not_exist(finished: RunFolder, node: str) -> None:
    text = refusal("rewards", str(finished.root), "--node", node)

    assert text == f"--node is {node}, expected a node of the run's roster: 0 to 7"


def test_rewards_of_a_node_that_was_never_paid(finished: RunFolder) -> None:
    paid = {entry.target for entry in finished.read_ledger()}
    unpaid = next(node for node in range(8) if f"node/{node}" not in paid)

    result = RUNNER.invoke(app, ["rewards", str(finished.root), "--node", str(unpaid), "--json"])

    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_rewards_names_the_members_of_a_roster_with_gaps(finished: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "run")
    roster = tmp_path / "run" / "roster.json"
    members = json.loads(roster.read_text())
    members = {node: member for node, member in members.items() if node in {"0", "2", "5"}}
    roster.write_text(json.dumps(members))

    assert refusal("rewards", str(tmp_path / "run"), "--node", "1").endswith("roster: 0, 2, 5")


NUMBERS = {
    "datagen ledger --out x.h5": ("chains", "steps", "accounts", "max-transactions", "supply-nano", "seed", "workers"),
    "datagen sharding --out x.h5": ("shards", "steps", "seed", "workers"),
    "datagen consensus --out x.h5": ("shards", "races", "accounts", "max-transactions", "seed", "workers"),
    "bootstrap encoder --data no.h5 --out x.st --ray local": ("workers",),
    "bootstrap sweep --data no.h5": ("low", "rates", "steps"),
    "bootstrap forecaster --data no.h5 --out x": ("seed", "steps", "batch-size", "learning-rate", "windows", "days"),
    "bootstrap predictor --data no.h5 --encoder no.st --out x": (
        "steps", "learning-rate", "evaluate-every", "patience", "max-shards", "rollouts", "seed"
    ),
    "sweep quickstart --out x --over seed=1,2": ("epsilon", "seed"),
    "deploy init x": ("nodes", "port"),
    "deploy remove x": ("node",),
}  # fmt: skip
SEEDS = ("sweep quickstart --out x --over seed=1,2", "seed")
"""Given as a list, `--seeds`; what is refused is one seed of it."""
CASES = [(command, option) for command, options in NUMBERS.items() for option in options]


@pytest.mark.parametrize(("command", "option"), CASES)
def test_a_number_out_of_range_is_named(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    text = refusal(*command.split(), "--seeds" if (command, option) == SEEDS else f"--{option}", "-2")

    assert "-2" in text
    assert option.replace("-", "") in text.replace("_", "").replace("-", "").replace(" ", "")
    assert list(tmp_path.iterdir()) == []
