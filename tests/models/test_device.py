"""Batches go where the model is."""

from dataclasses import dataclass

import pytest
import torch

from nerv_fl.errors import ConfigError
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.device import moved, usable_device
from nerv_fl.models.forecast_losses import Windows

GPU = torch.device("cuda")


@dataclass(frozen=True)
class Movable:
    where: str = "cpu"

    def to(self, device: torch.device) -> "Movable":
        return Movable(device.type)


def test_a_batch_is_moved_where_it_is_not() -> None:
    batch = Movable()
    assert moved(batch, torch.device("cpu")) is batch
    assert moved(batch, GPU) == Movable("cuda")


def test_a_batch_that_cannot_be_moved_is_named() -> None:
    assert moved([1], torch.device("cpu")) == [1]
    with pytest.raises(ConfigError, match=r"^list has no method to\(device\), expected one with the device 'cuda'$"):
        moved([1], GPU)


@pytest.mark.parametrize("name", ["training.device", "bootstrap.device"])
def test_a_device_that_is_not_there_is_refused_by_the_settings_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"^{name} is 'cuda', expected 'cpu': torch finds no such device here$"):
        usable_device("cuda", name=name)


def test_a_device_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_device("cuda", name="training.device") == GPU


def test_the_batches_of_both_tasks_can_be_moved_whole() -> None:
    """The meta device holds no numbers, and is on every machine."""
    meta = torch.device("meta")
    one = torch.zeros(1)
    states = StateBatch(tokens_B3T=one, weights_B2A=one, targets_BA=one, masked_BA=one, hint_BAD=one)
    for batch in (states, Windows(one, one, one)):
        there = moved(batch, meta)
        columns = vars(there).values() if isinstance(there, StateBatch) else there
        assert {column.device for column in columns} == {meta}
