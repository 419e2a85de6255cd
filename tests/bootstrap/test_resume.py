"""A pretraining that is stopped anywhere and resumed ends with the bits of one that never was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap import pretrain as pretrain_module
from nerv_fl.bootstrap.pretrain import BootstrapResult, pretrain
from nerv_fl.bootstrap.resume import checkpoint_path
from nerv_fl.config import BootstrapConfig
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.atomic import write_atomically
from tests.bootstrap.tiny import HELDOUT, SETTINGS, make_config, run, weights

LONG = replace(SETTINGS, checkpoint_every=5)
KILL_AFTER_S = 120


class Killed(Exception):  # noqa: N818 (what a signal would be)
    """Stands for a kill."""


def stop_at(step: int) -> Callable[[int, int, float], None]:
    def progress(now: int, of: int, loss: float) -> None:
        if now >= step:
            raise Killed

    return progress


def stopped(ledger_path: Path, out: Path, settings: BootstrapConfig = LONG, *, step: int = 20) -> Path:
    """Train until a step is evaluated, and stop there; return the checkpoint that is left."""
    with pytest.raises(Killed):
        pretrain(make_config(settings), ledger_path, out=out, progress=stop_at(step))
    assert not out.exists()
    return checkpoint_path(out)


def resumed(ledger_path: Path, out: Path, settings: BootstrapConfig = LONG, *, seed: int = 7) -> BootstrapResult:
    return pretrain(make_config(settings, seed=seed), ledger_path, out=out, resume=True)


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize("settings", [LONG, replace(LONG, dp=True, batch_size=2), replace(LONG, checkpoint_every=7)])
@pytest.mark.parametrize("step", [10, 30])
def test_resumed_training_ends_with_the_same_bits(
    ledger_path: Path, tmp_path: Path, *, settings: BootstrapConfig, step: int
) -> None:
    whole = run(ledger_path, tmp_path, settings)
    out = tmp_path / "stopped.safetensors"
    path = stopped(ledger_path, out, settings, step=step)
    result = resumed(ledger_path, out, settings)
    assert replace(result, path=whole.path) == whole
    assert out.read_bytes() == whole.path.read_bytes()
    assert not path.exists()


@pytest.mark.usefixtures("tiny_preset")
def test_training_stopped_before_its_first_checkpoint_begins_again(ledger_path: Path, tmp_path: Path) -> None:
    assert weights(resumed(ledger_path, tmp_path / "new").path) == weights(run(ledger_path, tmp_path).path)


@pytest.mark.usefixtures("tiny_preset")
def test_how_often_it_is_written_may_change(ledger_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped.safetensors"
    stopped(ledger_path, out)
    result = resumed(ledger_path, out, replace(LONG, checkpoint_every=1))
    assert weights(result.path) == weights(run(ledger_path, tmp_path).path)


# --- A real kill ------------------------------------------------------------------------------------------------------

KILLED_RUN = """
import sys
from pathlib import Path
from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.config import build

settings = {"bootstrap.steps": 60, "bootstrap.evaluate_every": 20, "bootstrap.checkpoint_every": 5,
    "bootstrap.batch_size": 8, "data.heldout_chains": 8}
pretrain(build(settings), Path(sys.argv[1]), out=Path(sys.argv[2]), resume=True)
"""


@pytest.mark.slow
def test_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.h5"
    generate_ledger(ledger, LedgerShape(chains=24, max_transactions=8, profile="genesis", seed=5))
    whole, out = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    command = [sys.executable, "-c", KILLED_RUN, str(ledger)]
    subprocess.run([*command, str(whole)], check=True)

    process = subprocess.Popen([*command, str(out)])
    deadline = time.monotonic() + KILL_AFTER_S
    while not checkpoint_path(out).exists() or steps_in(checkpoint_path(out)) < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert 10 <= steps_in(checkpoint_path(out)) < 60

    subprocess.run([*command, str(out)], check=True)
    assert out.read_bytes() == whole.read_bytes()


def steps_in(path: Path) -> int:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return int(json.loads(header["facts"])["standing"]["step"])


# --- No disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_preset")
def test_full_disk_loses_nothing(ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of step 20 meets a full disk: the one of step 15 is still there, and the training goes on."""
    out, written = tmp_path / "stopped.safetensors", []
    real = write_atomically

    def full_at_the_fifth(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 5:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(pretrain_module, "write_atomically", full_at_the_fifth)
    message = f"[Errno 28] No space left on device: '{checkpoint_path(out)}'"
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(LONG), ledger_path, out=out)
    assert steps_in(checkpoint_path(out)) == 15

    monkeypatch.setattr(pretrain_module, "write_atomically", real)
    assert weights(resumed(ledger_path, out).path) == weights(run(ledger_path, tmp_path).path)


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_preset")
def test_unfinished_training_is_not_overwritten(ledger_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped.safetensors"
    path = stopped(ledger_path, out)
    before = path.read_bytes()
    message = f"{path} holds an unfinished training, expected --resume to go on, or another file"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(LONG), ledger_path, out=out)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("tiny_preset")
def test_finished_training_cannot_be_resumed(ledger_path: Path, tmp_path: Path) -> None:
    out = run(ledger_path, tmp_path).path
    message = f"{checkpoint_path(out)} does not exist, expected a checkpoint to resume: {out} is finished"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        resumed(ledger_path, out)


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        (LONG, 8, "seed is 8, expected 7"),
        (replace(LONG, learning_rate=0.02), 7, "bootstrap.learning_rate is 0.02, expected 0.01"),
        (replace(LONG, micro_batch=4), 7, "bootstrap.micro_batch is 4, expected 32"),
    ],
)
def test_training_of_other_settings_is_refused(
    ledger_path: Path, tmp_path: Path, *, settings: BootstrapConfig, seed: int, message: str
) -> None:
    out = tmp_path / "stopped.safetensors"
    path = stopped(ledger_path, out)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{message}: the training in {path} began with it')}$"):
        resumed(ledger_path, out, settings, seed=seed)


@pytest.mark.usefixtures("tiny_preset")
def test_training_on_other_data_is_refused(ledger_path: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "stopped.safetensors", tmp_path / "other.h5"
    stopped(ledger_path, out)
    generate_ledger(other, LedgerShape(chains=HELDOUT + 8, steps=4, accounts=8, profile="genesis", seed=6))
    with pytest.raises(ConfigError, match=r"^SHA-256 of the data is '[0-9a-f]{64}', expected '[0-9a-f]{64}': the tr"):
        resumed(other, out)


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"not a checkpoint", "cannot be read \\(.*\\), expected the checkpoint of a pretraining"),
        (lambda data: data[:-1], "cannot be read \\(.*\\), expected the checkpoint of a pretraining"),
        (lambda data: data.replace(b"pretraining 1", b"pretraining 2"), "holds format 'nerv-fl pretraining 2', expec"),
    ],
)
def test_damaged_checkpoint_is_refused(
    ledger_path: Path, tmp_path: Path, *, damage: Callable[[bytes], bytes], message: str
) -> None:
    out = tmp_path / "stopped.safetensors"
    path = stopped(ledger_path, out)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} {message}"):
        resumed(ledger_path, out)
