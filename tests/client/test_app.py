import pytest
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfigValue

from nerv_fl.client.app import hosted_nodes
from tests.client.asking import COHORT, Answer, answer_of, ask
from tests.client.conftest import Field


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


def test_a_node_that_refuses_says_so_and_its_reason_stays_with_it(
    field: Field, caplog: pytest.LogCaptureFixture
) -> None:
    (field.folder.node(5) / "spending.json").write_text("[]")

    answer = answer_of(ask(field))

    assert answer.nodes == [3]
    assert answer.refusing_nodes == [5]
    assert "node 5 gives no update for round 1" in caplog.text
    assert "is not a spending ledger" in caplog.text


def test_everybody_refuses_an_order_that_does_not_verify(field: Field) -> None:
    answer = answer_of(ask(field, run="another"))

    assert (answer.nodes, answer.envelopes) == ([], [])
    assert answer.refusing_nodes == COHORT[1::2]


def test_a_cohort_without_its_nodes_gets_an_empty_answer(field: Field) -> None:
    assert answer_of(ask(field, cohort=[1], heard=[0])) == Answer([], [], [])
