"""The same rounds through Flower's own simulation on Ray, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from nerv_fl.records import read_rewards
from nerv_fl.server.run_folder import RunFolder
from tests.federation.leavings import leavings
from tests.federation.tiny_run import SETTINGS, copy_run, run_rounds

ROOT = Path(__file__).parents[2]


def simulate(out: Path, **settings: object) -> str:
    """Run through Ray, going on with a run that is prepared, and return what the command printed."""
    overrides = [
        word
        for key, value in (SETTINGS | settings).items()
        for word in ("--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    ]
    command = [sys.executable, "-m", "simulations", "quickstart", "--out", str(out), *overrides]
    if out.exists():
        command.append("--resume")
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_ray_gives_what_the_rounds_give_without_it(tmp_path: Path) -> None:
    settings = {"federation.num_rounds": 1, "simulation.actors": 2}
    through_ray = copy_run(tmp_path / "ray", **settings)
    in_process = copy_run(tmp_path / "in-process", **settings)

    printed = simulate(through_ray.root, **settings)
    run_rounds(in_process)

    assert leavings(through_ray) == leavings(in_process)
    assert printed.splitlines()[-1] == str(through_ray.root / "report.html")
    assert "round 1: loss " in printed
    for name in ("config.toml", "manifest.json", "rounds.jsonl", "rewards.csv", "report.html", "checkpoint/latest"):
        assert (through_ray.root / name).stat().st_size > 0
    assert "final" in through_ray.read_manifest()


@pytest.mark.slow
def test_any_number_of_actors_gives_the_same_models_values_and_payouts(tmp_path: Path) -> None:
    folders = {actors: copy_run(tmp_path / f"{actors}-actors") for actors in (1, 2, 4)}

    for actors, folder in folders.items():
        simulate(folder.root, **{"simulation.actors": actors, "simulation.blocks": 4})

    one = folders[1]
    assert leavings(one) == leavings(folders[2]) == leavings(folders[4])
    assert len(one.rounds()) == 4
    assert any(record.accepted for record in one.rounds()[1:])
    assert any(row.payout_nano for row in read_rewards(one.rewards_path))


@pytest.mark.slow
def test_from_nothing_to_a_report(tmp_path: Path) -> None:
    """Preparation included, with two enclave processes beside two actors."""
    out = tmp_path / "run"

    simulate(out, **{"federation.num_rounds": 2, "simulation.actors": 2, "enclave.workers": 2})

    assert [record.round for record in RunFolder(out).rounds()] == [0, 1, 2]
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_a_run_in_which_every_node_fails_says_why_in_one_line_and_fails(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run")
    for node in range(folder.config.federation.num_nodes):
        (folder.node(node) / "spending.json").write_text("[]")
    overrides = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "simulations", "quickstart", "--out", str(folder.root), "--resume", *overrides]

    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)

    assert finished.returncode == 1
    (line,) = [line for line in finished.stderr.splitlines() if "spending" in line]
    assert line.startswith("error: round 1: 6 of 6 nodes: ")
    assert "is not a spending ledger" in line
    assert "Traceback" not in finished.stderr + finished.stdout
    assert "final" not in folder.read_manifest()
