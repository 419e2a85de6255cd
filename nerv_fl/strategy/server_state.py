"""What stands between two rounds, and how an outcome changes it: who is paid, whose reputation moves, what is carried.

Shapes: P parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from nerv_fl.config import RewardsConfig
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.errors import CheckpointError
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import RewardRow
from nerv_fl.rewards import (
    Entry,
    Head,
    Movement,
    Settlement,
    count_strikes,
    lower_bounds,
    penalise,
    round_emission,
    settle,
    slash_nano,
    update_reputation,
)
from nerv_fl.rewards.ledger import (
    EMISSION,
    GRADIENT_POOL,
    PUBLIC_GOODS,
    VALIDATION_POOL,
    extend,
    node_account,
)
from nerv_fl.types import Vector


@dataclass(frozen=True, kw_only=True)
class FederationState:
    """The federation after a round; round 0 is the bootstrap.

    Attributes:
        round_number: Last finished round.
        theta_P: The encoder that stands, float32.
        optimizer: The server optimiser's state.
        move_P: The encoder's last change, zeros before the first.
        reputations: One for each node, in 0..1.
        participations: Rounds in which each node may have spent privacy.
        last_heard: Last round in which each node is proven to have answered, 0 for none.
        carried_nano: What earlier rounds left over.
        balances_nano: What each node holds: payouts less slashes.
        strikes: Each node's values in a row that were shown to be negative.
        ledger: Where the rewards ledger ends.
    """

    round_number: int
    theta_P: Vector
    optimizer: OptimizerState
    move_P: Vector
    reputations: tuple[float, ...]
    participations: tuple[int, ...]
    last_heard: tuple[int, ...]
    carried_nano: int
    balances_nano: tuple[int, ...]
    strikes: tuple[int, ...]
    ledger: Head

    @classmethod
    def first(cls, theta_P: Vector, *, num_nodes: int, rewards: RewardsConfig, run: str) -> Self:
        """Return the state before round 1."""
        return cls(
            round_number=0,
            theta_P=theta_P,
            optimizer=OptimizerState.empty(len(theta_P)),
            move_P=np.zeros_like(theta_P),
            reputations=(rewards.initial_reputation,) * num_nodes,
            participations=(0,) * num_nodes,
            last_heard=(0,) * num_nodes,
            carried_nano=0,
            balances_nano=(0,) * num_nodes,
            strikes=(0,) * num_nodes,
            ledger=Head.of_run(run),
        )

    def grown(self, num_nodes: int, *, rewards: RewardsConfig) -> "FederationState":
        """Return the state with nodes that joined since, who begin as everybody did; numbers are never given again.

        Raises:
            CheckpointError: If there were more before.
        """
        joined = num_nodes - len(self.reputations)
        if joined < 0:
            raise CheckpointError(
                f"federation.num_nodes is {num_nodes}, expected at least {len(self.reputations)}: so many have a "
                "reputation in the checkpoint"
            )
        nothing = (0,) * joined
        return replace(
            self,
            reputations=self.reputations + (rewards.initial_reputation,) * joined,
            participations=self.participations + nothing,
            last_heard=self.last_heard + nothing,
            balances_nano=self.balances_nano + nothing,
            strikes=self.strikes + nothing,
        )

    @property
    def model_hash(self) -> str:
        """Hash of the encoder that stands."""
        return vector_hash(self.theta_P)

    def after(
        self, outcome: RoundOutcome, *, trained: frozenset[int], rewards: RewardsConfig
    ) -> tuple["FederationState", list[RewardRow], list[Entry]]:
        """Return the next state, the round's reward rows and its entries of the rewards ledger.

        Args:
            outcome: What the enclave said.
            trained: Nodes that may have spent privacy: asked, and not said to have refused, or heard.
            rewards: Reputation, slashing and confidence settings.

        Guarantees:
            The payouts and what is carried on sum to the pool and what was carried in, to the last NANO. The entries
            say all that moved, and follow from the state and the outcome alone: settled twice, a round has the same.
        """
        round_number = self.round_number + 1
        settlement = self._settle(outcome, pool_nano=round_emission(round_number).gradient_nano, rewards=rewards)
        strikes = self._strikes(outcome)
        payouts = {item.node: nano for item, nano in zip(outcome.values, settlement.payouts_nano, strict=True)}
        slashes = self._slashes(strikes, rewards)
        entries, ledger = extend(self.ledger, _movements(round_number, payouts=payouts, slashes=slashes))
        following = replace(
            self,
            round_number=round_number,
            theta_P=outcome.theta_P,
            optimizer=outcome.optimizer,
            move_P=outcome.theta_P - self.theta_P if outcome.accepted else self.move_P,
            reputations=self._reputations(outcome, rewards),
            participations=tuple(count + (node in trained) for node, count in enumerate(self.participations)),
            last_heard=tuple(
                round_number if node in outcome.heard else last for node, last in enumerate(self.last_heard)
            ),
            carried_nano=settlement.carried_nano,
            balances_nano=tuple(
                held + payouts.get(node, 0) - slashes.get(node, 0) for node, held in enumerate(self.balances_nano)
            ),
            strikes=strikes,
            ledger=ledger,
        )
        return following, self._rows(outcome, settlement, round_number=round_number), entries

    def _strikes(self, outcome: RoundOutcome) -> tuple[int, ...]:
        strikes = list(self.strikes)
        for item in outcome.values:
            strikes[item.node] = count_strikes(strikes[item.node], ci_low=item.ci_low, ci_high=item.ci_high)
        return tuple(strikes)

    def _slashes(self, strikes: tuple[int, ...], rewards: RewardsConfig) -> dict[int, int]:
        """Return what each node that got a strike in this round loses of what it held before."""
        struck = [node for node, count in enumerate(strikes) if count > self.strikes[node]]
        lost = {node: slash_nano(self.balances_nano[node], strikes[node], config=rewards) for node in struck}
        return {node: nano for node, nano in lost.items() if nano}

    def _settle(self, outcome: RoundOutcome, *, pool_nano: int, rewards: RewardsConfig) -> Settlement:
        values = np.array([0.0 if item.flag else item.value for item in outcome.values], dtype=np.float64)
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
                flag=item.flag or outcome.faults.get(item.node, ""),
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
            for node, reason in {**outcome.faults, **outcome.flags}.items()
            if node not in valued
        ]
        return sorted(rows, key=lambda row: row.node)

    def _reputations(self, outcome: RoundOutcome, rewards: RewardsConfig) -> tuple[float, ...]:
        reputations = list(self.reputations)
        for item in outcome.values:
            held = reputations[item.node]
            reputations[item.node] = (
                penalise(held, rewards)
                if item.flag
                else update_reputation(held, ci_low=item.ci_low, ci_high=item.ci_high, config=rewards)
            )
        for node in outcome.faults:
            reputations[node] = penalise(reputations[node], rewards)
        return tuple(reputations)


def _movements(round_number: int, *, payouts: Mapping[int, int], slashes: Mapping[int, int]) -> list[Movement]:
    emission = round_emission(round_number)
    moved = [
        ("emission", EMISSION, GRADIENT_POOL, emission.gradient_nano),
        ("emission", EMISSION, VALIDATION_POOL, emission.validation_nano),
        ("emission", EMISSION, PUBLIC_GOODS, emission.public_goods_nano),
        *(("payout", GRADIENT_POOL, node_account(node), nano) for node, nano in sorted(payouts.items())),
        *(("slash", node_account(node), PUBLIC_GOODS, nano) for node, nano in sorted(slashes.items())),
    ]
    return [
        Movement(round=round_number, kind=kind, source=source, target=target, amount_nano=nano)
        for kind, source, target, nano in moved
        if nano
    ]
