"""What a round's record says of the gate, of the valuation and of each node."""

import math

from nerv_fl.enclave.deduplication import MergedPlayers, split_values
from nerv_fl.enclave.gate import Certification
from nerv_fl.enclave.interface import NodeValue
from nerv_fl.enclave.valuation import Valuation
from nerv_fl.records import GateSummary, ShapleySummary
from nerv_fl.shapley import NOBODY
from nerv_fl.tasks.metrics import ratio


def gate_summary(verdict: Certification | None, *, ungated: float | None) -> GateSummary:
    """Return the p-value, the ratios after / before and step 1's change of loss, null where nothing was measured."""
    if ungated is not None and not math.isfinite(ungated):
        ungated = None
    if verdict is None or not verdict.after.finite:
        return GateSummary(p_value=None, relative_drift=None, rank_ratio=None, ungated=ungated)
    return GateSummary(
        p_value=verdict.p_value,
        relative_drift=_change(verdict, "drift_relative"),
        rank_ratio=_change(verdict, "effective_rank"),
        ungated=ungated,
    )


def _change(verdict: Certification, name: str) -> float | None:
    """Return a measure of the candidate over the standing model's; None if the task has no such measure."""
    before, after = getattr(verdict.before, name, None), getattr(verdict.after, name, None)
    return None if before is None or after is None else ratio(after, before)


def shapley_summary(valuation: Valuation) -> ShapleySummary:
    """Return how a round was valued, and how far its values may be off for either reason."""
    result = valuation.result
    if result.method == NOBODY:
        return ShapleySummary(method=NOBODY, evaluations=0, se_max=None, stop=result.stop_reason)
    return ShapleySummary(
        method=result.method,
        evaluations=result.num_evaluations,
        se_max=float(result.standard_errors.max()),
        stop=result.stop_reason,
        se_sample_max=float(result.sample_standard_errors.max()),
        se_estimator_max=float(result.estimator_standard_errors.max()),
    )


def node_values(valuation: Valuation, nodes: tuple[int, ...], players: MergedPlayers) -> tuple[NodeValue, ...]:
    """Return each admitted node's value, if any; a group of clones shares one player's equally."""
    result = valuation.result
    if result.method == NOBODY:
        return ()
    value, error, low, high = (
        split_values(column, players.membership, num_nodes=len(nodes))
        for column in (result.values, result.standard_errors, result.ci_low, result.ci_high)
    )
    clones = {index for group in players.membership if len(group) > 1 for index in group}
    return tuple(
        NodeValue(
            node=node,
            value=float(value[index]),
            standard_error=float(error[index]),
            ci_low=float(low[index]),
            ci_high=float(high[index]),
            flag="clone" if index in clones else "",
        )
        for index, node in enumerate(nodes)
    )
