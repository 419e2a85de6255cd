"""Two workers of a Ray cluster train as one: the same weights on both, one worker's up to rounding."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.pretrain import BootstrapResult, pretrain
from nerv_fl.bootstrap.resume import checkpoint_path
from nerv_fl.bootstrap.workers import Cluster
from nerv_fl.config import BootstrapConfig, DataConfig, RunConfig
from nerv_fl.errors import ConfigError, DataError
from tests.bootstrap.tiny import HELDOUT, make_config

SETTINGS = BootstrapConfig(steps=9, batch_size=5, warmup_steps=2, evaluate_every=3, checkpoint_every=4)
TWO = Cluster(address="local", workers=2)


@pytest.fixture(scope="module")
def quickstart_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("public") / "ledger.h5"
    generate_ledger(path, LedgerShape(chains=24, profile="genesis", seed=5))
    return path


def train(
    ledger: Path,
    out: Path,
    *,
    settings: BootstrapConfig = SETTINGS,
    cluster: Cluster | None = TWO,
    resume: bool = False,
) -> BootstrapResult:
    config = RunConfig(bootstrap=settings, data=DataConfig(heldout_chains=8))
    return pretrain(config, ledger, out=out, cluster=cluster, resume=resume)


def distance(one: Path, other: Path) -> float:
    """Return how far apart two encoders are, over the norm of one."""
    first, second = (
        torch.cat([item.flatten() for _, item in sorted(load_file(path).items())]) for path in (one, other)
    )
    return float((first - second).norm() / first.norm())


@pytest.mark.slow
@pytest.mark.parametrize("dp", [False, True])
def test_two_workers_are_one_up_to_rounding(quickstart_ledger: Path, tmp_path: Path, *, dp: bool) -> None:
    """That both workers hold the same weights is checked at the end of each training, by their files' bytes.

    Adam divides by the gradient's size, so rounding of a gradient near zero moves a weight as far as any other.
    """
    settings = replace(SETTINGS, dp=dp)
    alone = train(quickstart_ledger, tmp_path / "alone", settings=settings, cluster=None)
    two = train(quickstart_ledger, tmp_path / "two", settings=settings)
    untrained = train(quickstart_ledger, tmp_path / "start", settings=replace(settings, steps=0), cluster=None)
    assert two.measures.loss == pytest.approx(alone.measures.loss, rel=1e-4)
    assert [point.step for point in two.curve] == [point.step for point in alone.curve] == [0, 3, 6, 9]
    assert two.epsilon == alone.epsilon
    moved = distance(alone.path, untrained.path)
    assert distance(alone.path, two.path) < 0.03 * moved
    assert moved > 0.01


@pytest.mark.slow
def test_checkpoint_of_two_workers_is_for_two(quickstart_ledger: Path, tmp_path: Path) -> None:
    """A whole training, and one whose checkpoint of step 4 is put back and resumed: the same weights."""
    whole = train(quickstart_ledger, tmp_path / "whole")
    out = tmp_path / "stopped"

    def stop(step: int, _steps: int, _loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    config = RunConfig(bootstrap=SETTINGS, data=DataConfig(heldout_chains=8))
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, quickstart_ledger, out=out, cluster=TWO, progress=stop)
    message = f"number of workers is 1, expected 2: the training in {checkpoint_path(out)} began with it"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        train(quickstart_ledger, out, cluster=None, resume=True)
    train(quickstart_ledger, out, resume=True)
    assert distance(out, whole.path) == 0


@pytest.mark.slow
def test_what_stops_a_worker_reaches_the_user(quickstart_ledger: Path, tmp_path: Path) -> None:
    weights = tmp_path / "nowhere.safetensors"
    config = RunConfig(bootstrap=SETTINGS, data=DataConfig(heldout_chains=8))
    with pytest.raises(RuntimeError, match=f"^{re.escape(str(weights))} cannot be read as safetensors: "):
        pretrain(config, quickstart_ledger, out=tmp_path / "x", cluster=TWO, start=weights)


@pytest.mark.parametrize("workers", [0, 17])
@pytest.mark.usefixtures("tiny_preset")
def test_more_workers_than_samples_are_refused(ledger_path: Path, tmp_path: Path, workers: int) -> None:
    message = f"workers is {workers}, expected 1 to bootstrap.batch_size = 16"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(), ledger_path, out=tmp_path / "x", cluster=Cluster(address="local", workers=workers))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny_preset")
def test_data_are_checked_before_any_worker_starts(ledger_path: Path, tmp_path: Path) -> None:
    message = f"{ledger_path} has 40 chains, expected more than data.heldout_chains = {28 + HELDOUT}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(heldout_chains=40), ledger_path, out=tmp_path / "x", cluster=TWO)
