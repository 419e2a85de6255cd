"""The Flower strategy: ask a cohort, hand every envelope to the enclave, commit what it decides.

No other file of the strategy knows Flower.
"""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from nerv_fl.config import RunConfig
from nerv_fl.enclave.interface import Border, RoundInput, RoundOutcome
from nerv_fl.errors import AggregationError, ConfigError, NoUpdateError
from nerv_fl.failure_reasons import count_reasons
from nerv_fl.faults import FAILED, LATE, OFFLINE, nodes_by_fate
from nerv_fl.strategy.client_sampling import draw_cohort
from nerv_fl.strategy.failure_log import FailureLog, stop_words
from nerv_fl.strategy.replies import (
    CommonFailure,
    Hearing,
    RoundReplies,
    common_failure,
    failure_reasons,
    read_replies,
    trained_nodes,
)
from nerv_fl.strategy.server_state import FederationState
from nerv_fl.tasks.initial_model import Constants

log = logging.getLogger(__name__)

Commit = Callable[[RoundOutcome, Hearing], FederationState]


class NervStrategy(Strategy):
    """One federated round after another, from the state of the last.

    Args:
        enclave: Opens, decides and values.
        state: Where to begin: the bootstrap, or a checkpoint.
        config: The run's settings.
        run: Name of the run.
        weights: Public weight in the aggregate of each node that may be asked.
        constants: Those of the task, sent to the nodes.
        num_supernodes: SuperNodes to wait for.
        names: What SuperNodes are called in messages, by Flower's ids of them.
        commit: Takes each outcome, makes it durable and returns the state that stands.
        is_asked_to_stop: Asked before each round; it ends the rounds.
        simulated: Whether the nodes are a simulation's, whose reasons and spending are known and believed.
    """

    def __init__(
        self,
        enclave: Border,
        state: FederationState,
        *,
        config: RunConfig,
        run: str,
        weights: Mapping[int, float],
        constants: Constants,
        num_supernodes: int,
        commit: Commit,
        names: Mapping[int, str] | None = None,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
        simulated: bool = False,
    ) -> None:
        self._enclave = enclave
        self._state = state
        self._config = config
        self._run = run
        self._weights = weights
        self._constants = json.dumps(constants, sort_keys=True)
        self._num_supernodes = num_supernodes
        self._commit = commit
        self._names = dict(names or {})
        self._is_asked_to_stop = is_asked_to_stop
        self._simulated = simulated
        self._asked_at = 0.0
        self._num_asked = 0
        self._log = FailureLog()

    @property
    def state(self) -> FederationState:
        """The state after the last round."""
        return self._state

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        *_unused: object,
        **_also_unused: object,
    ) -> Result:
        """Run the remaining rounds.

        Unlike Flower's loop it begins after the state's last round, from that state's weights, and no client
        evaluates: a reply holds the sealed update and nothing else.

        Raises:
            ConfigError: If other initial weights are given.
            AggregationError: If no SuperNode comes online in time.
            NoUpdateError: If every node of a simulation's round failed for one reason; the round is not committed, so
                that a resumed run repeats it.
        """
        if initial_arrays is not None:
            raise ConfigError("initial_arrays is given, expected None: the federation's state holds the weights")
        last_round = num_rounds or self._config.federation.num_rounds
        for round_number in range(self._state.round_number + 1, last_round + 1):
            if self._is_asked_to_stop():
                log.warning("asked to stop: round %d and later ones are left for another start", round_number)
                break
            messages = self.configure_train(round_number, self._arrays(), ConfigRecord(), grid)
            replies = grid.send_and_receive(messages, timeout=timeout or self._config.federation.round_timeout_s)
            self.aggregate_train(round_number, replies)
        return Result(arrays=self._arrays())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every SuperNode for its part of the round's cohort."""
        self._asked_at = time.perf_counter()
        cohort = sorted(set(self.cohort(server_round)) - self._lost(server_round)[OFFLINE])
        request = ConfigRecord(
            {
                **config,
                "run": self._run,
                "round": server_round,
                "base_hash": self._state.model_hash,
                "evidence": self._enclave.evidence,
                "constants": self._constants,
                "cohort": cohort,
                "heard": [self._state.last_heard[node] for node in cohort],
            }
        )
        content = RecordDict({"round": request, "theta": arrays})
        supernodes = sorted(self._wait_for_supernodes(grid))
        self._num_asked = len(supernodes)
        return [
            Message(content=content, dst_node_id=supernode, message_type=MessageType.TRAIN) for supernode in supernodes
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand the round's envelopes to the enclave and commit its outcome."""
        cohort, lost = self.cohort(server_round), self._lost(server_round)
        received = read_messages(
            list(replies),
            names=self._names,
            cohort=frozenset(cohort),
            late=lost[LATE],
            with_reasons=self._simulated,
        )
        asked = frozenset(cohort) - lost[OFFLINE]
        expected = asked - lost[FAILED]
        failed = self._failed(received, expected=expected)
        hearing = Hearing(
            trained=trained_nodes(received, asked, simulated=self._simulated),
            seconds=time.perf_counter() - self._asked_at,
            faults={fate: len(nodes) for fate, nodes in lost.items()} if self._config.faults.any else None,
            failures=count_reasons(failed) if failed else None,
        )
        if failure := self._common_failure(failed, received, expected=expected):
            raise NoUpdateError(stop_words(server_round, failure))
        self._log.report(server_round, received, failed=failed, expected=expected, num_supernodes=self._num_asked)
        outcome = self._enclave.process(
            RoundInput(
                round_number=server_round,
                theta_P=self._state.theta_P,
                base_hash=self._state.model_hash,
                optimizer=self._state.optimizer,
                move_P=self._state.move_P,
                cohort=cohort,
                envelopes=received.envelopes,
                weights=self._weights,
            )
        )
        self._state = self._commit(outcome, hearing)
        return self._arrays(), MetricRecord({"accepted": int(outcome.accepted), "step": outcome.step})

    def _failed(self, received: RoundReplies, *, expected: frozenset[int]) -> dict[int, str]:
        """Return the reason of each failed node; a deployed node's reason does not leave its machine."""
        return failure_reasons(received, expected, num_supernodes=self._num_asked) if self._simulated else {}

    def _common_failure(
        self, failed: Mapping[int, str], received: RoundReplies, *, expected: frozenset[int]
    ) -> CommonFailure | None:
        """Return what stops the run: one reason for all nodes, unless it is that budgets are spent in earlier rounds.

        A model that was trained before the budgets ended is a result, and no resume could give them back.
        """
        if expected <= received.over_budget and any(self._state.participations):
            return None
        return common_failure(failed, received, expected=expected)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nothing: encoders are evaluated on held-out chains that no node has."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing; see `configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Log what is about to run."""
        asked = len(self.cohort(self._state.round_number + 1))
        log.info("%d of %d nodes a round, from round %d", asked, len(self._weights), self._state.round_number)

    def cohort(self, round_number: int) -> tuple[int, ...]:
        """Return the round's nodes, ascending, drawn without replacement from (seed, round)."""
        return draw_cohort(self._config, round_number, members=sorted(self._weights))

    def _lost(self, round_number: int) -> Mapping[str, frozenset[int]]:
        return nodes_by_fate(self._config, round_number, self.cohort(round_number))

    def _arrays(self) -> ArrayRecord:
        return ArrayRecord([np.asarray(self._state.theta_P)])

    def _wait_for_supernodes(self, grid: Grid) -> Iterable[int]:
        """Return the SuperNodes online, as soon as all are, or after `federation.node_wait_s` those that are."""
        deadline = time.monotonic() + self._config.federation.node_wait_s
        online = list(grid.get_node_ids())
        while len(online) < self._num_supernodes and time.monotonic() < deadline:
            time.sleep(0.1)
            online = list(grid.get_node_ids())
        if not online:
            raise AggregationError(
                f"0 of {self._num_supernodes} SuperNodes came online in {self._config.federation.node_wait_s:g} s"
                f"{self._missing(online)}"
            )
        if len(online) < self._num_supernodes:
            log.warning(
                "%d of %d SuperNodes are online%s; rounds go on without the rest",
                len(online),
                self._num_supernodes,
                self._missing(online),
            )
            self._num_supernodes = len(online)
        return online

    def _missing(self, online: Collection[int]) -> str:
        """Return who is not online, in words, or an empty string if nobody has a name."""
        missing = sorted(name for supernode, name in self._names.items() if supernode not in online)
        return f", {', '.join(missing)} missing" if missing else ""


def read_messages(
    messages: Sequence[Message],
    *,
    names: Mapping[int, str],
    cohort: frozenset[int],
    late: frozenset[int],
    with_reasons: bool,
) -> RoundReplies:
    """Return the contents of a round's reply messages; the sender of a reply may have put anything into it.

    Args:
        messages: The replies, errors among them.
        names: Names of the SuperNodes, by Flower's ids of them.
        cohort: Nodes that were asked.
        late: Nodes whose envelopes come after the simulated deadline.
        with_reasons: Whether reasons are read, as in a simulation.
    """
    return read_replies(
        [item.content.config_records.get("answer", ConfigRecord()) for item in messages if item.has_content()],
        [
            (names.get(item.metadata.src_node_id, ""), str(item.error.reason))
            for item in messages
            if not item.has_content()
        ],
        cohort=cohort,
        late=late,
        with_reasons=with_reasons,
    )
