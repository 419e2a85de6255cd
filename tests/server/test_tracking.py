import importlib.util
import re
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nerv_fl.config import TrackingConfig
from nerv_fl.errors import SetupError
from nerv_fl.records import (
    Drift,
    Homomorphism,
    MaskedCrossEntropy,
    NodeCounts,
    RoundRecord,
    Seconds,
    ShapleySummary,
)
from nerv_fl.server.tracking import make_trackers, require_trackers, scalars

RECORD = RoundRecord(
    round=3,
    accepted=True,
    reason="accepted",
    step=0.5,
    homomorphism=Homomorphism(max=7e-16, p999=5e-16, mean=1e-16, bound=1e-9, n=30_000, violations=0),
    drift=Drift(mean=8e-4, relative=0.2, ratio=0.27, max=3e-3),
    residual_share=0.01,
    effective_rank=29.0,
    loss=3.75,
    masked_ce=MaskedCrossEntropy(value=3.73, unigram=3.72, per_account=3.05),
    epsilon=None,
    nodes=NodeCounts(sampled=50, heard=48, admitted=47, refused={"duplicate": 1}, clones=0),
    shapley=ShapleySummary(method="surrogate", evaluations=128, se_max=None, stop="budget"),
    gate=None,
    value=None,
    pool_nano=10**9,
    carried_nano=0,
    seconds=Seconds(train=1.0, open=0.1, aggregate=0.1, shapley=1.0, gate=1.0, report=0.1, total=3.3),
    model_hash="ab" * 32,
)


class FakeWriter:
    """A SummaryWriter that remembers."""

    def __init__(self, *, log_dir: str) -> None:
        self.log_dir = log_dir
        self.written: dict[str, tuple[float, int]] = {}
        self.flushed = 0
        self.closed = False
        WRITERS.append(self)

    def add_scalar(self, name: str, value: float, *, global_step: int) -> None:
        self.written[name] = (value, global_step)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


WRITERS: list[FakeWriter] = []


def test_scalars_are_the_numbers_of_a_record_and_nothing_else() -> None:
    numbers = scalars(RECORD)

    assert numbers["accepted"] == 1.0
    assert numbers["drift/mean"] == 8e-4
    assert numbers["nodes/refused/duplicate"] == 1.0
    assert numbers["pool_nano"] == 1e9
    assert not numbers.keys() & {"round", "reason", "model_hash", "shapley/se_max", "shapley/method", "epsilon", "gate"}


def test_no_tracker_unless_asked_for(tmp_path: Path) -> None:
    assert make_trackers(TrackingConfig(), tmp_path) == ()
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_every_round_at_its_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace(__spec__=ModuleSpec("tensorboard", None)))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=FakeWriter))

    (tracker,) = make_trackers(TrackingConfig(tensorboard=True), tmp_path)
    tracker.round(RECORD)
    tracker.round(replace(RECORD, round=4, loss=3.5))
    tracker.close()

    writer = WRITERS.pop()
    assert writer.log_dir == str(tmp_path / "tensorboard")
    assert writer.written["loss"] == (3.5, 4)
    assert writer.flushed == 2
    assert writer.closed


def test_wandb_gets_every_round_at_its_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        log=lambda numbers, *, step: calls.append(("log", (numbers["loss"], step))),
        finish=lambda: calls.append(("finish", None)),
    )

    def init(**settings: str) -> SimpleNamespace:
        calls.append(("init", settings))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=ModuleSpec("wandb", None)))
    monkeypatch.setenv("WANDB_API_KEY", "k")

    (tracker,) = make_trackers(TrackingConfig(wandb=True), tmp_path)
    tracker.round(RECORD)
    tracker.close()

    settings = {"project": "nerv-fl", "name": tmp_path.name, "dir": str(tmp_path)}
    assert calls == [("init", settings), ("log", (3.75, 3)), ("finish", None)]


@pytest.mark.parametrize("extra", ["tensorboard", "wandb"])
def test_a_missing_package_names_the_extra(extra: str, *, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == extra else name)

    with pytest.raises(SetupError) as caught:
        make_trackers(TrackingConfig(**{extra: True}), tmp_path)
    expected = f"tracking.{extra} is true, but {extra} is not installed: pip install 'nerv-fl[{extra}]'"
    assert str(caught.value) == expected


def test_failed_nodes_are_one_number_whatever_their_reasons() -> None:
    found = scalars(replace(RECORD, failures={"no device, which is a sentence": 40, "no data": 2}))

    assert found["failures"] == 42
    assert not [name for name in found if name.startswith("failures/")]
    assert "failures" not in scalars(RECORD)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Install a package wandb that has no key anywhere."""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(__spec__=ModuleSpec("wandb", None)))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("no_key")
def test_wandb_without_a_key_names_three_remedies() -> None:
    expected = (
        "tracking.wandb is true, but there is no key for it, expected one from `wandb login` or in the variable "
        "WANDB_API_KEY, or WANDB_MODE=offline"
    )
    with pytest.raises(SetupError, match=f"^{re.escape(expected)}$"):
        require_trackers(TrackingConfig(wandb=True))


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_API_KEY", "k"), ("WANDB_MODE", "offline"), ("WANDB_MODE", "disabled"), ("NETRC", "own")]
)
def test_each_remedy_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    file = tmp_path / "own"
    file.write_text("machine api.wandb.ai login user password k")
    monkeypatch.setenv(name, str(file) if name == "NETRC" else value)

    require_trackers(TrackingConfig(wandb=True))


@pytest.mark.usefixtures("no_key")
def test_what_wandb_raises_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def init(**_arguments: object) -> None:
        raise RuntimeError("no such entity\nlong story")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=ModuleSpec("wandb", None)))
    monkeypatch.setenv("WANDB_MODE", "offline")

    with pytest.raises(SetupError, match=r"^tracking\.wandb is true, but its run cannot be started: no such entity$"):
        make_trackers(TrackingConfig(wandb=True), tmp_path)
