"""The errors nerv_fl raises, each naming its own remedy.

    NervError
    ├── ConfigError      (ValueError)    correct the recipe, the flag or the argument
    ├── DataError        (ValueError)    regenerate or replace the file it names
    ├── SealError        (ValueError)    refuse the envelope, evidence or signature; its sender must repair it
    ├── AggregationError (RuntimeError)  reject the round; the encoder stays as it was
    │   └── NoUpdateError                correct what stopped the nodes, then resume the run
    ├── PrivacyError     (RuntimeError)  stop training: the budget is spent or the mechanism is unsound
    │   └── BudgetError                  leave the node out: it has spent its privacy budget
    ├── NodeError        (RuntimeError)  read the log of the node's machine: the reason does not leave it
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


class NoUpdateError(AggregationError):
    """Raised when a run stops because no node could send an update; the model is the one of the last checkpoint."""


class PrivacyError(NervError, RuntimeError):
    """A privacy budget is spent, or a step would not satisfy its guarantee."""


class BudgetError(PrivacyError):
    """Raised when a round would exceed a node's privacy budget."""


class NodeError(NervError, RuntimeError):
    """Raised in place of the error of a deployed node, whose words may name private data."""


class TaskError(NervError, ValueError):
    """Raised when a task's own code fails, or breaks a property that training or its privacy guarantee relies on."""


class SetupError(NervError, RuntimeError):
    """Raised when the machine lacks what a setting needs: a package, a device, disk space, a cluster."""


class CheckpointError(NervError, RuntimeError):
    """A run folder cannot be written, or its checkpoint cannot be trusted."""
