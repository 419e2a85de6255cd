"""A host of 10,000 nodes holds what a host of ten does, and which chains are whose: eight bytes a chain."""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.client.host import NodeHost
from nerv_fl.client.node import Node, register
from nerv_fl.config import Flat
from nerv_fl.privacy.budget import SpendingLedger
from tests.client.conftest import CONSTANTS, Field

MANY: Final = 10_000
SMALL: Final[Flat] = {
    "data.steps": 2,
    "data.samples_per_node": 2,
    "training.expected_batch": 1,
    "privacy.max_epsilon": 1e6,
}


def held_bytes(work: Callable[[], object]) -> int:
    """Return the memory that stands after some work, less what stood before; its result is kept until then."""
    gc.collect()
    tracemalloc.start()
    kept = work()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return held


def host_of(field: Field, path: Path) -> Callable[[], NodeHost]:
    generate_ledger(path, LedgerShape(chains=MANY, steps=2, accounts=64, max_transactions=1, profile="live", seed=1))
    settings = replace(field.settings, data=path)
    return lambda: NodeHost(settings, constants=CONSTANTS)


@pytest.fixture(name="field")
def fixture_field(make_field: Callable[[Flat], Field]) -> Field:
    return make_field({**SMALL, "federation.num_nodes": MANY})


def test_registered_nodes_cost_eight_bytes_a_chain(field: Field, tmp_path: Path) -> None:
    make_host = host_of(field, tmp_path / "many.h5")
    make_host()  # what is loaded once is loaded now
    assert held_bytes(make_host) < 8 * MANY + 256 * 1024


def test_nodes_that_answered_leave_nothing_behind(field: Field, tmp_path: Path) -> None:
    """Neither the objects that answered nor their updates, each of which takes 193 KiB."""
    host, order = host_of(field, tmp_path / "many.h5")(), field.order()
    for node in range(40):
        register(field.folder.node(node))

    def answer(first: int) -> int:
        return len(host.answer(order, range(first, first + 20))[0])

    assert answer(0) == 20
    assert held_bytes(partial(answer, 20)) < 193 * 1024
    assert not [item for item in gc.get_objects() if type(item) in (Node, SpendingLedger)]
