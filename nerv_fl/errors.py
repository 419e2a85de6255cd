"""The errors nerv_fl raises, each naming its own remedy.

    NervError
    ├── ConfigError      (ValueError)    correct the recipe, the flag or the argument
    ├── DataError        (ValueError)    regenerate or replace the file it names
    ├── SealError        (ValueError)    refuse the envelope, evidence or signature; its sender must repair it
    ├── AggregationError (RuntimeError)  reject the round; the encoder stays as it was
    ├── PrivacyError     (RuntimeError)  stop training: the budget is spent or the mechanism is unsound
    ├── TaskError        (ValueError)    correct the task: its model, loss or data break what training relies on
    ├── SetupError       (RuntimeError)  correct the machine: install the package, free the space, unset the variable
    └── CheckpointError  (RuntimeError)  use another folder, or resume from the last whole checkpoint

Every message names the thing, its value and what was expected.
"""


class NervError(Exception):
    """Base class of every error that nerv_fl raises on purpose."""


class ConfigError(NervError, ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(NervError, ValueError):
    """A data file is missing, truncated, foreign, or contradicts the model."""


class SealError(NervError, ValueError):
    """An envelope, a signature, or evidence does not verify."""


class AggregationError(NervError, RuntimeError):
    """A round cannot be aggregated: too few, or unusable, updates."""


class PrivacyError(NervError, RuntimeError):
    """A privacy budget is spent, or a step would not satisfy its guarantee."""


class TaskError(NervError, ValueError):
    """Raised when a task's own code fails, or breaks a property that training or its privacy guarantee relies on."""


class SetupError(NervError, RuntimeError):
    """Raised when the machine lacks what a setting needs: a package, a device, disk space, a cluster."""


class CheckpointError(NervError, RuntimeError):
    """A run folder cannot be written, or its checkpoint cannot be trusted."""
