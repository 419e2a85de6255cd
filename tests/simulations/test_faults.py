"""A node that fails has accounted for the round and sends nothing, adversaries like the rest."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nerv_fl.config import Flat, build
from nerv_fl.errors import ConfigError
from nerv_fl.faults import FAILED, nodes_by_fate
from simulations.adversaries import AdversarialTraining
from simulations.engine import host_settings
from simulations.faults import FaultyTraining
from tests.client.conftest import Field
from tests.federation.tiny_run import change_settings, copy_run

NODES = tuple(range(8))
HALF: Flat = {"faults.failure": 0.5}


@pytest.fixture
def field_of(tmp_path: Path) -> Callable[[Flat], Field]:
    def make(settings: Flat) -> Field:
        return Field(change_settings(copy_run(tmp_path / "run"), settings))

    return make


def test_who_fails_has_spent_and_neither_answers_nor_refuses(field_of: Callable[[Flat], Field]) -> None:
    field = field_of(HALF)
    failed = nodes_by_fate(field.folder.config, 1, NODES)[FAILED]
    assert 0 < len(failed) < 8

    envelopes, refusing = field.host().answer(field.order(), NODES)

    assert set(envelopes) == set(NODES) - failed
    assert not refusing
    for node in NODES:
        spent = json.loads((field.folder.node(node) / "spending.json").read_text())["steps"]
        assert list(spent.values()) == [1]
        assert (field.folder.node(node) / "sent.envelope").exists() == (node not in failed)


def test_who_failed_fails_again_when_it_is_asked_again(field_of: Callable[[Flat], Field]) -> None:
    field = field_of(HALF)
    first, _ = field.host().answer(field.order(), NODES)

    again, _ = field.host().answer(field.order(), NODES)

    assert again == first
    for node in NODES:
        assert len(json.loads((field.folder.node(node) / "spending.json").read_text())["steps"]) == 1


def test_adversaries_fail_too(field_of: Callable[[Flat], Field]) -> None:
    field = field_of({"faults.failure": 1.0, "adversaries.free_rider": 1.0})
    training = field.settings.training
    assert isinstance(training, FaultyTraining)
    assert isinstance(training.training, AdversarialTraining)

    assert field.host().answer(field.order(), NODES) == ({}, {})


def test_a_deployed_host_refuses_faults(field_of: Callable[[Flat], Field]) -> None:
    field = field_of({"faults.deadline_s": 60.0})
    settings = host_settings(field.folder)
    fields = {name: getattr(settings, name) for name in settings.__dataclass_fields__}

    with pytest.raises(ConfigError, match=r"^faults are set, expected none outside a simulation$"):
        type(settings)(**(fields | {"simulated": False}))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("faults.offline", 1.5, "[0, 1]"),
        ("faults.failure", -0.1, "[0, 1]"),
        ("faults.deadline_s", -1.0, "[0, 1000000000.0]"),
        ("faults.median_s", 0.0, "(0, 1000000000.0]"),
        ("faults.spread", 11.0, "[0, 10]"),
        ("faults.node_spread", float("nan"), "[0, 10]"),
    ],
)
def test_settings_out_of_range(key: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build({key: value})

    assert str(caught.value) == f"{key} is {value}, expected a number in {expected}"
