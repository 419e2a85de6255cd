"""A whole sweep of tiny runs: data made once, points resumed, tables written; rounds go through a fake grid."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.server.folder import RunFolder
from simulations.prepare import prepare
from simulations.sweep import central, points, run_sweep
from simulations.sweep.sweep import Sweep, without_values
from tests.federation.tiny_run import run_rounds, tiny_config

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


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty and holds no sweep, expected an empty or a new folder"):
        sweep(tmp_path)


def test_central_training_has_as_many_samples_as_the_rounds() -> None:
    assert central.samples_of(tiny_config()) == 3 * 6 * 32
