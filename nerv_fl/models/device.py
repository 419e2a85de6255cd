"""Where a model is resident: the one place that asks torch which devices there are."""

from typing import TypeVar

import torch

from nerv_fl.errors import ConfigError

B = TypeVar("B")


def usable_device(setting: str, *, name: str) -> torch.device:
    """Return a torch device.

    Args:
        setting: "cpu" or "cuda".
        name: Name of the setting.

    Raises:
        ConfigError: If this machine has no such device.

    >>> usable_device("cpu", name="training.device")
    device(type='cpu')
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{name} is {setting!r}, expected 'cpu': torch finds no such device here")
    return torch.device(setting)


def moved(batch: B, device: torch.device) -> B:
    """Return a batch on a device; on the CPU it is where it was made.

    Raises:
        ConfigError: If it has no method `to`, which a batch needs elsewhere.
    """
    if device.type == "cpu":
        return batch
    if not hasattr(batch, "to"):
        raise ConfigError(
            f"{type(batch).__name__} has no method to(device), expected one with the device {device.type!r}"
        )
    on_device: B = batch.to(device)
    return on_device
