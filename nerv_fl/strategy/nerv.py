"""The Flower strategy: ask a cohort, hand every envelope to the enclave, commit what it decides.

No other file of the strategy knows Flower.
"""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from nerv_fl.config import RunConfig
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.faults import LATE, OFFLINE, nodes_by_fate
from nerv_fl.strategy.draw import draw_cohort
from nerv_fl.strategy.outcome import Border, RoundInput, RoundOutcome
from nerv_fl.strategy.state import FederationState
from nerv_fl.tasks.start import Constants

LONGEST_REASON: Final = 500
"""Characters that are logged of what a SuperNode says of its failure: it may be anything, on one line."""

log = logging.getLogger(__name__)

Commit = Callable[[RoundOutcome, "Hearing"], FederationState]


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Who answered a round.

    Attributes:
        trained: Nodes that were asked and did not say that they refused: each may have spent privacy.
        seconds: Wall time from asking to the last answer.
        faults: Nodes that a simulation lost, counted by fate; None if it simulates no faults.
    """

    trained: frozenset[int]
    seconds: float
    faults: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """What a round's replies hold: only the envelopes prove anything, the rest is said by whoever replied."""

    envelopes: list[bytes]
    answering: frozenset[int]
    refusing: frozenset[int]


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
        self._asked_at = 0.0

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
        return [
            Message(content=content, dst_node_id=supernode, message_type=MessageType.TRAIN) for supernode in supernodes
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand the round's envelopes to the enclave and commit its outcome."""
        cohort, lost = self.cohort(server_round), self._lost(server_round)
        answers = _answers(replies, cohort=frozenset(cohort), late=lost[LATE])
        hearing = Hearing(
            trained=frozenset(cohort) - lost[OFFLINE] - answers.refusing,
            seconds=time.perf_counter() - self._asked_at,
            faults={fate: len(nodes) for fate, nodes in lost.items()} if self._config.faults.any else None,
        )
        silent = sorted(hearing.trained - answers.answering)
        if answers.refusing or silent:
            refusing = sorted(answers.refusing)
            log.warning("round %d: nodes %s refuse, nodes %s are silent", server_round, refusing, silent)
        outcome = self._enclave.process(
            RoundInput(
                round_number=server_round,
                theta_P=self._state.theta_P,
                base_hash=self._state.model_hash,
                optimizer=self._state.optimizer,
                move_P=self._state.move_P,
                cohort=cohort,
                envelopes=answers.envelopes,
                weights=self._weights,
            )
        )
        self._state = self._commit(outcome, hearing)
        return self._arrays(), MetricRecord({"accepted": int(outcome.accepted), "step": outcome.step})

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


def _answers(replies: Iterable[Message], *, cohort: frozenset[int], late: frozenset[int]) -> _Answers:
    """Return what the replies hold, without what is late.

    A failed SuperNode is logged, and whoever replies may send anything; who was not asked is not listened to.
    """
    envelopes: list[bytes] = []
    answering: set[int] = set()
    refusing: set[int] = set()
    for reply in replies:
        if not reply.has_content():
            whose, why = reply.metadata.reply_to_message_id, _on_one_line(str(reply.error.reason))
            log.warning("SuperNode of message %s failed: %s", whose, why)
            continue
        answer = reply.content.config_records.get("answer", ConfigRecord())
        nodes = [item for item in _list_of(answer, "nodes") if _is_number(item)]
        sealed = zip_longest(nodes, _list_of(answer, "envelopes"))
        envelopes.extend(item for node, item in sealed if isinstance(item, bytes) and node not in late)
        answering.update(cohort.intersection(nodes) - late)
        refusing.update(cohort.intersection(filter(_is_number, _list_of(answer, "refusing_nodes"))))
    return _Answers(envelopes=envelopes, answering=frozenset(answering), refusing=frozenset(refusing))


def _on_one_line(text: str) -> str:
    """Return the beginning of what somebody says, without anything that a log or a terminal would act upon."""
    return "".join(character if character.isprintable() else "?" for character in text[:LONGEST_REASON])


def _is_number(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _list_of(answer: ConfigRecord, key: str) -> list[Any]:
    """Return a list of a reply, empty if there is none."""
    value = answer.get(key)
    return list(value) if isinstance(value, list) else []
