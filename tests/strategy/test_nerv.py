from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from nerv_fl.config import RunConfig, build
from nerv_fl.enclave.interface import RoundInput, RoundOutcome
from nerv_fl.enclave.round import Enclave
from nerv_fl.rng import stream
from nerv_fl.strategy.nerv import NervStrategy
from nerv_fl.strategy.replies import Hearing
from nerv_fl.strategy.server_state import FederationState
from tests.federation.fake_grid import FakeGrid

CONFIG = build({"federation.num_nodes": 20, "federation.cohort_size": 6, "federation.num_rounds": 3})
THETA = np.arange(4, dtype=np.float32)
WEIGHTS = {node: 1.0 + node for node in range(20)}


class StubEnclave:
    """Remembers what it was handed, and accepts everything."""

    evidence = "signed by nobody"

    def __init__(self) -> None:
        self.given: list[RoundInput] = []

    def process(self, given: RoundInput) -> RoundOutcome:
        self.given.append(given)
        return cast(RoundOutcome, SimpleNamespace(accepted=True, step=1.0, theta_P=given.theta_P + 1))


class Bench:
    """A strategy with a stub enclave, and what it committed."""

    def __init__(self, config: RunConfig = CONFIG, *, num_supernodes: int = 2, simulated: bool = False) -> None:
        self.enclave = StubEnclave()
        self.hearings: list[Hearing] = []
        self.state = FederationState.first(THETA, num_nodes=20, rewards=config.rewards, run="test")
        self.strategy = NervStrategy(
            cast(Enclave, self.enclave),
            self.state,
            config=config,
            run="demo",
            weights=WEIGHTS,
            constants={"movement_floor": 0.25},
            num_supernodes=num_supernodes,
            commit=self.commit,
            simulated=simulated,
        )

    def commit(self, outcome: RoundOutcome, hearing: Hearing) -> FederationState:
        self.hearings.append(hearing)
        self.state = replace(self.state, round_number=self.state.round_number + 1, theta_P=outcome.theta_P)
        return self.state


def grid_of(answers: dict[int, dict[str, Any]]) -> FakeGrid:
    """Return a grid whose SuperNodes give fixed answers by partition; a missing one raises."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        answer = answers[int(context.node_config["partition-id"])]
        return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)

    return FakeGrid(app, num_supernodes=2)


def answer(envelopes: list[bytes], refusing: list[int] | None = None) -> dict[str, Any]:
    return {"nodes": [], "envelopes": envelopes, "refusing_nodes": refusing or []}


def test_cohorts_are_drawn_without_replacement_and_ascend() -> None:
    strategy = Bench().strategy
    cohorts = [strategy.cohort(number) for number in range(1, 200)]

    assert all(len(set(cohort)) == 6 and list(cohort) == sorted(cohort) for cohort in cohorts)
    assert cohorts[0] == strategy.cohort(1)
    counts = np.bincount(np.concatenate(cohorts), minlength=20)
    assert counts.min() > 30
    assert counts.max() < 95
    expected = stream(7, "cohort", 5).choice(20, size=6, replace=False)
    assert strategy.cohort(5) == tuple(sorted(expected.tolist()))


def test_every_supernode_gets_the_whole_order_and_nothing_more() -> None:
    bench, grid = Bench(), grid_of({0: answer([b"a"]), 1: answer([])})

    bench.strategy.start(grid, num_rounds=1)

    assert [message.metadata.dst_node_id for message in grid.sent] == [1000, 1001]
    for message in grid.sent:
        assert message.metadata.message_type == "train"
        assert set(message.content) == {"round", "theta"}
        request = message.content.config_records["round"]
        assert dict(request) == {
            "run": "demo",
            "round": 1,
            "base_hash": FederationState.first(THETA, num_nodes=20, rewards=CONFIG.rewards, run="test").model_hash,
            "evidence": "signed by nobody",
            "constants": '{"movement_floor": 0.25}',
            "cohort": list(bench.strategy.cohort(1)),
            "heard": [0] * len(bench.strategy.cohort(1)),
        }
        (theta_P,) = message.content.array_records["theta"].to_numpy_ndarrays()
        assert theta_P.dtype == np.float32
        assert theta_P.tolist() == THETA.tolist()


def test_the_enclave_gets_every_envelope_and_the_state_that_stands() -> None:
    bench, grid = Bench(), grid_of({0: answer([b"a", b"b"]), 1: answer([b"c"])})

    result = bench.strategy.start(grid)

    assert [given.round_number for given in bench.enclave.given] == [1, 2, 3]
    assert [list(given.envelopes) for given in bench.enclave.given] == [[b"a", b"b", b"c"]] * 3
    assert [given.theta_P.tolist() for given in bench.enclave.given] == [(THETA + n).tolist() for n in range(3)]
    assert bench.enclave.given[1].cohort == bench.strategy.cohort(2)
    assert bench.enclave.given[1].weights == WEIGHTS
    assert result.arrays.to_numpy_ndarrays()[0].tolist() == (THETA + 3).tolist()
    assert bench.strategy.state.round_number == 3


def test_the_next_round_starts_from_what_was_committed() -> None:
    bench, grid = Bench(), grid_of({0: answer([]), 1: answer([])})

    bench.strategy.start(grid, num_rounds=2)

    hashes = [message.content.config_records["round"]["base_hash"] for message in grid.sent]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_a_resumed_strategy_runs_what_is_left() -> None:
    bench, grid = Bench(), grid_of({0: answer([]), 1: answer([])})
    bench.strategy.start(grid, num_rounds=2)

    bench.strategy.start(grid)
    bench.strategy.start(grid)

    assert [given.round_number for given in bench.enclave.given] == [1, 2, 3]


@pytest.mark.parametrize("simulated", [False, True])
def test_who_refused_is_charged_as_far_as_its_word_is_known_to_be_true(simulated: bool) -> None:
    """Two nodes refuse, one of them after it has spent; the other three of the cohort are silent."""
    bench = Bench(simulated=simulated)
    cohort = bench.strategy.cohort(1)
    refusing = {"refusing_nodes": [cohort[0], cohort[3]], "charged_nodes": [cohort[3]], "reasons": ["a", "b"]}
    grid = grid_of({0: answer([b"a"]) | refusing})

    bench.strategy.start(grid, num_rounds=1)

    assert bench.hearings[0].trained == frozenset(cohort) - ({cohort[0]} if simulated else set())
    assert bench.hearings[0].failures is None or simulated
    assert bench.hearings[0].seconds >= 0
    assert list(bench.enclave.given[0].envelopes) == [b"a"]


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"envelopes": 7},
        {"envelopes": ["text"], "nodes": "text", "refusing_nodes": [1.5]},
        {"envelopes": [1, 2], "refusing_nodes": True},
    ],
)
def test_a_malformed_reply_costs_nothing_but_itself(reply: dict[str, Any]) -> None:
    bench = Bench()

    bench.strategy.start(grid_of({0: answer([b"a"]), 1: reply}), num_rounds=1)

    assert list(bench.enclave.given[0].envelopes) == [b"a"]
    assert bench.hearings[0].trained == frozenset(bench.strategy.cohort(1))


def test_who_was_not_asked_is_not_listened_to(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile reply names others: nobody outside the cohort is heard or fills the log, and true is no node."""
    bench = Bench()
    outsider = next(node for node in range(20) if node not in bench.strategy.cohort(1))
    refusing = [outsider, -1, 10**9]

    bench.strategy.start(grid_of({0: answer([b"a"], refusing=refusing), 1: {"refusing_nodes": [True]}}), num_rounds=1)

    assert bench.hearings[0].trained == frozenset(bench.strategy.cohort(1))
    assert "nodes [] refuse" in caplog.text


def test_what_a_supernode_says_of_its_failure_is_logged_on_one_line_and_cut(caplog: pytest.LogCaptureFixture) -> None:
    def forge(reply: Message) -> Message:
        return Message(Error(2, "lost\nround 1: all is well\x1b[2J" + "x" * 10**6), reply_to=reply)

    app = ClientApp()
    app.train()(lambda message, _context: message)
    grid = FakeGrid(app, num_supernodes=2, meddle=forge)

    Bench().strategy.start(grid, num_rounds=1)

    said = [message for message in caplog.messages if "failed: " in message]
    assert len(said) == 1
    assert "round 1: 2 of 2 SuperNodes failed: lost round 1: all is well?[2Jx" in said[0]
    assert all(message.isprintable() and len(message) < 600 for message in said)


def test_clients_evaluate_nothing() -> None:
    strategy, grid = Bench().strategy, grid_of({})

    assert strategy.configure_evaluate(1, strategy._arrays(), ConfigRecord(), grid) == []
    assert strategy.aggregate_evaluate(1, []) is None


def test_summary_says_what_is_about_to_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Bench().strategy.summary()

    assert "6 of 20 nodes a round, from round 0" in caplog.text


def test_only_the_strategy_touches_flower() -> None:
    folder = Path(__file__).parents[2] / "nerv_fl" / "strategy"
    assert [path.name for path in folder.rglob("*.py") if "flwr" in path.read_text()] == ["nerv.py"]
