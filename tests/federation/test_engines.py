"""A whole round whose per-sample gradients Opacus' hooks form, against the same with our layers."""

import numpy as np
import pytest
from torch import nn

from nerv_fl.privacy.grad_sample import ENGINES, Engine, opacus_engine
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.types import Vector
from tests.client.conftest import Field
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import record_of, run_rounds


def relative_error(found_P: Vector, expected_P: Vector) -> float:
    return float(np.linalg.norm(found_P - expected_P) / np.linalg.norm(expected_P))


def moved(folder: RunFolder) -> Vector:
    """Run a folder's round, and return how it moved the encoder."""
    start_P = Field(folder).order().theta_P.numpy()
    return np.asarray(run_rounds(folder).theta_P - start_P)


def test_a_node_sends_the_same_update_with_either_engine(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often to the last bit: what shows that the hooks were asked is counted."""
    asked: list[nn.Module] = []

    def counted(model: nn.Module) -> Engine:
        asked.append(model)
        return opacus_engine(model)

    monkeypatch.setitem(ENGINES, "opacus", counted)
    ours, hooks = Field(new_run("ours")), Field(new_run("hooks", **{"training.dp_engine": "opacus"}))

    found_P, expected_P = (field.opened(field.answer(3), 3) for field in (ours, hooks))

    assert len(asked) == 1
    assert relative_error(found_P, expected_P) <= 1e-5


def test_a_round_moves_the_encoder_the_same_way_with_either_engine(new_run: NewRun) -> None:
    settings = {"federation.num_rounds": 1}
    ours, hooks = new_run("ours", **settings), new_run("hooks", **settings, **{"training.dp_engine": "opacus"})

    found_P, expected_P = moved(ours), moved(hooks)

    assert record_of(ours, 1).accepted
    assert record_of(ours, 1).step == record_of(hooks, 1).step
    assert relative_error(found_P, expected_P) <= 1e-5


def test_a_run_says_which_engine_it_used(new_run: NewRun) -> None:
    folder = new_run(**{"training.dp_engine": "opacus"})

    assert 'dp_engine = "opacus"' in (folder.root / "config.toml").read_text()
