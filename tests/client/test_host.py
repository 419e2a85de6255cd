import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.client.host import NodeHost, node_folder, resident_host
from nerv_fl.client.local_training import Assignment, train_honestly
from nerv_fl.client.node import Node, RoundOrder
from nerv_fl.client.outbox import envelope_of
from nerv_fl.config import Flat
from nerv_fl.errors import ConfigError, DataError
from tests.client.conftest import CONSTANTS, Field


def test_each_node_answers_for_itself(field: Field) -> None:
    envelopes, refusing = field.host().answer(field.order(), [1, 4, 6])

    assert list(envelopes) == [1, 4, 6]
    assert not refusing
    updates_NP = [field.opened(envelope, node) for node, envelope in envelopes.items()]
    assert not np.array_equal(updates_NP[0], updates_NP[1])


def test_answers_do_not_depend_on_who_is_hosted_beside(field: Field, make_field: Callable[[Flat], Field]) -> None:
    together, _ = field.host().answer(field.order(), [1, 4])
    update_P = field.opened(together[4], 4)
    (field.folder.node(4) / "sent.envelope").unlink()

    alone, _ = field.host().answer(field.order(), [4])

    assert np.array_equal(field.opened(alone[4], 4), update_P)


def test_one_nodes_failure_is_not_anothers(field: Field) -> None:
    (field.folder.node(1) / "signing.key").write_text("damaged")
    spending = field.folder.node(4) / "spending.json"
    spending.write_text("[]")
    (field.folder.node(5) / "signing.key").unlink()

    envelopes, refusing = field.host().answer(field.order(), [0, 1, 4, 5, 6])

    assert list(envelopes) == [0, 6]
    assert list(refusing) == [1, 4, 5]


def test_a_full_disk_is_the_nodes_own_failure(field: Field) -> None:
    folder = field.folder.node(4)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    envelopes, refusing = field.host().answer(field.order(), [0, 4])

    assert list(envelopes) == [0]
    assert list(refusing) == [4]


def test_an_envelope_that_could_not_be_kept_does_not_leave(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent and not stored, it could not be resent, and its node would train again."""
    keep = Node.keep

    def keep_all_but_4(node: Node, order: RoundOrder, envelope: bytes) -> None:
        if node.number == 4:
            raise OSError("no space left")
        keep(node, order, envelope)

    monkeypatch.setattr(Node, "keep", keep_all_but_4)

    envelopes, refusing = field.host().answer(field.order(), [0, 4, 6])

    assert (list(envelopes), list(refusing)) == ([0, 6], [4])
    assert all(envelope_of(field.folder.node(node)) == envelopes[node] for node in (0, 6))


def test_no_node_trains_before_its_spending_is_on_disk(field: Field) -> None:
    spent: list[bool] = []

    def training(work: Assignment) -> Tensor:
        spent.append(list(json.loads((work.folder / "spending.json").read_text())["steps"].values()) == [1])
        return train_honestly(work)

    NodeHost(replace(field.settings, training=training), constants=CONSTANTS).answer(field.order(), range(5))

    assert spent == [True] * 5


def test_why_a_node_refused_is_logged(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    (field.folder.node(4) / "sent.envelope").write_text("{")

    _, refusing = field.host().answer(field.order(), [4])

    assert list(refusing) == [4]
    assert "sent.envelope is damaged" in caplog.text


def test_ledger_of_another_account_number(field: Field, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    generate_ledger(path, LedgerShape(chains=8, steps=4, accounts=32, max_transactions=4, profile="live", seed=1))

    with pytest.raises(DataError) as caught:
        NodeHost(replace(field.settings, data=path), constants=CONSTANTS)

    assert str(caught.value) == f"{path} has 32 accounts, expected 64 (the model's)"


def test_missing_ledger(field: Field, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.h5 does not exist, expected a ledger file$"):
        NodeHost(replace(field.settings, data=tmp_path / "missing.h5"), constants=CONSTANTS)


def test_a_process_builds_its_host_once(field: Field) -> None:
    first = resident_host(field.settings, constants='{"movement_floor": 0.01}')

    assert resident_host(field.settings, constants='{"movement_floor": 0.01}') is first
    assert resident_host(field.settings, constants='{"movement_floor": 0.02}') is not first


@pytest.mark.parametrize("constants", ["", "{", "[]", "7"])
def test_constants_that_are_no_object_are_refused(field: Field, constants: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resident_host(field.settings, constants=constants)

    assert str(caught.value) == f"constants are {constants!r}, expected a JSON object"


def test_node_folders_sort_by_number() -> None:
    assert [node_folder(Path("nodes"), number).name for number in (0, 42, 99_999)] == ["00000", "00042", "99999"]
