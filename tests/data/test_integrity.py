"""A changed value is found by the hash of its chain or shard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datagen.sharding.kernel import simulate
from nerv_fl.data.file import LedgerFile
from nerv_fl.data.integrity import item_digests, verify_content
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import LoadInfo
from nerv_fl.data.load_writer import write_load
from nerv_fl.errors import DataError
from tests.data.small_ledger import CHAINS, edit


@pytest.fixture
def load(tmp_path: Path) -> Path:
    about = LoadInfo(shards=3, steps=30, seed=1, splits=False, generator="test", content_sha256="")
    blocks = [simulate(1, shard, steps=30, splits=False) for shard in range(3)]
    write_load(tmp_path / "load.h5", blocks, split=np.zeros(3, dtype=np.uint8), about=about)
    return tmp_path / "load.h5"


def add(name: str, place: tuple[int, ...], value: float) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[name][place] = file[name][place] + value

    return change


def test_a_ledger_as_it_was_written_is_whole(path: Path) -> None:
    with LedgerFile(path) as ledger:
        assert verify_content(path) == ledger.info.content_sha256
    assert len(set(item_digests(path))) == CHAINS


def test_a_load_file_as_it_was_written_is_whole(load: Path) -> None:
    with LoadFile(load) as file:
        assert verify_content(load) == file.info.content_sha256
    assert len(set(item_digests(load))) == 3


@pytest.mark.parametrize(
    ("change", "chain"),
    [
        (add("balances", (4, 1, 2), 1), 4),
        (add("balances", (10, 0, 0), 2**40), 10),
        (add("tx/amount_nano", (0,), 1), 0),
        (add("chain/supply_nano", (7,), 1), 7),
        (add("chain/sha256", (2, 31), 1), 2),
    ],
)
def test_a_changed_value_of_a_ledger_is_found(path: Path, change: Callable[[Any], None], chain: int) -> None:
    edit(path, change)
    with pytest.raises(
        DataError, match=rf"^{path}: chain {chain} has values of SHA-256 \w{{12}}, expected \w{{12}}, which"
    ):
        verify_content(path)


@pytest.mark.parametrize(
    ("change", "shard"),
    [(add("features", (1, 3, 2), 0.5), 1), (add("overload", (2, 29), 1), 2), (add("shard/sha256", (0, 0), 1), 0)],
)
def test_a_changed_value_of_a_load_file_is_found(load: Path, change: Callable[[Any], None], shard: int) -> None:
    edit(load, change)
    with pytest.raises(DataError, match=rf"^{load}: shard {shard} has values of SHA-256"):
        verify_content(load)


def test_a_file_that_names_another_content_is_found(path: Path, load: Path) -> None:
    for each in (path, load):
        edit(each, lambda file: file.attrs.modify("content_sha256", np.bytes_(b"0" * 64)))
        with pytest.raises(
            DataError, match=rf"^{each} has content of SHA-256 \w{{12}}, expected 000000000000, which it"
        ):
            verify_content(each)
