"""Which task is set up how."""

from typing import Final

from nerv_fl.tasks.registry import find_task
from simulations.setups.encoder import EncoderSetup
from simulations.setups.forecaster import ForecasterSetup
from simulations.setups.own import OwnSetup
from simulations.setups.setup import Setup

KNOWN: Final[dict[str, Setup]] = {"encoder": EncoderSetup(), "forecaster": ForecasterSetup()}


def setup_of(task: str) -> Setup:
    """Return the setup of a task by its name.

    Raises:
        ConfigError: If there is no such task.
    """
    return KNOWN[task] if task in KNOWN else OwnSetup(find_task(task))
