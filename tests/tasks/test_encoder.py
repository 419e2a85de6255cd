"""The encoder's conditions, and the shards of its nodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.config import GateConfig
from nerv_fl.data import open_ledger
from nerv_fl.errors import ConfigError
from nerv_fl.models.evaluate import EncoderMeasures
from nerv_fl.tasks.encoder import EncoderTask, broken_condition
from tests.federation.tiny_run import tiny_config

SOUND = EncoderMeasures(
    loss=2.0,
    masked_ce=2.0,
    drift_mean=0.1,
    drift_max=0.3,
    drift_relative=0.2,
    drift_ratio=0.3,
    residual_share=0.1,
    effective_rank=20.0,
    mean_norm=1.0,
    finite=True,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finite": False}, "the encoder is not finite"),
        ({"masked_ce": 2.03}, "masked cross-entropy is 1.0150 x before, above 1.01 x"),
        ({"drift_relative": 0.3}, "relative drift is 1.5000 x before, above 1.01 x"),
        ({"effective_rank": 18.0}, "effective rank is 0.9000 x before, below 0.95 x"),
        ({"mean_norm": 0.49}, "mean |V_i| is 0.490, outside 0.5..2"),
        ({"mean_norm": 2.5}, "mean |V_i| is 2.500, outside 0.5..2"),
        ({"mean_norm": float("nan")}, "mean |V_i| is nan, outside 0.5..2"),
        ({"masked_ce": 3.0, "effective_rank": 1.0}, "masked cross-entropy is 1.5000 x before, above 1.01 x"),
    ],
)
def test_each_broken_condition_in_words(changes: dict[str, float], reason: str) -> None:
    assert broken_condition(SOUND, replace(SOUND, **changes), limits=GateConfig()) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"masked_ce": 2.02},
        {"masked_ce": 1.0},
        {"drift_relative": 0.202},
        {"drift_relative": 0.0},
        {"effective_rank": 19.0},
        {"effective_rank": 30.0},
        {"mean_norm": 0.5},
        {"mean_norm": 2.0},
        {"loss": 9.0},
    ],
)
def test_conditions_are_kept_up_to_their_limits(changes: dict[str, float]) -> None:
    assert broken_condition(SOUND, replace(SOUND, **changes), limits=GateConfig()) == ""  # type: ignore[arg-type]


def test_drift_from_nothing_breaks_its_condition() -> None:
    flat = replace(SOUND, drift_relative=0.0)

    assert broken_condition(flat, SOUND, limits=GateConfig()) == "relative drift is inf x before, above 1.01 x"
    assert broken_condition(flat, flat, limits=GateConfig()) == ""


@pytest.mark.parametrize("floor", [0.0, -1.0, float("nan"), 2.0])
def test_floor_that_would_break_the_loss_is_refused(floor: float) -> None:
    with pytest.raises(ConfigError, match=r"^movement_floor is .*, expected a number in \(0, 1\.0\]$"):
        EncoderTask(tiny_config(), {"movement_floor": floor})


@pytest.mark.parametrize("floor", [None, "x", [0.1]])
def test_a_floor_that_is_no_number_is_refused(floor: object) -> None:
    with pytest.raises(ConfigError, match=r"^movement_floor is .*, expected a number in \(0, 1\.0\]$"):
        EncoderTask(tiny_config(), {"movement_floor": floor})


def test_shards_by_kind_are_the_same_in_every_process_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "kinds.h5"
    generate_ledger(path, LedgerShape(chains=512, steps=4, heterogeneity=1.0))
    config = tiny_config({"data.partition": "dirichlet", "data.dirichlet_alpha": 0.05})
    with open_ledger(path) as ledger:
        shards, again = (EncoderTask(config, {"movement_floor": 0.01}).shards_of(ledger) for _ in range(2))
        kinds = ledger.shard_kinds()[shards]
    assert (shards == again).all()
    assert shards.shape == (config.federation.num_nodes, config.data.chains_per_node)
    assert len(np.unique(shards)) == shards.size
    assert np.mean([np.bincount(mine).max() for mine in kinds]) > 0.6 * config.data.chains_per_node
