"""A whole sweep of tiny runs: data made once, points resumed, tables written; rounds go through a fake grid."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nerv_fl.config import Flat, RunConfig, as_table, build, flatten
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import load_recipe, prepare
from simulations.sweep import centralized_baseline as central
from simulations.sweep import run_sweep
from simulations.sweep import runs as points
from simulations.sweep.grid import plan
from simulations.sweep.sweep import Sweep, _claim, without_values
from simulations.sweep.tables import columns_of
from tests.federation.test_forecaster import LOAD
from tests.federation.tiny_run import SETTINGS, run_rounds, tiny_config
from tests.tasks.own_task import saved
from tests.tasks.test_own_task import SMALL

AXES = {"server.optimizer": ["adam", "momentum"]}


@pytest.fixture(name="ran")
def fixture_ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have points run in this process; return the names of those that did."""
    names: list[str] = []

    def run(command: Sequence[str], **_options: Any) -> SimpleNamespace:
        folder = RunFolder(Path(command[command.index("--out") + 1]))
        prepare(folder)
        run_rounds(folder)
        names.append(folder.root.name)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(points, "subprocess", SimpleNamespace(run=run, STDOUT=None))
    return names


def sweep(root: Path, *, resume: bool = False, seeds: Sequence[int] = (7,), with_central: bool = True) -> Sweep:
    base = without_values(tiny_config({"federation.num_rounds": 2}))
    return run_sweep(base, AXES, seeds=seeds, root=root, resume=resume, with_central=with_central)


@pytest.mark.slow
def test_points_share_their_data_and_are_compared(tmp_path: Path, ran: list[str]) -> None:
    found = sweep(tmp_path / "sweep")
    assert ran == ["optimizer=adam_seed=7", "optimizer=momentum_seed=7"]
    (shared,) = (tmp_path / "sweep" / "shared").iterdir()
    for name in ran:
        nodes = tmp_path / "sweep" / "points" / name / "data" / "nodes.h5"
        assert nodes.samefile(shared / "data" / "nodes.h5")
    assert [outcome.rounds for outcome in found.outcomes] == [2, 2]
    assert all(outcome.central_share is not None for outcome in found.outcomes)
    assert len(list(shared.glob("central-*.json"))) == 1
    for name in ("sweep.csv", "sweep.json", "sweep.md", "sweep.png"):
        assert (tmp_path / "sweep" / name).stat().st_size > 0
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["base"]["valuation"]["method"] == "none"


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stopped(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "sweep"
    real = points.is_finished
    with monkeypatch.context() as patch:
        patch.setattr(points, "is_finished", lambda folder: real(folder) and "momentum" not in folder.root.name)
        with pytest.raises(CheckpointError, match=r"ended with status 0, expected 0: .*run\.log says why"):
            sweep(root, with_central=False)
    with pytest.raises(CheckpointError, match="holds a sweep, expected a new folder, or --resume"):
        sweep(root, with_central=False)
    with pytest.raises(ConfigError, match="has other points, expected the recipe, axes and seeds it began with"):
        sweep(root, resume=True, seeds=(8,), with_central=False)
    ran.clear()
    found = sweep(root, resume=True, with_central=False)
    assert ran == []
    assert [outcome.label for outcome in found.outcomes] == ["server.optimizer=adam", "server.optimizer=momentum"]


def plan_of(root: Path, base: RunConfig, *, resume: bool = False) -> None:
    """Claim a folder for the points of a recipe."""
    _claim(root, plan(base, AXES, seeds=[7], epsilon=100.0), resume=resume)


def test_a_plan_that_lacks_a_newer_setting_is_the_same_plan(tmp_path: Path) -> None:
    root, path = tmp_path / "sweep", tmp_path / "sweep" / "sweep.plan.json"
    plan_of(root, tiny_config({"federation.num_rounds": 2}))
    stored = json.loads(path.read_text())
    for _, table in stored:
        del table["privacy"]["protocol"], table["privacy"]["mechanism"]
    path.write_text(json.dumps(stored))

    plan_of(root, tiny_config({"federation.num_rounds": 2}), resume=True)

    with pytest.raises(ConfigError, match="has other points"):
        plan_of(root, tiny_config({"federation.num_rounds": 1}), resume=True)


@pytest.mark.slow
def test_utility_over_epsilon_beside_no_mechanism_at_all(tmp_path: Path, ran: list[str]) -> None:
    base = without_values(tiny_config({"federation.num_rounds": 1, "privacy.protocol": False}))
    axes = {"privacy.sigma": [0.5, 2.0]}
    also: list[Flat] = [{"privacy.mechanism": "none"}]
    found = run_sweep(base, axes, seeds=[7], root=tmp_path / "sweep", resume=False, also=also, with_central=False)

    assert len(ran) == 3
    protocols, own, none = found.settings
    assert protocols.epsilon is not None
    assert own.epsilon is not None
    assert own.epsilon < protocols.epsilon
    assert (none.epsilon, found.epsilon) == (None, None)
    table = (tmp_path / "sweep" / "sweep.md").read_text()
    assert "| infinite |" in table
    assert "not the protocol's mechanism (sigma 2.0, clip 1.0) |" in table


@pytest.mark.slow
@pytest.mark.parametrize("task", ["forecaster", "own"])
def test_any_task_is_swept_and_compared_with_its_own_central_training(
    task: str, tmp_path: Path, ran: list[str]
) -> None:
    with saved(tmp_path) as recipe:
        base = build(SETTINGS | LOAD) if task == "forecaster" else load_recipe(str(recipe), overrides=SMALL)
        base = without_values(build(flatten(as_table(base)) | {"federation.num_rounds": 1}))
        found = run_sweep(base, AXES, seeds=[7], root=tmp_path / "sweep", resume=False)

    assert len(ran) == len(found.outcomes) == 2
    for outcome in found.outcomes:
        assert outcome.masked_ce is None
        assert outcome.central_share is not None
        assert outcome.loss > 0
    heads = columns_of(found.settings)
    assert heads[:4] == ("setting", "epsilon", "accepted", "loss")
    assert heads[4:-2] == tuple(found.outcomes[0].measures)
    for name in ("sweep.csv", "sweep.json", "sweep.md", "sweep.png"):
        assert (tmp_path / "sweep" / name).stat().st_size > 0


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty and holds no sweep, expected an empty or a new folder"):
        sweep(tmp_path)


def test_central_training_has_as_many_samples_as_the_rounds() -> None:
    assert central.samples_of(tiny_config()) == 3 * 6 * 32
