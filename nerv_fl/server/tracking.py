"""Mirrors of the round records in TensorBoard and Weights & Biases, both optional."""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict
from netrc import NetrcParseError, netrc
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from nerv_fl.config import TrackingConfig
from nerv_fl.errors import SetupError
from nerv_fl.records import RoundRecord

WANDB_URL: Final = "https://api.wandb.ai"
WANDB_PROJECT: Final = "nerv-fl"
WORDS: Final = frozenset({"round", "reason", "model_hash"})
"""Fields of a record that are no measures."""


class Tracker(Protocol):
    """Something that mirrors a run's rounds elsewhere; the run folder stays the record."""

    def round(self, record: RoundRecord) -> None:
        """Take over one round."""

    def close(self) -> None:
        """Write what is pending and let go."""


def make_trackers(config: TrackingConfig, run_dir: Path) -> tuple[Tracker, ...]:
    """Open the trackers that a run asks for.

    Args:
        config: Which ones.
        run_dir: The run folder; trackers write into it and call the run by its name.

    Raises:
        SetupError: If a tracker's package is not installed, or Weights & Biases has no key.
    """
    require_trackers(config)
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoardTracker(run_dir))
    if config.wandb:
        trackers.append(WandbTracker(run_dir))
    return tuple(trackers)


def require_trackers(config: TrackingConfig) -> None:
    """Raise unless the trackers that a run asks for can be opened.

    Raises:
        SetupError: If a tracker's package is not installed, or Weights & Biases has no key.
    """
    for extra in ("tensorboard", "wandb"):
        if getattr(config, extra) and importlib.util.find_spec(extra) is None:
            raise _not_installed(extra)
    if config.wandb and os.environ.get("WANDB_MODE", "online") == "online" and not _has_wandb_key():
        raise SetupError(
            "tracking.wandb is true, but there is no key for it, expected one from `wandb login` or in the variable "
            "WANDB_API_KEY, or WANDB_MODE=offline"
        )


def _has_wandb_key() -> bool:
    """Return whether a key is in the environment or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", WANDB_URL)).hostname
    try:
        file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        return host in netrc(str(file)).hosts
    except (OSError, NetrcParseError, RuntimeError):
        return False


class TensorBoardTracker:
    """Scalars in `run_dir/tensorboard`, at the round as step."""

    def __init__(self, run_dir: Path) -> None:
        """Open the event file."""
        module = _module("torch.utils.tensorboard", extra="tensorboard")
        self._writer: Any = module.SummaryWriter(log_dir=str(run_dir / "tensorboard"))

    def round(self, record: RoundRecord) -> None:
        """Write one round's numbers."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, global_step=record.round)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbTracker:
    """Scalars in a Weights & Biases run; `WANDB_MODE=offline` keeps them in `run_dir/wandb`."""

    def __init__(self, run_dir: Path) -> None:
        """Start the run."""
        module = _module("wandb", extra="wandb")
        try:
            self._run: Any = module.init(project=WANDB_PROJECT, name=run_dir.name, dir=str(run_dir))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SetupError(f"tracking.wandb is true, but its run cannot be started: {reason}") from error

    def round(self, record: RoundRecord) -> None:
        """Log one round's numbers."""
        self._run.log(scalars(record), step=record.round)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def scalars(record: RoundRecord) -> dict[str, float]:
    """Return a record's numbers under slashed names, such as `drift/mean`; what does not exist is left out.

    A decision is 0 or 1; refusals are counted by reason, such as `nodes/refused/duplicate`. Nodes that failed are
    counted together: their reasons are sentences.
    """
    table = asdict(record)
    if record.failures is not None:
        table["failures"] = sum(record.failures.values())
    numbers = _numbers(table, prefix="")
    return {name: value for name, value in numbers.items() if name not in WORDS}


def _numbers(table: Mapping[str, object], *, prefix: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value, prefix=f"{prefix}{key}/")
        elif isinstance(value, bool | int | float):
            numbers[prefix + key] = float(value)
    return numbers


def _module(name: str, *, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _not_installed(extra) from error


def _not_installed(extra: str) -> SetupError:
    return SetupError(f"tracking.{extra} is true, but {extra} is not installed: pip install 'nerv-fl[{extra}]'")
