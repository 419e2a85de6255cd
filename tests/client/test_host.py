from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.client.host import NodeHost, node_folder, resident_host, shards_of
from nerv_fl.config import Flat
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.store import open_ledger
from tests.client.conftest import Field
from tests.federation.tiny_run import tiny_config


def test_each_node_answers_for_itself(field: Field) -> None:
    envelopes, refusing = field.host().answer(field.order(), [1, 4, 6])

    assert list(envelopes) == [1, 4, 6]
    assert refusing == ()
    updates_NP = [field.opened(envelope, node) for node, envelope in envelopes.items()]
    assert not np.array_equal(updates_NP[0], updates_NP[1])


def test_answers_do_not_depend_on_who_is_hosted_beside(field: Field, make_field: Callable[[Flat], Field]) -> None:
    together, _ = field.host().answer(field.order(), [1, 4])
    update_P = field.opened(together[4], 4)
    (field.folder.node(4) / "sent.json").unlink()

    alone, _ = field.host().answer(field.order(), [4])

    assert np.array_equal(field.opened(alone[4], 4), update_P)


def test_one_nodes_failure_is_not_anothers(field: Field) -> None:
    (field.folder.node(1) / "signing.key").write_text("damaged")
    spending = field.folder.node(4) / "spending.json"
    spending.write_text("[]")
    (field.folder.node(5) / "signing.key").unlink()

    envelopes, refusing = field.host().answer(field.order(), [0, 1, 4, 5, 6])

    assert list(envelopes) == [0, 6]
    assert refusing == (1, 4, 5)


def test_a_full_disk_is_the_nodes_own_failure(field: Field) -> None:
    folder = field.folder.node(4)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    envelopes, refusing = field.host().answer(field.order(), [0, 4])

    assert list(envelopes) == [0]
    assert refusing == (4,)


def test_why_a_node_refused_is_logged_and_does_not_leave(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    (field.folder.node(4) / "sent.json").write_text("{")

    _, refusing = field.host().answer(field.order(), [4])

    assert refusing == (4,)
    assert "sent.json is damaged" in caplog.text


@pytest.mark.parametrize("floor", [0.0, -1.0, float("nan"), 2.0])
def test_floor_that_would_break_the_loss_is_refused(field: Field, floor: float) -> None:
    with pytest.raises(ConfigError, match=r"^movement_floor is .*, expected a number in \(0, 1\.0\]$"):
        NodeHost(field.settings, movement_floor=floor)


def test_shards_by_kind_are_the_same_in_every_process_and_nobody_elses(field: Field, tmp_path: Path) -> None:
    path = tmp_path / "kinds.h5"
    generate_ledger(path, LedgerShape(chains=512, steps=4, heterogeneity=1.0))
    config = tiny_config({"data.partition": "dirichlet", "data.dirichlet_alpha": 0.05})
    with open_ledger(path) as ledger:
        shards, again = shards_of(ledger, config), shards_of(ledger, config)
        kinds = ledger.shard_kinds()[shards]
    assert (shards == again).all()
    assert shards.shape == (config.federation.num_nodes, config.data.chains_per_node)
    assert len(np.unique(shards)) == shards.size
    assert np.mean([np.bincount(mine).max() for mine in kinds]) > 0.6 * config.data.chains_per_node


def test_ledger_of_another_account_number(field: Field, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    generate_ledger(path, LedgerShape(chains=8, steps=4, accounts=32, max_transactions=4, profile="live", seed=1))

    with pytest.raises(DataError) as caught:
        NodeHost(replace(field.settings, ledger=path), movement_floor=0.01)

    assert str(caught.value) == f"{path} has 32 accounts, expected 64 (the model's)"


def test_missing_ledger(field: Field, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.h5 does not exist, expected a ledger file$"):
        NodeHost(replace(field.settings, ledger=tmp_path / "missing.h5"), movement_floor=0.01)


def test_a_process_builds_its_host_once(field: Field) -> None:
    first = resident_host(field.settings, movement_floor=0.01)

    assert resident_host(field.settings, movement_floor=0.01) is first
    assert resident_host(field.settings, movement_floor=0.02) is not first


def test_node_folders_sort_by_number() -> None:
    assert [node_folder(Path("nodes"), number).name for number in (0, 42, 99_999)] == ["00000", "00042", "99999"]
