from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfigValue

from nerv_fl.client.app import build_client_app, hosted_nodes
from nerv_fl.client.host import HostSettings
from nerv_fl.errors import ConfigError, DataError
from tests.client.asking import COHORT, Answer, answer_of, ask
from tests.client.conftest import Field
from tests.federation.fake_grid import FakeGrid


def context_of(**node_config: UserConfigValue) -> Context:
    names = {name.replace("_", "-"): value for name, value in node_config.items()}
    return Context(run_id=1, node_id=9, node_config=names, state=RecordDict(), run_config={})


@pytest.mark.parametrize("num_partitions", [1, 2, 3, 5, 9])
def test_blocks_hold_every_node_of_the_cohort_once_the_larger_ones_first(num_partitions: int) -> None:
    blocks = [
        hosted_nodes(COHORT, context_of(partition_id=partition, num_partitions=num_partitions))
        for partition in range(num_partitions)
    ]

    assert sorted(node for block in blocks for node in block) == COHORT
    sizes = [len(block) for block in blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def test_in_deployment_a_supernode_hosts_its_own_node() -> None:
    assert hosted_nodes(COHORT, context_of(node=4, partition_id=0, num_partitions=2)) == [4]
    assert hosted_nodes(COHORT, context_of(node="4")) == [4]
    assert hosted_nodes(COHORT, context_of(node=0)) == []


def test_node_0_is_a_node() -> None:
    assert hosted_nodes([0, 1], context_of(node=0)) == [0]


def test_the_reply_holds_envelopes_and_nothing_else_of_the_data(field: Field) -> None:
    reply = ask(field)

    assert list(reply.content) == ["answer"]
    assert reply.content.config_records.keys() == {"answer"}
    assert reply.content.config_records["answer"].keys() == {"nodes", "envelopes", "refusing_nodes"}
    answer = answer_of(reply)
    assert answer.nodes == COHORT[1::2]
    assert answer.refusing_nodes == []
    for node, envelope in zip(answer.nodes, answer.envelopes, strict=True):
        assert field.opened(envelope, node).any()


def test_a_virtual_node_that_refuses_says_why_and_that_it_spent_nothing(
    field: Field, caplog: pytest.LogCaptureFixture
) -> None:
    (field.folder.node(5) / "spending.json").write_text("[]")

    answer = answer_of(ask(field))

    assert answer.nodes == [3]
    assert answer.refusing_nodes == [5]
    assert len(answer.reasons) == 1
    assert "is not a spending ledger" in answer.reasons[0]
    assert (answer.charged_nodes, answer.over_budget_nodes) == ([], [])
    assert f"round 1: 1 of 2 nodes give no update: {answer.reasons[0]}" in caplog.text


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the SuperNode a deployed one: its settings are no simulation's, and its app does not take it for one."""
    simulated = Field.settings.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Field, "settings", property(lambda field: replace(simulated(field), simulated=False)))


@pytest.mark.usefixtures("deployed")
def test_why_a_deployed_node_refuses_stays_in_its_log(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    (field.folder.node(5) / "spending.json").write_text('["SECRET"]')

    reply = ask(field)

    assert reply.content.config_records["answer"].keys() == {"nodes", "envelopes", "refusing_nodes"}
    assert answer_of(reply).refusing_nodes == [5]
    assert "is not a spending ledger" in caplog.text


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("error", [DataError("the shard holds SECRET"), KeyError("SECRET"), OSError(5, "SECRET")])
@pytest.mark.parametrize("place", ["nerv_fl.client.host.resident_host", "nerv_fl.client.app.hosted_nodes"])
def test_of_an_error_of_a_deployed_node_no_word_leaves_it(
    place: str, error: Exception, *, field: Field, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)

    reply = ask(field)

    assert str(reply.error.reason) == (
        "NodeError('this node cannot answer: its own log holds the reason, which does not leave it')"
    )
    assert "SECRET" in caplog.text


def test_settings_that_a_deployed_node_cannot_load_stay_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    def load(_context: Context) -> HostSettings:
        raise ConfigError("/home/SECRET/data.h5 does not exist")

    request = ConfigRecord({"run": "r", "round": 1, "base_hash": "00", "evidence": "{}", "constants": "{}"})
    content = RecordDict({"round": request, "theta": ArrayRecord([np.zeros(3, np.float32)])})
    grid = FakeGrid(build_client_app(load), num_supernodes=1)
    virtual, deployed = grid.send_and_receive([Message(content, dst_node_id=1000, message_type="train")]), []
    grid._contexts[1000].node_config["node"] = 0
    deployed = grid.send_and_receive([Message(content, dst_node_id=1000, message_type="train")])

    assert "SECRET" in str(virtual[0].error.reason)
    assert "SECRET" not in str(deployed[0].error.reason)
    assert "SECRET" in caplog.text


def test_everybody_refuses_an_order_that_does_not_verify(field: Field) -> None:
    answer = answer_of(ask(field, run="another"))

    assert (answer.nodes, answer.envelopes, answer.charged_nodes) == ([], [], [])
    assert len(answer.reasons) == len(answer.refusing_nodes)
    assert answer.refusing_nodes == COHORT[1::2]


def test_a_cohort_without_its_nodes_gets_an_empty_answer(field: Field) -> None:
    assert answer_of(ask(field, cohort=[1], heard=[0])) == Answer([], [], [])
