"""The ledger file: what is written is read back, and appears under its name only when it is whole."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from nerv_fl.data import Batches, LedgerFile, LedgerInfo
from nerv_fl.data.samples import ContentDigest, chain_digests
from nerv_fl.errors import ConfigError, DataError
from tests.data.small_ledger import ACCOUNTS, CHAINS, STEPS, make_block, write


def batch_of(batches: Batches, sample: int) -> list[int]:
    amounts: list[int] = batches.amount_nano[batches.offset[sample] : batches.offset[sample + 1]].tolist()
    return amounts


def test_info(path: Path) -> None:
    digest = ContentDigest()
    digest.update(chain_digests(make_block(0, CHAINS)))
    with LedgerFile(path) as ledger:
        assert ledger.info == LedgerInfo(
            chains=CHAINS,
            steps=STEPS,
            accounts=ACCOUNTS,
            seed=5,
            profile="live",
            generator="test/1",
            content_sha256=digest.hexdigest(),
        )
        assert ledger.info.num_samples == 33
        assert ledger.num_transactions == len(make_block(0, CHAINS).kind)


def test_schema_is_the_published_one(path: Path) -> None:
    with h5py.File(path) as file:
        assert file["balances"].shape == (CHAINS, STEPS + 1, ACCOUNTS)
        assert file["batch/offset"][:4].tolist() == [0, 1, 3, 6]
        assert {name: str(file["tx"][name].dtype) for name in file["tx"]} == {
            "kind": "uint8",
            "sender": "uint16",
            "receiver": "uint16",
            "amount_nano": "int64",
        }
        assert file["chain/supply_nano"][0] == 7
        assert file.attrs["schema_version"] == 2


def test_read_returns_the_samples_asked_for_in_order(path: Path) -> None:
    ids = [32, 0, 5, 5, 31, 14]
    with LedgerFile(path) as ledger:
        samples = ledger.read(ids, with_batches=True)
    assert samples.chain.tolist() == [10, 0, 1, 1, 10, 4]
    assert samples.step.tolist() == [2, 0, 2, 2, 1, 2]
    assert samples.before[:, 0].tolist() == [10200, 0, 1200, 1200, 10100, 4200]
    assert samples.after[:, 7].tolist() == [10307, 107, 1307, 1307, 10207, 4307]
    assert samples.supply_nano.tolist() == [17, 7, 8, 8, 17, 11]
    assert samples.batches is not None
    assert batch_of(samples.batches, 0) == [320]
    assert batch_of(samples.batches, 3) == [50, 51, 52, 53]
    assert batch_of(samples.batches, 4) == [310, 311, 312, 313]
    assert (samples.batches.sender == samples.batches.amount_nano % 5).all()
    assert (samples.batches.kind == samples.batches.amount_nano % 3).all()
    assert (samples.batches.receiver == samples.batches.amount_nano % 7).all()


def test_read_in_one_go_equals_read_one_by_one(path: Path) -> None:
    ids = np.random.Generator(np.random.Philox(3)).integers(0, 33, 60)
    with LedgerFile(path) as ledger:
        together = ledger.read(ids, with_batches=True)
        for place, sample in enumerate(ids):
            alone = ledger.read([int(sample)], with_batches=True)
            assert (together.before[place] == alone.before[0]).all()
            assert (together.after[place] == alone.after[0]).all()
            assert together.batches is not None
            assert alone.batches is not None
            assert batch_of(together.batches, place) == batch_of(alone.batches, 0)


def test_read_nothing(path: Path) -> None:
    with LedgerFile(path) as ledger:
        samples = ledger.read([], with_batches=True)
    assert samples.before.shape == samples.after.shape == (0, ACCOUNTS)
    assert samples.batches is not None
    assert samples.batches.offset.tolist() == [0]
    assert samples.batches.kind.dtype == np.uint8


@pytest.mark.parametrize("sample", [-1, 33])
def test_read_refuses_a_sample_that_does_not_exist(path: Path, sample: int) -> None:
    with LedgerFile(path) as ledger, pytest.raises(ConfigError) as error:
        ledger.read([0, sample])
    assert str(error.value) == f"sample is {sample}, expected 0 to 32 (of {path})"


def test_read_chains(path: Path) -> None:
    with LedgerFile(path) as ledger:
        block, expected = ledger.read_chains(3, 9), make_block(3, 9)
        for name in ("balances", "supply_nano", "shard_kind", "kind", "sender", "receiver", "amount_nano", "counts"):
            assert (getattr(block, name) == getattr(expected, name)).all(), name
            assert getattr(block, name).dtype == getattr(expected, name).dtype, name


def test_read_chains_refuses_what_is_not_there(path: Path) -> None:
    with LedgerFile(path) as ledger, pytest.raises(ConfigError, match="chains are 9 to 12, expected a range within"):
        ledger.read_chains(9, 12)


def test_same_content_same_bytes_whatever_the_blocks(tmp_path: Path, path: Path) -> None:
    write(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()
    assert write(tmp_path / "cut.h5", cuts=(0, 1, 7, CHAINS)).content_sha256 == LedgerFile(path).info.content_sha256


def test_survives_pickling_and_closing(path: Path) -> None:
    ledger = LedgerFile(path)
    copy: LedgerFile = pickle.loads(pickle.dumps(ledger))
    assert copy.info == ledger.info
    assert (copy.read([4]).before == ledger.read([4]).before).all()
    ledger.close()
    assert ledger.read([4]).chain.tolist() == [1]


def test_another_process_opens_its_own_handle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = LedgerFile(path)
    handle = ledger.handle()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert ledger.handle() is not handle
    assert ledger.read([0]).before.shape == (1, ACCOUNTS)
    handle.close()


def test_require_accounts(path: Path) -> None:
    with LedgerFile(path) as ledger:
        ledger.require_accounts(ACCOUNTS)
        with pytest.raises(DataError) as error:
            ledger.require_accounts(64)
    assert str(error.value) == f"{path} has 8 accounts, expected 64 (the model's)"


def test_writer_that_is_stopped_leaves_nothing_behind(tmp_path: Path, path: Path) -> None:
    old = path.read_bytes()
    with pytest.raises(DataError, match=r"the blocks hold 4 chains, expected 11$"):
        write(path, cuts=(0, 4))
    with pytest.raises(DataError, match=r"the balances to write are \(12, 4, 8\), expected \(11, 4, 8\)$"):
        write(path, cuts=(0, 4, 12))
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.h5"]
