"""End of a run: whether anything was learned, and so whether the final pool is opened at all."""

from collections.abc import Sequence

from nerv_fl.errors import NoUpdateError
from nerv_fl.failure_reasons import add_counts
from nerv_fl.records import RoundRecord


def closed_reason(rounds: Sequence[RoundRecord]) -> str:
    """Return why the final pool stays closed after the last round, or an empty string if it is to be opened.

    An unchanged model has the loss of the bootstrap: opening the pool would tell nothing, and could not be repeated.
    """
    federated = [record for record in rounds if record.round > 0]
    if any(record.accepted for record in federated):
        return ""
    return f"none of {len(federated)} rounds was accepted, so the model is the one that the run began with"


def require_updates(rounds: Sequence[RoundRecord]) -> None:
    """Refuse to call a run finished in which no update of any node was ever admitted.

    Raises:
        NoUpdateError: Naming the most frequent reason, as far as the server knows it.
    """
    federated = [record for record in rounds if record.round > 0]
    if not federated or any(record.nodes is not None and record.nodes.admitted for record in federated):
        return
    known = add_counts(record.failures or {} for record in federated)
    why = next(
        (f"{count} times: {reason}" for reason, count in known.items()), "the log of each node holds its own reason"
    )
    raise NoUpdateError(
        f"no update was admitted in any of {len(federated)} rounds ({federated[-1].reason}); {why}. The model is the "
        "one that the run began with, and the final pool stays closed"
    )
