"""Makes each outcome durable: pays, records, checkpoints, reports. A round counts once its checkpoint is written."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from nerv_fl.config import RunConfig
from nerv_fl.enclave.interface import RoundOutcome
from nerv_fl.records import RewardRow, RewardsSummary, RoundRecord, Seconds, Standing
from nerv_fl.report import write_report
from nerv_fl.rewards import Entry, gini, round_pool_nano
from nerv_fl.server.checkpoint import save_state
from nerv_fl.server.monitor import Monitor, epsilon_spread
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.server.tracking import Tracker
from nerv_fl.strategy.replies import Hearing
from nerv_fl.strategy.server_state import FederationState

OnRound = Callable[[RoundRecord, Sequence[RewardRow]], None]


class Recorder:
    """Commits outcomes to a run folder.

    Args:
        folder: The run folder.
        state: The state that stands.
        monitor: Measures the encoder that stands after each round.
        config: The run's settings.
        trackers: Mirrors of the records.
        on_round: Told of each finished round, for a progress display.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: FederationState,
        *,
        monitor: Monitor,
        config: RunConfig,
        trackers: Sequence[Tracker],
        on_round: OnRound,
    ) -> None:
        self._folder = folder
        self._state = state
        self._monitor = monitor
        self._config = config
        self._trackers = trackers
        self._on_round = on_round
        started = time.perf_counter()
        self._standing = self._last_standing()
        self._report_s = time.perf_counter() - started

    def record_bootstrap(self) -> None:
        """Record round 0: the encoder as pretraining left it."""
        record = RoundRecord(
            round=0,
            accepted=True,
            reason="bootstrap",
            step=0.0,
            **_fields(self._standing),
            epsilon=None,
            nodes=None,
            shapley=None,
            gate=None,
            value=None,
            pool_nano=0,
            carried_nano=0,
            rewards=None,
            seconds=Seconds(
                train=0.0,
                open=0.0,
                aggregate=0.0,
                shapley=0.0,
                gate=0.0,
                report=self._report_s,
                total=self._report_s,
            ),
            model_hash=self._state.model_hash,
        )
        self._finish(record, [], entries=[], certificate=None)

    def commit(self, outcome: RoundOutcome, hearing: Hearing) -> FederationState:
        """Pay, record and checkpoint a round, and return the state that stands."""
        started = time.perf_counter()
        carried_nano = self._state.carried_nano
        self._state, rows, entries = self._state.after(
            outcome, trained=hearing.trained | outcome.heard, rewards=self._config.rewards
        )
        if outcome.accepted:
            self._standing = self._monitor.standing(outcome.theta_P, homomorphism=outcome.homomorphism)
        epsilon = epsilon_spread(self._state.participations, config=self._config)
        report = self._report_s + time.perf_counter() - started
        enclave = asdict(outcome.seconds)
        record = RoundRecord(
            round=self._state.round_number,
            accepted=outcome.accepted,
            reason=outcome.reason,
            step=outcome.step,
            **_fields(self._standing),
            epsilon=epsilon,
            nodes=outcome.nodes,
            shapley=outcome.shapley,
            gate=outcome.gate,
            value=outcome.value,
            pool_nano=round_pool_nano(self._state.round_number),
            carried_nano=carried_nano,
            rewards=_rewards(rows, entries),
            seconds=Seconds(
                train=hearing.seconds, **enclave, report=report, total=hearing.seconds + sum(enclave.values()) + report
            ),
            model_hash=self._state.model_hash,
            faults=hearing.faults,
            failures=hearing.failures,
        )
        self._finish(record, rows, entries=entries, certificate=outcome.certificate)
        return self._state

    def _finish(
        self, record: RoundRecord, rows: Sequence[RewardRow], *, entries: Sequence[Entry], certificate: str | None
    ) -> None:
        started = time.perf_counter()
        self._folder.append(record, rows, entries=entries, certificate=certificate)
        save_state(self._folder.checkpoint, self._state)
        write_report(self._folder.root)
        for tracker in self._trackers:
            tracker.round(record)
        self._report_s = time.perf_counter() - started
        self._on_round(record, rows)

    def _last_standing(self) -> Standing:
        rounds = self._folder.rounds()
        if not rounds:
            return self._monitor.standing(self._state.theta_P)
        return rounds[-1].standing


def _fields(standing: Standing) -> dict[str, Any]:
    return {name: getattr(standing, name) for name in Standing.__dataclass_fields__}


def _rewards(rows: Sequence[RewardRow], entries: Sequence[Entry]) -> RewardsSummary:
    payouts = [row.payout_nano for row in rows]
    return RewardsSummary(
        paid_nano=sum(payouts),
        slashed_nano=sum(entry.amount_nano for entry in entries if entry.kind == "slash"),
        gini=gini(payouts),
    )
