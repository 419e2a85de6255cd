"""What is exported is what the data set holds, whatever the size of a block."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datagen import export
from datagen.export import export_load_parquet, export_parquet, export_seed_layout
from nerv_fl.data import ChainBlock, open_ledger, write_ledger
from nerv_fl.data.load_schema import DTYPES, FEATURES, KIND, SCHEMA_VERSION, shapes
from nerv_fl.errors import ConfigError
from nerv_fl.tokens import BURN, MINT, NO_ACCOUNT, tokens
from nerv_fl.types import IntArray
from tests.data.small_ledger import ACCOUNTS, CHAINS, STEPS, make_block


def block() -> ChainBlock:
    """Return the small ledger, whose mints and burns have nobody at one end."""
    made = make_block(0, CHAINS)
    sender = np.where(made.kind == MINT, NO_ACCOUNT, made.sender).astype(np.uint16)
    receiver = np.where(made.kind == BURN, NO_ACCOUNT, made.receiver).astype(np.uint16)
    return replace(made, sender=sender, receiver=receiver)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.h5"
    write_ledger(
        path, [block()], chains=CHAINS, steps=STEPS, accounts=ACCOUNTS, seed=5, profile="live", generator="test/1"
    )
    return path


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Write three shards of two steps: one of each split, features that tell their place."""
    path = tmp_path / "load.h5"
    values = {
        "features": np.arange(66).reshape(3, 2, 11),
        "overload": np.array([[0, 1], [0, 0], [1, 1]]),
        "action": np.array([[1, 0], [2, 0], [0, 0]]),
        "shard/split": np.array([2, 0, 1]),
    }
    with h5py.File(path, "w") as file:
        for name, shape in shapes(3, 2).items():
            file.create_dataset(name, data=np.broadcast_to(values.get(name, np.array(0)), shape), dtype=DTYPES[name])
        numbers = {"schema_version": SCHEMA_VERSION, "shards": 3, "steps": 2, "seed": 0, "splits": True}
        texts = {"kind": KIND, "generator": "test/1", "content_sha256": "ab"}
        file.attrs.update({**numbers, "complete": True, **{name: np.bytes_(text) for name, text in texts.items()}})
    return path


@pytest.fixture(params=[False, True])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test twice, the second time with a block for every chain or shard."""
    if request.param:
        monkeypatch.setattr(export, "BLOCK_VALUES", 1)
    return bool(request.param)


def read(path: Path) -> tuple[dict[str, list[Any]], int]:
    """Return a Parquet table's columns, and its number of row groups."""
    parquet = pytest.importorskip("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        return file.read(use_threads=False).to_pydict(), file.num_row_groups


def test_seed_layout(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "seed.h5"
    assert export_seed_layout(source, out) == out
    made, end = block(), 0
    with h5py.File(out) as file:
        assert set(file) == {f"sample_{i}" for i in range(33)}
        for i in range(33):
            (chain, step), group = divmod(i, 3), file[f"sample_{i}"]
            begin, end = end, end + (chain + step) % 4 + 1
            assert group.attrs["num_txs"] == end - begin
            assert group["tokens_pre"].dtype == group["tokens_post"].dtype == np.uint16
            assert group["tokens_pre"][:].tolist() == tokens(made.balances[chain, step]).tolist()
            assert group["tokens_post"][:].tolist() == tokens(made.balances[chain, step + 1]).tolist()
            assert (group["tx_batch"].dtype, group["tx_batch"].shape) == (np.int64, (end - begin, 3))
            assert group["tx_batch"][:, 2].tolist() == made.amount_nano[begin:end].tolist()
        # Sample 0 holds amount 0, a transfer; sample 1 holds amounts 10 and 11, a mint and a burn.
        assert file["sample_0/tx_batch"][:].tolist() == [[0, 0, 0]]
        assert file["sample_1/tx_batch"][:].tolist() == [[-1, 3, 10], [1, -1, 11]]


def test_seed_layout_does_not_depend_on_blocks(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export_seed_layout(source, tmp_path / "whole").read_bytes()
    monkeypatch.setattr(export, "BLOCK_VALUES", 1)
    assert export_seed_layout(source, tmp_path / "blocks").read_bytes() == whole


def test_seed_layout_never_replaces_its_source(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=f"^{re.escape(f'out is {source}, expected a file outside the ledger')}"):
        export_seed_layout(source, source)
    assert source.read_bytes() == before


def test_a_stopped_export_leaves_the_old_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "seed.h5"
    out.write_bytes(b"old")
    monkeypatch.setattr(export, "tokens", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_seed_layout(source, out)
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5", "seed.h5"}
    assert out.read_bytes() == b"old"


def test_seed_layout_of_too_many_accounts(tmp_path: Path) -> None:
    made = make_block(0, 1)
    wide: IntArray = np.zeros((1, STEPS + 1, 65_280), dtype=np.int64)
    path = tmp_path / "wide.h5"
    described = {"steps": STEPS, "accounts": 65_280, "seed": 5, "profile": "live", "generator": "test/1"}
    write_ledger(path, [replace(made, balances=wide)], chains=1, **described)  # type: ignore[arg-type]
    message = f"{path} has 65537 tokens, expected at most 65536: tokens are uint16"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export_seed_layout(path, tmp_path / "seed.h5")


def test_parquet(source: Path, tmp_path: Path, small_blocks: bool) -> None:
    groups = CHAINS if small_blocks else 1
    out = export_parquet(source, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"transactions.parquet", "states.parquet"}
    (table, found), made = read(out / "transactions.parquet"), block()
    assert found == groups
    assert list(table) == ["chain", "step", "kind", "sender", "receiver", "amount_nano"]
    places = [(chain, step) for chain in range(11) for step in range(3) for _ in range((chain + step) % 4 + 1)]
    assert list(zip(table["chain"], table["step"], strict=True)) == places
    assert table["kind"] == made.kind.tolist()
    assert table["sender"] == [None if who == NO_ACCOUNT else who for who in made.sender.tolist()]
    assert table["receiver"] == [None if who == NO_ACCOUNT else who for who in made.receiver.tolist()]
    assert table["amount_nano"] == made.amount_nano.tolist()
    assert table["sender"].count(None) > 0
    states, found = read(out / "states.parquet")
    assert found == groups
    assert list(zip(states["chain"], states["step"], strict=True)) == [(c, s) for c in range(11) for s in range(4)]
    assert states["balances"] == made.balances.reshape(-1, ACCOUNTS).tolist()


def test_load_parquet(load: Path, tmp_path: Path, small_blocks: bool) -> None:
    groups = 3 if small_blocks else 1
    table, found = read(export_load_parquet(load, tmp_path / "out") / "load.parquet")
    assert found == groups
    assert list(table) == ["shard", "step", "split", *FEATURES, "overload", "action"]
    assert table["shard"] == [0, 0, 1, 1, 2, 2]
    assert table["step"] == [0, 1, 0, 1, 0, 1]
    assert table["split"] == ["test", "test", "train", "train", "validation", "validation"]
    assert [table[name] for name in FEATURES] == np.arange(66.0).reshape(6, 11).T.tolist()
    assert table["overload"] == [0, 1, 0, 0, 1, 1]
    assert table["action"] == [1, 0, 2, 0, 0, 0]


def test_parquet_without_pyarrow(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r"^pyarrow cannot be imported \(.*\), expected the extra nerv-fl\[parquet\]$"
    with pytest.raises(ConfigError, match=message):
        export_parquet(source, tmp_path / "out")
    with pytest.raises(ConfigError, match=message):
        export_load_parquet(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stopped_parquet_export_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(export, "_states", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_parquet(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5"]


def test_the_source_stays_as_it_was(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    before = source.read_bytes()
    export_parquet(source, tmp_path / "out")
    export_seed_layout(source, tmp_path / "seed.h5")
    assert source.read_bytes() == before
    with open_ledger(source) as ledger:
        assert ledger.info.chains == CHAINS
