"""What stands between two rounds, and how an outcome changes it: who is paid, whose reputation moves, what is carried.

Shapes: P parameters.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from nerv_fl.config import RewardsConfig
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import RewardRow
from nerv_fl.strategy.aggregate import OptimizerState, Vector
from nerv_fl.strategy.outcome import RoundOutcome
from nerv_fl.strategy.rewards import Settlement, lower_bounds, penalise, round_pool_nano, settle, update_reputation


@dataclass(frozen=True, kw_only=True)
class FederationState:
    """The federation after a round; round 0 is the bootstrap.

    Attributes:
        round_number: Last finished round.
        theta_P: The encoder that stands, float32.
        optimizer: The server optimiser's state.
        reputations: One for each node, in 0..1.
        participations: Rounds in which each node may have spent privacy.
        carried_nano: What earlier rounds left over.
    """

    round_number: int
    theta_P: Vector
    optimizer: OptimizerState
    reputations: tuple[float, ...]
    participations: tuple[int, ...]
    carried_nano: int

    @classmethod
    def first(cls, theta_P: Vector, *, num_nodes: int, rewards: RewardsConfig) -> Self:
        """Return the state before round 1."""
        return cls(
            round_number=0,
            theta_P=theta_P,
            optimizer=OptimizerState.empty(len(theta_P)),
            reputations=(rewards.initial_reputation,) * num_nodes,
            participations=(0,) * num_nodes,
            carried_nano=0,
        )

    @property
    def model_hash(self) -> str:
        """Hash of the encoder that stands."""
        return vector_hash(self.theta_P)

    def after(
        self, outcome: RoundOutcome, *, trained: frozenset[int], rewards: RewardsConfig
    ) -> tuple["FederationState", list[RewardRow], int]:
        """Return the next state, the round's reward rows and its own pool in NANO.

        Args:
            outcome: What the enclave said.
            trained: Nodes that may have spent privacy: asked, and not said to have refused, or heard.
            rewards: Reputation and confidence settings.

        Guarantees:
            The payouts and what is carried on sum to the pool and what was carried in, to the last NANO.
        """
        round_number = self.round_number + 1
        pool_nano = round_pool_nano(round_number)
        settlement = self._settle(outcome, pool_nano=pool_nano, rewards=rewards)
        rows = self._rows(outcome, settlement, round_number=round_number)
        following = replace(
            self,
            round_number=round_number,
            theta_P=outcome.theta_P,
            optimizer=outcome.optimizer,
            reputations=self._reputations(outcome, rewards),
            participations=tuple(count + (node in trained) for node, count in enumerate(self.participations)),
            carried_nano=settlement.carried_nano,
        )
        return following, rows, pool_nano

    def _settle(self, outcome: RoundOutcome, *, pool_nano: int, rewards: RewardsConfig) -> Settlement:
        values = np.array([item.value for item in outcome.values], dtype=np.float64)
        errors = np.array([item.standard_error for item in outcome.values], dtype=np.float64)
        return settle(
            pool_nano,
            self.carried_nano,
            accepted=outcome.accepted,
            bounds_N=lower_bounds(values, errors, confidence=rewards.confidence),
            reputations_N=np.array([self.reputations[item.node] for item in outcome.values], dtype=np.float64),
        )

    def _rows(self, outcome: RoundOutcome, settlement: Settlement, *, round_number: int) -> list[RewardRow]:
        rows = [
            RewardRow(
                round=round_number,
                node=item.node,
                value=item.value,
                se=item.standard_error,
                ci_low=item.ci_low,
                ci_high=item.ci_high,
                reputation=self.reputations[item.node],
                payout_nano=payout,
                flag="clone" if item.is_clone else outcome.faults.get(item.node, ""),
            )
            for item, payout in zip(outcome.values, settlement.payouts_nano, strict=True)
        ]
        valued = {item.node for item in outcome.values}
        rows += [
            RewardRow(
                round=round_number,
                node=node,
                value=None,
                se=None,
                ci_low=None,
                ci_high=None,
                reputation=self.reputations[node],
                payout_nano=0,
                flag=reason,
            )
            for node, reason in outcome.faults.items()
            if node not in valued
        ]
        return sorted(rows, key=lambda row: row.node)

    def _reputations(self, outcome: RoundOutcome, rewards: RewardsConfig) -> tuple[float, ...]:
        reputations = list(self.reputations)
        for item in outcome.values:
            reputations[item.node] = update_reputation(
                reputations[item.node], ci_low=item.ci_low, ci_high=item.ci_high, config=rewards
            )
        for node in outcome.faults:
            reputations[node] = penalise(reputations[node], rewards)
        return tuple(reputations)
